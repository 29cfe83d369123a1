"""A span for every round, for OpenTelemetry: how long it took, who was in it, whom it waited for.

Needs opentelemetry (`cospan[otel]`). Rounds are short and many: each is a trace of its own that links to the one
before, and a collector may sample them as it likes.
"""

import asyncio
import heapq
import time
from collections.abc import Mapping

from opentelemetry.trace import Link, SpanContext, Tracer

from cospan.server.machine.events import ReportRound
from cospan.server.runtime.engine import Engine

LOOK_SECONDS = 0.05
"""So often it is looked whom the open round waits for."""
_MOST_NAMED = 20


class RoundTracer:
    """Makes the spans of one engine's rounds."""

    def __init__(self, engine: Engine, tracer: Tracer) -> None:
        """Listens to the engine from now on."""
        self._engine, self._tracer = engine, tracer
        self._before: SpanContext | None = None
        self._awaited: dict[int, tuple[str, ...]] = {}
        """By the rounds that nobody has been told of yet: they may be stored a few rounds later."""
        engine.on_round.append(self._on_round)

    async def keep_looking(self) -> None:
        """Looks whom the open round waits for, until it is cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Remembers whom the open round waits for now; of agents that come together, the first."""
        state = self._engine.state
        current = state.open_round
        if (
            current.counted and current.awaited
        ):  # before the first gradient every agent is awaited, which says nothing
            named = heapq.nsmallest(_MOST_NAMED, (block[0] for block in current.awaited.blocks))
            self._awaited[state.round] = tuple(named)

    def _on_round(self, command: ReportRound) -> None:
        report, state = command.report, self._engine.state
        awaited = self._awaited.pop(report.closed_round, ())
        attributes: Mapping[str, str | bool | int | float | tuple[str, ...]] = {
            "cospan.run_id": report.stamp.run_id,
            "cospan.incarnation": report.stamp.incarnation,
            "cospan.workload": state.specification.workload,
            "cospan.round": report.closed_round,
            "cospan.contributors": report.contributors,
            "cospan.waited_for": awaited,
            "cospan.absent": report.absent_agent_ids[:_MOST_NAMED],
            "cospan.outliers": report.outlier_agent_ids[:_MOST_NAMED],
            "cospan.departed": report.departed_agent_ids[:_MOST_NAMED],
            "cospan.basis_movement": report.basis_movement,
        }
        end = time.time_ns() - round((self._engine.now() - command.closed) * 1e9)  # it was stored meanwhile
        span = self._tracer.start_span(
            "cospan.round",
            attributes=attributes,
            links=[Link(self._before)] if self._before is not None else [],
            start_time=end - round(report.seconds * 1e9),
        )
        span.end(end)
        self._before = span.get_span_context()
