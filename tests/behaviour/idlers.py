"""Connections that are no good: silent, slow, or speaking something else; and what a process spends on them."""

import asyncio
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
SAYINGS = {
    "nothing": b"",
    "half an HTTP/2 preface": PREFACE[:11],
    "a preface without settings": PREFACE,
    "HTTP/2 and no call": PREFACE + SETTINGS,
    "HTTP/1": b"GET / HTTP/1.1\r\nHost: fleet\r\n\r\n",
    "TLS": bytes.fromhex("16030100c6010000c20303") + bytes(32),
    "noise": bytes(range(255, 191, -1)),
    "a huge frame": PREFACE + SETTINGS + bytes((255, 255, 255, 0, 0, 0, 0, 0, 1)),
}


class Idlers:
    """Many TCP connections to one address, each of which says one thing and then waits."""

    def __init__(self, address: str, count: int, saying: bytes) -> None:
        host, _, port = address.rpartition(":")
        self._target, self._count, self._saying = (host, int(port)), count, saying
        self._sockets: list[socket.socket] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            connection = socket.socket()
            connection.setblocking(False)
            self._sockets.append(connection)
            await loop.sock_connect(connection, self._target)
            if self._saying:
                await loop.sock_sendall(connection, self._saying)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._sockets:
            connection.close()

    async def all_closed(self) -> None:
        """Waits until the other side has ended every one of them."""
        loop = asyncio.get_running_loop()
        for connection in self._sockets:
            try:
                while await loop.sock_recv(connection, 4096):
                    pass
            except ConnectionError:
                pass


def resident_bytes(pid: int) -> int:
    """How much memory a process has in use."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    """How many files and connections a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def processor_seconds(pid: int) -> float:
    """How much processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
