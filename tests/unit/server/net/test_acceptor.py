"""Accepting connections where no file is left."""

import asyncio
import errno
import socket
from typing import Any

import pytest

from cospan.server.net.acceptor import Acceptor


class NoFilesLeft(socket.socket):
    """A listening socket of a process that may open no further file."""

    tried = 0

    def accept(self) -> Any:
        self.tried += 1
        raise OSError(errno.EMFILE, "Too many open files")


def test_where_no_file_is_left_accepting_pauses_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async def tried() -> int:
        with NoFilesLeft() as listening:
            acceptor = Acceptor(listening, lambda _: asyncio.Protocol(), name="test", most=1, no_files_seconds=0.02)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await acceptor.accept()
        return listening.tried

    assert 2 <= asyncio.run(tried()) <= 11
    assert [one.getMessage() for one in caplog.records] == [
        "test: cannot accept connections: Too many open files; see ulimit -n"
    ]
