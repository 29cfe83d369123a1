"""The last exit of a process that does not end."""

import threading
from collections.abc import Callable

import pytest


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
