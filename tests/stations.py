"""Twenty stations as people have them: hourly CSV files of 120 days with missing rows, holes and a block of NaN.

They are microgrids, whose true values are known. Each station also has its transitions by themselves, as this
module knows them: what a reader that invents nothing and loses nothing must come to.
"""

import csv
import sys
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from cospan.client.environment.rollout import source_of
from cospan.client.step_source import SourceWarning, StepSource
from cospan.client.workload import Site, SourceSite, Workload
from cospan.client.workloads.microgrids import FEATURES, make_site
from cospan.core.learning.learner_state import Trajectory

STATIONS, DAYS, MISSING = 20, 120, 0.05
HOLES = (3, 11)
"""Stations that have nothing for a fortnight."""
NAN_AT = 7
"""The station with a block of NaN."""
COLUMNS = ("hour", "charge", "outlook", "net_load", "grid_up")
MAPPING = """
[log]
data = "*.csv"
time = "stamp"
step = "1h"
observation = ["hour", "charge", "outlook", "net_load", "grid_up"]
reward = "-cost"

[run]
rank = 12
steps_per_round = 24

[features]
map = "workload:microgrids"
"""


@dataclass(frozen=True, eq=False)
class Station:
    """What a station has seen.

    Attributes:
        observations: of every hour, and of the one behind the last.
        rewards: of every hour.
        written: the hours that are in its file.
        known: those of them whose values are numbers.
    """

    observations: np.ndarray
    rewards: np.ndarray
    written: np.ndarray
    known: np.ndarray

    @property
    def transitions(self) -> np.ndarray:
        """The hours whose transition into the next one is known."""
        return np.flatnonzero(self.known[:-1] & self.known[1:])


class _Kept:
    dim, fingerprint = FEATURES.dim, FEATURES.fingerprint

    def __call__(self, observation: Any) -> np.ndarray:
        return FEATURES(observation)

    def batch(self, observations: Any) -> np.ndarray:
        self.seen = np.array(observations)
        return FEATURES.batch(observations)


def station(index: int, days: int = DAYS) -> Station:
    """What station `index` has seen."""
    site, kept, hours = make_site(index, 1), _Kept(), 24 * days
    assert isinstance(site, Site)
    walk = source_of(replace(site, features=kept), name="station", index=index, seed=1).advance(hours)
    rng = np.random.default_rng((5, index))
    written = rng.random(hours) >= MISSING
    written[[0, -1]] = True
    if index in HOLES:
        begin = int(rng.integers(24, hours - 15 * 24))
        written[begin : begin + 14 * 24] = False
    known = written.copy()
    if index == NAN_AT:
        known[100:130] = False
    return Station(kept.seen, walk.rewards, written, known)


def write_stations(folder: Path, stations: int = STATIONS, days: int = DAYS) -> list[Station]:
    """Writes the files and `fleet.toml`."""
    folder.mkdir(exist_ok=True)
    (folder / "fleet.toml").write_text(MAPPING, encoding="utf-8")
    found = [station(index, days) for index in range(stations)]
    for index, each in enumerate(found):
        with (folder / f"station-{index:02}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["stamp", *COLUMNS, "cost"])
            for hour in np.flatnonzero(each.written).tolist():
                stamp = datetime(2023, 1, 1) + timedelta(hours=hour)
                values = [repr(value) for value in each.observations[hour].tolist()]
                if not each.known[hour]:
                    values[1] = "NaN"
                writer.writerow([stamp.isoformat(" "), *values, repr(-float(each.rewards[hour]))])
    return found


class Known:
    """The transitions of a station one by one, each behind a cut: nothing of a file, a stamp or a chain is used."""

    def __init__(self, observations: np.ndarray, rewards: np.ndarray, hours: np.ndarray) -> None:
        self.rows, self.values, self.hours, self.steps, self.reward_sum = observations, rewards, hours, 0, 0.0

    @property
    def at_end(self) -> bool:
        return self.steps == len(self.hours)

    def advance(self, steps: int) -> Trajectory:
        hours = self.hours[self.steps : self.steps + (steps + 1) // 2]
        places = np.stack([hours, hours + 1], axis=1).reshape(-1)
        missing = steps + 1 - len(places)
        features = FEATURES.batch(self.rows[np.append(places, np.zeros(max(0, missing), dtype=int))[: steps + 1]])
        rewards, is_transition = np.zeros(steps), np.zeros(steps, dtype=np.bool_)
        rewards[: 2 * len(hours) : 2], is_transition[: 2 * len(hours) : 2] = self.values[hours], True
        self.steps += len(hours)
        self.reward_sum += float(self.values[hours].sum())
        return Trajectory(features, rewards, is_transition)

    def take_warnings(self) -> list[SourceWarning]:
        return []

    def interrupt(self) -> None: ...
    def close(self) -> None: ...
    def saved(self) -> None: ...
    def go_on(self, _steps: int, _reward_sum: float, _saved: object) -> str:
        return ""


def errors_of(weights: list[np.ndarray]) -> np.ndarray:
    found = []
    for index, each in enumerate(weights):
        reference = make_site(index, 1).reference
        assert reference is not None
        found.append(float(reference.value_errors(each[None])[0]))
    return np.array(found)


def error_of_known(rounds: int) -> float:
    """The median value error of agents that are given the transitions that are known, and nothing else."""
    from cospan.simulation import Fleet

    def known_site(index: int, _seed: int) -> SourceSite:
        each = station(index)

        def opened(_name: str) -> StepSource:
            return Known(each.observations, each.rewards, each.transitions)

        return SourceSite(opened, FEATURES)

    # Every second slot is a cut, so a round of as many transitions has twice the slots.
    known = Workload(known_site, "known", rank=12, steps_per_round=47, max_agents=STATIONS)
    learnt = Fleet(known, rounds=rounds, seed=1, baseline=False).run()
    return float(np.median(errors_of([each.weights for each in learnt.agents])))


if __name__ == "__main__":
    print(error_of_known(int(sys.argv[1])))
