"""The rounds that have closed, for onlookers: bounded in memory, and never waiting for a slow one."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

from cospan.wire.messages import RoundReport

_MOST_ROUNDS = 2_000
_MOST_BASIS_BYTES = 64 * 2**20


class RecentRounds:
    """A ring of round reports; what is older is in the store.

    The newest hold their basis, within 64 MiB in all; older ones only their numbers.
    """

    def __init__(
        self, first_round: int = 0, most_rounds: int = _MOST_ROUNDS, most_basis_bytes: int = _MOST_BASIS_BYTES
    ) -> None:
        self._most_rounds = most_rounds
        self._reports: deque[RoundReport] = deque()
        self._bytes_left = most_basis_bytes
        self._oldest_with_basis = first_round
        self._closed = False
        self._changed: asyncio.Event | None = None
        """What onlookers wait for; None without any."""

    @property
    def first_round(self) -> int:
        """The oldest round that is remembered; 0 where none is."""
        return self._reports[0].closed_round if self._reports else 0

    def recent(self, count: int) -> list[RoundReport]:
        """The newest reports, at most `count`, oldest first. From another thread it may skip or repeat one."""
        # From the end: there are never fewer than before, while those at the beginning go.
        return [self._reports[index] for index in range(-min(count, len(self._reports)), 0)]

    def append(self, report: RoundReport) -> None:
        """Adds a report and wakes the onlookers."""
        self._reports.append(report)
        if len(self._reports) > self._most_rounds:
            self._bytes_left += _basis_bytes(self._reports.popleft())
        self._bytes_left -= _basis_bytes(report)
        while self._bytes_left < 0:
            self._drop_basis(self._oldest_with_basis - self.first_round)
            self._oldest_with_basis += 1
        self._wake()

    def _drop_basis(self, index: int) -> None:
        """Forgets the basis of the report at `index`; a negative index is of a report that is gone itself."""
        if index >= 0:
            self._bytes_left += _basis_bytes(self._reports[index])
            self._reports[index] = replace(self._reports[index], basis=None)

    def close(self) -> None:
        """No round follows; onlookers end when they have seen all."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def follow(self, from_round: int) -> AsyncIterator[RoundReport]:
        """Every report from `from_round` on, those to come included; rounds no longer remembered are left out."""
        wanted = from_round
        while True:
            while self._reports and wanted <= self._reports[-1].closed_round:
                wanted = max(wanted, self.first_round)
                report = self._reports[wanted - self.first_round]
                wanted += 1
                yield report
            if self._closed:
                return
            self._changed = self._changed or asyncio.Event()
            await self._changed.wait()


def _basis_bytes(report: RoundReport) -> int:
    return 0 if report.basis is None else report.basis.nbytes
