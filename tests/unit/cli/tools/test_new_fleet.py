"""`cospan new`: which names a fleet may have, that nothing is overwritten, and what the files say."""

import os
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from cospan.cli.main import app
from cospan.cli.settings.layers import load_settings, unknown_variables
from cospan.cli.tools.new_fleet import new_fleet, package_of, rendered
from cospan.client.logs.log_workload import log_fleet
from cospan.client.logs.tables.batch import TableError
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
    with pytest.raises(InvalidValueError, match="--from is 'excel'; it can be 'simulator' or 'csv'"):
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


def log(rows: int = 80, name: str = "north.csv", header: str = "stamp,level,cost") -> Path:
    path = Path(name)
    lines = [f"2024-01-{1 + row // 24:02} {row % 24:02}:00,{(7 * row) % 11},{row % 5}" for row in range(rows)]
    path.write_text("\n".join([header, *lines]), encoding="utf-8")
    return path


def test_a_project_from_a_log_has_the_log_and_its_mapping() -> None:
    assert new_fleet("depots", source="csv", log=log()) == 0
    folder = Path("depots")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        ".gitignore",
        "README.md",
        "compose.yaml",
        "cospan.toml",
        "fleet.toml",
        "logs/north.csv",
        "test_depots.py",
    }
    assert (folder / "logs/north.csv").read_bytes() == Path("north.csv").read_bytes()
    assert log_fleet(folder / "fleet.toml").reports[0].transitions == 79
    for path in folder.rglob("*"):
        assert path.is_dir() or "@" not in path.read_text(encoding="utf-8"), path
    text = (folder / "fleet.toml").read_text(encoding="utf-8")
    assert "# Is the reward of the step that begins in its row?" in text


def test_a_log_of_which_nothing_can_be_made_is_refused_and_nothing_is_written() -> None:
    cases: tuple[tuple[Callable[[], Path | None], str], ...] = (
        (partial(log, 40), "39 transitions, and nothing can be learnt of so few"),
        (partial(log, header="stamp,level,blue"), "say what is to be large with --reward, as --reward=-level"),
        (partial(log, header="stamp,level,level"), "two columns 'level'"),
        (partial(Path, "elsewhere.csv"), "there is no file elsewhere.csv"),
        (lambda: None, "none is named; name it, as in `cospan new depots --from csv FILE`"),
    )
    for made, words in cases:
        with pytest.raises((InvalidValueError, TableError), match=words):
            new_fleet("depots", source="csv", log=made())
    with pytest.raises(InvalidValueError, match=r"north\.csv is a log, and --from is simulator; say --from csv"):
        new_fleet("depots", log=log())
    assert [str(path) for path in Path().iterdir()] == ["north.csv"]


@pytest.mark.parametrize("source", ["simulator", "csv"])
def test_the_compose_file_is_as_strict_as_our_own_and_its_commands_exist(source: str) -> None:
    text = rendered("tanks", "tanks", source)["compose.yaml"]
    document = yaml.safe_load(text)
    ours = yaml.safe_load((Path(__file__).parents[4] / "docker-compose.yml").read_text(encoding="utf-8"))
    commands: Any = typer.main.get_command(app)
    for name, service in document["services"].items():
        for key in ("read_only", "cap_drop", "security_opt", "pids_limit", "ulimits", "tmpfs", "healthcheck"):
            assert service.get(key) == ours["services"][name].get(key), (name, key)
        command, *words = service["command"]
        known = {option for parameter in commands.commands[command].params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known
        read = "./tanks:/work/tanks:ro" if source == "simulator" else "./logs:/work/logs:ro"
        assert read in service["volumes"]
    variables = {part.partition(":")[0] for part in text.split("${")[1:]}
    assert unknown_variables(dict.fromkeys(variables, "")) == []
