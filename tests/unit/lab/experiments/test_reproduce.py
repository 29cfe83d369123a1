"""The figures and the document of a reproduction."""

import math

from cospan.experiments.estimates import Estimate
from cospan.experiments.experiment import ExperimentOutcome, Finding, Table, load
from cospan.experiments.methods.catalogue import default_methods
from cospan.experiments.reproduce import BEGIN, END, Reproduction, document, figures
from cospan.experiments.runner import Task, TaskResult, errors_of

D, R, L, AGENTS = 6, 2, 5, 3

TINY = Task(seed=1, workload="synthetic", methods=tuple(default_methods()), agents=4, rounds=12, steps_per_round=L)


def test_figures_name_the_plan_and_what_does_not_hold() -> None:
    plan, _ = load("rank")
    findings = (
        Finding("a", "good", Estimate(1.0, 0.5, 2.0), holds=True, sign=True),
        Finding("b", "bad", Estimate(math.inf), holds=False),
        Finding("c", "so so", Estimate(2.0)),
    )
    outcome = ExperimentOutcome(findings, (Table(("x", "y"), (("a|b", "1"),), "T"),))
    found = Reproduction("rank", plan, [TaskResult(TINY, ())], outcome, 0.4, 2.4, ("checked",))
    lines = figures(found)
    assert (lines[0], lines[-1]) == (BEGIN, END)
    assert f"<!-- plan {plan.fingerprint};" in lines[1]
    assert {"- holds: good", "- **does not hold**: bad", "- so so", "- checked", "| a\\|b | 1 |"} <= set(lines)
    assert lines[-3] == "Means over 3 seeds, 95 % bootstrap intervals; 2 min of processor time."
    said = document(found)
    assert said["findings"][1]["value"] is None
    assert said["findings"][0]["low"] == 0.5
    assert errors_of([], "joint").size == 0
