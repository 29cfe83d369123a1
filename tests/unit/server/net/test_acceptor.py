"""Accepting connections where no file is left."""

import asyncio
import errno
import socket
from typing import Any

import pytest

from cospan.server.net import acceptor as accepting
from cospan.server.net.acceptor import Acceptor


class NoFilesLeft(socket.socket):
    """A listening socket of a process that may open no further file."""

    tried = 0

    def accept(self) -> Any:
        self.tried += 1
        raise OSError(errno.EMFILE, "Too many open files")


def test_where_no_file_is_left_accepting_pauses_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "_NO_FILES_SECONDS", 0.02)

    async def tried() -> int:
        with NoFilesLeft() as listening, pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await Acceptor(listening, lambda _: asyncio.Protocol(), name="test", most=1).accept()
        return listening.tried

    assert 2 <= asyncio.run(tried()) <= 11
    assert [one.getMessage() for one in caplog.records] == [
        "test: no connection can be accepted: Too many open files; see ulimit -n"
    ]
