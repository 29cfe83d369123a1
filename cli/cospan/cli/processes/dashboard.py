"""`--dashboard`: whether it may be served where it is asked for, and the serving."""

import asyncio
import contextlib
import importlib.util
import json
import math
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cospan.cli.run_folder.progress_log import RunMonitor
from cospan.cli.settings.layers import Settings
from cospan.core.statistics import median
from cospan.server.coordinator import Coordinator
from cospan.server.net.host_header import names_of
from cospan.wire.address import parse_listening
from cospan.wire.errors import InvalidValueError
from cospan.wire.messages import RoundReport
from cospan.wire.security.tls import TlsFiles, certificate_facts

if TYPE_CHECKING:
    from cospan.dashboard.run_view import RunView, Truth


@dataclass(frozen=True, slots=True)
class DashboardPlan:
    """Where a dashboard is to be served, and to whom.

    Attributes:
        host: the address.
        port: 0 for any that is free.
        tls: the coordinator's certificate; None on the loopback of a coordinator without one.
        token: what a browser must show; None for none.
        hosts: the names by which browsers may call it.
        root: the path under which a reverse proxy serves it; empty for none.
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
                raise InvalidValueError(f"{flag} is said without --dashboard HOST:PORT; say both or neither")
        return None
    require_dashboard("--dashboard")
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
            f"dashboard is {address}, which other machines can reach, and everybody there could read the run; say "
            "--dashboard-token-file FILE, with a token in it as from: openssl rand -hex 32"
        )


def require_dashboard(what: str) -> None:
    """Says what to install where it is not.

    Raises:
        InvalidValueError: starlette or uvicorn is missing.
    """
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidValueError(f"{what} needs {' and '.join(missing)}; pip install '.[dashboard]'")


def _view_of(coordinator: Coordinator, earlier: Iterable[RoundReport]) -> "RunView":
    from cospan.dashboard.run_view import RunView

    return RunView(coordinator, earlier)


class Onlookers:
    """The dashboard of a coordinator, if one is asked for."""

    def __init__(
        self, coordinator: Coordinator, plan: DashboardPlan | None, earlier: Iterable[RoundReport] = ()
    ) -> None:
        """Prepares; `earlier` are the rounds of a run that goes on."""
        self._plan = plan
        self._view = None if plan is None else _view_of(coordinator, earlier)

    def tell(self, line: bytes) -> None:
        """Takes in a line of `TruthTeller`; a line of something else is passed over."""
        truth = _truth_of(line)
        if self._view is not None and truth is not None:
            self._view.tell(truth)

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[str | None]:
        """Serves the dashboard meanwhile; its address, None where there is none.

        Raises:
            InvalidValueError: the address cannot be bound.
        """
        if self._plan is None or self._view is None:
            yield None
            return
        from cospan.dashboard.auth import DashboardAuth
        from cospan.dashboard.server import Dashboard

        plan = self._plan
        entrance = DashboardAuth(plan.hosts, plan.token, plan.root)
        dashboard = Dashboard(self._view, entrance, host=plan.host, port=plan.port, tls=plan.tls)
        dashboard.open()
        try:
            yield dashboard.address
        finally:
            await asyncio.to_thread(dashboard.close)


class TruthTeller:
    """What `cospan run`, which knows the truth, tells the coordinator that shows it."""

    def __init__(self, monitor: RunMonitor) -> None:
        self._monitor = monitor
        self._rounds = 0
        self._agents: dict[str, float] = {}

    def news(self) -> bytes | None:
        """A line of what has become known since the last one; None for nothing."""
        rows = self._monitor.rows[self._rounds :]
        self._rounds += len(rows)
        known = {
            name: agent.value_error
            for name, agent in self._monitor.agents.items()
            if agent.value_error is not None and self._agents.get(name) != agent.value_error
        }
        self._agents |= known
        errors = [(row.round, row.subspace_error) for row in rows if row.subspace_error is not None]
        if not known and not errors:
            return None
        document = {"value_error": median(self._agents.values()), "subspace_errors": errors, "agents": known}
        return json.dumps(document).encode() + b"\n"


def _truth_of(line: bytes) -> "Truth | None":
    from cospan.dashboard.run_view import Truth

    try:
        document: dict[str, Any] = json.loads(line)
        value_error = document["value_error"]
        known = value_error is not None and math.isfinite(value_error)
        return Truth(
            value_error if known else None,
            tuple((int(number), float(error)) for number, error in document["subspace_errors"]),
            {str(name): float(error) for name, error in document["agents"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
