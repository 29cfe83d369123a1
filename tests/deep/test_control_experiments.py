"""The control experiments at tiny size, through the command."""

import json
from pathlib import Path

import pytest

from cospan.cli import main as entry
from cospan.experiments.experiment import DEEP, load
from cospan.experiments.reproduce import FORMAT
from cospan.experiments.runner import COLUMNS


@pytest.mark.parametrize("name", sorted(DEEP))
def test_a_control_experiment_runs_at_tiny_size(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        entry.main(["reproduce", name, "--tiny", "--quiet", "--output", str(folder)])
    assert int(end.value.code or 0) == 0
    results = json.loads((folder / "results.json").read_text())
    assert (results["format"], results["experiment"]) == (FORMAT, name)
    assert results["plan"] == load(name)[0].made_tiny().fingerprint
    signs = [finding["sign"] for finding in results["findings"] if finding["sign"] is not None]
    assert signs == ([True] if name == "cartpole-control" else [])
    lines = (folder / "results.csv").read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    last = dict(zip(COLUMNS, lines[-1].split(","), strict=True))
    assert last["gain"]
    assert last["episode_return"]
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")
