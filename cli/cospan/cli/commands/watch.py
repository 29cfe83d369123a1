"""`cospan watch`: shows a run until it is over, also across restarts of its coordinator."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cospan.cli.output.watch_view import Sight, WatchView, choose_watch_view
from cospan.cli.processes.admin_client import fetch_run, watch_rounds
from cospan.cli.processes.this_process import JsonLines, claim_stdout
from cospan.cli.settings.layers import Settings, load_settings
from cospan.wire.errors import AdminRequiredError, CertificateError, CospanError, UsageError
from cospan.wire.messages import RunPhase, RunReport

_MOST_MOVEMENTS = 500
_ROUND_BYTES = 4 * 2**20
"""Bound of a round report, which names departed and missing agents and outliers."""
_LAST_LOOK_SECONDS = 1.0
_LASTING = (UsageError, CertificateError, AdminRequiredError)
"""Errors after which asking again is useless."""


def watch_here(flags: Mapping[str, Any], config: Path | None, *, every: float, json: bool) -> int:
    """Watches a run until it is over, or Ctrl-C; the exit code.

    Raises:
        CospanError: the coordinator refuses, or has not answered for `progress_timeout_seconds` seconds.
    """
    settings = load_settings(flags, config)
    view = choose_watch_view(JsonLines(claim_stdout()) if json else None)
    watch = Watch(settings, view, every)
    try:
        asyncio.run(watch.run())
    except KeyboardInterrupt:  # the usual end of a watch
        pass
    finally:
        view.close(watch.sight())
    return 0


class Watch:
    """Polls the run status and follows the rounds."""

    def __init__(self, settings: Settings, view: WatchView, every: float) -> None:
        self._address, self._tls = settings.coordinator, settings.tls
        self._timeout_seconds = settings.progress_timeout_seconds
        self._view, self._every = view, every
        self._report: RunReport | None = None
        self._movements: deque[float] = deque(maxlen=_MOST_MOVEMENTS)
        self._answered = time.monotonic()
        self._problem = ""
        self._ended_after: int | None = None

    def sight(self) -> Sight:
        """The current view of the run."""
        movements = tuple(self._movements)
        if self._problem and self._ended_after is None:
            silent, problem = time.monotonic() - self._answered, self._problem
        else:  # the coordinator of a finished run has ended
            silent, problem = 0.0, ""
        return Sight(self._address, self._report, time.time(), movements, silent, problem, self._ended_after)

    async def run(self) -> None:
        """Shows the run until it is over.

        Raises:
            CospanError: the coordinator refuses, or has not answered for too long.
        """
        following = asyncio.create_task(self._follow())
        try:
            while True:
                await self._probe()
                if self._ended_after is not None:
                    return
                self._view.show(self.sight())
                await asyncio.sleep(self._every)
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following

    async def _probe(self) -> None:
        try:
            self._report = await fetch_run(self._address, self._tls)
        except CospanError as failure:
            self._problem = str(failure)
            waited = time.monotonic() - self._answered
            if self._ended_after is None and (isinstance(failure, _LASTING) or waited >= self._timeout_seconds):
                raise
        else:
            self._answered, self._problem = time.monotonic(), ""
            if self._report.phase is RunPhase.FINISHED:
                self._ended_after = self._report.stamp.round

    async def _follow(self) -> None:
        """Follows the rounds as they close; starts again after an error."""
        while self._ended_after is None:
            with contextlib.suppress(CospanError):  # `_probe` reports errors
                await self._follow_once()
            await asyncio.sleep(self._every)

    async def _follow_once(self) -> None:
        report = self._report
        if report is None:
            return
        rounds = watch_rounds(
            self._address,
            from_round=max(0, report.stamp.round - 1),
            include_basis=False,
            message_bytes=_ROUND_BYTES,
            tls=self._tls,
        )
        done = report.stamp.round
        async for closed in rounds:
            self._movements.append(closed.basis_movement)
            done = closed.closed_round + 1
        # Without an error the run is over.
        await self._last_look()
        self._ended_after = max(done, self._report.stamp.round if self._report is not None else 0)

    async def _last_look(self) -> None:
        """The final status, if the coordinator still answers."""
        with contextlib.suppress(CospanError, TimeoutError):
            async with asyncio.timeout(_LAST_LOOK_SECONDS):
                self._report = await fetch_run(self._address, self._tls)
