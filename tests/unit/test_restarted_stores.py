"""What a store says of a run after restarts of its coordinator at moments that are easily forgotten."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from runs import D, R, ring_site, specification

from cospan.client.learning.site_learner import SiteLearner
from cospan.core.aggregation.basis_update import BasisMove, next_basis
from cospan.core.method import practical
from cospan.core.run_fields import Participation
from cospan.server.machine.events import RoundRecord, StoreRound
from cospan.server.machine.snapshot import SavedRun
from cospan.server.storage.writer import create_store, open_store
from cospan.wire.messages import Stamp


def closed(number: int, contributors: Mapping[str, int]) -> StoreRound:
    """A round that has closed; `contributors` have the rounds of their gradients."""
    move = BasisMove(np.eye(D, R), np.eye(D, R))
    stamp = Stamp("run-1", 1, number + 1, number + 1)
    return StoreRound(RoundRecord(stamp, contributors, float(len(contributors)), move, closed=1.0, seconds=0.1))


def restarted(path: Path, *rounds: StoreRound) -> SavedRun:
    """The run as a coordinator finds it that goes on with it, and stores these rounds."""
    store = open_store(path)
    for each in rounds:
        store.write([each])
    store.close()
    return store.saved


def test_a_run_that_was_left_before_its_first_round_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.sqlite"
    create_store(path, specification(), run_id="run-1").close()
    saved = restarted(path)
    assert (saved.run_id, saved.round, saved.basis) == ("run-1", 0, None)
    assert not saved.last_contributors
    assert not saved.accepted
    assert not saved.rounds_counted


def test_a_round_after_a_restart_is_not_taken_for_the_stale_one_before_it(tmp_path: Path) -> None:
    """The names are those of the round before, and the gradients are not."""
    path = tmp_path / "coordinator.sqlite"
    quorum = specification(rounds=9, participation=Participation.QUORUM, quorum=0.5, max_staleness=2)
    create_store(path, quorum, run_id="run-1").close()
    restarted(path, closed(0, {"a": 0}), closed(1, {"a": 1, "b": 0}))
    restarted(path, closed(2, {"a": 2, "b": 2}), closed(3, {"a": 3, "b": 3}))
    saved = restarted(path)
    assert saved.accepted[2] == saved.accepted[3] == {"a", "b"}
    assert saved.rounds_counted == {"a": 4, "b": 3}


def test_row_sums_that_are_due_seldom_survive_a_restart_in_every_round(tmp_path: Path) -> None:
    """Rounds 6 and 8 go by those of the round before: from the store, to the same bits."""
    spec = specification(practical(3), rounds=9)
    path = tmp_path / "coordinator.sqlite"
    create_store(path, spec, run_id="run-1").close()

    def agents() -> list[SiteLearner]:
        return [SiteLearner(ring_site(index, 1), spec, name=f"site-{index}", index=index) for index in (0, 1)]

    whole, broken = agents(), agents()
    basis, rows = spec.initial_basis(), None
    saved = restarted(path)
    for number in range(9):
        move = next_basis(basis, [a.learn(number, basis).contribution for a in whole], spec.method, number, rows)
        basis, rows = move.basis, move.row_squares
        before = spec.initial_basis() if saved.basis is None else saved.basis
        sent = [a.learn(number, before).contribution for a in broken]
        assert (sent[0].row_sums is not None) == (number in (0, 1, 2, 3, 4, 5, 7))
        after = next_basis(before, sent, spec.method, number, saved.row_squares)
        stamp = Stamp("run-1", 1, number + 1, number + 1)
        restarted(path, StoreRound(RoundRecord(stamp, {"a": number, "b": number}, 2.0, after, 1.0, 0.1)))
        saved = restarted(path)
        assert saved.basis is not None
        assert saved.row_squares is not None
        assert (saved.basis.tobytes(), saved.row_squares.tobytes()) == (basis.tobytes(), rows.tobytes())
