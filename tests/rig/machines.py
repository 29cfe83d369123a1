"""Machines out of network namespaces of this one: each has an address, a host name and a Docker engine of its own.

They meet at a bridge in a namespace of its own, so no interface appears among those of the host, and no packet
leaves: the default route has no machine. A machine dies when its cable is pulled and its processes are killed.

Everything carries the name of the rig, which holds the process id of the tests. A rig is taken down by `down`, and
what a killed process of tests left behind by the next rig. Its files, some 300 MB for each machine, are in memory:
on a disk, unpacking images and removing them takes longer than the tests.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("ip", "nsenter", "unshare", "mount", "umount", "docker", "dockerd")
NETWORK = "10.77.0"
_PREFIX = "csw"
_CGROUPS = Path("/sys/fs/cgroup")
_SECONDS = 60.0
_LOADING_SECONDS = 180.0


def missing() -> str:
    """What this machine lacks for a rig; empty if nothing."""
    if os.geteuid() != 0:
        return "this is not root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"there is no {', '.join(absent)}" if absent else ""


def called(*command: str, seconds: float = _SECONDS, **environment: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def until(reached: Callable[[], object], what: str, seconds: float = _SECONDS) -> float:
    """Waits until something is the case, looking five times a second.

    Returns:
        For how long it has waited, in seconds.
    """
    began = time.monotonic()
    while not reached():
        assert time.monotonic() < began + seconds, f"waited in vain for {seconds:g} s until {what}"
        time.sleep(0.2)
    return time.monotonic() - began


@dataclass
class Machine:
    """One machine.

    Attributes:
        number: 1 for the first.
        rig: the name of its rig.
        folder: of its files.
    """

    number: int
    rig: str
    folder: Path
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its host name."""
        return f"n{self.number}"

    @property
    def address(self) -> str:
        """At which the others reach it."""
        return f"{NETWORK}.{self.number}"

    @property
    def namespace(self) -> str:
        """Of its network."""
        return f"{self.rig}-{self.number}"

    @property
    def cgroup(self) -> str:
        """The parent of its containers' control groups."""
        return f"{self.rig}-{self.name}"

    def docker(self, *arguments: str, seconds: float = _SECONDS) -> str:
        """The output of a command of its engine."""
        command = ("docker", "--host", f"unix://{self.folder}/sock", *arguments)
        return called(*command, seconds=seconds, DOCKER_CONFIG=str(self.folder))

    def start(self, name: str, *command: str) -> None:
        """Starts a program on it, whose output goes to NAME.log."""
        # Not `ip netns exec`, which mounts another /sys, without control groups.
        inside = ("nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "--uts", "sh", "-c")
        program = f'hostname {self.name}; exec "$@"'
        with (self.folder / f"{name}.log").open("ab") as output:
            self._started.append(
                subprocess.Popen(
                    [*inside, program, "sh", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            )

    def start_engine(self, *options: str) -> None:
        """Starts its Docker engine; it answers some time later."""
        paths = [f"--{name}={self.folder}/{name}" for name in ("data-root", "exec-root", "pidfile")]
        paths += [f"--host=unix://{self.folder}/sock", f"--cgroup-parent=/{self.cgroup}"]
        self.start("dockerd", "dockerd", *paths, *options)

    def answers(self) -> bool:
        """Whether its engine does."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            return bool(self.docker("info", "--format", "{{.ServerVersion}}", seconds=5))
        return False

    def kill(self) -> None:
        """Pulls its cable, and ends every process of it without a word."""
        called("ip", "-n", f"{self.rig}-sw", "link", "set", f"p{self.number}", "down")
        self.end()

    def end(self) -> None:
        """Ends every process of it."""
        for process in self._started:
            process.kill()  # it may not have entered the namespace yet
        _end_all(self.namespace, self.cgroup)
        for process in self._started:
            process.wait(20)
        self._started.clear()


def _end_all(namespace: str, cgroup: str) -> None:
    """Ends what runs in a namespace (the engine's daemons) and in a control group (its containers)."""
    deadline = time.monotonic() + 20
    while doomed := _processes_in(namespace) | _members_of(cgroup):
        assert time.monotonic() < deadline, f"{doomed} do not end"
        for process in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def _processes_in(namespace: str) -> set[int]:
    try:
        wanted = f"net:[{Path('/run/netns', namespace).stat().st_ino}]"
    except FileNotFoundError:
        return set()
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((entry / "ns" / "net").readlink()) == wanted:
                found.add(int(entry.name))
    return found


def _members_of(cgroup: str) -> set[int]:
    found = set()
    for folder in _cgroups(cgroup):
        for path, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                found |= {int(each) for each in Path(path, "cgroup.procs").read_text().split()}
    return found


def _cgroups(name: str) -> Iterator[Path]:
    """The control groups of that name: one for each controller, or one in all."""
    yield from _CGROUPS.glob(name)
    yield from _CGROUPS.glob(f"*/{name}")


@dataclass
class Rig:
    """Machines at one switch.

    Attributes:
        name: begins the name of everything that it has made.
        folder: of its files.
        machines: by number less one.
    """

    name: str
    folder: Path
    machines: list[Machine]

    def load(self, image: str, *tags: str) -> None:
        """Copies an image of this machine's engine to those of all machines, under some tags."""
        archive = self.folder / "image.tar"
        called("docker", "save", "--output", str(archive), image, seconds=_LOADING_SECONDS)
        for machine in self.machines:
            machine.docker("load", "--quiet", "--input", str(archive), seconds=_LOADING_SECONDS)
            for tag in tags:
                machine.docker("tag", image, tag)
        archive.unlink()

    def end(self) -> None:
        """Ends every process of every machine."""
        for machine in self.machines:
            machine.end()

    def down(self) -> None:
        """Leaves nothing behind."""
        self.end()
        _remove(self.name)


@contextlib.contextmanager
def rig(count: int, engine: Callable[[Machine], Sequence[str]] = lambda _: ()) -> Iterator[Rig]:
    """Machines whose Docker engines answer.

    Args:
        count: how many; at most 9.
        engine: gives further options of a machine's engine.
    """
    _remove_orphans()
    name = f"{_PREFIX}{os.getpid()}"
    folder = _folder_of(name)
    made = Rig(name, folder, [Machine(number, name, folder / f"n{number}") for number in range(1, count + 1)])
    try:
        _connect(made)
        for machine in made.machines:
            machine.start_engine(*engine(machine))
        for machine in made.machines:
            until(machine.answers, f"the engine of {machine.name} answers ({machine.folder}/dockerd.log)")
        yield made
    finally:
        made.down()


def _folder_of(name: str) -> Path:
    """Short, for the paths of sockets have at most 107 characters."""
    return Path(tempfile.gettempdir()) / name


def _connect(made: Rig) -> None:
    made.folder.mkdir()
    called("mount", "-t", "tmpfs", "-o", "mode=755", made.name, str(made.folder))
    switch = f"{made.name}-sw"
    called("ip", "netns", "add", switch)
    called("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
    called("ip", "-n", switch, "link", "set", "br0", "up")
    for machine in made.machines:
        machine.folder.mkdir()
        port, space = f"p{machine.number}", machine.namespace
        called("ip", "netns", "add", space)
        pair = ("type", "veth", "peer", "name", "eth0", "netns", space)
        called("ip", "-n", switch, "link", "add", port, *pair)
        called("ip", "-n", switch, "link", "set", port, "master", "br0", "up")
        called("ip", "-n", space, "addr", "add", f"{machine.address}/24", "dev", "eth0")
        for link in ("eth0", "lo"):
            called("ip", "-n", space, "link", "set", link, "up")
        called("ip", "-n", space, "route", "add", "default", "via", f"{NETWORK}.254")


def _remove_orphans() -> None:
    """Takes down rigs whose process of tests is gone."""
    for name in {each.split("-")[0] for each in called("ip", "netns", "list").split()}:
        owner = re.fullmatch(rf"{_PREFIX}(\d+)", name)
        if owner and not Path("/proc", owner[1]).exists():
            _remove(name)


def _remove(name: str) -> None:
    """Takes away processes, mounts, namespaces, control groups and files of a rig."""
    folder = _folder_of(name)
    spaces = [each.split()[0] for each in called("ip", "netns", "list").splitlines()]
    spaces = [each for each in spaces if each.startswith(f"{name}-")]
    groups = {path.name for path in _cgroups(f"{name}-n*")}
    for space in spaces:
        _end_all(space, space.replace("-", "-n"))
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((each for each in mounted if f"{each}/".startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, timeout=20, capture_output=True)
    for space in spaces:
        called("ip", "netns", "delete", space)
    for group in groups:
        for top in _cgroups(group):
            for path, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
    shutil.rmtree(folder, ignore_errors=True)
