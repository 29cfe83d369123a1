"""`cospan run`: the results of its agents."""

from pathlib import Path

import pytest

from cospan.cli.commands.run import _results
from cospan.cli.run_folder.layout import RunFolder
from cospan.client.placement import Host


def test_a_members_own_file_that_is_damaged_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path)
    folder.agents.mkdir()
    folder.agent("site-1").write_bytes(b"half of it")
    assert _results(folder, [Host("group-0..1", (0, 1), is_group=True)]) == {}
    assert "it is left out of the summary" in capsys.readouterr().err
