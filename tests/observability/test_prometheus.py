"""A real Prometheus beside a real run: it scrapes, and the queries of the board answer.

Not among the tests of `make test`, for it needs Prometheus' binaries: `make metrics-test` sees to them.
"""

import contextlib
import json
import math
import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from behaviour.command import line_of, started
from observability.board import FILES, ROOT, board_queries

SECONDS = 30.0
"""Until then Prometheus has scraped often enough to answer, or the test fails."""


@pytest.fixture(scope="session")
def tools() -> Path:
    """Where prometheus and promtool are."""
    done = subprocess.run(
        [ROOT / ".ci" / "ensure-prometheus"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def promtool(tools: Path, *arguments: str, folder: Path = FILES) -> str:
    done = subprocess.run(
        [tools / "promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_configuration_and_alerts_are_as_prometheus_wants_them(tools: Path) -> None:
    promtool(tools, "check", "config", "prometheus.yml")
    assert "rules found" in promtool(tools, "check", "rules", "alerts.yml")
    assert "SUCCESS" in promtool(tools, "test", "rules", "alerts_test.yml")


def test_a_wrong_rule_is_found(tools: Path, tmp_path: Path) -> None:
    """Lest the test above pass whatever stands there."""
    rules = (FILES / "alerts.yml").read_text(encoding="utf-8").replace("> 1e-8", "> > 1e-8")
    (tmp_path / "alerts.yml").write_text(rules, encoding="utf-8")
    with pytest.raises(AssertionError, match="unexpected"):
        promtool(tools, "check", "rules", "alerts.yml", folder=tmp_path)


@pytest.fixture
def prometheus(tools: Path, tmp_path: Path, target: str) -> Iterator[str]:
    """The URL of a Prometheus with the configuration of deploy/observability, but for where the coordinator is."""
    folder = tmp_path / "prometheus"
    folder.mkdir()
    shutil.copy(FILES / "alerts.yml", folder)
    settings = (FILES / "prometheus.yml").read_text(encoding="utf-8")
    for there, here in (("coordinator:9464", target), ("scrape_interval: 5s", "scrape_interval: 500ms")):
        assert there in settings
        settings = settings.replace(there, here)
    (folder / "prometheus.yml").write_text(settings, encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log, contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                [
                    tools / "prometheus",
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={address}",
                ],
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, "no_proxy": "*"},
            )
        )
        stack.callback(process.kill)
        yield f"http://{address}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def target(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of the metrics of a run with two agents."""
    said = ("--workload", "queues", "--agents", "2", "--rounds", "0", "--port", "0", "--metrics", "0", "--json")
    with contextlib.ExitStack() as stack:
        coordinator = stack.enter_context(started("coordinator", *said, cwd=tmp_path))
        address = json.loads(line_of(coordinator, '"listening"'))["address"]
        url = json.loads(line_of(coordinator, '"metrics"'))["url"]
        for name in ("0", "1"):
            stack.enter_context(started("agent", "queues", "--id", name, "--coordinator", address, cwd=tmp_path))
        yield urllib.parse.urlsplit(url).netloc


def answered(prometheus: str, query: str) -> list[dict[str, Any]]:
    """What a query gives now; nothing as long as Prometheus does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with opener.open(url, timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found
    except OSError:
        return []


def first_answer(prometheus: str, query: str, *, more_than: float = -math.inf) -> list[dict[str, Any]]:
    """What a query gives once it gives numbers, all of them above a bound. Asked now and then, until a deadline."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found = answered(prometheus, query)
        if found and all(float(result["value"][1]) > more_than for result in found):
            return found
        time.sleep(0.2)  # nothing tells of a scrape
    raise AssertionError(f"Prometheus gives nothing for {query}")


QUIET = {"Turned away: {{reason}}", "Turned away: gradient {{reason}}"}
"""Queries that leave out zeros: of a healthy run they show nothing."""


def test_prometheus_scrapes_a_run_and_the_board_answers(prometheus: str) -> None:
    queries = board_queries()
    # The first scrapes may be of a run whose agents are still being started.
    assert first_answer(prometheus, queries["Rounds per second: rounds/s"], more_than=1.0)
    phase = first_answer(prometheus, queries["Agents connected: connected"])
    assert [result["value"][1] for result in phase] == ["2"]
    quantile = first_answer(prometheus, queries["How long rounds take: p99"])
    assert 0.0 < float(quantile[0]["value"][1]) < 10.0
    for title in queries.keys() - QUIET:
        assert first_answer(prometheus, queries[title]), title
    assert {result["metric"]["job"] for result in answered(prometheus, "up == 1")} == {"cospan"}
    assert not answered(prometheus, 'ALERTS{alertstate="firing"}')
