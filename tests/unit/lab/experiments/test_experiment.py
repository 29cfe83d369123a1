"""Spec files of experiments."""

import pytest

from cospan.experiments.experiment import MODULES, Plan, load


@pytest.mark.parametrize("name", MODULES)
def test_spec_files_can_be_loaded_and_made_tiny(name: str) -> None:
    plan, experiment = load(name)
    tiny = plan.made_tiny()
    assert tiny.fingerprint != plan.fingerprint
    assert tiny.rounds * tiny.agents <= plan.rounds * plan.agents
    assert len(experiment.tasks(tiny)) <= len(experiment.tasks(plan))
    methods = plan.compared_methods()  # none where an experiment compares no methods
    assert not methods or any(each.kind == "lstd" for each in methods), "LSTD alone stands in every table"


def test_what_a_spec_file_may_not_say() -> None:
    with pytest.raises(ValueError, match="seed"):
        Plan.model_validate({"title": "", "workload": "", "agents": 1, "rounds": 1, "seed": 1, "seeds": [1]})
