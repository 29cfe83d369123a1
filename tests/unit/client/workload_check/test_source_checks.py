"""`check` of sites without an environment: their ends, gaps, waits and repetitions."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
from unit.client.workload_check.test_check import Map, columns, rising, square

from cospan.client.step_source import SourceInterruptedError, SourceWarning
from cospan.client.workload import SourceSite, Workload
from cospan.client.workload_check import source_checks
from cospan.client.workload_check.check import check
from cospan.client.workload_check.findings import CheckReport
from cospan.core.learning.learner_state import Trajectory
from cospan.wire.errors import WorkloadBehaviourError

MAP = Map(columns(rising, square))
LENGTH = 20


class Recorded:
    """A log of levels from a seed, with cuts at some steps."""

    def __init__(self, rows: int, seed: int = 1, cuts: tuple[int, ...] = (), waits: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.levels, self.noise = rng.uniform(0.0, 10.0, rows + 1), rng.normal(size=rows)
        self.cuts, self.waits, self.place, self.steps, self.reward_sum = cuts, waits, 0, 0, 0.0
        self.warnings, self.closed, self.stopped = (
            [SourceWarning("stamp", "row 7 has no stamp")],
            0,
            threading.Event(),
        )

    @property
    def at_end(self) -> bool:
        return not self.waits and self.place >= len(self.noise)

    def advance(self, steps: int) -> Trajectory:
        if self.place + steps > len(self.noise):
            assert self.waits
            assert self.stopped.wait(20.0)
            raise SourceInterruptedError("no more")
        slots = range(self.place, self.place + steps)
        mask = np.array([slot not in self.cuts for slot in slots])
        self.place += steps
        self.steps += int(mask.sum())
        features = MAP.batch(self.levels[slots[0] : slots[-1] + 2])
        rewards = self.levels[slots[0] : slots[-1] + 1] + self.noise[slots[0] : slots[-1] + 1]
        return Trajectory(features, rewards, None if mask.all() else mask)

    def take_warnings(self) -> list[SourceWarning]:
        found, self.warnings = self.warnings, []
        return found

    def interrupt(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        self.closed += 1

    def saved(self) -> None:
        return None

    def go_on(self, steps: int, reward_sum: float, saved: object) -> str:
        return "it cannot"


def report_of(make: Callable[[int], Recorded], steps: int = 400) -> tuple[CheckReport, list[Recorded]]:
    made: list[Recorded] = []

    def open_source(_: str) -> Recorded:
        made.append(make(len(made)))
        return made[-1]

    sites = Workload(lambda index, seed: SourceSite(open_source, MAP), name="log", rank=1, steps_per_round=LENGTH)
    return check(sites, sites=1, steps=steps), made


def sentences(report: CheckReport) -> str:
    return "\n".join(map(str, report))


def test_a_log_is_read_twice_and_its_warnings_are_passed_on() -> None:
    report, made = report_of(lambda _: Recorded(1000))
    assert report.ok
    assert sentences(report) == "warning: site 0: row 7 has no stamp"
    assert [source.closed for source in made] == [1, 1]
    assert made[0].steps == 400


def test_the_end_of_a_log_is_a_note() -> None:
    report, _ = report_of(lambda _: Recorded(100, cuts=(3, 50)))
    assert report.ok
    assert "note: site 0: the source holds 98 transitions in all" in sentences(report)


def test_a_source_without_a_transition_is_a_problem() -> None:
    report, _ = report_of(lambda _: Recorded(100, cuts=tuple(range(100))))
    assert "problem: site 0: the source has no transition, so nothing can be learnt" in sentences(report)


def test_a_source_that_gives_something_else_the_second_time() -> None:
    for change in (lambda number: Recorded(1000, seed=number), lambda number: Recorded(1000, cuts=(95,) * number)):
        report, _ = report_of(change)
        assert "begun again, the source gives other steps from step" in sentences(report)
    assert "from step 80 on" in sentences(report)


def test_a_wait_for_steps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_checks, "WAIT_SECONDS", 0.05)
    report, made = report_of(lambda _: Recorded(100, waits=True))
    assert report.ok
    assert "note: site 0: the source gave 100 transitions and then none for 0.05 s" in sentences(report)
    assert made[0].closed == 1


def test_a_source_that_cannot_be_read_is_a_problem() -> None:
    def broken(_: int) -> Recorded:
        raise WorkloadBehaviourError("row 12 of site-0.csv has no number in 'level'; correct it")

    report, _ = report_of(broken)
    assert "problem: site 0: row 12 of site-0.csv has no number in 'level'; correct it" in sentences(report)
