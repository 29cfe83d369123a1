"""A reader of the README alone gets from its commands to how much one more unit is worth, and how sure that is."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from docs.pages import ROOT, Block, Reader, blocks_of

from cospan.client.workloads.queues import workload

SECONDS = 300.0
ASKED = re.compile(r"cospan value runs/latest --site (\d+) --at state=(\d+) --than state=(\d+)")


def test_the_commands_of_the_readme_run_and_answer_what_one_more_unit_is_worth(tmp_path: Path) -> None:
    """All of its blocks, one after the other; the question is asked once more, for a program."""
    asked, printed, answer = None, "", None
    with Reader(tmp_path, SECONDS) as reader:
        for block in blocks_of(ROOT / "README.md"):
            said = reader.do(block)
            if asked is None and block.is_run:
                asked, printed = ASKED.search(block.text), said
            elif asked is not None and answer is None:  # the block before was compared with what was printed
                answer = json.loads(reader.do(Block("console", "", f"{asked[0]} --json\n", block.line)))
                assert (reader.folder / "values.png").stat().st_size > 10_000
    assert asked is not None
    assert answer is not None
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
