"""What `cospan doctor` finds about this machine."""

from pathlib import Path

import pytest

from cospan.cli.diagnostics import machine
from cospan.cli.diagnostics.findings import Grade
from cospan.cli.diagnostics.machine import of_folder


def test_a_library_that_is_too_old_or_missing_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_LEAST", {"numpy": (99, 0), "no-such-thing": (1,)})
    monkeypatch.setattr(machine, "_EXTRAS", {"no-such-thing": "tls"})
    found = {finding.subject: finding for finding in machine.of_versions()}
    assert found["numpy"].remedy == "pip install --upgrade 'numpy>=99.0'"
    assert found["no-such-thing"].grade is Grade.BAD
    assert found["extras"].grade is Grade.NOTE


def test_a_folder_without_room_or_rights_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_folder(tmp_path / "not" / "yet")[0].grade is Grade.GOOD
    (tmp_path / "file").touch()
    assert of_folder(tmp_path / "file" / "runs")[0].found.endswith("is a file")
    monkeypatch.setattr(machine, "_LEAST_FREE", 2**80)
    assert "MiB are free" in of_folder(tmp_path)[0].found
