"""An OpenTelemetry span for every round: its duration, its contributors, and the agents it waited for.

Needs opentelemetry (the extra `otel`). Each round is a trace of its own that links to the one before, so that a
collector can sample rounds.
"""

import asyncio
import heapq
import time
from collections.abc import Mapping

from opentelemetry.trace import Link, SpanContext, Tracer

from cospan.server.machine.events import ReportRound
from cospan.server.runtime.engine import Engine

LOOK_SECONDS = 0.05
"""Interval at which the awaited agents are sampled."""
_MOST_NAMED = 20


class RoundTracer:
    """Creates the spans of one engine's rounds."""

    def __init__(self, engine: Engine, tracer: Tracer) -> None:
        self._engine, self._tracer = engine, tracer
        self._before: SpanContext | None = None
        self._awaited: dict[int, tuple[str, ...]] = {}
        """Round → agents it waited for; rounds are reported once stored, which may be a few rounds later."""
        engine.on_round.append(self._on_round)

    async def keep_looking(self) -> None:
        """Samples the awaited agents of the open round until it is cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Records the agents that the open round waits for now; a group by its first name."""
        state = self._engine.state
        current = state.open_round
        if current.counted and current.awaited:  # before the first gradient every agent is awaited
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
        end = time.time_ns() - round((self._engine.now() - command.closed) * 1e9)  # storing it took time
        span = self._tracer.start_span(
            "cospan.round",
            attributes=attributes,
            links=[Link(self._before)] if self._before is not None else [],
            start_time=end - round(report.seconds * 1e9),
        )
        span.end(end)
        self._before = span.get_span_context()
