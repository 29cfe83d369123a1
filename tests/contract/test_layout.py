"""The layout that makes one distribution of several source roots: a namespace package and typed leaves."""

import ast
import fnmatch
import importlib
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE_MAY_IMPORT = {"numpy", "jaxtyping", "cospan.core"}
CORE_MAY_NOT_IMPORT = {
    "asyncio", "http", "io", "logging", "multiprocessing", "os", "pathlib", "pickle", "random", "selectors",
    "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time",
}  # fmt: skip
"""Of the standard library: what reads a clock or a file, talks to others, or has a global state."""


MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_MODULES, MOST_FIELDS = 450, 60, 12, 12
MOST_PARAMETERS, MOST_OF_A_CONSTRUCTOR = 8, 10
"""Without `self`; what a constructor takes beyond the first of them is given by name."""


def namespace_roots() -> list[Path]:
    """Every directory that makes up the package `cospan`: of the tree, and of what is installed."""
    roots = {Path(entry).resolve() for entry in importlib.import_module("cospan").__path__}
    settings = ROOT / "pyproject.toml"
    if settings.exists():
        build = tomllib.loads(settings.read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
        roots |= {(ROOT / name / "cospan").resolve() for name in build["dev-mode-dirs"]}
        roots |= {(ROOT / name).resolve() for name in build["targets"]["wheel"]["packages"]}
    return sorted(roots)


def leaf_packages() -> list[Path]:
    """The topmost directories with Python files below each root."""
    leaves = []
    for root in namespace_roots():
        with_code = sorted({file.parent for file in root.rglob("*.py")})
        leaves += [d for d in with_code if not any(other in d.parents for other in with_code)]
    return leaves


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            found.add(str(node.module))
    return found


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def core_files() -> list[Path]:
    return sorted(Path(importlib.import_module("cospan.core").__path__[0]).glob("**/*.py"))


@pytest.mark.parametrize("root", namespace_roots(), ids=lambda root: root.parent.name)
def test_cospan_is_a_namespace(root: Path) -> None:
    """An `__init__.py` in one root would hide all the others."""
    assert root.is_dir()
    assert not list(root.glob("__init__.py*"))


def test_cospan_itself_has_no_file() -> None:
    assert getattr(importlib.import_module("cospan"), "__file__", None) is None


@pytest.mark.parametrize("leaf", leaf_packages(), ids=lambda leaf: leaf.name)
def test_every_leaf_package_is_typed(leaf: Path) -> None:
    assert (leaf / "py.typed").is_file(), f"{leaf.name} needs its own py.typed (PEP 561)"


def test_the_leaves_are_those_of_the_design() -> None:
    assert {"core", "wire", "v1", "server", "client"} <= {leaf.name for leaf in leaf_packages()}


@pytest.mark.parametrize("path", core_files(), ids=lambda path: path.stem)
def test_core_imports_numpy_jaxtyping_and_the_standard_library(path: Path) -> None:
    foreign = {
        name
        for name in imported(path)
        if not within(name, CORE_MAY_IMPORT) and name.split(".")[0] not in sys.stdlib_module_names
    }
    assert not foreign
    assert not {name for name in imported(path) if within(name, CORE_MAY_NOT_IMPORT)}


def test_core_is_looked_at() -> None:
    """Lest the test above pass over an empty list."""
    assert {"td", "subspace", "basis_update", "learner"} <= {path.stem for path in core_files()}
    assert "numpy" in imported(next(path for path in core_files() if path.stem == "subspace"))


def test_coverage_is_checked_of_modules_that_exist() -> None:
    """A pattern that matches nothing that is measured would be left out of the bound without a word."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["coverage"]
    modules = [path for root in namespace_roots() for path in root.rglob("*.py")]
    measured = [ROOT / folder for folder in settings["run"]["source"]]
    for pattern in settings["report"]["include"]:
        held = [path for path in modules if fnmatch.fnmatch(str(path), pattern)]
        assert held, pattern
        assert all(any(path.is_relative_to(folder) for folder in measured) for path in held), pattern
    assert settings["report"]["fail_under"] >= 95


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "unit").rglob("test_*.py")), ids=lambda path: path.stem)
def test_unit_tests_are_at_the_path_of_their_module(path: Path) -> None:
    """Below `tests/unit`, as the module is below `cospan`; `lab`, and what tests the tests themselves, apart."""
    below = path.relative_to(ROOT / "tests" / "unit").with_name(path.name.removeprefix("test_"))
    places = [*namespace_roots(), ROOT / "tests"]
    assert any((root / part).is_file() for root in places for part in (below, below.relative_to(below.parts[0])))


def written() -> list[Path]:
    """The modules that people write."""
    files = (path for root in namespace_roots() for path in root.rglob("*.py"))
    return sorted(path for path in files if not path.stem.endswith(("_pb2", "_pb2_grpc")))


def is_command(path: Path) -> bool:
    """Whether its functions are commands, whose parameters are the options: help and all stand in the signature."""
    return path.stem.endswith("commands") and "cli" in path.parts


def too_large(path: Path, tree: ast.Module) -> list[str]:
    """The functions of a module that are too long, or take too much."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_command(path):
            continue
        lines = (node.end_lineno or 0) - node.lineno + 1
        names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        most = MOST_OF_A_CONSTRUCTOR if node.name == "__init__" else MOST_PARAMETERS
        if lines > MOST_LINES_OF_A_FUNCTION or len([name for name in names if name not in ("self", "cls")]) > most:
            found.append(f"{path.name}: {node.name} has {lines} lines and {len(names)} parameters")
    return found


def test_modules_and_functions_are_small() -> None:
    """docs/adr/0022-rooms-and-names.md."""
    found = []
    for path in written():
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > MOST_LINES:
            found.append(f"{path.name} has {lines} lines")
        found += too_large(path, ast.parse(text))
    assert not found


def test_packages_have_few_modules() -> None:
    modules: dict[Path, list[str]] = {}
    for path in written():
        if path.name != "__init__.py":
            modules.setdefault(path.parent, []).append(path.stem)
    assert not {str(folder): names for folder, names in modules.items() if len(names) > MOST_MODULES}
    assert len(modules) > 30, "the packages are looked at"


def test_states_of_the_machine_have_few_fields() -> None:
    machine = [path for path in written() if path.parts[-3:-1] == ("server", "machine")]
    classes = [
        (path.name, node.name, sum(isinstance(each, ast.AnnAssign) for each in node.body))
        for path in machine
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert not [each for each in classes if each[2] > MOST_FIELDS]
    assert max(fields for *_, fields in classes) > 4, "fields are counted"
