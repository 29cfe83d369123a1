"""A coordinator and agents in containers, as a user starts them: compose by its command, all else by the SDK."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import APIError, NotFound
from docker.models.containers import Container
from docker.models.networks import Network

ROOT = Path(__file__).resolve().parents[2]
RUN = "/var/lib/cospan/latest"
LEARNT = "/var/lib/cospan"
"""Where agents keep their files, in a volume of their own."""
_POLL_SECONDS = 0.2
WAIT_SECONDS = 240.0
"""Bound of every wait: a container's start takes a second alone, and a minute where other tests use every core."""


def compose_command() -> list[str]:
    """Compose v2 where there is one, else v1."""
    v2 = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False, timeout=30)
    return ["docker", "compose"] if v2.returncode == 0 else [shutil.which("docker-compose") or "docker-compose"]


def command_alone(workload: str, agents: int, rounds: int) -> list[str]:
    """What runs the same in one process; to be followed by --output and a folder."""
    fleet = ["--agents", str(agents), "--rounds", str(rounds)]
    return ["run", workload, *fleet, "--in-process", "--quiet", "--json"]


def basis_alone(workload: str, agents: int, rounds: int, *options: str) -> str:
    """`basis_sha256` of one process on this machine, with the kernels that BLAS takes in a container."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    with tempfile.TemporaryDirectory() as folder:
        command = [*command_alone(workload, agents, rounds), *options, "--output", f"{folder}/run"]
        done = subprocess.run(
            [sys.executable, "-m", "cospan.cli.main", *command],
            cwd=Path(__file__).parent,
            env=environment,
            capture_output=True,
            check=True,
            timeout=120,
        )
    return str(json.loads(done.stdout)["basis_sha256"])


_STALE = "has active endpoints"


def is_stale(network: Network) -> bool:
    """Whether the engine counts an endpoint in a network that it knows no container in: a busy one sometimes does.

    Until it is started again it refuses to remove such a network.
    """
    network.reload()
    if network.attrs["Containers"]:
        return False
    try:
        network.remove()
    except APIError as refusal:
        return _STALE in str(refusal)
    return False


class Stack:
    """One compose project; `overlays` are more files of compose, `settings` those of .env.

    It is that of this repository, or of a `folder` with a compose file of its own.
    """

    def __init__(
        self,
        client: DockerClient,
        image: str,
        project: str,
        overlays: Sequence[str] = (),
        folder: Path | None = None,
        **settings: object,
    ) -> None:
        self.client, self.project = client, project
        ours = [ROOT / file for file in ("docker-compose.yml", *overlays, "tests/e2e/compose.yml")]
        files = ours if folder is None else [folder / "compose.yaml"]
        self._command = [
            *compose_command(),
            *("--project-name", project),
            *("--project-directory", str(folder or ROOT)),
            *(word for file in files for word in ("-f", str(file))),
        ]
        values = {"COSPAN_IMAGE": image, "COSPAN_PORT": "0", "COSPAN_WORKLOAD": "paced:rings"} | settings
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COSPAN_")}
        self._environment = kept | {name: str(value) for name, value in values.items()}

    # Compose ----------------------------------------------------------------------------------------------------

    def compose(self, *arguments: str) -> None:
        """Runs compose, and fails with what it said."""
        done = self._composed(*arguments)
        assert done.returncode == 0, f"compose {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"

    def _composed(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
            stdin=subprocess.DEVNULL,
        )

    def up(self, *arguments: str) -> None:
        """Starts what is not running."""
        self.compose("up", "--detach", "--no-build", "--no-recreate", *arguments)

    def down(self) -> None:
        """Removes everything of the project; what runs is killed, since its end does not matter."""
        for container in self.containers():
            with contextlib.suppress(APIError):  # it is not paused
                container.unpause()
        down = ("down", "--volumes", "--remove-orphans", "--timeout", "1")
        done = self._composed(*down)
        if _STALE in done.stderr and not self.containers():
            self._remove_volumes()
        elif done.returncode:
            self.compose(*down)  # again: what is gone already is no error

    def _remove_volumes(self) -> None:
        """Those of the project; compose leaves them where it cannot remove the network."""
        for volume in self.client.volumes.list(filters={"label": f"com.docker.compose.project={self.project}"}):
            volume.remove(force=True)

    # Containers -------------------------------------------------------------------------------------------------

    def containers(self, service: str = "") -> list[Container]:
        """Those of the project: names differ between the versions of compose, labels do not."""
        labels = [f"com.docker.compose.project={self.project}"]
        labels += [f"com.docker.compose.service={service}"] if service else []
        return self.client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)

    @property
    def coordinator(self) -> Container:
        """The one."""
        (container,) = self.containers("coordinator")
        return container

    def agents(self) -> dict[str, Container]:
        """The agents' containers by the name of the site that the coordinator gave them."""
        sites = {}
        for container in self.containers("agent"):
            for line in container.logs().decode().splitlines():
                if line.startswith("site-"):
                    sites[line.split(":")[0]] = container
        return sites

    def end(self, seconds: float = WAIT_SECONDS) -> int:
        """The coordinator's exit code."""
        return int(self.coordinator.wait(timeout=seconds)["StatusCode"])

    def wait_for(self, reached: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Waits until something is so."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, f"waited in vain for {seconds:g} s until {what}"
            time.sleep(_POLL_SECONDS)

    # What the run says ------------------------------------------------------------------------------------------

    def file(self, name: str) -> str:
        """A file of the run folder; empty where it is not there yet."""
        try:
            chunks, _ = self.coordinator.get_archive(f"{RUN}/{name}")
        except NotFound:
            return ""
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            member = archive.extractfile(archive.getmembers()[0])
            return "" if member is None else member.read().decode()

    def learnt(self) -> list[str]:
        """The names of the files that the agents have written."""
        chunks, _ = self.containers("agent")[0].get_archive(LEARNT)
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            return sorted(Path(member.name).name for member in archive.getmembers() if member.isfile())

    def result(self) -> dict[str, Any]:
        """`result.json`."""
        document: dict[str, Any] = json.loads(self.file("result.json"))
        return document

    def said(self) -> list[str]:
        """What the coordinator has said, line by line."""
        return self.coordinator.logs().decode().splitlines()

    def wait_until_said(self, *words: str, seconds: float = WAIT_SECONDS) -> None:
        """Waits for a line with all these words."""
        self.wait_for(
            lambda: any(all(word in line for word in words) for line in self.said()), f"{words} are said", seconds
        )

    def rounds(self) -> list[dict[str, str]]:
        """The lines of `rounds.csv`."""
        lines = self.file("rounds.csv").splitlines()
        names = lines[0].split(",") if lines else []
        return [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
