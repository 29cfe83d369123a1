"""Which run of a folder is resumed, and as what."""

from dataclasses import replace
from pathlib import Path

import pytest
from runs import specification
from stored import NAME, RUN_ID, contents, round_of, served, stored_run

from cospan.cli.run_folder.layout import RunFolder, point_to_newest
from cospan.cli.run_folder.stored_run import check_same_run, run_to_resume
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.messages import FinishCause


def end(folder: Path, rounds: int, cause: FinishCause, message: str = "it is over") -> Path:
    """A run that is over; its folder."""
    folder.mkdir()
    with served(folder / NAME) as store:
        for number in range(rounds):
            store.write([round_of(number)])
        store.write_end(cause, message, rounds)
    return folder


def go_on(folder: Path, rounds: int = 3) -> Path:
    """A run that can go on; its folder."""
    folder.mkdir()
    stored_run(folder, rounds)
    return folder


def test_a_folder_with_a_run_goes_on_with_it_and_one_without_begins_anew(tmp_path: Path) -> None:
    found = run_to_resume(go_on(tmp_path / "one"), None, new_run=False)
    assert found is not None
    assert (found.folder, found.state.run_id, found.state.rounds) == (RunFolder(tmp_path / "one"), RUN_ID, 3)
    assert run_to_resume(tmp_path / "nothing", None, new_run=False) is None
    assert run_to_resume(None, None, new_run=False) is None


def test_a_folder_whose_run_is_over_is_no_place_for_another(tmp_path: Path) -> None:
    over = end(tmp_path / "over", 2, FinishCause.STOPPED, "an operator stopped it")
    with pytest.raises(
        InvalidValueError, match=r"holds run 0123456789abcdef, which is over \(an operator stopped it\); name"
    ):
        run_to_resume(over, None, new_run=False)
    with pytest.raises(InvalidValueError, match="holds run 0123456789abcdef; name another for a new run"):
        run_to_resume(go_on(tmp_path / "one"), None, new_run=True)


def test_of_a_folder_of_runs_the_newest_goes_on_unless_it_is_over(tmp_path: Path) -> None:
    assert run_to_resume(None, tmp_path, new_run=False) is None
    point_to_newest(RunFolder(go_on(tmp_path / "one")))
    found = run_to_resume(None, tmp_path, new_run=False)
    assert found is not None
    assert found.folder.path == tmp_path / "one"
    assert run_to_resume(None, tmp_path, new_run=True) is None
    point_to_newest(RunFolder(end(tmp_path / "two", 1, FinishCause.ROUNDS_REACHED)))
    assert run_to_resume(None, tmp_path, new_run=False) is None


def test_a_damaged_newest_run_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    point_to_newest(RunFolder(go_on(tmp_path / "one")))
    (tmp_path / "one" / NAME).write_bytes(b"garbage" * 1000)
    before = contents(tmp_path / "one")
    with pytest.raises(RunFileError, match="cannot be read as a stored run"):
        run_to_resume(None, tmp_path, new_run=False)
    assert contents(tmp_path / "one") == before


def test_a_run_goes_on_only_as_the_one_that_it_was(tmp_path: Path) -> None:
    held = specification(rounds=0)
    found = run_to_resume(go_on(tmp_path / "one"), None, new_run=False)
    assert found is not None
    check_same_run(found, held)
    check_same_run(found, replace(held, feature_fingerprint="fixed by the first agent"))
    changes = {"seed": 2, "rank": 3, "agents": 5, "rounds": 9}
    with pytest.raises(
        InvalidValueError,
        match=r"of which 3 rounds are done, has rank = 2, and 3 is asked for; agents = 2, and 5 is asked for; "
        r"rounds = 0, and 9 is asked for \(and 1 more\): ask for the same to resume it, or give --new-run",
    ):
        check_same_run(found, replace(held, **changes))  # type: ignore[arg-type]
    other = replace(held, method=replace(held.method, head_step=0.125))
    with pytest.raises(InvalidValueError, match=r"has head_step = .*, and 0.125 is asked for: ask"):
        check_same_run(found, other)
