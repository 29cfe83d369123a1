"""`--dashboard`: checks where it may be served, and serves it."""

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cospan.cli.run_folder.progress_log import AgentProgress, RunMonitor
from cospan.cli.settings.extras import require
from cospan.cli.settings.layers import Settings
from cospan.server.coordinator import Coordinator
from cospan.server.net.host_header import names_of
from cospan.wire.address import parse_listening
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import RoundReport
from cospan.wire.security.tls import TlsFiles, certificate_facts

if TYPE_CHECKING:
    from cospan.dashboard.run_view import RunView, Truth

_OF_PROGRESS = {
    **{name: name for name in ("label", "value_error", "gain", "mean_reward", "shared_weight", "held_share")},
    "learning_seconds": "learning_seconds",
    "lstd_alone": "lstd_alone_error",
    "td_alone": "td_alone_error",
    "half_width": "mean_reward_half_width",
}
"""Attribute of `Learnt` → that of `AgentProgress`."""


@dataclass(frozen=True, slots=True)
class DashboardPlan:
    """Address and access of a dashboard.

    Attributes:
        host: the address.
        port: 0 for a free one.
        tls: the coordinator's certificate; None without TLS.
        token: that a browser must present, or None.
        hosts: accepted names in the Host header.
        root: path under which a reverse proxy serves it, or empty.
    """

    host: str
    port: int
    tls: TlsFiles | None
    token: str | None
    hosts: frozenset[str]
    root: str = ""


def plan_dashboard(settings: Settings, tls: TlsFiles | None) -> DashboardPlan | None:
    """The dashboard that is asked for; None for none.

    Raises:
        InvalidValueError: it cannot be served, or not safely.
    """
    if settings.dashboard is None:
        for name in ("dashboard_token_file", "dashboard_root_path"):
            if getattr(settings, name) is not None:
                flag = f"--{name.replace('_', '-')}"
                raise InvalidValueError(f"{flag} needs --dashboard HOST:PORT; give both or neither")
        return None
    require("--dashboard", ("starlette", "uvicorn"), "dashboard")
    from cospan.dashboard.auth import read_token

    address = parse_listening(settings.dashboard, "dashboard")
    host, port = address.host, address.port
    token = None if settings.dashboard_token_file is None else read_token(Path(settings.dashboard_token_file))
    if not address.is_local:
        _check_safe(settings.dashboard, tls, token)
    certified = () if tls is None else certificate_facts(tls).hosts
    hosts = names_of(host, (*certified, *settings.further_hosts))
    return DashboardPlan(host, port, tls, token, hosts, settings.dashboard_root_path or "")


def _check_safe(address: str, tls: TlsFiles | None, token: str | None) -> None:
    if tls is None:
        raise InvalidValueError(
            f"dashboard is {address}, which other machines can reach, and there is no TLS; start "
            "`cospan coordinator` with --tls-cert, --tls-key and --tls-ca, or serve the dashboard on 127.0.0.1"
        )
    if token is None:
        raise InvalidValueError(
            f"dashboard is {address}, which other machines can reach, and anyone there could read the run; give "
            "--dashboard-token-file FILE with a token, for example from: openssl rand -hex 32"
        )


class DashboardService:
    """The dashboard of a coordinator, if one is asked for."""

    def __init__(
        self, coordinator: Coordinator, plan: DashboardPlan | None, earlier: Iterable[RoundReport] = ()
    ) -> None:
        """`earlier`: the rounds of a resumed run."""
        self._plan = plan
        self._view: RunView | None = None
        if plan is not None:
            from cospan.dashboard import run_view

            self._view = run_view.RunView(coordinator, earlier)

    def tell(self, line: bytes) -> None:
        """Takes a line of `TruthTeller`; other lines are ignored."""
        truth = _truth_of(line)
        if self._view is not None and truth is not None:
            self._view.tell(truth)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str | None]:
        """Serves the dashboard; its address, or None without a dashboard.

        Raises:
            InvalidValueError: the address cannot be bound.
        """
        if self._plan is None or self._view is None:
            yield None
            return
        from cospan.dashboard.auth import DashboardAuth
        from cospan.dashboard.server import Dashboard

        plan = self._plan
        auth = DashboardAuth(plan.hosts, plan.token, plan.root)
        dashboard = Dashboard(self._view, auth, host=plan.host, port=plan.port, tls=plan.tls)
        dashboard.open()
        try:
            yield dashboard.address
        finally:
            await asyncio.to_thread(dashboard.close)


class TruthTeller:
    """What only `cospan run` knows of its agents, as lines for the coordinator's dashboard."""

    def __init__(self, monitor: RunMonitor) -> None:
        self._monitor = monitor
        self._rounds = 0
        self._agents: dict[str, AgentProgress] = {}

    def news(self) -> bytes | None:
        """A line with what has changed since the last one, or None."""
        rows = self._monitor.rows[self._rounds :]
        self._rounds += len(rows)
        changed = {name: agent for name, agent in self._monitor.agents.items() if self._agents.get(name) != agent}
        self._agents |= changed
        errors = [(row.round, row.subspace_error) for row in rows if row.subspace_error is not None]
        if not changed and not errors:
            return None
        agents = {
            name: {column: getattr(agent, source) for column, source in _OF_PROGRESS.items()}
            for name, agent in changed.items()
        }
        return json.dumps({"subspace_errors": errors, "agents": agents}).encode() + b"\n"


def _truth_of(line: bytes) -> "Truth | None":
    from cospan.dashboard.analysis.learnt import Learnt
    from cospan.dashboard.run_view import Truth

    def learnt(values: Mapping[str, Any]) -> Learnt:
        numbers = {name: _finite(values[name]) for name in _OF_PROGRESS if name != "label"}
        return Learnt(label=str(values["label"]), **numbers)

    try:
        document: dict[str, Any] = json.loads(line)
        return Truth(
            tuple((int(number), float(error)) for number, error in document["subspace_errors"]),
            {str(name): learnt(values) for name, values in document["agents"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
