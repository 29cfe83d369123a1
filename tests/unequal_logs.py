"""Logs of unequal lengths, of microgrids whose true values are known: what a site with few rows costs and gains.

Run as a program it prints the errors of the values as JSON: shapes are not checked then, which takes most of the
time of a fleet in a test.
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
from stations import COLUMNS, station

from cospan.client.workloads.microgrids import make_site

MAPPING = """
[log]
time = "hour_number"
step = 1
observation = ["hour", "charge", "outlook", "net_load", "grid_up"]
reward = "-cost"

[run]
rank = 12
steps_per_round = 24

[features]
map = "workload:microgrids"
"""
MANY = dict.fromkeys((0, 1, 2, 4, 5, 6, 8, 9, 10, 11), 2400)
FEW = {3: 11, 7: 11}
"""Rows of the logs of sites."""


def write_logs(folder: Path, rows: dict[int, int]) -> Path:
    """Writes the first rows of these sites, and the mapping, whose path it gives."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fleet.toml").write_text(MAPPING, encoding="utf-8")
    for site, count in rows.items():
        walk = station(site, max(20, -(-count // 24)))  # its hole of a fortnight is not written here
        with (folder / f"grid-{site:02}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["hour_number", *COLUMNS, "cost"])
            for hour in range(count):
                values = [repr(value) for value in walk.observations[hour].tolist()]
                writer.writerow([hour, *values, repr(-float(walk.rewards[hour]))])
    return folder / "fleet.toml"


def error_of(site: int, weights: np.ndarray) -> float:
    """The relative error of a site's values."""
    reference = make_site(site, 1).reference
    assert reference is not None
    return float(reference.value_errors(weights[None])[0])


def errors(folder: Path, rows: dict[int, int]) -> dict[int, float]:
    """Of the sites of a fleet with these logs."""
    from cospan.simulation import Fleet

    mapping = write_logs(folder, rows)
    learnt = Fleet.from_logs(folder, mapping, seed=1, baseline=False).run(progress=False)
    return {site: error_of(site, each.weights) for site, each in zip(sorted(rows), learnt.agents, strict=True)}


if __name__ == "__main__":
    work = Path(sys.argv[1])
    print(
        json.dumps(
            {
                "together": errors(work / "together", {**MANY, **FEW}),
                "without": errors(work / "without", MANY),
                "alone": {site: errors(work / f"alone-{site}", {site: count})[site] for site, count in FEW.items()},
            }
        )
    )
