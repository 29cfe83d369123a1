"""The chart of `cospan deploy kubernetes` on a real Kubernetes 1.20 of three machines, as StatefulSets.

Prints what happens when: the log in docs/engines/kubernetes.md is that of `make kubernetes-test`.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from behaviour.command import in_this_process
from kube_cluster.cluster import IMAGE, TAGS, Cluster, Pod
from rig.machines import until
from rig.stored_run import StoredRun

AGENTS, GROUPS, ROUNDS = 160, 8, 800
RUN = ("queues", "--agents", str(AGENTS), "--seed", "3")
PATIENT = ("--session-timeout-seconds", "300")
"""The fleet waits for a group that is started elsewhere, so each round has all agents, and the bits are those of a
run without failures."""
VALUES = {
    "coordinator": {
        "kind": "StatefulSet",
        "nodeSelector": {"runs": "here"},
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
    },
    "agents": {
        "groups": GROUPS,
        "kind": "StatefulSet",
        "existingClaim": "learnt",
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
    },
}
"""The rig's machines share two cores."""
USER = 10001
"""Of the image."""
_BOUND = 300.0


class Release:
    """A release of the chart: its manifests, rendered and applied, and its run."""

    def __init__(self, cluster: Cluster, helm: Path, folder: Path, name: str) -> None:
        self.cluster, self.name = cluster, name
        self._helm, self._folder = helm, folder
        self._began = time.monotonic()
        self.learnt = self._volume("learnt", "learnt", "ReadWriteMany")
        self._runs = self._volume(f"{name}-coordinator", "runs", "ReadWriteOnce")
        self.run = StoredRun(self._runs)
        made = (*RUN, *PATIENT, "--groups", str(GROUPS), "--name", name, "--image", f"{IMAGE}:{TAGS[0]}")
        assert in_this_process("deploy", "kubernetes", *made, "--output", str(folder)) == 0
        (folder / "rig.yaml").write_text(yaml.safe_dump(VALUES))

    def _volume(self, claim: str, folder: str, mode: str) -> Path:
        """A volume that all machines share, for a claim."""
        path = self.cluster.rig.folder / f"{self.name}-{folder}"
        path.mkdir()
        os.chown(path, USER, USER)
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": path.name},
            "spec": {
                "capacity": {"storage": "5Gi"},
                "accessModes": [mode],
                "hostPath": {"path": str(path)},
                "claimRef": {"namespace": self.cluster.namespace, "name": claim},
            },
        }
        self.cluster.apply(yaml.safe_dump(volume))
        if claim == "learnt":
            wanted = {"accessModes": [mode], "resources": {"requests": {"storage": "5Gi"}}}
            made = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": claim},
                "spec": wanted,
            }
            self.cluster.apply(yaml.safe_dump(made))
        return path

    def apply(self, *options: str, rounds: int) -> None:
        """`helm template | kubectl apply`."""
        command = [
            self._helm,
            "template",
            self.name,
            "chart",
            "-f",
            "values.yaml",
            "-f",
            "rig.yaml",
            "--skip-tests",
        ]
        done = subprocess.run(
            [
                *command,
                "--namespace",
                self.cluster.namespace,
                "--kube-version",
                "1.20",
                "--set",
                f"run.rounds={rounds}",
                *options,
            ],
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        self.cluster.apply(done.stdout)

    def tell(self, what: str) -> None:
        """Prints a line of the log."""
        print(f"{time.monotonic() - self._began:6.1f} s  round {self.run.rounds:5}  {what}")

    def wait_for_fleet(self, others: Callable[[Pod], object] = lambda _: True) -> None:
        """All groups run, and all agents take part in a round that is stored after that."""
        until(
            lambda: len([pod for pod in self.cluster.ready("agents") if others(pod)]) == GROUPS,
            "groups run",
            _BOUND,
        )
        reached = self.run.rounds
        until(lambda: self.run.rounds > reached and self.run.state.agents == AGENTS, "all agents take part", _BOUND)

    def wait_for_end(self) -> dict[str, Any]:
        """The result of the run, in which no round is missing."""
        until(lambda: self.run.is_over, "the run is over", _BOUND)
        result = self.run.result()
        assert self.run.closed() == list(range(result["rounds"]))
        return result

    def remove(self) -> None:
        """Deletes everything of it, and waits until nothing is left."""
        of = ("-l", f"app.kubernetes.io/instance={self.name}")
        kinds = "statefulset,service,networkpolicy,persistentvolumeclaim"
        self.cluster.kubectl("delete", kinds, *of, "--wait=false")
        self.cluster.kubectl("delete", "persistentvolumeclaim", "learnt", "--wait=false")
        until(lambda: not self.cluster.kubectl("get", "pods", "-o", "name"), "no pod is left", _BOUND)
        self.cluster.kubectl("delete", "persistentvolume", "--all")
        for folder in (self.learnt, self._runs):
            shutil.rmtree(folder)


@pytest.fixture
def release(kubernetes: Cluster, helm: Path, tmp_path: Path) -> Iterator[Release]:
    """A release that is not applied yet; it is removed with the test."""
    made = Release(kubernetes, helm, tmp_path / "fleet", "fleet")
    yield made
    made.remove()


@pytest.fixture(scope="session")
def undisturbed(kubernetes: Cluster) -> str:
    """`basis_sha256` of the run in one process, in the same image."""
    command = (
        "run",
        *RUN,
        "--rounds",
        str(ROUNDS),
        "--processes",
        str(GROUPS),
        "--in-process",
        "--quiet",
        "--json",
        "--output=/tmp/run",
    )
    engine = kubernetes.rig.machines[0]
    said = engine.docker("run", "--rm", "--tmpfs=/tmp", f"{IMAGE}:{TAGS[0]}", *command, seconds=_BOUND)
    return str(json.loads(said)["basis_sha256"])


def node_of(cluster: Cluster, component: str) -> str:
    """Where the one pod of a component is; empty while there is none."""
    pods = cluster.ready(component)
    return pods[0].node if pods else ""


def test_drained_and_upgraded(kubernetes: Cluster, release: Release) -> None:
    """Pods leave in order, so rounds go on without their agents; no round is lost, and all agents come back."""
    kubernetes.kubectl("label", "node", "--all", "runs=here")
    release.apply(rounds=0)
    release.wait_for_fleet()
    release.tell("160 agents in 8 pods, a run without an end")

    drained = node_of(kubernetes, "coordinator")
    kubernetes.kubectl(
        *("drain", drained, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"), seconds=150
    )
    release.tell(f"{drained}, the coordinator's machine, is drained")
    until(lambda: node_of(kubernetes, "coordinator") not in ("", drained), "it is elsewhere", _BOUND)
    release.wait_for_fleet(lambda pod: pod.node != drained)
    assert release.run.state.incarnation == 2
    release.tell(f"the coordinator runs on {node_of(kubernetes, 'coordinator')}, all agents take part")
    kubernetes.kubectl("uncordon", drained)

    release.apply("--set-string", f"image.tag={TAGS[1]}", rounds=0)
    release.tell("the image is another: pods are replaced, one after the other")
    newer = f"{IMAGE}:{TAGS[1]}"
    until(lambda: [pod.image for pod in kubernetes.ready("coordinator")] == [newer], "it is upgraded", _BOUND)
    release.wait_for_fleet(lambda pod: pod.image == newer)
    assert release.run.state.incarnation == 3
    release.tell("every pod has it, all agents take part")

    reached = release.run.rounds
    with contextlib.suppress(AssertionError):  # its container ends before it does
        kubernetes.kubectl("exec", "fleet-coordinator-0", "--", "cospan", "stop")
    assert release.wait_for_end()["rounds"] >= reached
    release.tell("stopped by `cospan stop`, with every round from 0 on")


def test_killed_and_deleted(kubernetes: Cluster, release: Release, undisturbed: str) -> None:
    """Agents are started first; a machine is killed, and the coordinator deleted: the bits stay the same."""
    kubernetes.kubectl("label", "node", "--all", "runs-")
    release.apply(rounds=ROUNDS)
    until(lambda: len(kubernetes.ready("agents")) == GROUPS, "the groups wait", _BOUND)
    assert not kubernetes.ready("coordinator")
    kubernetes.kubectl("label", "node", "n1", "runs=here")
    release.wait_for_fleet()
    release.tell("160 agents in 8 pods, which were there before the coordinator")

    lost = kubernetes.rig.machines[2]
    groups = {pod.name for pod in kubernetes.ready("agents") if pod.node == lost.name}
    assert groups
    lost.kill()
    release.tell(f"{lost.name} is killed, with {', '.join(sorted(groups))}")
    until(lambda: not kubernetes.is_node_ready(lost), f"{lost.name} is missed", _BOUND)
    release.tell(f"{lost.name} is NotReady; a StatefulSet starts no pod again until its node is deleted")
    kubernetes.kubectl("delete", "node", lost.name)
    release.wait_for_fleet(lambda pod: pod.node != lost.name)
    release.tell("its pods run elsewhere, with their sites")

    kubernetes.kubectl("delete", "pod", "--grace-period=0", "--force", "fleet-coordinator-0")
    release.tell("the coordinator's pod is deleted, by force")
    until(lambda: release.run.state.incarnation == 2, "the run is resumed", _BOUND)
    release.wait_for_fleet()
    release.tell("another has resumed the run")

    result = release.wait_for_end()
    assert (result["rounds"], result["basis_sha256"]) == (ROUNDS, undisturbed)
    release.tell("the run is over, with the bits of an undisturbed one")
    expected = {f"site-{index}.npz" for index in range(AGENTS)}
    until(
        lambda: {file.name for file in release.learnt.glob("site-*.npz")} == expected, "files are written", _BOUND
    )
