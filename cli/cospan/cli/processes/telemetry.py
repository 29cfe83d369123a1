"""Metrics for Prometheus and traces of the rounds of a coordinator or relay.

Both are extras, imported only on demand.
"""

import asyncio
import contextlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cospan.cli.settings.extras import require
from cospan.cli.settings.layers import Settings
from cospan.server.admission.interceptor import AdmissionInterceptor
from cospan.server.machine.state import CoordinatorState
from cospan.server.net.host_header import names_of
from cospan.server.runtime.agent_engine import AgentEngine
from cospan.server.runtime.engine import Engine
from cospan.server.telemetry.agent_stats import AgentStats
from cospan.server.telemetry.counters import Counters
from cospan.wire.address import parse_listening
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import RunPhase
from cospan.wire.security.tls import TlsFiles

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_LOOP_SECONDS = 2.0
"""An event loop that does not answer within this time is unhealthy."""
_FLUSH_SECONDS = 5.0
"""Longest time to send the last spans."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@dataclass(frozen=True, slots=True)
class MetricsPlan:
    """Where metrics are to be served.

    Attributes:
        host: the address.
        port: 0 for any that is free.
        tls: with which certificates; None for plain HTTP.
        names: what the Host of a request may be; None for any.
    """

    host: str
    port: int
    tls: TlsFiles | None
    names: frozenset[str] | None


def metrics_plan(settings: Settings, tls: TlsFiles | None) -> MetricsPlan | None:
    """What the settings ask for; None for no metrics. On the loopback they are served without certificates.

    There a page of another site could read them in a browser, by its own name that points here (DNS rebinding), so
    the Host is checked. Elsewhere it is checked only where `allowed_hosts` is set: the names of such an address are
    not known here.

    Raises:
        InvalidValueError: prometheus_client is missing; or other machines can reach the address, without TLS.
    """
    if settings.metrics is None:
        return None
    address = parse_listening(settings.metrics, "metrics")
    require("--metrics", ("prometheus_client",), "metrics")
    names = names_of(address.host, settings.further_hosts)
    if address.is_local:
        return MetricsPlan(address.host, address.port, None, names)
    if tls is None and not settings.insecure:
        raise InvalidValueError(
            f"metrics is {settings.metrics}, which other machines can reach, and there is no TLS; give --tls-cert, "
            "--tls-key and --tls-ca, a port alone, or --insecure if the network is trusted"
        )
    return MetricsPlan(address.host, address.port, tls, names if settings.further_hosts else None)


@contextlib.contextmanager
def serving_metrics(
    plan: MetricsPlan,
    engine: AgentEngine,
    door: AdmissionInterceptor,
    agent_stats: AgentStats,
    *,
    closes_rounds: bool = True,
) -> Iterator[str]:
    """Serves the metrics of an engine while it lasts; their URL. To be entered on the event loop of the engine.

    Raises:
        InvalidValueError: the address cannot be bound.
    """
    from cospan.server.telemetry.http import MetricsServer
    from cospan.server.telemetry.metrics import Subject, registry_of

    counts = Counters()
    counts.listen(engine)
    registry = registry_of(Subject(engine, door, counts, agent_stats, closes_rounds))
    health = Health(asyncio.get_running_loop(), lambda: engine.state)
    server = MetricsServer(registry, health, host=plan.host, port=plan.port, tls=plan.tls, names=plan.names)
    with server:
        yield server.address


class Health:
    """Says from any thread what is wrong with a coordinator; nothing where all is well."""

    def __init__(self, loop: asyncio.AbstractEventLoop, state: Callable[[], CoordinatorState]) -> None:
        self._loop, self._state = loop, state

    def __call__(self) -> str:
        answered = threading.Event()
        try:
            self._loop.call_soon_threadsafe(answered.set)
        except RuntimeError:
            return "the coordinator has ended"
        if not answered.wait(_LOOP_SECONDS):
            return f"the event loop has not answered for {_LOOP_SECONDS:g} s"
        phase = self._state().phase
        return f"the run is {phase.value}" if phase in (RunPhase.FINISHED, RunPhase.DRAINING) else ""


# Traces -----------------------------------------------------------------------------------------------------------


def wants_traces(settings: Settings) -> bool:
    """Whether to trace rounds, by `--traces` or the variables of OpenTelemetry.

    Raises:
        InvalidValueError: opentelemetry is missing.
    """
    said = settings.traces
    if said is None:
        exporter = os.environ.get("OTEL_TRACES_EXPORTER", "")
        asked = exporter not in ("", "none") or (not exporter and any(map(os.environ.get, _ENDPOINTS)))
        said = asked and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true"
    needed = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
    if said and not all(map(_is_installed, needed)):
        raise InvalidValueError("traces need opentelemetry; pip install '.[otel]'")
    return said


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of one of the packages above it
        return False


@contextlib.contextmanager
def tracing(engine: Engine) -> Iterator[None]:
    """Traces the rounds of an engine while it lasts, to where the variables of OpenTelemetry say."""
    from cospan.server.telemetry.tracing import RoundTracer

    provider = _provider()
    traces = RoundTracer(engine, provider.get_tracer("cospan"))
    looking = asyncio.get_running_loop().create_task(traces.keep_looking())
    try:
        yield
    finally:
        looking.cancel()
        # A collector that does not answer must not hold up the end of a run.
        flushing = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
        flushing.start()
        flushing.join(_FLUSH_SECONDS)


def _provider() -> "TracerProvider":
    """The provider that sends spans away: by OTLP over HTTP, or to standard error.

    Raises:
        InvalidValueError: another exporter is asked for.
    """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

    exporter: SpanExporter
    match os.environ.get("OTEL_TRACES_EXPORTER") or "otlp":
        case "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
        case "console":
            import sys

            from opentelemetry.sdk.trace.export import ConsoleSpanExporter

            exporter = ConsoleSpanExporter(out=sys.stderr)
        case other:
            raise InvalidValueError(f"OTEL_TRACES_EXPORTER is {other!r}; it must be otlp, console or none")
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "cospan-coordinator"}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
