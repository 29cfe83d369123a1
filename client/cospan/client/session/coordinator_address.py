"""Where the coordinator is: at a fixed address, or at one that a file or a function gives, which may change.

Engines such as Slurm and Ray start a coordinator again on another machine; who wrote its address down writes the
new one, and each connection asks for it.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from cospan.wire.address import Address, parse_address, parse_source
from cospan.wire.errors import CoordinatorUnavailableError, InvalidValueError
from cospan.wire.files.safe_files import read_text

AddressSource: TypeAlias = str | Callable[[], str]
"""HOST:PORT, [IPV6]:PORT, unix:PATH, @FILE, or a function that returns one of the first three."""

_FILE_BYTES = 4096
_ANSWER_SECONDS = 10.0


class CoordinatorAddress:
    """Where the coordinator is, now."""

    def __init__(self, source: AddressSource) -> None:
        """Asks nothing yet.

        Args:
            source: an address, a file that holds one on its first line, or a function, which is called in a thread
                and has 10 s to answer.

        Raises:
            InvalidValueError: it is none of these.
        """
        self.fixed: Address | None = None
        """The address, if it is always the same."""
        self._ask: Callable[[], str]
        if callable(source):
            self._ask, self._named = source, "the function that names the coordinator"
            return
        found = parse_source(source, "coordinator")
        if isinstance(found, Path):
            self._ask, self._named = lambda: _first_line(found), f"the file {found}, which names the coordinator,"
        else:
            self.fixed = found

    async def now(self) -> str:
        """The address to connect to; that of a file or a function is asked for again.

        Raises:
            CoordinatorUnavailableError: there is none yet, as while the coordinator is being moved; ask later.
        """
        if self.fixed is not None:
            return str(self.fixed)
        try:
            answer = await asyncio.wait_for(asyncio.to_thread(self._answer), _ANSWER_SECONDS)
        except TimeoutError as failure:
            late = f"{self._named} did not answer for {_ANSWER_SECONDS:g} s"
            raise CoordinatorUnavailableError(late) from failure
        if isinstance(answer, Exception):
            raise CoordinatorUnavailableError(f"{self._named} {_why(answer)}") from answer
        return answer

    def _answer(self) -> str | Exception:
        """The address, or why there is none; returned, for a future takes no StopIteration."""
        try:
            return str(parse_address(self._ask(), "its address"))
        except Exception as failure:  # a function may fail in any way
            return failure


def _why(failure: Exception) -> str:
    if isinstance(failure, InvalidValueError):
        return f"has no address: {failure}"
    if isinstance(failure, OSError):
        return f"cannot be read: {failure.strerror or failure}; is the coordinator started?"
    return f"failed: {type(failure).__name__}: {failure}"


def _first_line(path: Path) -> str:
    """The first line of a file, without blanks around it; empty of an empty file."""
    return next(iter(read_text(path, _FILE_BYTES).splitlines()), "").strip()
