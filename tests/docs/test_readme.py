"""A reader of the README alone gets from its commands to how much one more unit is worth, and how sure that is."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from docs.pages import ROOT, Shell, blocks_of, environment_of, here

from cospan.client.workloads.queues import workload

SECONDS = 120.0
ASKED = re.compile(r"cospan value runs/latest --site (\d+) --at state=(\d+) --than state=(\d+)")


def test_the_commands_of_the_readme_answer_what_one_more_unit_is_worth(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    blocks = [block for block in blocks_of(ROOT / "README.md") if block.is_run]
    first = next(block for block in blocks if "cospan value" in block.text)
    asked = ASKED.search(first.text)
    assert asked is not None
    shell = Shell(folder, environment_of(tmp_path, here()), SECONDS)
    try:
        shell.do(first)
        assert (folder / "values.png").stat().st_size > 10_000
        printed = shell.output
        shell.do(type(first)("console", "", f"{asked[0]} --json\n", first.line))
    finally:
        shell.close()
    answer = json.loads(shell.output)
    told = rf"state = {asked[2]} is worth \S+ more than state = {asked[3]}; 90% interval (\S+) to (\S+)"
    shown = re.search(told, printed)
    assert shown is not None, printed
    lower, upper = answer["interval"]
    assert [float(end) for end in shown.groups()] == pytest.approx([lower, upper], rel=1e-3)
    assert lower < answer["difference"] < upper
    site = workload.make_site(int(asked[1]), 1)
    assert site.reference is not None
    true = np.diff(site.features.batch([int(asked[3]), int(asked[2])]) @ site.reference.weights).item()
    assert answer["difference"] == pytest.approx(true, abs=0.3)
    assert lower < true < upper
    assert upper - lower < 2.0, "an interval that tells something"
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"the truth, which is known of these queues, is {true:.1f}." in " ".join(page.split())
