"""Spans of rounds, as an exporter in memory receives them; and when they are made at all."""

import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from unit.server.runtime.test_engine import Fleet

from cospan.cli.processes.telemetry import wants_traces
from cospan.cli.settings.layers import Settings
from cospan.server.machine import events
from cospan.server.telemetry.tracing import RoundTracer


def traced(*agents: str) -> tuple[Fleet, RoundTracer, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    fleet = Fleet(*agents, rounds=0)
    return fleet, RoundTracer(fleet.engine, provider.get_tracer("tests")), exporter


def test_every_round_is_a_span_that_links_to_the_one_before() -> None:
    fleet, traces, exporter = traced("a", "b")
    for number in range(3):
        fleet.clock.now += 0.5
        fleet.send("a", number)
        if number == 1:
            traces.look()
        fleet.send("b", number)
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == ["cospan.round"] * 3
    assert [dict(span.attributes or {})["cospan.round"] for span in spans] == [0, 1, 2]
    assert [dict(span.attributes or {})["cospan.waited_for"] for span in spans] == [(), ("b",), ()]
    assert dict(spans[1].attributes or {})["cospan.contributors"] == 2
    assert [len(span.links) for span in spans] == [0, 1, 1]
    assert spans[2].links[0].context == spans[1].get_span_context()
    assert all((span.end_time or 0) - (span.start_time or 0) == 500_000_000 for span in spans)


def test_a_round_ended_when_it_closed_and_not_when_it_was_stored() -> None:
    """Several are stored together, and told one after another."""
    fleet, traces, exporter = traced("a", "b")
    told: list[events.ReportRound] = []
    fleet.engine.on_round[:] = [told.append]
    for number in range(2):
        fleet.send("a", number)
        traces.look()
        fleet.send("b", number)
    fleet.clock.now += 1000.0
    before = time.time_ns()
    for command in told:
        traces._on_round(command)
    spans = exporter.get_finished_spans()
    assert [dict(span.attributes or {})["cospan.waited_for"] for span in spans] == [("b",), ("b",)]
    assert all(-1001e9 < (span.end_time or 0) - before < -900e9 for span in spans)


def test_before_anybody_has_answered_nobody_is_singled_out() -> None:
    fleet, traces, exporter = traced("a", "b")
    traces.look()
    fleet.send("a", 0)
    fleet.send("b", 0)
    assert dict(exporter.get_finished_spans()[0].attributes or {})["cospan.waited_for"] == ()


@pytest.mark.parametrize(
    ("said", "environment", "wanted"),
    [
        (None, {}, False),
        (True, {}, True),
        (None, {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (None, {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, False),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, True),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318", "OTEL_SDK_DISABLED": "true"}, False),
        (False, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://h:4318"}, False),
    ],
)
def test_traces_are_off_unless_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, said: bool | None, environment: dict[str, str], wanted: bool
) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wants_traces(Settings(traces=said)) is wanted
