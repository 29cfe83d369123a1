"""Which engine a command line names, and what is refused."""

from pathlib import Path

import pytest

from cospan.cli.engines.choice import ENGINES, Engine, engine_of, with_groups
from cospan.cli.engines.ray_nodes import _check_address, _last_line, _own_folder
from cospan.cli.interface import completion
from cospan.wire.errors import InvalidValueError


def test_the_engines_that_are_completed_are_those_that_there_are() -> None:
    assert completion.ENGINES == ENGINES


def test_an_engine_and_its_cluster() -> None:
    assert engine_of(None, None, in_process=False, resuming=False) is None
    assert engine_of("ray", "n1:6379", in_process=False, resuming=False) == Engine("ray", "n1:6379")
    assert engine_of(None, "n2:6379", in_process=False, resuming=True) == Engine("ray", "n2:6379")
    assert engine_of("local", None, in_process=True, resuming=False) == Engine()


@pytest.mark.parametrize(
    ("name", "address", "in_process", "said"),
    [
        ("slurm", None, False, "cospan deploy"),
        (None, "n1:6379", False, "--engine ray"),
        ("local", "n1:6379", False, "leave out one"),
        ("ray", None, True, "mutually exclusive"),
    ],
)
def test_what_is_refused(name: str | None, address: str | None, in_process: bool, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        engine_of(name, address, in_process=in_process, resuming=False)


def test_groups_are_processes() -> None:
    assert with_groups({"agents": 4}, 2) == {"agents": 4, "processes": 2}
    assert with_groups({"processes": 2}, None) == {"processes": 2}
    with pytest.raises(InvalidValueError, match="the same"):
        with_groups({"processes": 2}, 2)


@pytest.mark.parametrize("address", ["ray://n1:10001", "n1", "n1:0", "n1:99999", ":6379"])
def test_addresses_that_no_node_has(address: str) -> None:
    with pytest.raises(InvalidValueError, match="--address"):
        _check_address(address)


def test_the_working_folder_is_sent_if_it_has_the_workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _own_folder("queues") is None
    assert _own_folder("mine.sites:workload") is None
    (tmp_path / "mine").mkdir()
    assert _own_folder("mine.sites:workload") == tmp_path


def test_of_a_traceback_the_last_line_is_said() -> None:
    assert _last_line(ValueError("Traceback\n  File x\nModuleNotFoundError: no cospan\n")) == (
        "ModuleNotFoundError: no cospan"
    )
    assert _last_line(ValueError()) == "ValueError"
