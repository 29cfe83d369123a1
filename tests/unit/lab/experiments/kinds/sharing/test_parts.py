"""Parts left out: what each does to the sites, by its ratio to the whole method."""

from matplotlib.figure import Figure

from cospan.experiments.experiment import Plan, load
from cospan.experiments.kinds.sharing import parts
from cospan.experiments.runner import WHOLE_FLEET, Point

ERRORS = {"practical": 0.02, "… W not shrunk": 0.03, "LSTD alone": 0.04}


def points(plan: Plan) -> list[Point]:
    """Of three sites, the middle one of which has the error of the method."""
    return [
        Point(setting, method, seed, agent, plan.options["runs"][setting]["rounds"], 100, 0, factor * error)
        for setting in plan.settings
        for method, error in ERRORS.items()
        for seed in plan.seeds
        for agent, factor in ((WHOLE_FLEET, 1.0), (0, 0.5), (1, 1.0), (2, 1.5))
    ]


def test_each_setting_has_a_run_for_each_seed_of_its_own_size() -> None:
    plan, _ = load("ablation-practical")
    tasks = parts.tasks(plan)
    assert len(tasks) == len(plan.settings) * len(plan.seeds)
    for task in tasks:
        run = plan.options["runs"][task.setting]
        assert (task.workload, task.agents, task.rounds) == (run["workload"], run["agents"], run["rounds"])


def test_a_part_is_compared_with_the_whole_method_and_the_whole_with_lstd() -> None:
    plan, _ = load("ablation-practical")
    found = parts.outcome(plan, points(plan))
    assert len(found.findings) == 2 * len(plan.settings)
    whole, part = found.findings[:2]
    assert (round(whole.value.value, 9), whole.holds, whole.sign) == (0.5, True, True)
    assert (round(part.value.value, 9), part.holds) == (1.5, None)
    table = found.tables[0]
    assert [row[0] for row in table.rows] == list(ERRORS)
    assert [row[-1] for row in table.rows] == ["0.0 of 3"] * 3
    assert len(found.tables) == len(plan.settings)


def test_a_panel_for_each_setting_has_a_row_for_each_method() -> None:
    plan, _ = load("ablation-practical")
    figure = Figure()
    parts.draw(figure, plan, points(plan))
    assert len(figure.axes) == len(plan.settings)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(ERRORS)
