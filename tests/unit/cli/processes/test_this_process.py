"""Garbage collection after a start, and the last exit of a process that does not end."""

import gc
import importlib
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from cospan.cli import main


@pytest.mark.parametrize(
    ("command", "begins"),
    [("run", "run_here"), ("coordinator", "serve_here"), ("agent", "take_part"), ("relay", "relay_here")],
)
def test_collect_from_now_on_is_called_where_nothing_was_collected_while_modules_were_imported(
    command: str, begins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BegunError(Exception):
        pass

    def stop() -> NoReturn:
        raise BegunError

    arguments: dict[str, Any] = {"json": False} if command == "relay" else {}
    module = importlib.import_module(f"cospan.cli.commands.{command}")
    monkeypatch.setattr(module, "log_errors_to_stderr", stop)
    chosen = () if command == "relay" else (None,)
    monkeypatch.setattr(main, "_run", lambda _: getattr(module, begins)(*chosen, {}, None, **arguments))
    monkeypatch.setattr(main, "open_standard_streams", lambda: None)
    monkeypatch.setattr(main, "drop_unwritable", lambda: None)
    monkeypatch.setattr("sys.argv", ["cospan", command])
    held: list[bool] = []
    monkeypatch.setattr(main, "prepare_environment", lambda _: held.append(gc.isenabled()))
    try:
        with pytest.raises(BegunError):
            main.main()
        assert held == [False]
        assert gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


def test_a_process_that_ends_by_itself_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from cospan.cli.processes import this_process

    left = threading.Event()
    never: Callable[..., None] = lambda *_: left.set()  # noqa: E731
    monkeypatch.setattr(this_process.LastExit, "_leave", never)
    last = this_process.LastExit()
    last.due(30.0, 1)
    last.due(30.0, 1)
    last.over()
    assert not left.is_set()
