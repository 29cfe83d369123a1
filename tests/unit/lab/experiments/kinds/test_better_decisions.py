"""What is concluded from the worth of policies, on points made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from cospan.client.workloads.models.microgrids import load_site
from cospan.experiments.decisions.schedule import ALONE, ALONE_UNGATED, GIVEN, JOINT, JOINT_UNGATED
from cospan.experiments.experiment import ExperimentOutcome, Finding, Plan, load
from cospan.experiments.kinds import better_decisions
from cospan.experiments.runner import Point

GRIDS, QUEUES = "microgrids, 1 × 15 days", "queues, 1 × 100 steps"
SITES = 2


def plan() -> Plan:
    schedule = {"steps": 1, "evaluation": 7, "trial": 8, "rounds": 1, "later_rounds": 1, "rank": 2}
    grids, queues = ("cost", "headroom", "worst", "ratio"), ("gain", "change")
    fleets = [
        {"setting": GRIDS, "workload": "microgrids", "agents": SITES, "aims": grids, **schedule},
        {"setting": QUEUES, "workload": "queues", "agents": SITES, "aims": queues, **schedule},
    ]
    shipped = load("better-decisions")[0]
    options = {**shipped.options, "fleets": fleets, "foresight": [0.9, 0.98]}
    return shipped.model_copy(update={"seeds": [1, 2], "options": options})


def points(setting: str, shares: dict[str, list[float]], begin: list[float]) -> list[Point]:
    """The same shares in both runs; a given cost of a mean-load day of 2 at the first site and 6 at the second."""
    made = []
    for seed in (1, 2):
        for method, worth in {GIVEN: begin, **shares}.items():
            for step in (0, 1):
                for agent, share in enumerate(begin if step == 0 else worth):
                    cost = share * (2.0, 6.0)[agent] * load_site(agent)[0].mean_load
                    made.append(Point(setting, method, seed, agent, step, 0, 0, share, probed_value=cost))
    return made


def alike() -> dict[str, list[float]]:
    return {method: [0.9] * SITES for method in (ALONE, JOINT, ALONE_UNGATED, JOINT_UNGATED)}


def outcome(joint: list[float], queue: list[float]) -> ExperimentOutcome:
    grids = {ALONE: [1.0, 0.99], JOINT: joint, ALONE_UNGATED: [1.2, 0.99], JOINT_UNGATED: [0.9, 0.9]}
    queues = {ALONE: [0.9, 0.99], JOINT: queue, ALONE_UNGATED: [0.1, 0.9], JOINT_UNGATED: [0.99, 0.99]}
    made = points(GRIDS, grids, [1.0, 1.0]) + points(QUEUES, queues, [0.5, 0.6])
    found = better_decisions.outcome(plan(), made)
    assert all(len(row) == len(table.columns) for table in found.tables for row in table.rows)
    return found


def findings(joint: list[float], queue: list[float]) -> dict[str, Finding]:
    return {each.name: each for each in outcome(joint, queue).findings}


def test_costs_are_summed_in_units_of_the_mean_load() -> None:
    found = findings([0.9, 1.0], [0.99, 0.99])
    cost = found["microgrids-1-×-15-days-cost"]
    assert cost.value.value == pytest.approx((0.9 * 2.0 + 6.0) / 8.0)
    assert cost.holds
    assert cost.sign
    assert found["microgrids-1-×-15-days-headroom"].value.value == pytest.approx(1.0)  # of the first site alone
    ratio = found["microgrids-1-×-15-days-with-the-fleet-against-alone"]
    assert ratio.value.value == pytest.approx(0.2 / 0.06)


def test_sites_that_a_policy_makes_worse_are_counted_in_each_run() -> None:
    grids = outcome([0.9, 1.0], [0.99, 0.99]).tables[0]
    rows = {row[1]: dict(zip(grids.columns, row, strict=True)) for row in grids.rows}
    assert rows[ALONE_UNGATED]["sites worse"] == "1.0"
    assert rows[ALONE_UNGATED]["sites better"] == "1.0"
    assert rows[ALONE_UNGATED]["worst site"] == "1.2000"
    assert rows[JOINT]["sites worse"] == "0.0"


def test_a_run_in_which_hardly_anything_is_saved_alone_does_not_make_the_ratio() -> None:
    made = points(GRIDS, alike(), [1.0, 1.0])
    made += points(QUEUES, alike(), [0.5, 0.5])
    lost = [
        replace(each, probed_value=(each.probed_value or 0.0) / 0.9 * 0.999)
        if (each.setting, each.method, each.seed, each.rounds) == (GRIDS, ALONE, 2, 1)
        else each
        for each in made
    ]
    found = {each.name: each for each in better_decisions.outcome(plan(), lost).findings}
    ratio = found["microgrids-1-×-15-days-with-the-fleet-against-alone"]
    assert ratio.value.value == pytest.approx(0.2 / 0.101)  # the mean of 1 and 100 would say 50
    assert ratio.holds


def test_a_fleet_without_an_aim_is_told_without_a_verdict() -> None:
    shown = plan()
    grids = {**shown.options["fleets"][0], "aims": ("ratio",)}
    options = {**shown.options, "fleets": [grids, shown.options["fleets"][1]]}
    made = points(GRIDS, alike(), [1.0, 1.0])
    made += points(QUEUES, alike(), [0.5, 0.5])
    found = better_decisions.outcome(shown.model_copy(update={"options": options}), made)
    told = {each.name: each.holds for each in found.findings if each.name.startswith("microgrids")}
    assert told == {
        "microgrids-1-×-15-days-cost": None,
        "microgrids-1-×-15-days-with-the-fleet-against-alone": False,
    }


def test_a_site_that_gets_worse_and_a_queue_that_falls_are_told() -> None:
    found = findings([1.01, 0.9], [0.99, 0.55])
    assert found["microgrids-1-×-15-days-worst-site"].holds is False
    least = found["queues-1-×-100-steps-least-with-the-fleet-gated"]
    assert least.value.value == pytest.approx(-0.05)
    assert least.holds is False
    gain = found["queues-1-×-100-steps-gain-with-the-fleet-gated"]
    assert gain.value.value == pytest.approx(0.77)
    assert gain.holds is False
    assert gain.sign


def test_each_fleet_has_a_run_of_each_of_its_seeds() -> None:
    shipped = load("better-decisions")[0]
    made = better_decisions.tasks(shipped)
    fleets = [better_decisions.FleetEntry.model_validate(each) for each in shipped.options["fleets"]]
    assert len(made) == sum(fleet.seeds or len(shipped.seeds) for fleet in fleets)
    assert np.all([task.rounds == task.schedule.steps for task in made])
