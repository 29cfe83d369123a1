"""Experiments in several processes."""

import dataclasses

from cospan.experiments.methods.catalogue import default_methods
from cospan.experiments.runner import Task, run_all

D, R, L, AGENTS = 6, 2, 5, 3

TINY = Task(seed=1, workload="synthetic", methods=tuple(default_methods()), agents=4, rounds=12, steps_per_round=L)


def test_processes_change_nothing() -> None:
    tasks = [dataclasses.replace(TINY, seed=seed, methods=TINY.methods[:2]) for seed in (1, 2)]
    said: list[str] = []
    assert run_all(tasks, 2, said.append) == run_all(tasks, 1, lambda _: None)
    assert len(said) == 2
