"""What `cospan doctor` checks, by the settings."""

import json
from pathlib import Path
from typing import Any

import pytest

from cospan.cli.commands.doctor import checks, examine
from cospan.cli.diagnostics.workload import WorkloadToCheck
from cospan.cli.settings.layers import load_settings

_MACHINE_ONLY, _WITH_COORDINATOR = 7, 8
"""Numbers of checks: the coordinator's two replace that of the port."""


def test_checks_look_at_the_coordinator_that_any_layer_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COSPAN_COORDINATOR", "")
    assert len(checks(load_settings({}, None), tmp_path)) == _MACHINE_ONLY
    assert len(checks(load_settings({"coordinator": "127.0.0.1:1"}, None), tmp_path)) == _WITH_COORDINATOR
    monkeypatch.setenv("COSPAN_COORDINATOR", "127.0.0.1:1")
    assert len(checks(load_settings({}, None), tmp_path)) == _WITH_COORDINATOR
    monkeypatch.delenv("COSPAN_COORDINATOR")
    (tmp_path / "cospan.toml").write_text('coordinator = "127.0.0.1:1"\n')
    assert len(checks(load_settings({}, None), tmp_path)) == _WITH_COORDINATOR


def of_workload(reference: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[Any]]:
    """The exit code, and what is found of a workload."""
    flags = {"coordinator": f"unix:{folder}/none"}  # so that no port is bound
    code = examine(flags, None, folder, json=True, workload=WorkloadToCheck(reference, sites=1, steps=50))
    return code, [each for each in json.loads(capsys.readouterr().out) if each["subject"] == "workload"]


def test_a_workload_is_checked_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cospan.cli.commands.doctor.checks", lambda *_: [])
    code, found = of_workload("synthetic", tmp_path, capsys)
    assert code == 0
    assert found[-1]["found"] == "workload 'synthetic': no problem, no warning in 50 steps of 1 site"
    assert {each["grade"] for each in found} <= {"ok", "note"}
    (tmp_path / "broken_tanks.py").write_text("def tanks(index, seed):\n    return None\n")
    code, found = of_workload("broken_tanks:tanks", tmp_path, capsys)
    assert code == 1
    assert found == [
        {
            "subject": "workload",
            "grade": "problem",
            "found": "site 0: workload 'broken_tanks:tanks' made a NoneType for site 0",
            "remedy": "it must make a Site",
        }
    ]
    code, found = of_workload("no_such_module:tanks", tmp_path, capsys)
    assert (code, found[0]["grade"]) == (1, "problem")
    assert found[0]["remedy"] == "run from the folder that holds it, or install it"
