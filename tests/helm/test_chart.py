"""The Helm chart: rendered as is kept, and valid by the schemas of many versions of Kubernetes.

UPDATE=1 writes `rendered` again: read the difference. Helm is that of `.ci/ensure-helm`.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="make helm-test installs it")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHART = ROOT / "deploy" / "helm" / "cospan"
VALUES = sorted((HERE / "values").glob("*.yaml"))
VERSIONS = [f"1.{minor}" for minor in range(27, 38)]
RENDERED_FOR = "1.33"
OLD = "1.20"
"""Without Indexed Jobs, failure policies and gRPC probes: StatefulSets."""
CUSTOM = {"Certificate", "ServiceMonitor"}


@cache
def helm() -> str:
    """The path of Helm."""
    done = subprocess.run([ROOT / ".ci" / "ensure-helm"], capture_output=True, text=True, check=True, timeout=300)
    return done.stdout.split()[-1]


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm(), *arguments], capture_output=True, text=True, check=False, timeout=120)


@cache
def rendered(values: Path, version: str, *options: str) -> str:
    """What Helm makes of a file of values."""
    done = called(
        "template", "fleet", str(CHART), "-n", "plant", "--kube-version", version, "-f", str(values), *options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def resources(text: str) -> Iterator[dict[str, Any]]:
    yield from (each for each in yaml.safe_load_all(text) if each is not None)


def by_kind(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The resources by kind and component."""
    found = {}
    for each in resources(text):
        component = each["metadata"]["labels"]["app.kubernetes.io/component"]
        found[each["kind"], component] = each
    return found


def pod_of(resource: Mapping[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = resource["spec"]["template"]["spec"]
    return pod


def test_lint() -> None:
    for values in VALUES:
        done = called("lint", "--strict", str(CHART), "-f", str(values))
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_rendered_files_are_those_that_are_kept(values: Path) -> None:
    kept = HERE / "rendered" / values.name
    text = rendered(values, RENDERED_FOR)
    if os.environ.get("UPDATE"):
        kept.write_text(text)
    assert text == kept.read_text(), "is the difference wanted? then: UPDATE=1 make helm-test, and read it"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_is_valid_by_the_strict_schemas(version: str) -> None:
    count = 0
    for values in VALUES:
        for each in resources(rendered(values, version)):
            if each["kind"] not in CUSTOM:
                kubernetes_validate.validate(each, version, strict=True)
                count += 1
    assert count > 30


def test_a_wrong_field_is_found() -> None:
    """Lest the test above pass whatever the files hold."""
    job = next(each for each in resources(rendered(HERE / "values" / "job.yaml", "1.33")) if each["kind"] == "Job")
    job["spec"]["template"]["spec"]["containers"][0]["ressources"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.33", strict=True)


def test_custom_resources_are_valid() -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no Node.js with npm")
    folder = HERE / "crds"
    if not (folder / "node_modules").is_dir():
        install = ["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(install, cwd=folder, check=True, timeout=300)
    custom = [
        each for each in resources(rendered(HERE / "values" / "operators.yaml", "1.33")) if each["kind"] in CUSTOM
    ]
    assert len(custom) == 6
    done = subprocess.run(
        ["node", "validate.mjs"],
        cwd=folder,
        input=json.dumps(custom),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout.count("right: ")) == (0, 6), done.stdout + done.stderr


def test_old_clusters_get_what_they_have() -> None:
    text = rendered(HERE / "values" / "endless.yaml", OLD)
    assert "grpc: {port" not in text
    assert "podFailurePolicy" not in rendered(HERE / "values" / "job.yaml", OLD)
    found = by_kind(text)
    assert "--shard=hostname/5" in pod_of(found["StatefulSet", "agents"])["containers"][0]["args"]
    assert "exec" in pod_of(found["StatefulSet", "coordinator"])["containers"][0]["readinessProbe"]


def test_each_group_has_its_part_and_its_relay() -> None:
    found = by_kind(rendered(HERE / "values" / "relays.yaml", "1.33"))
    agents, relays = found["Job", "agents"], found["Job", "relays"]
    assert (agents["spec"]["completions"], relays["spec"]["completions"]) == (20, 3)
    (container,) = pod_of(agents)["containers"]
    script = container["command"][2].replace("exec cospan", "echo")
    done = subprocess.run(
        ["sh", "-c", script, "cospan", *container["args"]],
        env={"JOB_COMPLETION_INDEX": "7", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    service = pod_of(relays)["subdomain"]
    assert f"--coordinator={relays['metadata']['name']}-1.{service}:15051" in done.stdout.split()
    assert "--shard=JOB_COMPLETION_INDEX/20" in done.stdout.split()
    assert found["Service", "relays"]["metadata"]["name"] == service


def volumes(pod: Mapping[str, Any]) -> dict[str, str]:
    """The Secrets of its certificates, by volume."""
    return {each["name"]: each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}


def test_relays_of_secure_sums_present_the_coordinator_a_certificate_of_relays() -> None:
    """One of agents could prove keys that a relay makes, and `cospan relay` refuses it."""
    found = by_kind(rendered(HERE / "values" / "secure.yaml", "1.33"))
    assert "--secure-sums" in pod_of(found["Job", "coordinator"])["containers"][0]["args"]
    relays = volumes(pod_of(found["Job", "relays"]))
    assert relays == {"certs": "fleet-relays-tls", "upstream-certs": "fleet-relays-upstream-tls"}
    plain = rendered(
        *(HERE / "values" / "secure.yaml", "1.33"),
        *("--set", "run.settings.secure-sums=false,tls.upstreamSecret="),
    )
    assert volumes(pod_of(by_kind(plain)["Job", "relays"]))["upstream-certs"] == "fleet-agents-tls"


def test_a_changed_run_gets_another_job_and_the_same_volume() -> None:
    before = by_kind(rendered(HERE / "values" / "job.yaml", "1.33"))
    after = by_kind(rendered(HERE / "values" / "job.yaml", "1.33", "--set-string", "image.tag=2"))
    for component in ("coordinator", "agents"):
        assert before["Job", component]["metadata"]["name"] != after["Job", component]["metadata"]["name"]
    claim = pod_of(after["Job", "coordinator"])["volumes"][0]
    assert claim == pod_of(before["Job", "coordinator"])["volumes"][0]
    again = by_kind(rendered(HERE / "values" / "job.yaml", "1.33", "--set", "metrics.serviceMonitor.interval=30s"))
    assert before["Job", "agents"] == again["Job", "agents"], "what has not changed stays"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("agents.groups=9", "agents.groups is 9, and run.agents only 8; each group hosts at least one agent"),
        ("run.agents=0", "at '/run/agents': minimum: got 0, want 1"),
        ("agents.grups=2", "additional properties 'grups' not allowed"),
        ("run.agents=70000", "a group hosts at most 65536 agents; raise agents.groups"),
        ("relays.count=2", "relays.count is 2, and there are only 1 groups of agents"),
        ("run.rounds=0,agents.kind=Job", "run.rounds is 0, so the run has no end, and a Job is not for that"),
        ("run.settings.port=5", 'run.settings has "port", which the chart sets itself'),
        ("tls.enabled=true", "tls.coordinatorSecret is empty; name a Secret with tls.crt, tls.key and ca.crt"),
        ("tls.enabled=true,tls.certManager.enabled=true", "issuerRef.name is empty; name an Issuer"),
        ("run.workload=a;b", "does not match pattern"),
        (
            "agents.groups=8,relays.count=2,run.settings.secure-sums=true,tls.enabled=true,tls.coordinatorSecret=c,"
            "tls.agentSecret=a,tls.relaySecret=r",
            "tls.upstreamSecret is empty; name a Secret",
        ),
    ],
)
def test_wrong_values_are_refused_with_a_sentence(options: str, says: str) -> None:
    done = called("template", "fleet", str(CHART), "--set", options)
    assert done.returncode != 0
    assert says in done.stderr
