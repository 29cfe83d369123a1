"""`python -m faults.soak`: a long run, and what it does to the coordinator's memory and open files.

The agents only speak the protocol: they answer every basis with a gradient, and learn nothing.
"""

import argparse
import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cospan.cli.processes.this_process import prepare_environment

prepare_environment(())

from faults.footprint import open_files, resident_mib  # noqa: E402
from faults.processes import cospan, environment, free_port  # noqa: E402

from cospan.cli.processes.admin_client import fetch_run  # noqa: E402
from cospan.client.session.transport import GrpcTransport  # noqa: E402
from cospan.core.aggregation.basis_update import Contribution  # noqa: E402
from cospan.core.linalg.matrices import DenseMatrix  # noqa: E402
from cospan.core.specification import RunSpecification  # noqa: E402
from cospan.wire.errors import CoordinatorUnavailableError  # noqa: E402
from cospan.wire.messages import BasisUpdate, Finish, GradientUpload, Join  # noqa: E402

D, R = 8, 2
MOST_GROWTH = 1.02
_PROCESSES = 2
_LOOKS = 20
_WARM_UP = 0.1


@dataclass(frozen=True, slots=True)
class Look:
    """The coordinator after that many rounds: resident memory in MiB, and open files."""

    rounds: int
    memory: float
    files: int
    seconds: float

    def line(self) -> str:
        """For people."""
        return f"{self.rounds:>9,} {self.memory:>10.2f} {self.files:>6} {self.seconds:>9.0f}"


def main() -> int:
    """Runs it; 0 where nothing has grown."""
    parser = argparse.ArgumentParser(prog="python -m faults.soak", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100_000)
    parser.add_argument("--agents", type=int, default=16)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="cospan-soak-"))
    try:
        looks = soak(folder, chosen.rounds, chosen.agents)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    problems = judged(looks, chosen.rounds)
    print("\n".join(problems) if problems else "memory flat, open files constant", flush=True)
    return 1 if problems else 0


def judged(looks: list[Look], rounds: int) -> list[str]:
    """What has grown after the warm-up, the first tenth."""
    warm = [look for look in looks if look.rounds >= _WARM_UP * rounds]
    if len(warm) < _LOOKS // 2:
        return [f"only {len(warm)} looks at {rounds} rounds"]
    problems = []
    growth = max(look.memory for look in warm) / warm[0].memory
    print(f"memory after the warm-up: largest {growth:.4f} times the first; bound {MOST_GROWTH}", flush=True)
    if growth > MOST_GROWTH:
        problems.append(f"memory has grown by {100 * (growth - 1):.1f} %")
    if len({look.files for look in warm}) > 1:
        problems.append(f"open files: {sorted({look.files for look in warm})}")
    return problems


def soak(folder: Path, rounds: int, agents: int) -> list[Look]:
    """One run with a store, looked at from outside."""
    address = f"127.0.0.1:{free_port()}"
    size = ["--agents", str(agents), "--rounds", str(rounds), "--feature-dim", str(D), "--rank", str(R)]
    size += ["--preset", "paper"]
    command = cospan(
        "coordinator", *size, "--port", address.rpartition(":")[2], "--run-folder", str(folder / "run")
    )
    with _running(command) as coordinator:
        shares = [range(first, agents, _PROCESSES) for first in range(_PROCESSES)]
        with _all_running([_load_generator(address, share) for share in shares]):
            looks = asyncio.run(_look(coordinator.pid, address, rounds))
            code = coordinator.wait(timeout=60.0)
    assert code == 0, f"the coordinator ended with {code}"
    return looks


@contextmanager
def _running(command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


@contextmanager
def _all_running(commands: list[list[str]]) -> Iterator[None]:
    if not commands:
        yield
        return
    with _running(commands[0]), _all_running(commands[1:]):
        yield


def _load_generator(address: str, agents: range) -> list[str]:
    names = [str(number) for number in agents]
    path = str(Path(__file__).resolve().parents[1])
    code = f"import sys; sys.path.insert(0, {path!r}); from faults.soak import speak; speak(*sys.argv[1:])"
    return [sys.executable, "-c", code, address, *names]


async def _look(pid: int, address: str, rounds: int) -> list[Look]:
    """Looks at the process each time another twentieth of the rounds is done."""
    looks: list[Look] = []
    begun = time.monotonic()
    print(f"{'rounds':>9} {'MiB':>10} {'files':>6} {'seconds':>9}", flush=True)
    while True:
        await asyncio.sleep(0.2)
        try:
            report = await fetch_run(address)
            memory, files = resident_mib(pid), await open_files(pid)
        except (CoordinatorUnavailableError, OSError, IndexError):
            if looks:
                return looks  # it has ended
            assert time.monotonic() - begun < 60.0, "the coordinator does not answer"
            continue
        if report.stamp.round >= len(looks) * rounds // _LOOKS:
            looks.append(Look(report.stamp.round, memory, files, time.monotonic() - begun))
            print(looks[-1].line(), flush=True)


def speak(address: str, *numbers: str) -> None:
    """What runs in the agents' processes."""

    async def all_of_them() -> None:
        transport = GrpcTransport(address)
        specification = await _described(transport)
        await asyncio.gather(*(_take_part(transport, specification, int(number)) for number in numbers))

    asyncio.run(all_of_them())


async def _described(transport: GrpcTransport) -> RunSpecification:
    deadline = time.monotonic() + 60.0
    while True:
        try:
            return await transport.describe()
        except CoordinatorUnavailableError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)


async def _take_part(transport: GrpcTransport, specification: RunSpecification, number: int) -> None:
    stream = await transport.open(specification)
    gradient = DenseMatrix(np.random.default_rng(number).standard_normal((D, R)))
    await stream.send(Join(f"process {number}", (f"agent-{number}",), D, "none"))
    while True:
        message = await stream.receive()
        if isinstance(message, BasisUpdate):
            await stream.send(GradientUpload(message.stamp.round, Contribution(gradient, 1.0), ()))
        elif isinstance(message, Finish):
            await stream.close()
            return


if __name__ == "__main__":
    sys.exit(main())
