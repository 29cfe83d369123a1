"""What studies are made of: estimates, claims, courses, ablations, families of fleets, newcomers, pages."""

import dataclasses
import math

import numpy as np
import pytest

from cospan.client.workloads.synthetic import fleet_part
from cospan.core.aggregation.basis_update import next_basis
from cospan.core.learning.learner import LearnerState, Trajectory, contribution_of, learn_round
from cospan.core.linalg.subspace import principal_angle_sine, random_basis
from cospan.core.method import paper, practical
from cospan.experiments.claims import Claim
from cospan.experiments.estimates import Estimate, log_slope, mean
from cospan.experiments.experiment import MODULES, Finding, Outcome, Plan, Table, load
from cospan.experiments.methods.ablation import ABLATIONS, AblatedFleet
from cospan.experiments.methods.catalogue import Contender, Stage, rivals
from cospan.experiments.methods.compared_methods import JointFleet
from cospan.experiments.methods.fleet_variants import SIZES, heterogeneous, misaligned
from cospan.experiments.new_site import Newcomers, NewSiteTask
from cospan.experiments.plots.curves import samples_to, settles
from cospan.experiments.plots.tables import error_table, number
from cospan.experiments.reproduce import BEGIN, END, Reproduction, document, figures
from cospan.experiments.runner import WHOLE_FLEET, Played, Point, Task, errors_of, finals, play, play_all
from cospan.wire.errors import InvalidValueError

D, R, L, AGENTS = 6, 2, 5, 3
TINY = Task(seed=1, workload="synthetic", contenders=tuple(rivals()), agents=4, rounds=12, steps_per_round=L)


def point(method: str, seed: int, error: float, setting: str = "", rounds: int = 10) -> Point:
    return Point(setting, method, seed, WHOLE_FLEET, rounds, rounds * L, 0, error)


# Statistics -----------------------------------------------------------------------------------------------------


def test_the_slope_of_a_power_is_its_exponent() -> None:
    x = np.array([4.0, 8.0, 16.0])
    slope = log_slope(x, np.stack([3.0 / x, 5.0 / x]))
    assert slope.value == pytest.approx(-1.0, abs=1e-12)
    assert slope.low == pytest.approx(-1.0, abs=1e-12)


def test_numbers_are_short_and_what_has_diverged_is_named() -> None:
    assert number(0.00123456) == "0.00123"
    assert number(math.inf) == "diverged"
    assert mean(np.array([1.0])) == Estimate(1.0, None, None)


# Claims and courses ---------------------------------------------------------------------------------------------


def test_a_claim_is_judged_by_the_mean_ratio_to_the_best_rival() -> None:
    points = [point("a", 1, 1.0), point("a", 2, 3.0), point("b", 1, 2.0), point("b", 2, 9.0), point("c", 2, 3.0)]
    points += [point("c", 1, 5.0), point("a", 1, 70.0, rounds=5)]
    claim = Claim(
        name="x", text="{ratio} times", of=("a", ""), against=[("b", ""), ("c", "")], at_most=0.8, sign_at_most=0.7
    )
    finding = claim.judged(points)
    assert finding.value.value == pytest.approx((1.0 / 2.0 + 3.0 / 3.0) / 2.0)
    assert (finding.holds, finding.sign) == (True, False)
    assert finding.text.startswith("0.75 (")
    assert dataclasses.replace(finding, text="").holds
    assert Claim(name="x", text="", of=("a", ""), against=[("b", "")]).judged(points).holds is None
    least = Claim(name="x", text="", of=("a", ""), against=[("b", "")], at_least=1.0).judged(points)
    assert least.holds is False
    with pytest.raises(InvalidValueError, match="nothing was played"):
        Claim(name="x", text="", of=("a", "20 %"), against=[("b", "")]).judged(points)


def test_it_settles_after_the_last_time_that_it_was_off() -> None:
    assert settles([False, True, False, True, True], [1, 2, 3, 4, 5]) == 4.0
    assert settles([True, True], [1, 2]) == 1.0
    assert settles([True, False], [1, 2]) == math.inf
    course = [point("a", 1, error, rounds=r) for r, error in ((3, 0.1), (1, 0.9), (2, 0.3))]
    assert samples_to(course, "a", 1, 0.3) == 2 * L


def test_a_table_has_a_row_for_each_method_and_a_column_for_each_setting() -> None:
    points = [point("a", 1, 0.5, "x"), point("a", 1, 0.25, "y"), point("b", 1, 2.0, "x")]
    table = error_table(points, "setting")
    assert table.columns == ("setting", "x", "y")
    assert table.rows == (("a", "0.5", "0.25"), ("b", "2", ""))


# Contenders and what they play ----------------------------------------------------------------------------------


def test_lists_of_constants_are_variants_side_by_side() -> None:
    contender = Contender("x", "joint", "paper", {"basis_step": [0.1, 0.2], "head_step": [1.0, 2.0, 3.0]})
    methods = contender.methods(7)
    assert len(contender.fleets(Stage(AGENTS, random_basis(D, R, np.random.default_rng(0)), 7))) == 6
    assert {(m.basis_step, m.head_step) for m in methods} == {(b, h) for b in (0.1, 0.2) for h in (1.0, 2.0, 3.0)}
    assert all(m.steps_per_round == 7 for m in methods)


def test_points_are_those_of_the_best_variant_and_end_with_the_last_round() -> None:
    both = Contender("joint", "joint", "paper", {"basis_step": [0.1, 1e6]})
    one = Contender("one", "joint", "paper", {"basis_step": 0.1})
    played = play(dataclasses.replace(TINY, contenders=(both, one), each_agent=True, counted=(0, 2)))
    ends = {p.method: p.value_error for p in finals(played.points)}
    assert ends["joint"] <= ends["one"]
    assert set(played.basis_sha256) == {"one"}
    assert {p.agent for p in played.points} == {WHOLE_FLEET, 0, 2}
    last = [p for p in played.points if (p.method, p.rounds) == ("one", 12)]
    assert last[0].value_error == pytest.approx(np.median([p.value_error for p in last[1:]]))
    assert all(0.0 <= (p.subspace_squared or 0.0) <= SIZES.rank for p in played.points)


def test_processes_change_nothing() -> None:
    tasks = [dataclasses.replace(TINY, seed=seed, contenders=TINY.contenders[:2]) for seed in (1, 2)]
    said: list[str] = []
    assert play_all(tasks, 2, said.append) == play_all(tasks, 1, lambda _: None)
    assert len(said) == 2


def test_a_rank_above_d_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="rank is 21; it must be 1 to feature_dim = 20"):
        play(dataclasses.replace(TINY, rank=21))


def test_more_than_ten_agents_are_summed_in_the_order_of_their_names() -> None:
    """site-10 comes before site-2: the coordinator's order, which its bits depend on."""
    rng, method, agents = np.random.default_rng(3), paper(L), 12
    basis = random_basis(D, R, rng)
    fleet, states, expected = JointFleet.initial(method, basis, agents), [LearnerState.initial(R)] * agents, basis
    for t in range(6):
        walks = [
            Trajectory(rng.uniform(-0.3, 0.3, (L + 1, D)), 1.0 + rng.standard_normal(L)) for _ in range(agents)
        ]
        fleet = fleet.learning_from(walks)
        outcomes = {f"site-{k}": learn_round(states[k], expected, walks[k], method, t) for k in range(agents)}
        states = [outcomes[f"site-{k}"].state for k in range(agents)]
        sent = [contribution_of(outcomes[name], method, t) for name in sorted(outcomes)]
        expected = next_basis(expected, sent, method, t).basis
    np.testing.assert_array_equal(fleet.basis, expected)


# Ablations and families -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_out", ABLATIONS)
def test_an_ablation_differs_in_the_part_that_is_left_out(left_out: str) -> None:
    rng, method = np.random.default_rng(1), dataclasses.replace(paper(L), head_step=1.0, basis_step=5.0)
    basis = random_basis(D, R, rng)
    whole, ablated = (
        JointFleet.initial(method, basis, AGENTS),
        AblatedFleet.initial(left_out, method, basis, AGENTS),
    )
    for _ in range(8):
        walks = [
            Trajectory(rng.uniform(-0.4, 0.4, (L + 1, D)), 1.0 + rng.standard_normal(L)) for _ in range(AGENTS)
        ]
        before, moved = ablated.joint, ablated.learning_from(walks)
        if left_out == "rotated-heads":
            for state, after in zip(before.states, moved.joint.states, strict=True):
                stepped = learn_round(state, before.basis, walks[before.states.index(state)], method).state.head
                unmoved = before.basis @ stepped
                turned = moved.joint.basis @ after.head
                # B̄ w' = (B + ζ …) w: what lay in the old subspace is still there.
                np.testing.assert_allclose(before.basis.T @ turned, before.basis.T @ unmoved, atol=1e-9)
                break
        whole, ablated = whole.learning_from(walks), moved
    same = np.allclose(ablated.joint.basis, whole.basis, atol=1e-12)
    assert not same or left_out == "no-sign-fix"
    gram = ablated.joint.basis.T @ ablated.joint.basis
    assert np.allclose(gram, np.eye(R), atol=1e-12) == (left_out != "no-qr")
    assert ablated.basis is not None


def test_an_ablation_that_diverges_stays_where_it_is() -> None:
    broken = dataclasses.replace(JointFleet.initial(paper(L), np.full((D, R), np.inf), AGENTS))
    fleet = AblatedFleet("no-qr", broken)
    assert fleet.learning_from([]) is fleet
    assert fleet.basis is None


def test_misaligned_agents_are_orthogonal_and_the_others_do_not_change() -> None:
    basis = fleet_part(7, SIZES).basis
    tidy, untidy = misaligned(10, 0.0, 0.5, 1.0), misaligned(10, 0.2, 0.5, 10.0)
    for index in range(10):
        one, other = tidy.make_site(index, 7).reference, untidy.make_site(index, 7).reference
        assert one is not None
        assert other is not None
        assert np.linalg.norm(one.weights - basis @ (basis.T @ one.weights)) < 1e-9
        if index < 8:
            np.testing.assert_array_equal(one.weights, other.weights)
        else:
            assert np.linalg.norm(basis.T @ other.weights) < 1e-9
    assert untidy.fleet_basis is not None


def test_noise_is_of_the_size_that_was_asked_for() -> None:
    def rewards(loudest: float) -> np.ndarray:
        env = misaligned(4, 0.0, 0.5, loudest).make_site(0, 3).env
        env.reset(seed=5)
        return np.array([env.step(0)[1] for _ in range(4000)])

    plain, loud = rewards(0.0), rewards(10.0)
    noise = loud - plain
    assert np.std(noise) == pytest.approx(5.0 * np.std(plain), rel=0.2)
    assert abs(np.mean(noise)) < 0.1 * np.std(noise)


def test_without_own_parts_all_agents_have_one_value_function() -> None:
    weights = [
        [site.reference.weights for index in range(3) if (site := heterogeneous(h).make_site(index, 2)).reference]
        for h in (0.0, 1.0)
    ]
    np.testing.assert_allclose(weights[0][0], weights[0][1], atol=1e-12)
    assert np.linalg.norm(weights[1][0] - weights[1][1]) > 0.1


# New sites ------------------------------------------------------------------------------------------------------


def test_newcomers_begin_with_the_fleets_basis_and_learn_heads() -> None:
    (joint, *_) = rivals()
    task = NewSiteTask(
        seed=1, workload="synthetic", fleet=(0, 1, 2, 3), newcomers=(4, 5), rounds=20, horizons=(2, 5), joint=joint
    )
    points = task.play().points
    assert {p.rounds for p in points} == {2, 5}
    assert {p.agent for p in points} == {4, 5}
    assert {p.setting for p in points} == {"new site"}
    assert all(np.isfinite(p.value_error) for p in points)


def test_the_fleets_heads_tell_where_to_look() -> None:
    """Few data: with the second moment of heads along the first axis only, that is where the head goes."""
    rng = np.random.default_rng(0)
    fleet = JointFleet.initial(practical(L), np.eye(D)[:, :R], 1)
    state = dataclasses.replace(fleet.states[0], head=np.array([5.0, 0.0]))
    walk = Trajectory(rng.uniform(-0.4, 0.4, (L + 1, D)), rng.standard_normal(L))
    (state,) = (dataclasses.replace(state, rewards=state.rewards.updated(walk.rewards)),)
    fleet = dataclasses.replace(fleet, states=(state,))
    knowing, plain = (Newcomers.initial(fleet, 1, with_prior=flag).learning_from([walk]) for flag in (True, False))
    slopes = [abs(each.weights[0, 0, 1]) / abs(each.weights[0, 0, 0]) for each in (knowing, plain)]
    assert slopes[0] < slopes[1]
    assert knowing.numbers_sent == 0
    assert principal_angle_sine(knowing.basis, knowing.weights[0].T / np.linalg.norm(knowing.weights)) < 1e-9


# Plans and pages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_spec_files_can_be_loaded_and_made_tiny(name: str) -> None:
    plan, experiment = load(name)
    tiny = plan.made_tiny()
    assert tiny.fingerprint != plan.fingerprint
    assert tiny.rounds * tiny.agents <= plan.rounds * plan.agents
    assert len(experiment.tasks(tiny)) <= len(experiment.tasks(plan))
    assert any(each.kind == "lstd" for each in plan.played_by()), "independent LSTD stands in every table"


def test_what_a_spec_file_may_not_say() -> None:
    with pytest.raises(ValueError, match="seed"):
        Plan.model_validate({"title": "", "workload": "", "agents": 1, "rounds": 1, "seed": 1, "seeds": [1]})


def test_figures_name_the_plan_and_what_does_not_hold() -> None:
    plan, _ = load("rank")
    findings = (
        Finding("a", "good", Estimate(1.0, 0.5, 2.0), holds=True, sign=True),
        Finding("b", "bad", Estimate(math.inf), holds=False),
        Finding("c", "so so", Estimate(2.0)),
    )
    outcome = Outcome(findings, (Table(("x", "y"), (("a|b", "1"),), "T"),))
    found = Reproduction("rank", plan, [Played(TINY, ())], outcome, 0.4, ("checked",))
    lines = figures(found)
    assert (lines[0], lines[-1]) == (BEGIN, END)
    assert f"<!-- plan {plan.fingerprint};" in lines[1]
    assert {"- holds: good", "- **does not hold**: bad", "- so so", "- checked", "| a\\|b | 1 |"} <= set(lines)
    said = document(found)
    assert said["findings"][1]["value"] is None
    assert said["findings"][0]["low"] == 0.5
    assert errors_of([], "joint").size == 0
