"""What `cospan doctor` checks, by the settings."""

from pathlib import Path

import pytest

from cospan.cli.commands.doctor import checks
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
