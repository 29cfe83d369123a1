"""`cospan new`: which names a fleet may have, that nothing is overwritten, and what the files say."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from cospan.cli.main import app
from cospan.cli.settings.layers import load_settings, unknown_variables
from cospan.cli.tools.new_fleet import new_fleet, package_of, rendered
from cospan.wire.errors import InvalidValueError, RunFileError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["tanks", "cold-stores", "cold_stores", "x2", "a-1"])
def test_a_name_is_that_of_a_package(name: str) -> None:
    assert package_of(name) == name.replace("-", "_")
    assert package_of(name).isidentifier()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *[
            (name, "cannot be the name of a fleet; take up to 40")
            for name in ("Tanks", "a b", "../x", "/tmp/x", "")
        ],
        *[(name, "cannot be the name of a fleet") for name in ("3d", "-x", "x-", "a--b", "a.b", "ä", "x" * 41)],
        *[(name, "is a word of Python") for name in ("class", "match")],
        *[(name, "is the name of an installed module") for name in ("queue", "json", "numpy", "cospan", "pytest")],
    ],
)
def test_other_names_are_refused_before_anything_is_written(name: str, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        new_fleet(name)
    assert not list(Path().iterdir())


def test_a_source_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="--from is 'excel'; it can be 'simulator'"):
        new_fleet("tanks", source="excel")


def test_nothing_is_overwritten() -> None:
    Path("tanks").mkdir()
    Path("tanks/mine.txt").write_text("mine")
    with pytest.raises(RunFileError, match="the folder tanks exists and is not empty; take another name"):
        new_fleet("tanks")
    Path("file").write_text("mine")
    with pytest.raises(RunFileError, match="file exists and is a file"):
        new_fleet("file")
    Path("link").symlink_to("nowhere")
    with pytest.raises(RunFileError, match="link exists and is a file"):
        new_fleet("link")
    assert sorted(str(path) for path in Path().rglob("*")) == ["file", "link", "tanks", "tanks/mine.txt"]
    Path("empty").mkdir()
    assert new_fleet("empty") == 0
    assert Path("empty/README.md").is_file()


def test_a_folder_appears_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = Path.write_text, []

    def full(path: Path, *arguments: Any, **more: Any) -> int:
        written.append(path)
        if len(written) > 3:
            raise OSError(28, "No space left on device")
        return write(path, *arguments, **more)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(
        RunFileError, match="cannot write the folder tanks: No space left on device; nothing was made"
    ):
        new_fleet("tanks")
    assert not list(Path().iterdir())


def test_another_process_that_makes_the_folder_meanwhile_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def late(path: Path, target: Path) -> Path:
        target.mkdir()
        (target / "theirs").touch()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(RunFileError, match="cannot write the folder tanks: "):
        new_fleet("tanks")
    assert [str(path) for path in Path().rglob("*")] == ["tanks", "tanks/theirs"]


def test_the_files_carry_the_name_and_no_mark(capsys: pytest.CaptureFixture[str]) -> None:
    umask = os.umask(0o022)
    try:
        new_fleet("cold-stores")
    finally:
        os.umask(umask)
    assert "cospan run cold_stores:workload" in capsys.readouterr().out
    folder = Path("cold-stores")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        ".gitignore",
        "README.md",
        "cold_stores/__init__.py",
        "cold_stores/environment.py",
        "cold_stores/features.py",
        "cold_stores/policy.py",
        "compose.yaml",
        "cospan.toml",
        "test_cold_stores.py",
    }
    for path in folder.rglob("*"):
        assert path.is_dir() or "@" not in path.read_text(encoding="utf-8").replace("@property", ""), path
        assert path.stat().st_mode & 0o044 == 0o044, "containers read it as another user"


def test_the_settings_are_settings() -> None:
    new_fleet("tanks")
    os.chdir("tanks")
    settings = load_settings({}, None)
    assert settings.model_fields_set >= set(tomllib.loads(Path("cospan.toml").read_text()))


def test_the_compose_file_is_as_strict_as_our_own_and_its_commands_exist() -> None:
    text = rendered("tanks", "tanks", "simulator")["compose.yaml"]
    document = yaml.safe_load(text)
    ours = yaml.safe_load((Path(__file__).parents[4] / "docker-compose.yml").read_text(encoding="utf-8"))
    commands: Any = typer.main.get_command(app)
    for name, service in document["services"].items():
        for key in ("read_only", "cap_drop", "security_opt", "pids_limit", "ulimits", "tmpfs", "healthcheck"):
            assert service.get(key) == ours["services"][name].get(key), (name, key)
        command, *words = service["command"]
        known = {option for parameter in commands.commands[command].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known
        assert "./tanks:/work/tanks:ro" in service["volumes"]
    variables = {part.partition(":")[0] for part in text.split("${")[1:]}
    assert unknown_variables(dict.fromkeys(variables, "")) == []
