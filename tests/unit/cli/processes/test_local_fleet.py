"""What `cospan run` makes of the ends of its processes, without starting one."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runs import run, specification

from cospan.cli.output.progress import View
from cospan.cli.processes import local_fleet as fleets
from cospan.cli.processes.local_fleet import LocalFleet
from cospan.cli.run_folder.layout import RunFolder
from cospan.cli.run_folder.progress_log import RunMonitor
from cospan.cli.settings.layers import Settings
from cospan.client.placement import Host

SAID_AT_LAST = {"event": "failed", "message": "the file is damaged", "rounds": 0, "exit_code": 1}


class Quiet:
    """A view that shows nothing."""

    def update(self, progress: object) -> None: ...
    def note(self, text: str) -> None: ...
    def tell(self, text: str) -> None: ...
    def close(self) -> None: ...


class FakeChild:
    """A process."""

    def __init__(self, name: str, exit_code: int | None = None) -> None:
        self.name, self.exit_code, self.pid, self.last_line, self.terminated = name, exit_code, 1, "", False

    @property
    def running(self) -> bool:
        return self.exit_code is None

    @property
    def ending(self) -> str:
        return f"ended with {self.exit_code}"

    def terminate(self) -> None:
        self.terminated = True

    def kill(self) -> None: ...


class Started:
    """Processes of a run of two agents that is under way."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, refused: bool = False) -> None:
        plan: Any = SimpleNamespace(settings=Settings(), specification=specification(agents=2))
        hosts = [Host(f"site-{index}", (index,), is_group=False) for index in range(2)]
        view: View = Quiet()
        monitor = RunMonitor(agents=2, total=0, true_basis=None)
        self.fleet = LocalFleet(plan, RunFolder(folder), monitor, view, hosts, start_seconds=9.0, debug=False)
        self.coordinator: Any = FakeChild("coordinator")
        self.agents: dict[str, Any] = {host.name: FakeChild(host.name) for host in hosts}
        self.fleet._coordinator, self.fleet._agents, self.fleet._started = self.coordinator, self.agents, True

        async def start(name: str, _arguments: Sequence[str], _listener: object, **_: object) -> FakeChild:
            if refused:
                raise OSError(11, "Resource temporarily unavailable")
            return FakeChild(name)

        monkeypatch.setattr(fleets.Child, "start", start)

    async def ends(self, name: str, code: int, said: dict[str, Any] | None = None) -> None:
        child = self.agents[name]
        if said is not None:
            self.fleet.on_event(child, said)
        child.exit_code = code
        self.fleet.on_exit(child)
        await asyncio.gather(*self.fleet._restarting.values())


def test_an_agent_that_a_signal_has_killed_is_there_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def killed() -> None:
        started = Started(tmp_path, monkeypatch)
        await started.ends("site-0", -9)
        assert started.agents["site-0"].running
        assert (started.fleet.failure, started.fleet.losses, started.fleet.deserted) == (None, {}, "")

    run(killed())


def test_one_that_fails_when_it_is_started_again_does_not_undo_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has learnt no round, as one of a fleet that cannot begin; but the others have, and learn on."""

    async def killed() -> None:
        started = Started(tmp_path, monkeypatch)
        await started.ends("site-0", -9)
        await started.ends("site-0", 1, SAID_AT_LAST)
        assert started.fleet.failure is None
        assert started.fleet.losses == {"site-0": "the file is damaged"}
        assert not started.coordinator.terminated
        await started.ends("site-1", 1, {"event": "failed", "message": "too hot", "rounds": 7, "exit_code": 1})
        assert started.fleet.deserted == "too hot"
        assert started.coordinator.terminated

    run(killed())


def test_one_that_cannot_be_started_again_is_lost_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def killed() -> None:
        started = Started(tmp_path, monkeypatch, refused=True)
        await started.ends("site-0", -9)
        assert started.fleet.failure is None
        assert "cannot start the process of site-0" in started.fleet.losses["site-0"]
        assert not started.coordinator.terminated
        await started.ends("site-1", -9)
        assert "cannot start the process of site-1" in started.fleet.deserted
        assert started.coordinator.terminated

    run(killed())


def test_one_that_has_said_its_last_words_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed() -> None:
        started = Started(tmp_path, monkeypatch)
        await started.ends("site-0", -9, {"event": "finished", "message": "all is done"})
        assert not started.agents["site-0"].running
        assert (started.fleet.failure, started.fleet.losses) == (None, {})

    run(killed())


def test_a_fleet_that_cannot_begin_is_told_so_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failed() -> None:
        started = Started(tmp_path, monkeypatch)
        await started.ends("site-0", 1, SAID_AT_LAST)
        assert str(started.fleet.failure) == "the file is damaged"

    run(failed())
