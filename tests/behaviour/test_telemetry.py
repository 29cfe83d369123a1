"""Metrics and traces of real processes: a coordinator and a relay, and what is said where they cannot be had."""

import contextlib
import json
import socket
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from behaviour.command import TOY, cospan, ended, in_this_process, line_of, started
from runs import SECONDS

SIZE = ("--workload", TOY, "--agents", "2", "--rank", "1", "--port", "0", "--json")


def read(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=SECONDS) as answer:
        return str(answer.read().decode())


def test_a_coordinator_and_a_relay_show_their_metrics(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        said = ("coordinator", *SIZE, "--rounds", "0", "--metrics", "0")
        coordinator = stack.enter_context(started(*said, cwd=tmp_path))
        address = json.loads(line_of(coordinator, '"listening"'))["address"]
        above = json.loads(line_of(coordinator, '"metrics"'))["url"]
        said = ("relay", "--upstream", address, "--agents", "2", "--port", "0", "--metrics", "0", "--json")
        relay = stack.enter_context(started(*said, cwd=tmp_path))
        through = json.loads(line_of(relay, '"listening"'))["address"]
        below = json.loads(line_of(relay, '"metrics"'))["url"]
        assert 'cospan_run_phase{phase="waiting"} 1.0' in read(above)
        for name in ("0", "1"):
            stack.enter_context(started("agent", TOY, "--id", name, "--coordinator", through, cwd=tmp_path))
        line_of(coordinator, '"round", ')
        assert 'cospan_agents{phase="connected"} 2.0' in read(above)
        assert "cospan_sessions 1.0" in read(above)
        assert "cospan_sessions 2.0" in read(below)
        assert "cospan_rounds_total" in read(above)
        assert "cospan_rounds_total" not in read(below), "they are the coordinator's to count"
        assert read(above.replace("/metrics", "/healthz")) == "ok\n"


def test_spans_of_rounds_arrive_where_opentelemetry_says(tmp_path: Path) -> None:
    paths: list[str] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server, contextlib.ExitStack() as stack:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        there = f"http://127.0.0.1:{server.server_address[1]}"
        said = ("coordinator", *SIZE, "--rounds", "5")
        more = {"OTEL_EXPORTER_OTLP_ENDPOINT": there, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        coordinator = stack.enter_context(started(*said, cwd=tmp_path, **more))
        address = json.loads(line_of(coordinator, '"listening"'))["address"]
        for name in ("0", "1"):
            stack.enter_context(started("agent", TOY, "--id", name, "--coordinator", address, cwd=tmp_path))
        assert ended(coordinator)[0] == 0
    assert set(paths) == {"/v1/traces"}


def test_a_collector_that_is_not_there_does_not_keep_a_run_from_ending(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and it does not listen
        there = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with contextlib.ExitStack() as stack:
            said = ("coordinator", *SIZE, "--rounds", "5", "--traces")
            coordinator = stack.enter_context(
                started(*said, cwd=tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=there, no_proxy="127.0.0.1")
            )
            address = json.loads(line_of(coordinator, '"listening"'))["address"]
            for name in ("0", "1"):
                stack.enter_context(started("agent", TOY, "--id", name, "--coordinator", address, cwd=tmp_path))
            assert ended(coordinator)[0] == 0


def test_metrics_that_cannot_be_had_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = ("coordinator", *SIZE[:-1], "--run-folder", "run", "--metrics", port)
        code, out, err = cospan(*said, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert f"cannot listen on 127.0.0.1:{port}" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (("--metrics", "0.0.0.0:0"), "metrics is 0.0.0.0:0, which other machines can reach, and there is no TLS"),
        (("--metrics", "99999"), "metrics is '99999' in --metrics; its port must be 0 to 65535"),
        (("--metrics", "here"), "metrics is 'here' in --metrics; it must be HOST:PORT, or a port of 127.0.0.1"),
    ],
)
def test_wrong_addresses_of_metrics_are_refused(
    said: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_this_process("coordinator", "--feature-dim", "4", "--rank", "1", *said) == 2
    assert sentence in capfd.readouterr().err
