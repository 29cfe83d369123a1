"""Starts the peers of `cospan bench peers` on loopback, and ends them with their descendants."""

import asyncio
import contextlib
import importlib.resources
import json
import os
import shutil
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cospan.benchmarks.tools.processes import Case, family
from cospan.wire.errors import CospanError

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FI_TCP_IFACE": "lo",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""No telemetry, MPI over loopback, and one BLAS thread, as in Cospan's processes."""
_GRACE_SECONDS = 15.0
_VERSIONS = (
    "import importlib.metadata as m, json, sys\n"
    "print(json.dumps({each.name: each.version for each in m.distributions()}))"
)


@dataclass(frozen=True, slots=True)
class Job:
    """The job of a peer.

    Attributes:
        case: agents and shape.
        environment: the folder of the virtual environment that the peers are installed in.
        address: HOST:PORT that sends the numbers of rounds to run.
        folder: for files of the peer; temporary.
    """

    case: Case
    environment: Path
    address: str
    folder: Path

    def variables(self) -> Mapping[str, str]:
        """Environment variables."""
        path = f"{self.program('')}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {**os.environ, **_QUIET, "PATH": path, "FLWR_HOME": str(self.folder / "flwr")}

    def program(self, name: str) -> str:
        """The path of a program of the environment."""
        return str(self.environment / "bin" / name)


@dataclass(frozen=True, slots=True)
class Peer:
    """A framework: its name, required packages, how it is started, and seconds of a block of its rounds."""

    name: str
    needs: tuple[str, ...]
    start: Callable[[Job], AbstractAsyncContextManager[None]]
    block_seconds: float = 0.5


class PeerError(CospanError):
    """A peer is missing or failed; the others are still measured."""


async def versions_of(environment: Path, needs: Sequence[str]) -> str:
    """The installed versions of a peer's packages, in one line.

    Raises:
        PeerError: the environment or a package is missing.
    """
    advice = "`make bench-peers` installs it"
    python = environment / "bin" / "python"
    if not python.exists():
        raise PeerError(f"left out: there is no environment {str(environment)!r}; {advice}")
    asking = await asyncio.create_subprocess_exec(python, "-P", "-c", _VERSIONS, stdout=asyncio.subprocess.PIPE)
    answer, _ = await asking.communicate()
    installed = json.loads(answer or b"{}")
    absent = [name for name in needs if name not in installed]
    if absent:
        raise PeerError(f"left out: {', '.join(absent)} is not installed in {str(environment)!r}; {advice}")
    return ", ".join(f"{name} {installed[name]}" for name in needs if name != "cospan")


@contextlib.asynccontextmanager
async def ray_actors(job: Job, *, watch: bool) -> AsyncIterator[None]:
    """A parameter server and workers as Ray actors; with `watch` the driver fetches each basis."""
    case = job.case
    size = [str(case.agents), str(case.feature_dim), str(case.rank)]
    command = [
        "-P",
        "-m",
        "cospan.benchmarks.jobs.ray_actors",
        job.address,
        *size,
        str(job.folder),
        str(int(watch)),
    ]
    async with _started(job, [job.program("python"), *command]):
        yield


@contextlib.asynccontextmanager
async def mpi_ranks(job: Job) -> AsyncIterator[None]:
    """One rank an agent, all on this machine."""
    shape = [str(job.case.feature_dim), str(job.case.rank)]
    ranks = [job.program("python"), "-P", "-m", "cospan.benchmarks.jobs.mpi_ranks", job.address, *shape]
    mpiexec = job.program("mpiexec")
    async with _started(job, [mpiexec, "-launcher", "fork", "-n", str(job.case.agents), *ranks]):
        yield


@contextlib.asynccontextmanager
async def flower_deployment(job: Job) -> AsyncIterator[None]:
    """A SuperLink, and a SuperNode for each agent."""
    async with contextlib.AsyncExitStack() as stack:
        link = await stack.enter_async_context(_super_link(job))
        for number in range(job.case.agents):
            place = ["--superlink", link, "--host", "127.0.0.1", "--port", str(_free_port())]
            node = ["--node-config", f"partition-id={number} num-partitions={job.case.agents}"]
            command = [job.program("flower-supernode"), "--insecure", *place, *node]
            await stack.enter_async_context(_started(job, command))
        await _flower_run(job)
        yield


@contextlib.asynccontextmanager
async def flower_simulation(job: Job) -> AsyncIterator[None]:
    """A SuperLink that simulates its nodes, one core for each."""
    async with _super_link(job, "--simulation"):
        federation = f"num-supernodes={job.case.agents} client-resources-num-cpus=1"
        await _flower_run(job, "--federation-config", federation)
        yield


PEERS = (
    Peer("MPI, allreduce", ("cospan", "mpi4py", "mpich"), mpi_ranks),
    Peer("Ray, rounds submitted ahead", ("cospan", "ray"), partial(ray_actors, watch=False)),
    Peer("Ray, each basis fetched", ("cospan", "ray"), partial(ray_actors, watch=True)),
    Peer("Flower, simulation", ("cospan", "flwr", "ray"), flower_simulation, 1.0),
    Peer("Flower, deployment", ("cospan", "flwr"), flower_deployment, 1.0),
)


@contextlib.asynccontextmanager
async def _super_link(job: Job, *settings: str) -> AsyncIterator[str]:
    """The SuperLink's address, once it listens."""
    port = _free_port()
    address = f"127.0.0.1:{port}"
    _write_app(job, address)
    place = ["--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"]
    async with _started(job, [job.program("flower-superlink"), "--insecure", *place, *settings]) as process:
        while not await _listens(port):
            if process.returncode is not None:
                raise CospanError(f"`flower-superlink` ended with exit code {process.returncode}")
            await asyncio.sleep(0.1)
        yield address


def _write_app(job: Job, super_link: str) -> None:
    """The folder that `flwr run` takes, and Flower's own settings."""
    app, home = job.folder / "app", job.folder / "flwr"
    app.mkdir()
    home.mkdir()
    source = importlib.resources.files("cospan.benchmarks.jobs") / "flower_app.py"
    (app / "flower_app.py").write_bytes(source.read_bytes())
    project = importlib.resources.files("cospan.benchmarks.jobs") / "flower_app.toml"
    text = project.read_text(encoding="utf-8")
    case = job.case
    settings = {"agents": case.agents, "feature-dim": case.feature_dim, "rank": case.rank, "address": job.address}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (app / "pyproject.toml").write_text("\n".join([text, *lines, ""]), encoding="utf-8")
    link = f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{super_link}"\ninsecure = true\n'
    (home / "config.toml").write_text(link, encoding="utf-8")


async def _flower_run(job: Job, *settings: str) -> None:
    log = job.folder / "flwr-run.log"
    command = [job.program("flwr"), "run", str(job.folder / "app"), "here", *settings]
    async with _started(job, command, log) as process:
        if await process.wait():
            raise CospanError(f"`flwr run` failed: {' '.join(log.read_text(encoding='utf-8').split())[-300:]}")


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def _started(job: Job, command: Sequence[str], log: Path | None = None) -> AsyncIterator[Process]:
    """A process; at the end it has some seconds to exit before it is killed with its descendants."""
    if not shutil.which(command[0]):
        raise CospanError(f"left out: there is no {command[0]!r}; `make bench-peers` installs it")
    with (log or job.folder / "log.txt").open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=file, stderr=file, env=job.variables(), cwd=job.folder
        )
    try:
        yield process
    finally:
        started = list(family(process.pid)) if process.returncode is None else []
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE_SECONDS)
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await process.wait()
