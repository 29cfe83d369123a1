"""What `cospan.client` and its like promise by name: it is there, and costs nothing before it is asked for."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from runs import SECONDS

PACKAGES = ("cospan.client", "cospan.simulation", "cospan.server")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_is_there(name: str) -> None:
    package = importlib.import_module(name)
    assert sorted(package._HOMES) == sorted(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for public in package.__all__:
        found = getattr(package, public)
        assert found.__module__ == package._HOMES[public], "it is named where it is defined"
        assert str(found.__doc__).strip()
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'Agnet'"):
        package.Agnet  # noqa: B018


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    program = f"import sys, {', '.join(PACKAGES)}; print(*(name for name in sys.modules))"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    loaded = set(said.stdout.split())
    assert not loaded & {"grpc", "numpy", "gymnasium", "asyncio", "cospan.core.method"}


def test_an_agent_imports_nothing_of_what_a_coordinator_stores_and_decides() -> None:
    """Thousands of agents start on one machine, and each start is CPU time."""
    program = "import sys, cospan.cli.commands.agent; print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    loaded = set(said.stdout.split())
    assert "cospan.client.agent" in loaded
    assert not loaded & {"cospan.server.machine", "cospan.server.storage.reader", "sqlite3"}


def test_the_command_line_of_an_agent_of_a_run_is_read_without_pydantic(tmp_path: Path) -> None:
    """Its parent has checked it; typer would make a model for every option, given or not."""
    said = ["agent", "queues", "--id", "site-0", "--index", "0", "--coordinator", "127.0.0.1:1", "--follow-stdin"]
    said += ["--json", "--progress-timeout-seconds", "0", "--checkpoint-seconds", "5", "--share-td-error"]
    said += ["--min-steps-per-round", "1", "--output", str(tmp_path / "site-0.npz")]
    program = f"import sys; from cospan.cli.main import main\ntry: main({said})\nfinally: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    loaded = set((done.stdout + done.stderr).split())  # standard output is for data alone
    assert "cospan.client.agent" in loaded
    assert "pydantic" not in loaded
