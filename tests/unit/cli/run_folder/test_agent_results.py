"""Results of agents: a file that cannot be read is left out."""

from pathlib import Path

import pytest

from cospan.cli.run_folder.agent_results import agent_results
from cospan.cli.run_folder.layout import RunFolder
from cospan.client.placement import Host


def test_a_members_own_file_that_is_damaged_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path)
    folder.agents.mkdir()
    folder.agent("site-1").write_bytes(b"half of it")
    assert agent_results(folder, [Host("group-0..1", (0, 1), is_group=True)]) == {}
    assert "it is left out of the summary" in capsys.readouterr().err
