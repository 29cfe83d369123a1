"""How the control experiments are judged; the runs themselves are tested in tests/deep, which needs JAX."""

import math

import numpy as np

from cospan.experiments.experiment import load
from cospan.experiments.kinds import control
from cospan.experiments.kinds.control import ALONE, SHARED_TRUNK, UNIFORM, first_at, smooth
from cospan.experiments.runner import Point

STEPS = (1000, 2000, 3000, 4000, 5000, 6000)


def points_of(rising: dict[str, float]) -> list[Point]:
    """Curves of six agents and three seeds that rise to 300 at a method's rate per judgement."""
    return [
        Point(
            setting="",
            method=method,
            seed=seed,
            agent=agent,
            rounds=steps // 50,
            steps=steps,
            sent=0,
            value_error=math.nan,
            gain=-1.0 / (min(rate * (number + 1), 300.0) + agent + seed),
            episode_return=min(rate * (number + 1), 300.0) + agent + seed,
        )
        for method, rate in rising.items()
        for seed in (101, 102, 103)
        for agent in range(6)
        for number, steps in enumerate(STEPS)
    ]


def test_a_point_is_smoothed_with_two_before_it() -> None:
    np.testing.assert_allclose(smooth(np.array([[3.0, 6.0, 0.0, 9.0]])), [[3.0, 4.5, 3.0, 5.0]])


def test_the_first_steps_at_a_level() -> None:
    curve = np.array([1.0, 5.0, 2.0, 6.0])
    assert first_at(curve, 5.0, STEPS[:4]) == 2000.0
    assert first_at(curve, 7.0, STEPS[:4]) == math.inf


def test_a_trunk_that_is_learnt_sooner_holds_and_one_that_is_not_does_not() -> None:
    plan, _ = load("cartpole-control")
    good = control.outcome(plan, points_of({SHARED_TRUNK: 100.0, ALONE: 40.0, UNIFORM: 5.0}))
    bad = control.outcome(plan, points_of({SHARED_TRUNK: 20.0, ALONE: 40.0, UNIFORM: 30.0}))
    judged = {finding.name: (finding.holds, finding.sign) for finding in good.findings}
    assert judged["sooner-gain"] == judged["sooner-return"] == judged["higher"] == (True, None)
    assert judged["uniform"] == (True, True)
    assert judged["gained"] == judged["half-sooner"] == (None, None)
    assert {f.name: f.value.value for f in good.findings if "sooner" in f.name} == {
        "sooner-gain": 6.0,
        "sooner-return": 6.0,
        "half-sooner": 6.0,
    }
    assert {f.name: f.holds for f in bad.findings if f.name != "narrower"} == {
        "sooner-gain": False,
        "sooner-return": False,
        "higher": False,
        "uniform": False,
        "half-sooner": None,
        "gained": None,
    }
    assert [finding.sign for finding in bad.findings if finding.name == "uniform"] == [False]
    samples = good.tables[1].rows
    assert samples[0][:2] == (SHARED_TRUNK, "3.0")
    assert samples[1][:2] == (ALONE, "6.0")
    assert samples[2][:2] == (UNIFORM, "never")
    assert good.tables[3].rows[2][1] == "127"


def test_every_method_has_a_task_for_each_seed() -> None:
    for name, sign in (("cartpole-control", 1.0), ("acrobot-control", -1.0)):
        plan, _ = load(name)
        tasks = control.tasks(plan)
        assert len(tasks) == 9
        assert {task.setting for task in tasks} == {SHARED_TRUNK, ALONE, UNIFORM}
        assert all(task.agents == 6 and task.steps_per_round == 50 and task.sign == sign for task in tasks)
        assert [task.physics[k][2] for task in tasks for k in range(2)] == [0.0, 1.0] * 9
