"""A Kubernetes 1.20 on the machines of a rig: the control plane on the first, a kubelet on each.

The programs are those of `.ci/ensure-kubernetes`. Pods have addresses of their machine's bridge, and routes between
machines stand for a network plugin. Nothing enforces a NetworkPolicy, and `dns.py` resolves Services.
"""

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.machines import Machine, Rig, called, rig, until

IMAGE = "localhost:1/cospan"
"""Its registry refuses at once, should a kubelet ask it."""
TAGS = ("1", "2")
"""The same image twice, to upgrade from one to the other."""
_PAUSE = "localhost:1/pause:1"
_TOKEN = "admin-token"
_API = "10.77.0.1"
_BOUND = 180.0
_HERE = Path(__file__).parent
_POD_FOLDERS = (Path("/var/log/pods"), Path("/var/log/containers"))
"""Fixed in the kubelet: entries there name the namespace, which has the name of the rig."""

_KUBECONFIG = f"""apiVersion: v1
kind: Config
clusters: [{{name: rig, cluster: {{server: "https://{_API}:16443", insecure-skip-tls-verify: true}}}}]
users: [{{name: admin, user: {{token: {_TOKEN}}}}}]
contexts: [{{name: rig, context: {{cluster: rig, user: admin}}}}]
current-context: rig
"""
_KUBELET = f"""apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failSwapOn: false
oomScoreAdj: 0
clusterDNS: [{_API}]
clusterDomain: cluster.local
nodeStatusUpdateFrequency: 2s
evictionHard: {{imagefs.available: 1%, nodefs.available: 1%, memory.available: 10Mi}}
imageGCHighThresholdPercent: 100
"""
_RUNC = f"""#!/bin/sh
# The kubelet asks for an OOM score of -998 for its sandboxes, which needs CAP_SYS_RESOURCE: 0 in its place.
folder=
for word; do [ "$previous" = --bundle ] && folder=$word; previous=$word; done
[ -f "$folder/config.json" ] && sed -i 's/"oomScoreAdj":-[0-9]*/"oomScoreAdj":0/' "$folder/config.json"
exec {shutil.which("runc")} "$@"
"""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod.

    Attributes:
        name: its name.
        node: the name of its machine; empty as long as it has none.
        image: of its container.
        is_ready: whether its probes say so.
        is_leaving: whether it is being deleted.
    """

    name: str
    node: str
    image: str
    is_ready: bool
    is_leaving: bool


class Cluster:
    """The cluster of a rig, in whose namespace everything is."""

    def __init__(self, made: Rig, programs: Path) -> None:
        self.rig, self.namespace, self._programs = made, made.name, programs
        self._control, self._config = made.machines[0], made.folder / "kubeconfig"

    def kubectl(self, *arguments: str, seconds: float = 60.0) -> str:
        """The output of a command."""
        inside = ("nsenter", f"--net=/run/netns/{self._control.namespace}")
        program = (
            str(self._programs / "kubectl"),
            "--kubeconfig",
            str(self._config),
            "--namespace",
            self.namespace,
        )
        return called(*inside, *program, *arguments, seconds=seconds)

    def apply(self, text: str) -> str:
        """Applies manifests; returns what has changed."""
        file = self.rig.folder / "applied.yaml"
        file.write_text(text)
        return self.kubectl("apply", "--filename", str(file))

    def pods(self, component: str) -> list[Pod]:
        """The pods of a part of the fleet."""
        read = json.loads(
            self.kubectl("get", "pods", "-l", f"app.kubernetes.io/component={component}", "-o", "json")
        )
        return [
            Pod(
                name=each["metadata"]["name"],
                node=each["spec"].get("nodeName", ""),
                image=each["spec"]["containers"][0]["image"],
                is_ready=any(
                    state["type"] == "Ready" and state["status"] == "True"
                    for state in each["status"].get("conditions", [])
                ),
                is_leaving="deletionTimestamp" in each["metadata"],
            )
            for each in read["items"]
        ]

    def ready(self, component: str) -> list[Pod]:
        """Those that are ready and stay."""
        return [pod for pod in self.pods(component) if pod.is_ready and not pod.is_leaving]

    def is_node_ready(self, machine: Machine) -> bool:
        """Whether the control plane hears of a machine."""
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        with contextlib.suppress(AssertionError):
            return self.kubectl("get", "node", machine.name, "-o", f"jsonpath={path}") == "True"
        return False

    def start(self) -> None:
        """Starts everything, and waits until the machines are ready."""
        folder = self.rig.folder
        self._config.write_text(_KUBECONFIG)
        (folder / "kubelet.yaml").write_text(_KUBELET)
        (folder / "tokens.csv").write_text(f"{_TOKEN},admin,admin,system:masters\n")
        called("openssl", "genrsa", "-out", str(folder / "accounts.key"), "2048")
        self._start_control_plane(folder)
        for machine in self.rig.machines:
            self._start_kubelet(machine)
        for machine in self.rig.machines:
            until(lambda: self.is_node_ready(machine), f"{machine.name} is ready", _BOUND)  # noqa: B023
        self.kubectl("create", "namespace", self.namespace)
        account = ("get", "serviceaccount", "default", "--ignore-not-found", "-o", "name")
        until(lambda: self.kubectl(*account), "the namespace has its account", _BOUND)

    def _start_control_plane(self, folder: Path) -> None:
        client, peer = "http://127.0.0.1:12379", "http://127.0.0.1:12380"
        urls = (f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}")
        self._run("etcd", f"--data-dir={folder}/etcd", *urls, "--unsafe-no-fsync")
        self._run(
            "kube-apiserver",
            *(f"--etcd-servers={client}", "--service-cluster-ip-range=10.96.0.0/24", f"--cert-dir={folder}/certs"),
            *("--secure-port=16443", f"--bind-address={_API}", f"--advertise-address={_API}"),
            *("--service-account-issuer=https://kubernetes.default.svc", "--api-audiences=api"),
            *(f"--service-account-{name}-file={folder}/accounts.key" for name in ("signing-key", "key")),
            *(f"--token-auth-file={folder}/tokens.csv", "--authorization-mode=AlwaysAllow"),
            *("--feature-gates=RootCAConfigMap=false", "--kubelet-preferred-address-types=InternalIP"),
        )
        until(self._is_serving, f"the API server is ready ({self._control.folder}/kube-apiserver.log)", _BOUND)
        common = (f"--kubeconfig={self._config}", "--leader-elect=false", "--bind-address=127.0.0.1", "--port=0")
        periods = ("--node-monitor-period=2s", "--node-monitor-grace-period=12s")
        account = f"--service-account-private-key-file={folder}/accounts.key"
        self._run("kube-controller-manager", *common, *periods, account)
        self._run("kube-scheduler", *common)
        dns = (sys.executable, str(_HERE / "dns.py"), _API, f"https://{_API}:16443", _TOKEN)
        self._control.start("dns", *dns)

    def _is_serving(self) -> bool:
        with contextlib.suppress(AssertionError):
            return self.kubectl("get", "--raw", "/readyz") == "ok"
        return False

    def _run(self, program: str, *options: str) -> None:
        self._control.start(program, str(self._programs / program), *options)

    def _start_kubelet(self, machine: Machine) -> None:
        folder = machine.folder / "kubelet"
        shim = f"unix://{folder}/dockershim.sock"
        machine.start(
            "kubelet",
            str(self._programs / "kubelet"),
            *(f"--config={self.rig.folder}/kubelet.yaml", f"--kubeconfig={self._config}", f"--root-dir={folder}"),
            *(f"--hostname-override={machine.name}", f"--node-ip={machine.address}", f"--cert-dir={folder}/pki"),
            *("--container-runtime=docker", f"--docker-endpoint=unix://{machine.folder}/sock", "--network-plugin="),
            *(f"--container-runtime-endpoint={shim}", f"--image-service-endpoint={shim}", "--runtime-cgroups=/"),
            *(
                f"--experimental-dockershim-root-directory={folder}/dockershim",
                f"--volume-plugin-dir={folder}/plugins",
            ),
            *(f"--pod-infra-container-image={_PAUSE}", f"--seccomp-profile-root={folder}/seccomp"),
        )


def engine_options(machine: Machine) -> Sequence[str]:
    """Of a machine's engine: containers have addresses that the other machines route to."""
    runtime = machine.folder / "runc"
    runtime.write_text(_RUNC)
    runtime.chmod(0o755)
    bridge = (f"--bip=10.88.{machine.number}.1/24", "--iptables=false", "--ip-masq=false")
    return (*bridge, f"--add-runtime=lifted={runtime}", "--default-runtime=lifted")


@contextlib.contextmanager
def cluster(count: int, image: str, programs: Path) -> Iterator[Cluster]:
    """A cluster whose machines all have an image of the engine of this machine, under both TAGS."""
    with rig(count, engine_options) as made:
        for one in made.machines:
            for other in made.machines:
                if one is not other:
                    route = (f"10.88.{other.number}.0/24", "via", other.address)
                    called("ip", "-n", one.namespace, "route", "add", *route)
        made.load(image, *(f"{IMAGE}:{tag}" for tag in TAGS))
        for machine in made.machines:
            _make_pause(machine)
        had_folder = Path("/var/lib/kubelet").exists()
        try:
            found = Cluster(made, programs)
            found.start()
            yield found
        finally:
            made.end()
            _remove_traces(made.name, had_folder=had_folder)


def _make_pause(machine: Machine) -> None:
    """The image of sandboxes: it waits, and obeys SIGTERM."""
    wait = json.dumps(["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait"])
    container = machine.docker("create", f"{IMAGE}:{TAGS[0]}")
    changes = (f"--change=ENTRYPOINT {wait}", "--change=CMD []", "--change=HEALTHCHECK NONE")
    machine.docker("commit", *changes, container, _PAUSE)
    machine.docker("rm", container)


def _remove_traces(namespace: str, *, had_folder: bool) -> None:
    """What kubelets write outside of their folders."""
    for folder in _POD_FOLDERS:
        for entry in folder.glob(f"*{namespace}_*"):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
    if not had_folder:
        shutil.rmtree("/var/lib/kubelet", ignore_errors=True)
