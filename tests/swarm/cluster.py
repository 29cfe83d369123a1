"""A Docker Swarm on the machines of a rig: the first is its manager, the others are workers."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rig.machines import Machine, Rig, rig, until

LABEL = "cospan.coordinator=true"
"""Of the node that has the volume of the runs."""
IMAGE = "localhost:1/cospan:1"
"""Its registry refuses at once: engines ask the registry of a tag first, also where the image is loaded."""
_HEARTBEAT = "2s"
"""Of nodes. A node is given up after three; Docker's own is 5 s."""
_BOUND = 180.0


@dataclass(frozen=True, slots=True)
class Task:
    """A task of a service.

    Attributes:
        name: that of its service and its slot.
        node: the name of its machine; empty as long as it has none.
        state: as `docker service ps` has it, such as Running or Complete.
        error: what is wrong; empty if nothing.
        is_wanted: whether Swarm still wants it to be.
    """

    name: str
    node: str
    state: str
    error: str
    is_wanted: bool


class Swarm:
    """The swarm of a rig."""

    def __init__(self, made: Rig) -> None:
        self.rig, self.manager = made, made.machines[0]
        self.alive = list(made.machines)

    def form(self) -> None:
        """Makes a swarm of the machines."""
        at = ("--advertise-addr", self.manager.address, "--listen-addr", self.manager.address)
        self.manager.docker("swarm", "init", *at, "--dispatcher-heartbeat", _HEARTBEAT)
        token = self.manager.docker("swarm", "join-token", "--quiet", "worker")
        for machine in self.alive[1:]:
            at = ("--advertise-addr", machine.address)
            machine.docker("swarm", "join", *at, "--token", token, f"{self.manager.address}:2377")

    def update(self, machine: Machine, *change: str) -> None:
        """Changes a node."""
        self.manager.docker("node", "update", *change, machine.name)

    def deploy(self, name: str, *files: Path) -> None:
        """Deploys a stack, without asking the registry for digests."""
        named = [word for file in files for word in ("--compose-file", str(file))]
        self.manager.docker("stack", "deploy", "--resolve-image", "never", *named, name)

    def remove(self, name: str) -> None:
        """Removes a stack, and waits until nothing of it is left on any machine."""
        self.manager.docker("stack", "rm", name)
        until(lambda: not self._left(name), f"nothing of {name} is left")

    def _left(self, name: str) -> list[str]:
        mine = ("--filter", f"label=com.docker.stack.namespace={name}", "--quiet")
        found = [machine.docker("ps", "--all", *mine) for machine in self.alive]
        return [each for each in (*found, self.manager.docker("network", "ls", *mine)) if each]

    def tasks(self, service: str) -> list[Task]:
        """The tasks of a service, the newest of each slot first."""
        said = self.manager.docker("service", "ps", "--no-trunc", "--format", "{{json .}}", service)
        read = (json.loads(line) for line in said.splitlines())
        return [
            Task(
                name=each["Name"].removeprefix("\\_").strip(),
                node=each["Node"],
                state=each["CurrentState"].split()[0],
                error=each["Error"],
                is_wanted=each["DesiredState"] != "Shutdown",
            )
            for each in read
        ]

    def running(self, service: str) -> list[Task]:
        """Those that are to run, and do."""
        return [task for task in self.tasks(service) if task.is_wanted and task.state == "Running"]

    def container(self, service: str, machine: Machine) -> str:
        """The id of the container of a service that runs on a machine; empty if none does."""
        of = f"label=com.docker.swarm.service.name={service}"
        return machine.docker("ps", "--filter", of, "--no-trunc", "--quiet")

    def wait_for_error(self, service: str, text: str) -> float:
        """Waits until a task of a service has an error; returns for how long it has waited, in seconds."""
        return until(
            lambda: any(text in task.error for task in self.tasks(service)), f"{service} says {text!r}", _BOUND
        )

    def volume(self, machine: Machine, name: str) -> Path:
        """The folder of a volume on a machine."""
        return machine.folder / "data-root" / "volumes" / name / "_data"


@contextlib.contextmanager
def swarm(count: int, image: str) -> Iterator[Swarm]:
    """A swarm whose machines all have an image of the engine of this machine, under the tag IMAGE."""
    with rig(count) as made:
        made.load(image, IMAGE)
        found = Swarm(made)
        found.form()
        yield found
