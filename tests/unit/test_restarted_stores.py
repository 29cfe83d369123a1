"""What a store says of a run after restarts of its coordinator at moments that are easily forgotten."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from runs import D, R, specification

from cospan.core.aggregation import BasisMove
from cospan.core.specification import Participation
from cospan.server.events import RoundRecord, StoreRound
from cospan.server.saved import SavedRun
from cospan.server.store import create_store, open_store
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
