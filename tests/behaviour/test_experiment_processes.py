"""Experiments that are played in processes of their own."""

import dataclasses

from cospan.experiments.methods.catalogue import rivals
from cospan.experiments.runner import Task, play_all

D, R, L, AGENTS = 6, 2, 5, 3

TINY = Task(seed=1, workload="synthetic", contenders=tuple(rivals()), agents=4, rounds=12, steps_per_round=L)


def test_processes_change_nothing() -> None:
    tasks = [dataclasses.replace(TINY, seed=seed, contenders=TINY.contenders[:2]) for seed in (1, 2)]
    said: list[str] = []
    assert play_all(tasks, 2, said.append) == play_all(tasks, 1, lambda _: None)
    assert len(said) == 2
