"""The dashboard over real HTTP: what is sent, who is refused, and that no viewer holds up a round."""

import asyncio
import http.client
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from behaviour.command import TINY, cospan
from runs import RINGS, SECONDS, run, specification

from cospan.cli.main import main
from cospan.cli.processes.dashboard import plan_dashboard
from cospan.cli.processes.telemetry import metrics_plan
from cospan.cli.settings.layers import Settings
from cospan.client.agent import Agent, ClientSettings
from cospan.core.method import practical
from cospan.dashboard.analysis.agent_history import HISTORY_COLUMNS
from cospan.dashboard.analysis.learnt import LEARNT_COLUMNS, Learnt
from cospan.dashboard.auth import DashboardAuth
from cospan.dashboard.broadcaster import MOST_BROWSERS
from cospan.dashboard.payloads import AGENT_COLUMNS
from cospan.dashboard.run_view import RunView, Truth
from cospan.dashboard.series import COLUMNS
from cospan.dashboard.server import Dashboard
from cospan.server.admission.file_limits import dashboard_connections
from cospan.server.coordinator import Coordinator
from cospan.server.net import acceptor
from cospan.wire.errors import InvalidValueError
from cospan.wire.security import authority
from cospan.wire.security.identity import COORDINATOR
from cospan.wire.security.tls import TlsFiles

TOKEN = "token-of-these-tests"
LOOPBACK = frozenset({"127.0.0.1"})


def asked(
    address: str,
    path: str,
    method: str = "GET",
    body: str | None = None,
    tls: TlsFiles | None = None,
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and content of one request."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    if tls is None:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=SECONDS)
    else:
        trusting = ssl.create_default_context(cafile=str(tls.authority))
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=SECONDS, context=trusting)
    with closing(connection):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def frames(address: str) -> Iterator[dict[str, Any]]:
    """What a browser is sent, until the stream ends."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=SECONDS)) as connection:
        connection.request("GET", "/events")
        for line in connection.getresponse():
            if line.startswith(b"data: ") and len(line) > 12:
                yield json.loads(line[6:])


@asynccontextmanager
async def shown(
    token: str | None = None, tls: TlsFiles | None = None, root: str = "", **changes: Any
) -> AsyncIterator[tuple[Coordinator, Dashboard, RunView]]:
    async with Coordinator(specification(practical(3), **changes)) as coordinator:
        view = RunView(coordinator)
        dashboard = Dashboard(view, DashboardAuth(LOOPBACK, token, root), host="127.0.0.1", port=0, tls=tls)
        dashboard.open()
        try:
            yield coordinator, dashboard, view
        finally:
            await asyncio.to_thread(dashboard.close)


async def finish(coordinator: Coordinator, count: int = 2) -> None:
    agents = [
        Agent(RINGS, index=index, coordinator=coordinator.address, settings=ClientSettings(share_td_error=True))
        for index in range(count)
    ]
    await asyncio.gather(*(agent.run_async() for agent in agents))


def test_a_browser_is_told_the_whole_and_then_what_changes() -> None:
    async def watched() -> list[dict[str, Any]]:
        async with shown(rounds=6) as (coordinator, dashboard, view):
            watching = asyncio.create_task(asyncio.to_thread(lambda: list(frames(dashboard.address))))
            await finish(coordinator)
            known = {
                "site-0": Learnt(label="ring", value_error=0.125, lstd_alone=0.5, learning_seconds=0.001),
                "site-1": Learnt(value_error=0.375, lstd_alone=0.25, td_alone=0.5),
            }
            view.tell(Truth(((5, 0.5),), known))
            await asyncio.to_thread(dashboard.close)
            return await watching

    seen = run(watched())
    assert seen[0]["whole"]
    last = seen[-1]
    assert (last["run"]["round"], last["run"]["phase"], last["run"]["live"]) == (6, "finished", False)
    points: list[list[Any]] = []
    agents: dict[str, dict[str, Any]] = {}
    learnt: dict[str, dict[str, Any]] = {}
    for frame in seen:
        points[frame["series"]["start"] :] = frame["series"]["points"]
        agents |= {row[0]: dict(zip(AGENT_COLUMNS, row, strict=True)) for row in frame.get("agents", ())}
        learnt |= {row[0]: dict(zip(LEARNT_COLUMNS, row, strict=True)) for row in frame.get("learnt", ())}
    assert [point[0] for point in points] == list(range(6))
    before, newest = (dict(zip(COLUMNS, point, strict=True)) for point in points[-2:])
    assert (newest["subspace_error"], newest["value_error"], newest["lstd_alone"]) == (0.5, 0.25, 0.375)
    parts = sum(newest[name] or 0.0 for name in ("agents", "network", "aggregation"))
    assert parts == pytest.approx(newest["elapsed"] - before["elapsed"], abs=1e-3), "the parts of one round"
    assert newest["elapsed"] > 0.0
    assert agents.keys() == {"site-0", "site-1"}
    assert agents["site-0"]["td_error"] > 0.0
    assert all(agent["arrives"] >= 0.0 for agent in agents.values())
    assert (learnt["site-0"]["label"], learnt["site-0"]["ratio"], learnt["site-1"]["ratio"]) == ("ring", 0.25, 1.5)
    answers = {answer["key"]: answer for answer in last["answers"]}
    assert answers["learning"]["verdict"] == "Finished"
    assert answers["learning"]["sentences"][0] == "All 6 rounds are done."
    assert (answers["alone"]["verdict"], answers["alone"]["agents"]) == ("1 of 2", ["site-1"])


def test_the_history_of_an_agent_is_known_from_its_first_round() -> None:
    """However late a browser asks for it; a name that is none of the run's is refused."""

    async def asked_for() -> None:
        async with shown(rounds=0) as (coordinator, dashboard, view):
            agents = [Agent(RINGS, index=index, coordinator=coordinator.address) for index in range(2)]
            tasks = [asyncio.create_task(agent.run_async()) for agent in agents]
            view.tell(Truth((), {"site-0": Learnt(value_error=0.5, td_alone=0.75)}))
            async for _ in coordinator.engine.history.follow(3):
                break
            async with asyncio.timeout(SECONDS):
                status = 404
                while status == 404:
                    status, headers, text = await asyncio.to_thread(asked, dashboard.address, "/history?id=site-0")
            coordinator.stop("enough")
            await asyncio.gather(*tasks)
            found = json.loads(text)
            assert found["columns"] == list(HISTORY_COLUMNS)
            assert found["points"][0][1:] == [None, 0.5, None, 0.75]
            assert "default-src 'none'" in headers["content-security-policy"]
            for name in ("site-9", "", "../x"):
                status, _, text = await asyncio.to_thread(asked, dashboard.address, f"/history?id={quote(name)}")
                assert (status, b"name one that has joined" in text) == (404, True)

    run(asked_for())


def test_a_stored_run_is_shown_from_its_first_round() -> None:
    async def watched() -> dict[str, Any]:
        async with shown(rounds=4) as (coordinator, _, _):
            await finish(coordinator)
            earlier = list(coordinator.engine.history.recent(4))
            view = RunView(coordinator, earlier)
            return view.whole()

    assert [point[0] for point in run(watched())["series"]["points"]] == [0, 1, 2, 3]


def test_every_answer_carries_the_policy_and_only_reading_is_possible() -> None:
    async def tried() -> None:
        async with shown() as (_, dashboard, _):
            for path, status in (("/", 200), ("/main.js", 200), ("/none", 404), ("/../app.py", 404)):
                found, headers, _ = await asyncio.to_thread(asked, dashboard.address, path)
                assert found == status, path
                assert "default-src 'none'" in headers["content-security-policy"]
                assert "unsafe" not in headers["content-security-policy"]
            for method in ("POST", "PUT", "DELETE"):
                assert (await asyncio.to_thread(asked, dashboard.address, "/events", method))[0] == 405
            status, _, text = await asyncio.to_thread(asked, dashboard.address, "/", Host="evil.example")
            assert (status, b"not known by the name" in text) == (421, True)

    run(tried())


def test_with_tls_and_a_token_only_who_shows_it_sees_anything(tmp_path: Path) -> None:
    authority.make_authority(tmp_path / "ca", name="authority", days=2)
    authority.issue(tmp_path / "ca", "coordinator", uris=(COORDINATOR,), hosts=("127.0.0.1",), days=1.0)
    folder = tmp_path / "ca" / "coordinator"
    tls = TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")

    async def tried() -> None:
        async with shown(token=TOKEN, tls=tls) as (_, dashboard, _):
            address = dashboard.address
            assert address.startswith("https://")

            async def ask(path: str, method: str = "GET", body: str | None = None, **headers: str) -> Any:
                return await asyncio.to_thread(asked, address, path, method, body, tls, **headers)

            for path in ("/", "/main.js", "/events", "/history?id=site-0"):
                assert (await ask(path))[0] == 401
            assert (await ask("/", Accept="text/html"))[1]["location"] == "/login"
            assert (await ask("/", Authorization=f"Bearer {TOKEN}"))[0] == 200
            assert b'role="alert"' in (await ask("/login", "POST", "token=wrong"))[2]
            status, headers, _ = await ask("/login", "POST", f"token={quote(TOKEN)}")
            cookie = headers["set-cookie"]
            assert status == 303
            assert all(part in cookie.lower() for part in ("httponly", "samesite=strict", "secure"))
            assert TOKEN not in cookie
            assert (await ask("/", Cookie=cookie.partition(";")[0]))[0] == 200

    run(tried())


def test_connections_that_say_nothing_keep_no_browser_out() -> None:
    """More than there may be: the one that has waited longest makes room for a browser."""

    async def crowded() -> None:
        async with shown(rounds=4) as (coordinator, dashboard, _):
            parts = urlsplit(dashboard.address)
            with ExitStack() as stack:
                silent = [
                    stack.enter_context(socket.create_connection((parts.hostname, parts.port), SECONDS))
                    for _ in range(dashboard_connections() + 20)
                ]
                for path in ("/", "/main.js", "/style.css"):
                    assert (await asyncio.to_thread(asked, dashboard.address, path))[0] == 200
                assert silent[0].recv(1) == b"", "the first of them has made room"
                watching = asyncio.create_task(asyncio.to_thread(lambda: list(frames(dashboard.address))))
                await finish(coordinator)
                await asyncio.to_thread(dashboard.close)
                assert (await watching)[-1]["run"]["phase"] == "finished"

    run(crowded())


@pytest.mark.parametrize(
    "saying",
    [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n",
    ],
    ids=["headers", "body"],
)
def test_a_request_that_comes_byte_by_byte_is_ended(saying: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "REQUEST_SECONDS", 0.3)

    async def dribbled() -> None:
        async with shown(token=TOKEN) as (_, dashboard, _):
            parts = urlsplit(dashboard.address)
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(saying)
            ended = asyncio.create_task(reader.read(1))
            for _ in range(1000):
                writer.write(b"x")
                done, _ = await asyncio.wait({ended}, timeout=0.05)
                if done:
                    break
            assert ended.done(), "it was open for a thousand bytes more, and 50 s"
            with suppress(ConnectionError):
                assert await ended == b""
            writer.close()

    run(dribbled())


def test_under_a_path_of_a_reverse_proxy_every_address_is_right() -> None:
    async def tried() -> None:
        async with shown(token=TOKEN, root="/fleet") as (_, dashboard, _):

            async def ask(path: str, method: str = "GET", body: str | None = None, **headers: str) -> Any:
                return await asyncio.to_thread(asked, dashboard.address, path, method, body, None, **headers)

            token = {"Authorization": f"Bearer {TOKEN}"}
            for root in ("", "/fleet"):  # the proxy may take its path away, or not
                status, headers, _ = await ask(f"{root}/", Accept="text/html")
                assert (status, headers["location"]) == (303, "/fleet/login")
                assert (await ask(f"{root}/style.css"))[0] == 200
                assert (await ask(f"{root}/main.js", **token))[0] == 200
                status, headers, _ = await ask(f"{root}/login", "POST", f"token={TOKEN}")
                assert (status, headers["location"]) == (303, "/fleet/")
                assert "path=/fleet/;" in headers["set-cookie"].lower()
            status, headers, _ = await ask("/fleet", **token)
            assert (status, headers["location"]) == (308, "/fleet/")

    run(tried())


def test_browsers_that_do_not_read_hold_up_no_round_and_too_many_are_turned_away() -> None:
    async def crowded() -> None:
        async with shown(rounds=200) as (coordinator, dashboard, _):
            parts = urlsplit(dashboard.address)
            idle = [socket.create_connection((parts.hostname, parts.port)) for _ in range(MOST_BROWSERS)]
            try:
                for connection in idle:
                    connection.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                    assert await asyncio.to_thread(connection.recv, 15) == b"HTTP/1.1 200 OK"
                status, _, text = await asyncio.to_thread(asked, dashboard.address, "/events")
                assert (status, b"browsers show this dashboard already" in text) == (503, True)
                await finish(coordinator)
                assert coordinator.engine.state.round == 200, "no round has waited for one: none has read yet"
            finally:
                for connection in idle:
                    connection.close()

    run(crowded())


def test_an_address_that_is_taken_is_named() -> None:
    async def twice() -> None:
        async with shown() as (coordinator, dashboard, _):
            port = urlsplit(dashboard.address).port
            assert port is not None
            other = Dashboard(RunView(coordinator), DashboardAuth(LOOPBACK), host="127.0.0.1", port=port)
            with pytest.raises(InvalidValueError, match=f"cannot listen on 127.0.0.1:{port}"):
                other.open()

    run(twice())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dashboard": "0.0.0.0:8080"}, "there is no TLS"),
        ({"dashboard_token_file": "token"}, "--dashboard-token-file needs --dashboard"),
        ({"dashboard_root_path": "/fleet"}, "--dashboard-root-path needs --dashboard"),
        ({"dashboard": "127.0.0.1:0", "dashboard_token_file": "/none/token"}, "cannot read the token"),
    ],
)
def test_a_dashboard_that_would_not_be_safe_is_refused_in_words(changes: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidValueError, match=says):
        plan_dashboard(Settings(**changes), None)


def test_names_and_path_of_a_reverse_proxy_are_settings() -> None:
    said = {
        "dashboard": "127.0.0.1:0",
        "dashboard_root_path": "/a/fleet",
        "allowed_hosts": "Fleet.example,10.0.0.7",
    }
    plan = plan_dashboard(Settings(**said), None)
    assert plan is not None
    assert plan.hosts == {"127.0.0.1", "localhost", "::1", "fleet.example", "10.0.0.7"}
    assert plan.root == "/a/fleet"
    metrics = metrics_plan(Settings(metrics="0", allowed_hosts="fleet.example"), None)
    assert metrics is not None
    assert metrics.names == {"127.0.0.1", "localhost", "::1", "fleet.example"}
    elsewhere = metrics_plan(Settings(metrics="0.0.0.0:0", insecure=True), None)
    assert elsewhere is not None
    assert elsewhere.names is None, "its names are not known here"


def test_off_the_loopback_a_token_is_needed_as_well(tmp_path: Path) -> None:
    authority.make_authority(tmp_path / "ca", name="authority", days=2)
    authority.issue(tmp_path / "ca", "c", uris=(COORDINATOR,), hosts=("coordinator.example",), days=1.0)
    folder = tmp_path / "ca" / "c"
    tls = TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
    settings = Settings(dashboard="0.0.0.0:8443")
    with pytest.raises(InvalidValueError, match="--dashboard-token-file"):
        plan_dashboard(settings, tls)
    (tmp_path / "token").write_text(TOKEN, encoding="utf-8")
    with_token = settings.model_copy(update={"dashboard_token_file": str(tmp_path / "token")})
    plan = plan_dashboard(with_token, tls)
    assert plan is not None
    assert (plan.token, "coordinator.example" in plan.hosts, "0.0.0.0" in plan.hosts) == (TOKEN, True, False)


def test_a_coordinator_whose_dashboard_cannot_listen_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        arguments = ["--workload", "synthetic", "--port", "0", "--dashboard", f"127.0.0.1:{port}"]
        with pytest.raises(SystemExit) as end:
            main(["coordinator", *arguments, "--run-folder", str(tmp_path / "run")])
    assert end.value.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_without_progress_says_where_its_dashboard_is(tmp_path: Path) -> None:
    """A port that the system has chosen is known only to its process."""
    code, _, err = cospan(
        "run", "toy_workload:workload", *TINY, "--quiet", "--dashboard", "127.0.0.1:0", cwd=tmp_path
    )
    assert code == 0
    assert [line.rpartition(":")[0] for line in err.splitlines()] == ["dashboard: http://127.0.0.1"]
