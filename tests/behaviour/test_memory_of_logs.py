"""The memory of an agent does not grow with its log: what is read is let go."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
from itertools import count
from pathlib import Path
import numpy as np
from cospan.benchmarks.logs import write_log
from cospan.client.learning.site_learner import SiteLearner
from cospan.client.logs.log_workload import LogFleet
from cospan.client.logs.mapping import mapping_of
from cospan.client.logs.tables.sites import tables_of
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import PRESETS
from cospan.core.specification import RunSpecification

def megabytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

path, rows = Path(sys.argv[1]), int(sys.argv[2])
write_log(path, rows)
level = {"level": {"kind": "numeric", "range": [0, 1], "knots": 5}}
mapping = mapping_of({"log": {"reward": "reward", "time": "step", "step": 1}, "features": level})
fleet = LogFleet(mapping, tables_of(str(path)))
steps = fleet.steps_of()
spec = RunSpecification("logs", 4, 2, 2, 0, 0, PRESETS["practical"](steps))
learner = SiteLearner(fleet.make_site(0, 0), spec, name="agent", index=0, with_baseline=False)
basis, early = random_basis(4, 2, np.random.default_rng(0)), 0.0
for number in count():
    if learner.source.at_end:
        break
    learner.learn(number, basis, np.eye(2))
    if not early and learner.state.steps > rows / 5:
        early = megabytes()
print(json.dumps({"steps": learner.state.steps, "early": early, "late": megabytes()}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize(("form", "rows"), [("csv", 250_000), ("parquet", 2_000_000)])
def test_memory_is_that_of_a_round_and_a_batch_however_long_the_log(tmp_path: Path, form: str, rows: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / f"log.{form}"), str(rows)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["steps"] == rows - 1
    # Four fifths of the rows later: those would take more than 50 MB.
    assert found["late"] < 1.1 * found["early"]
