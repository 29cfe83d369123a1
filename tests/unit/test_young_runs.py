"""A run that has a store and no round yet: its coordinator was killed while it waited for the fleet."""

from pathlib import Path

from runs import specification

from cospan.server.store import create_store, open_store


def test_a_run_that_was_left_before_its_first_round_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.sqlite"
    create_store(path, specification(), run_id="run-1").close()
    store = open_store(path)
    saved = store.saved
    store.close()
    assert (saved.run_id, saved.round, saved.basis) == ("run-1", 0, None)
    assert not saved.last_contributors
    assert not saved.accepted
    assert not saved.rounds_counted
