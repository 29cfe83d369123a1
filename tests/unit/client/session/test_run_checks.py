"""What an agent refuses before it learns: a run that shows too much, and a basis that no step has led to."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from runs import AgentDriver, Ring, States, join, specification

from cospan.client.agent import Agent, ClientSettings
from cospan.client.group import AgentGroup
from cospan.client.session import machine as session
from cospan.client.session.run_checks import Demands, Turn, below_floor, check_basis, turn_between, unmet
from cospan.client.workload import Site, Workload
from cospan.core.aggregation.basis_update import Contribution, next_basis
from cospan.core.linalg.matrices import DenseMatrix
from cospan.core.linalg.subspace import largest_angle, orthonormalise, random_basis
from cospan.core.method import compact, full_history, paper, practical
from cospan.relay.engine import RelaySettings
from cospan.relay.relay import Relay
from cospan.wire.errors import BasisRefusedError, InvalidValueError, StepsBelowFloorError, WeakPrivacyError
from cospan.wire.messages import BasisUpdate, Stamp

FLAT = replace(full_history(3), largest_turn=7.0)
D, R = 9, 2
RNG = np.random.default_rng(14)
BASIS = random_basis(D, R, RNG)


def turned(basis: np.ndarray, degrees: float) -> np.ndarray:
    """The basis with its first column turned by an angle, out of its span."""
    away = orthonormalise(np.column_stack([basis, RNG.standard_normal(len(basis))]))[:, -1]
    found = basis.copy()
    angle = math.radians(degrees)
    found[:, 0] = math.cos(angle) * basis[:, 0] + math.sin(angle) * away
    return found


def stamp(round_number: int, incarnation: int = 1, durable: int | None = None) -> Stamp:
    return Stamp("run-1", incarnation, round_number, round_number if durable is None else durable)


# The floor --------------------------------------------------------------------------------------------------------


def test_a_run_below_the_floor_is_refused_with_both_numbers() -> None:
    refusal = below_floor(specification(paper(3)), 20)
    assert isinstance(refusal, StepsBelowFloorError)
    assert refusal.reason == "STEPS_BELOW_FLOOR"
    assert "the run has 3 steps per round, and min_steps_per_round is 20" in str(refusal)
    assert below_floor(specification(paper(3)), 3) is None


PRIVATE = {"secure_sums": True, "rounds": 3, "dp_epsilon": 8.0, "dp_delta": 1e-5, "dp_vectors": 3} | {
    "dp_noise_multiplier": 5.0,
    "dp_gradient_bound": 10.0,
    "dp_curvature_bound": 50.0,
    "dp_influence_bound": 1.0,
}


@pytest.mark.parametrize(
    ("run", "demands", "said"),
    [
        ({}, Demands(secure_sums=True), "no secure sums, and require_secure_sums is set"),
        ({"secure_sums": True}, Demands(secure_sums=True), ""),
        ({}, Demands(max_epsilon=8.0), "no differential privacy, and max_epsilon is 8"),
        ({"secure_sums": True}, Demands(max_epsilon=8.0), "no differential privacy, and max_epsilon is 8"),
        (PRIVATE, Demands(max_epsilon=2.0), "differential privacy with ε = 8, and max_epsilon is 2"),
        (PRIVATE, Demands(max_epsilon=8.0), ""),
        (PRIVATE, Demands(max_epsilon=9.5, secure_sums=True), ""),
    ],
)
def test_a_run_without_the_privacy_that_is_demanded_is_refused(
    run: dict[str, Any], demands: Demands, said: str
) -> None:
    refusal = unmet(specification(practical(3), agents=12, **run), demands)
    if not said:
        assert refusal is None
        return
    assert isinstance(refusal, WeakPrivacyError)
    assert said in str(refusal)


def test_a_run_that_shows_each_upload_is_refused_before_a_site_is_made() -> None:
    state, _ = session.initial_state(progress_timeout_seconds=1.0, now=0.0, demands=Demands(secure_sums=True))
    state, (fail,) = session.step(state, session.Described(specification()), 0.0)
    assert state.phase is session.Phase.FAILED
    assert isinstance(fail, session.Fail)
    assert isinstance(fail.error, WeakPrivacyError)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_demand_is_refused(epsilon: float) -> None:
    with pytest.raises(InvalidValueError, match="it must be a number above 0"):
        ClientSettings(max_epsilon=epsilon)


def test_one_step_per_round_is_refused_by_default_before_a_site_is_made() -> None:
    agent = AgentDriver(method=paper(1))
    assert agent.step(session.Described(agent.specification)) == ["Fail"]
    (fail,) = agent.commands
    assert isinstance(fail, session.Fail)
    assert "the run has 1 step per round, and min_steps_per_round is 2" in str(fail.error)
    assert agent.state.phase is session.Phase.FAILED
    assert agent.step(session.Prepared(join("a"))) == [], "nothing follows"


def test_who_allows_one_step_takes_part() -> None:
    state, _ = session.initial_state(progress_timeout_seconds=1.0, now=0.0, demands=Demands(min_steps_per_round=1))
    _, commands = session.step(state, session.Described(specification(paper(1))), 0.0)
    assert isinstance(commands[0], session.Prepare)


def rings() -> Workload:
    return Workload(make_site=lambda index, _: Site(Ring(index), States(), lambda _o, _r: 0), name="rings")


@pytest.mark.parametrize("floor", [0, -1, 2**32])
def test_a_floor_that_is_none_is_refused(floor: int) -> None:
    makers: list[Any] = [
        lambda: Agent(rings(), index=0, settings=ClientSettings(min_steps_per_round=floor)),
        lambda: AgentGroup(rings(), [0, 1], settings=ClientSettings(min_steps_per_round=floor)),
        lambda: Relay("127.0.0.1:1", settings=RelaySettings(min_steps_per_round=floor)),
    ]
    for make in makers:
        with pytest.raises(InvalidValueError, match=f"min_steps_per_round is {floor}; it must be 1 to"):
            make()


# The bound of the method --------------------------------------------------------------------------------------


def test_the_bound_falls_from_eighty_degrees_to_its_own() -> None:
    bounds = [FLAT.largest_turn_between(t, t + 1) for t in range(300)]
    assert bounds[0] == 80.0
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[10] == pytest.approx(7.0 + 73.0 / 4.0)
    assert 7.0 < bounds[-1] < 7.1
    assert replace(FLAT, largest_turn=85.0).largest_turn_between(0, 1) == 85.0


def test_the_first_turn_can_be_set_and_is_not_below_the_largest() -> None:
    calm = replace(FLAT, first_turn=27.0)
    assert calm.largest_turn_between(0, 1) == 27.0
    assert calm.largest_turn_between(10, 11) == pytest.approx(7.0 + 20.0 / 4.0)
    assert replace(FLAT, first_turn=1.0).largest_turn_between(0, 1) == 7.0
    assert replace(FLAT, first_turn=80.0).largest_turn_between(3, 9) == FLAT.largest_turn_between(3, 9)


def test_rounds_that_were_missed_add_up_to_no_more_than_a_right_angle() -> None:
    assert FLAT.largest_turn_between(500, 500) == 0.0
    assert FLAT.largest_turn_between(500, 502) == pytest.approx(
        FLAT.largest_turn_between(500, 501) + FLAT.largest_turn_between(501, 502)
    )
    assert FLAT.largest_turn_between(500, 513) == 90.0
    assert FLAT.largest_turn_between(0, 2**63 - 1) == 90.0
    assert paper(3).largest_turn_between(0, 1) == 90.0


def test_a_warm_up_stays_and_then_jumps() -> None:
    warming = replace(FLAT, warm_up_rounds=4)
    assert [warming.largest_turn_between(t, t + 1) for t in range(5)] == [0.0, 0.0, 0.0, 90.0, 80.0]
    assert warming.largest_turn_between(2, 7) == 90.0
    assert warming.largest_turn_between(4, 5) == FLAT.largest_turn_between(0, 1)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3, 1e50])
@pytest.mark.parametrize("number", [0, 3, 400])
def test_a_coordinator_keeps_to_it_whatever_it_is_sent(size: float, number: int) -> None:
    bound = FLAT.largest_turn_between(number, number + 1)
    gradient = DenseMatrix(size * RNG.standard_normal((D, R)))
    contribution = Contribution(gradient, 1.0, np.eye(R), np.ones(D))
    free = next_basis(BASIS, [contribution], replace(FLAT, largest_turn=90.0), number, np.ones(D))
    move = next_basis(BASIS, [contribution], FLAT, number, np.ones(D))
    angle = largest_angle(BASIS, move.basis)
    assert angle == pytest.approx(min(bound, largest_angle(BASIS, free.basis)), abs=1e-6)
    assert move.movement == pytest.approx(math.sin(math.radians(angle)), abs=1e-9)
    if size == 1e-3:
        assert move.basis.tobytes() == free.basis.tobytes(), "a bound that does not bind changes no bit"
    check_basis(move.basis, number + 1, turn_between(FLAT, stamp(number), BASIS, stamp(number + 1)))


# What an agent makes of it ------------------------------------------------------------------------------------


def test_a_basis_that_turns_too_far_is_refused_with_round_angle_and_bound() -> None:
    turn = turn_between(FLAT, stamp(400), BASIS, stamp(401))
    check_basis(turned(BASIS, 7.0), 401, turn)
    with pytest.raises(BasisRefusedError, match=r"401 is turned by 7\.5 degrees from that of round 400") as said:
        check_basis(turned(BASIS, 7.5), 401, turn)
    assert f"by at most {turn.degrees:.4g} degrees" in str(said.value)
    assert said.value.reason == "BASIS_REFUSED"
    check_basis(turned(BASIS, 7.5), 402, turn_between(FLAT, stamp(400), BASIS, stamp(402)))


@pytest.mark.parametrize("entry", [1.001, math.nan, math.inf, 1e300])
def test_a_basis_that_is_not_orthonormal_is_refused(entry: float) -> None:
    basis = BASIS.copy()
    basis[:, 0] *= entry
    with pytest.raises(BasisRefusedError, match="the basis of round 3 is not orthonormal"):
        check_basis(basis, 3, None)


def test_float32_is_near_enough() -> None:
    rounded = BASIS.astype(np.float32).astype(np.float64)
    check_basis(rounded, 3, Turn(2, BASIS, 0.0))


def test_a_coordinator_that_was_started_again_may_have_lost_what_was_not_stored() -> None:
    before = stamp(400, durable=399)
    one = FLAT.largest_turn_between(400, 401)
    assert turn_between(FLAT, before, BASIS, stamp(399)).degrees == pytest.approx(one, rel=1e-3)
    assert turn_between(FLAT, before, BASIS, stamp(400)).degrees == 0.0, "the same life, the same basis"
    assert turn_between(FLAT, before, BASIS, stamp(400, 2)).degrees == pytest.approx(2 * one, rel=1e-3)
    assert turn_between(FLAT, before, BASIS, stamp(401, 2)).degrees == pytest.approx(3 * one, rel=1e-3)
    assert turn_between(FLAT, stamp(400, durable=350), BASIS, stamp(400, 2)).degrees == 90.0


def test_each_basis_is_held_against_the_last_one_that_was_learnt_at() -> None:
    agent = AgentDriver(method=FLAT, rounds=0)
    agent.activate(400)
    (learn,) = [each for each in agent.commands if isinstance(each, session.Learn)]
    assert learn.turn is None, "the first one is held against nothing"
    agent.learn()
    agent.update(403)
    (learn,) = [each for each in agent.commands if isinstance(each, session.Learn)]
    assert learn.turn is not None
    assert (learn.turn.since, learn.turn.basis is agent.basis) == (400, True)
    assert learn.turn.degrees == FLAT.largest_turn_between(400, 403)


def test_what_came_while_it_was_busy_does_not_count() -> None:
    agent = AgentDriver(method=FLAT, rounds=0)
    agent.activate(400)
    other = turned(agent.basis, 3.0)
    agent.receive(BasisUpdate(agent.stamp(401), other))
    assert agent.state.learnt_at is not None
    assert agent.state.learnt_at[0].round == 400
    agent.learn()
    (learn,) = [each for each in agent.commands if isinstance(each, session.Learn)]
    assert (learn.round, learn.turn and learn.turn.since) == (401, 400)


def test_presets_are_bounded_but_for_the_paper() -> None:
    bounds = [make(3).largest_turn for make in (paper, practical, compact, full_history)]
    assert bounds == [90.0, 5.0, 20.0, 5.0]
