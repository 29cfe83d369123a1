"""A process on a node, as the fleet sees it: what it said, its files, and what happens when its node is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import run

from cospan.cli.engines.agent_host import COMPLAINT, EVENT, EXIT, AgentHost
from cospan.cli.engines.remote_child import HostAwayError, HostLostError, RemoteChild

FINISHED = {"event": "finished", "agent": "site-0", "message": "over", "left": False}


class Told:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def on_event(self, _: object, document: dict[str, Any]) -> None:
        self.said.append(document["event"])

    def on_complaint(self, _: object, text: str) -> None:
        self.said.append(text)

    def on_exit(self, child: Any) -> None:
        self.said.append((child.exit_code, child.ending, child.last_line))


class Handle:
    """A host in this process, whose process is its news and its files; `breaks` may raise before a call."""

    def __init__(self, host: AgentHost, breaks: Callable[[str], None] = lambda _: None) -> None:
        self.host, self.breaks, self.calls, self.discarded = host, breaks, list[str](), False
        self.host.start = lambda *_: None  # type: ignore[method-assign]

    async def call(self, method: str, *arguments: Any) -> Any:
        self.calls.append(method)
        self.breaks(method)
        return getattr(self.host, method)(*arguments)

    def discard(self) -> None:
        self.discarded = True


def ended_host(*, code: int = 0) -> AgentHost:
    """A host whose process has said two things, has left a file of some bytes, and has ended."""
    host = AgentHost()
    host._agents.mkdir()
    (host._agents / "site-0.npz").write_bytes(b"what it has learnt")
    host._add(EVENT, FINISHED)
    host._add(COMPLAINT, "a warning")
    host._add(EXIT, {"code": code, "ending": "ended", "last_line": "a warning", "pid": 7})
    return host


def attended(handle: Handle, folder: Path) -> list[Any]:
    told = Told()

    async def attend() -> None:
        child = RemoteChild("site-0", ("site-0",), ("agent",), handle, folder, told)
        assert child.running
        await child.wait()
        assert not child.running

    run(attend())
    assert handle.discarded
    return told.said


def test_what_it_says_is_passed_on_and_its_files_come_back(tmp_path: Path) -> None:
    host = ended_host()
    said = attended(Handle(host), tmp_path)
    assert said == ["finished", "a warning", (0, "ended", "a warning")]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"site-0.npz": b"what it has learnt"}
    assert not host._folder.exists()


def test_a_large_file_comes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cospan.cli.engines.remote_child._PART_BYTES", 5)
    handle = Handle(ended_host())
    attended(handle, tmp_path)
    assert handle.calls.count("read") == 4
    assert (tmp_path / "site-0.npz").read_bytes() == b"what it has learnt"


def test_a_node_that_is_away_is_asked_again_and_nothing_is_heard_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cospan.cli.engines.remote_child._AGAIN_SECONDS", 0.0)
    away = ["news", "read", "files"]

    def breaks(method: str) -> None:
        if method in away:
            away.remove(method)
            raise HostAwayError("no answer")

    assert attended(Handle(ended_host(), breaks), tmp_path)[:2] == ["finished", "a warning"]
    assert not away


def test_a_lost_node_counts_as_a_kill_so_that_the_fleet_starts_another(tmp_path: Path) -> None:
    def breaks(method: str) -> None:
        if method == "news":
            raise HostLostError("the node is dead")

    assert attended(Handle(ended_host(), breaks), tmp_path) == [(-9, "was lost with its node", "the node is dead")]


def test_one_that_cannot_start_is_not_started_again(tmp_path: Path) -> None:
    def breaks(_: str) -> None:
        raise HostLostError("No module named 'cospan'", at_start=True)

    said = attended(Handle(ended_host(), breaks), tmp_path)
    assert said == [(1, "could not be started on a node", "No module named 'cospan'")]


def test_a_node_with_another_version_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = ended_host()
    monkeypatch.setattr(host, "facts", lambda: {"host": "n7", "version": "0.0.1"})
    [(code, _, said)] = attended(Handle(host), tmp_path)
    assert code == 1
    assert said.startswith("n7 has Cospan 0.0.1, and this machine ")


def test_files_that_are_lost_are_said_of_each_agent(tmp_path: Path) -> None:
    def breaks(method: str) -> None:
        if method == "read":
            raise HostLostError("the node is dead")

    said = attended(Handle(ended_host(), breaks), tmp_path)
    assert said == ["finished", "a warning", "agent-failed", (0, "ended", "a warning")]
    assert not (tmp_path / "site-0.npz").exists()


def test_one_that_has_not_begun_ends_when_it_is_stopped(tmp_path: Path) -> None:
    """As where its actor waits for a CPU: there is no process that could be told."""

    class Waiting(Handle):
        async def call(self, method: str, *arguments: Any) -> Any:
            if method == "facts" and not self.discarded:
                raise HostAwayError("no CPU yet")
            raise HostLostError("discarded")

    told, handle = Told(), Waiting(AgentHost())

    async def stopped() -> None:
        child = RemoteChild("site-0", ("site-0",), ("agent",), handle, tmp_path, told)
        child.terminate()
        await child.wait()

    run(stopped())
    assert told.said == [(-9, "was lost with its node", "discarded")]


def test_the_host_gives_its_process_a_folder_and_the_file_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    host = AgentHost()
    ran: list[Any] = []
    monkeypatch.setattr(host, "_attend", lambda name, arguments: ran.append((name, arguments)))
    for _ in range(2):  # an engine may ask twice
        host.start("site-0", ["agent", "--output", "/of/the/run/agents/site-0.npz"], {"site-0.npz": b"before"})
    assert host._thread is not None
    host._thread.join()
    assert ran == [("site-0", ["agent", "--output", str(host._agents / "site-0.npz")])]
    assert host.files() == {"site-0.npz": 6}
    assert host.read("../site-0.npz", 2, 3) == b"for"
    assert host._here(["--output", "/of/the.run/agents"]) == ["--output", str(host._agents)]
    host.clear()
    assert host.files() == {}


def test_news_is_kept_until_the_next_question_shows_that_it_came() -> None:
    host = AgentHost()
    host._add(COMPLAINT, "a")
    host._add(COMPLAINT, "b")
    assert host.news(0, 0.0) == host.news(0, 0.0) == [(COMPLAINT, "a"), (COMPLAINT, "b")]
    assert host.news(1, 0.0) == [(COMPLAINT, "b")]
    assert host.news(2, 0.0) == []
    host.clear()
