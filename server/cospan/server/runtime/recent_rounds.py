"""The reports of recent rounds for observers; bounded in memory, and independent of slow observers."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

from cospan.wire.messages import RoundReport

_MOST_ROUNDS = 2_000
_MOST_BASIS_BYTES = 64 * 2**20


class RecentRounds:
    """A ring of round reports; the store has the older ones.

    The newest hold their bases, at most 64 MiB together.
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
        """Observers wait for it; None without observers."""

    @property
    def first_round(self) -> int:
        """The oldest round in the ring; 0 if it is empty."""
        return self._reports[0].closed_round if self._reports else 0

    def recent(self, count: int) -> list[RoundReport]:
        """The newest reports, at most `count`, oldest first. From another thread it may skip or repeat one."""
        # Indices from the end stay valid while another thread appends and removes the oldest.
        return [self._reports[index] for index in range(-min(count, len(self._reports)), 0)]

    def append(self, report: RoundReport) -> None:
        """Adds a report and wakes the observers."""
        self._reports.append(report)
        if len(self._reports) > self._most_rounds:
            self._bytes_left += _basis_bytes(self._reports.popleft())
        self._bytes_left -= _basis_bytes(report)
        while self._bytes_left < 0:
            self._drop_basis(self._oldest_with_basis - self.first_round)
            self._oldest_with_basis += 1
        self._wake()

    def _drop_basis(self, index: int) -> None:
        """Drops the basis of the report at `index`; a negative index is of a report that was removed."""
        if index >= 0:
            self._bytes_left += _basis_bytes(self._reports[index])
            self._reports[index] = replace(self._reports[index], basis=None)

    def close(self) -> None:
        """No round follows; `follow` ends after the last one."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def follow(self, from_round: int) -> AsyncIterator[RoundReport]:
        """Every report from `from_round` on, also of future rounds; skips rounds that the ring has lost."""
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
