"""Finding a workload by its name, and making its sites."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import RINGS, ring_site

from cospan.client.environment.import_path import python_module, spawned, spawning_safely
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.workload import Site, Workload
from cospan.client.workloads import BUILT_IN
from cospan.wire.errors import WorkloadBehaviourError, WorkloadError

SOURCE = """
from runs import RINGS, ring_site
number = 7
class Sites:
    pass
broken_later = lambda index, seed: 1 / 0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with user modules in it; what is imported from there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    (tmp_path / "own_fleet.py").write_text(SOURCE)
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "fleet.py").write_text(SOURCE)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def test_a_workload_of_the_current_folder(folder: Path) -> None:
    assert load_workload("own_fleet:RINGS") is RINGS
    assert load_workload("own_package.fleet:RINGS") is RINGS


def test_the_working_folder_is_searched_last(folder: Path) -> None:
    """A file there must not stand in for a library, neither when it is loaded nor later."""
    load_workload("own_fleet:RINGS")
    assert sys.path[-1] == str(folder)
    (folder / "wave.py").write_text(SOURCE)  # the name of a module of Python's own
    with pytest.raises(WorkloadError, match=r"module 'wave' has no attribute 'RINGS'.*comes before .*wave\.py;"):
        load_workload("wave:RINGS")


def test_a_built_in_workload_is_not_looked_for_in_the_working_folder(folder: Path) -> None:
    before = list(sys.path)
    load_workload("queues")
    assert sys.path == before


def test_a_working_folder_that_was_deleted(folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert load_workload("queues").name == "queues"
    with pytest.raises(WorkloadError, match=r"the working folder cannot be read .*; change to a folder"):
        load_workload("own_fleet:RINGS")


def test_children_have_the_import_path_of_their_parent(folder: Path) -> None:
    command = python_module("this", "--flag")
    assert command == [sys.executable, "-P", "-m", "this", "--flag"]


def test_spawned_processes_begin_with_the_safe_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what a workload starts in one of them does not."""
    for before in (None, "yes"):
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        if before is not None:
            monkeypatch.setenv("PYTHONSAFEPATH", before)
        with spawning_safely():
            assert os.environ["PYTHONSAFEPATH"] == "1"
        assert os.environ.get("PYTHONSAFEPATH") == before
        with spawning_safely():
            spawned()
            assert "PYTHONSAFEPATH" not in os.environ
            os.environ["PYTHONSAFEPATH"] = "1"


def test_a_function_is_made_a_workload(folder: Path) -> None:
    workload = load_workload("own_fleet:ring_site")
    assert (workload.name, workload.make_site, workload.max_agents) == ("own_fleet:ring_site", ring_site, None)
    assert isinstance(make_site(workload, 3, 1), Site)


def test_a_built_in_workload() -> None:
    assert BUILT_IN["queues"] == "cospan.client.workloads.queues:workload"
    assert load_workload("queues").name == "queues"


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("quees", "there is no workload 'quees'; take one of .*queues.*package.module:name"),
        ("own_fleet", "there is no workload 'own_fleet'"),
        (":RINGS", "there is no workload ':RINGS'"),
        ("own_fleet:", "there is no workload 'own_fleet:'"),
        ("", "there is no workload ''"),
        ("no_such_module:RINGS", "there is no module 'no_such_module' for workload 'no_such_module:RINGS'"),
        ("own_package.none:RINGS", "there is no module 'own_package.none'"),
        ("no_such_package.fleet:RINGS", "there is no module 'no_such_package'"),
        ("own_fleet:none", "module 'own_fleet' has no attribute 'none'"),
        ("own_fleet:number", "'own_fleet:number' is a int; it must be a cospan.client.workload.Workload"),
        ("own_fleet:Sites", "'own_fleet:Sites' is a type"),
        ("..own_fleet:RINGS", "cannot be imported"),
    ],
)
def test_a_name_that_names_no_workload(folder: Path, reference: str, text: str) -> None:
    with pytest.raises(WorkloadError, match=text):
        load_workload(reference)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("x = 1 / 0", "workload 'own_broken:x' cannot be imported: ZeroDivisionError: division by zero"),
        ("x = (", "workload 'own_broken:x' cannot be imported: SyntaxError"),
        ("import sys; sys.exit(0)", "workload 'own_broken:x' cannot be imported: SystemExit: 0"),
        ("import os; os._exit(0)", r"cannot be imported: SystemExit: module 'own_broken' calls os._exit\(0\)"),
        (
            "class Panic(BaseException): ...\nraise Panic('no')",
            "workload 'own_broken:x' cannot be imported: Panic: no",
        ),
        (
            "def __getattr__(name): raise Exception(name)",
            "workload 'own_broken:x' cannot be looked up: Exception: x",
        ),
    ],
)
def test_a_module_that_does_not_import(folder: Path, source: str, text: str) -> None:
    """Whatever it does: it would end a command in silence and with exit code 0 otherwise."""
    (folder / "own_broken.py").write_text(source)
    with pytest.raises(WorkloadBehaviourError, match=text) as failure:
        load_workload("own_broken:x")
    assert failure.value.exit_code == 1
    assert os._exit.__name__ == "_exit"


def test_a_module_that_imports_what_is_not_there(folder: Path) -> None:
    (folder / "own_broken.py").write_text("import no_such_library")
    with pytest.raises(WorkloadError, match="'own_broken:x' imports 'no_such_library', which is not installed"):
        load_workload("own_broken:x")


def test_an_interrupt_while_a_module_is_imported_is_an_interrupt(folder: Path) -> None:
    (folder / "own_broken.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_workload("own_broken:x")


@pytest.mark.parametrize(
    ("index", "most", "text"),
    [
        (-1, None, "workload 'w' has no site -1; take 0 or more"),
        (25, 25, "workload 'w' has no site 25; take 0 to 24"),
    ],
)
def test_a_site_that_is_not_there(index: int, most: int | None, text: str) -> None:
    with pytest.raises(WorkloadError, match=text):
        make_site(Workload(make_site=ring_site, name="w", max_agents=most), index, 1)


def raising(error: Exception) -> Callable[[int, int], Site]:
    def make(_index: int, _seed: int) -> Site:
        raise error

    return make


def test_a_workload_may_say_that_there_is_no_such_site() -> None:
    with pytest.raises(WorkloadError, match="has no site 3: only three queues"):
        make_site(Workload(make_site=raising(ValueError("only three queues")), name="w"), 3, 1)


def test_a_workload_whose_code_fails() -> None:
    with pytest.raises(WorkloadBehaviourError, match="'w' failed to make site 3: KeyError: 'load'"):
        make_site(Workload(make_site=raising(KeyError("load")), name="w"), 3, 1)


def test_a_workload_that_makes_something_else() -> None:
    wrong: Any = lambda index, seed: (index, seed)  # noqa: E731
    with pytest.raises(WorkloadBehaviourError, match="made a tuple for site 0; it must make a Site"):
        make_site(Workload(make_site=wrong, name="w"), 0, 1)


def test_the_last_site_is_there() -> None:
    assert make_site(Workload(make_site=ring_site, name="w", max_agents=25), 24, 1).features.dim == 4
