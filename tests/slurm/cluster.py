"""A Slurm cluster of four nodes on this machine: munged, slurmctld and four slurmd, below one folder.

Nodes have different ports of one host. A node dies when its slurmd and all that it has started are killed.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

NODES = 4
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
_SECONDS = 60.0
_CONFIGURATION = """ClusterName=cospan
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdTimeout=6
SlurmctldTimeout=10
KillWait=10
SchedulerParameters=batch_sched_delay=1,sched_interval=2
BatchStartTimeout=10
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={ports} CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Cluster:
    """A running cluster.

    Attributes:
        folder: of its files.
        environment: with which its commands reach it.
    """

    folder: Path
    environment: Mapping[str, str]
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def called(self, *command: str, cwd: Path | None = None) -> str:
        """The output of one of Slurm's commands."""
        done = subprocess.run(
            command, cwd=cwd, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def start(self, name: str, *command: str) -> None:
        """Starts a daemon in the foreground."""
        with (self.folder / f"{name}.out").open("wb") as output:
            self._daemons[name] = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def node_of(self, job: str) -> str:
        """The node on which a job runs; empty if it does not run."""
        return self.called("squeue", "--noheader", "--states=R", f"--jobs={job}", "--array", "--format=%N")

    def kill_node(self, node: str) -> None:
        """Ends a node without a word: its slurmd, and every process of its jobs."""
        jobs = self.called(
            "squeue", "--noheader", "--states=R", f"--nodelist={node}", "--array", "--format=%A"
        ).split()
        daemon = self._daemons.pop(node)
        doomed = [daemon.pid]
        for job in jobs:
            for step in _matching(lambda text, job=job: text.startswith(f"slurmstepd: [{job}.")):
                doomed += [step, *_below(step)]
        for process in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        daemon.wait(20)

    def start_node(self, node: str) -> None:
        """Starts the slurmd of a node."""
        self.start(node, "slurmd", "-D", "-N", node)

    def stop(self) -> None:
        """Ends all jobs, and the daemons."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.called("scancel", "--user=root")
            until(lambda: not self.called("squeue", "--noheader"), 30.0)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(10)


def until(reached: Callable[[], object], seconds: float = _SECONDS) -> None:
    """Waits until something is the case; looks twice a second."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.5)


@contextlib.contextmanager
def running(folder: Path, path: str) -> Iterator[Cluster]:
    """A cluster of four nodes that are idle.

    Args:
        folder: for its files.
        path: PATH of the jobs.
    """
    ports = _free_ports(NODES + 1)
    first = _consecutive(NODES)
    for name in ("state", *(f"spool-n{number}" for number in range(1, NODES + 1))):
        (folder / name).mkdir()
    host = socket.gethostname()
    configuration = folder / "slurm.conf"
    values = {"host": host, "folder": folder, "port": ports[0], "nodes": NODES}
    configuration.write_text(_CONFIGURATION.format(ports=f"[{first}-{first + NODES - 1}]", **values))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COSPAN_", "SLURM_"))}
    cluster = Cluster(folder, kept | {"SLURM_CONF": str(configuration), "PATH": path})
    try:
        _start_munge(cluster)
        cluster.start("slurmctld", "slurmctld", "-D", "-c")
        for number in range(1, NODES + 1):
            cluster.start_node(f"n{number}")
        until(lambda: cluster.called("sinfo", "--noheader", "--Node", "--format=%T").split() == ["idle"] * NODES)
        yield cluster
    finally:
        cluster.stop()


def _start_munge(cluster: Cluster) -> None:
    key = cluster.folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    files = (f"--{name}-file={cluster.folder}/munge.{name}" for name in ("pid", "seed", "log"))
    socket_of = f"--socket={cluster.folder}/munge.socket"
    cluster.start("munged", "munged", "--foreground", "--force", f"--key-file={key}", socket_of, *files)
    until((cluster.folder / "munge.socket").exists, 20.0)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _consecutive(count: int) -> int:
    """The first of some consecutive ports that are free now."""
    for first in _free_ports(50):
        try:
            with contextlib.ExitStack() as held:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
    raise AssertionError("no ports are free")


def _matching(is_it: Callable[[str], bool]) -> list[int]:
    """The processes whose command line is as asked for."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and is_it((entry / "cmdline").read_text().replace("\0", " ")):
                found.append(int(entry.name))
    return found


def _below(process: int) -> list[int]:
    """The descendants of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *_below(child)]
    return found
