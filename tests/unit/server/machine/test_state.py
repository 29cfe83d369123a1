"""The head covariance that the coordinator announces with every basis."""

from dataclasses import replace

import numpy as np
import pytest
from runs import CoordinatorDriver, D, R, moved

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.aggregation.evidence_step import packed
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.method import Method, practical
from cospan.server.machine import events
from cospan.server.machine.snapshot import SavedRun
from cospan.server.runtime.basis_arithmetic import computed_basis
from cospan.wire.messages import Finish


def test_a_head_covariance_is_announced_with_every_basis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Method, "has_head_covariance", True)
    run = CoordinatorDriver(agents=1, rounds=2)
    token = run.join("a")
    announced = [run.welcome().head_covariance]
    changed = np.diag([2.0, 0.5])
    for number in range(2):
        run.gradient(token, number)
        (command,) = (each for each in run.commands if isinstance(each, events.ComputeBasis))
        assert command.head_covariance is run.state.head_covariance
        event = moved(run.state, number)
        run.step(replace(event, move=replace(event.move, head_covariance=changed)))
        (store,) = (each for each in run.commands if isinstance(each, events.StoreRound))
        run.step(events.RoundsStored((store.record,)))
        (told,) = (each.message for each in run.commands if isinstance(each, events.Broadcast))
        announced.append(told.head_covariance)
    assert isinstance(told, Finish)
    np.testing.assert_array_equal(announced, [np.eye(R), changed, changed])


def test_a_coordinator_that_resumes_announces_the_stored_head_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Method, "has_head_covariance", True)
    run = CoordinatorDriver(agents=1)
    spec, basis, changed, memory = run.state.specification, run.state.basis, np.diag([2.0, 0.5]), np.ones(9)
    saved = SavedRun("run-1", spec, 3, basis=basis, head_covariance=changed, step_memory=memory)
    run.restart(saved)
    run.join("a")
    assert run.welcome().head_covariance is changed
    assert run.state.history.step_memory is memory
    run.restart(SavedRun("run-1", spec))
    np.testing.assert_array_equal(run.state.head_covariance, np.eye(R))


def test_a_round_of_trial_changes_nothing_whatever_is_sent() -> None:
    run = CoordinatorDriver(agents=1)
    step = {"improve": 1, "evaluation_rounds": 2, "trial_rounds": 1}
    spec = replace(run.state.specification, method=practical(3), **step)
    curvature, covariance = np.append(packed(np.eye(D)), 1.0), np.eye(R)
    memory = 2.0 * curvature
    sent = (Contribution(DenseMatrix(np.ones((D, R))), pooled=curvature),)
    for number in (2, 3):
        command = events.ComputeBasis(number, run.state.basis, sent, memory, covariance)
        found = computed_basis(command, spec)
        assert isinstance(found, events.BasisComputed)
        stays = found.move.basis is run.state.basis
        assert stays == (number == 2)
        if stays:
            assert found.move.head_covariance is covariance
            assert found.move.step_memory is memory


def test_a_head_covariance_that_a_round_does_not_change_stays() -> None:
    run = CoordinatorDriver(agents=1)
    curvature = np.append(packed(np.eye(D)), 1.0)
    sent, covariance = (Contribution(DenseMatrix(np.ones((D, R))), pooled=curvature),), np.eye(R)
    command = events.ComputeBasis(0, run.state.basis, sent, None, covariance)
    spec = replace(run.state.specification, method=replace(practical(3), basis_step=0.0))
    found = computed_basis(command, spec)
    assert isinstance(found, events.BasisComputed)
    assert found.move.head_covariance is covariance
