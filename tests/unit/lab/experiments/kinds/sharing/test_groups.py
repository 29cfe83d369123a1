"""Mixed and small fleets: which agents make a group."""

from cospan.experiments.experiment import load
from cospan.experiments.kinds.sharing import groups


def test_every_agent_is_in_one_group() -> None:
    plan, _ = load("misaligned")
    for setting in plan.settings:
        agents = [agent for part in groups.groups_of(plan, setting).values() for agent in part]
        small = setting.split()[0] in ("1", "2")
        assert sorted(agents) == list(range(int(setting[0]) if small else plan.agents))
    assert groups.groups_of(plan, "20 %")["misaligned"] == range(16, 20)
    assert list(groups.groups_of(plan, "100 %")) == ["misaligned"]


def test_small_fleets_have_more_seeds_and_different_microgrids() -> None:
    plan, _ = load("misaligned")
    found = groups.tasks(plan)
    assert len([task for task in found if task.setting == "20 %"]) == len(plan.seeds)
    small = [task for task in found if task.setting == "1 microgrid"]
    assert len(small) == len(plan.seeds) + len(plan.options["further_seeds"])
    assert all(task.agents == 1 and task.rounds == plan.options["days"] for task in small)
    assert len({task.workload.args for task in small}) == len(small)  # type: ignore[union-attr]
