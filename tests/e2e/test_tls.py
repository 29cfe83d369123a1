"""`docker-compose.tls.yml`, as docs/security.md says it: a fleet with certificates, renewal, and an outsider."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from docker import DockerClient
from e2e.stack import Stack, basis_alone

AGENTS, ROUNDS = 3, 300
OVERLAY = "docker-compose.tls.yml"


def cospan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cospan.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def give_to_containers(client: DockerClient, image: str, folder: Path) -> None:
    """The keys belong to the user of the image, as the documentation says."""
    client.containers.run(
        image,
        ["-R", "10001:10001", "/certs/coordinator", "/certs/fleet"],
        entrypoint="chown",
        user="0",
        volumes={str(folder): {"bind": "/certs", "mode": "rw"}},
        remove=True,
    )


def test_a_fleet_with_certificates(
    start: Callable[..., Stack], client: DockerClient, image: str, tmp_path: Path
) -> None:
    """The bits are those of one process; all certificates are renewed on the way; who has none is not let in."""
    certs = tmp_path / "certs"
    for arguments in (
        ("init",),
        ("issue", "--coordinator", "coordinator"),
        ("issue", "--agents", "*"),
        ("issue", "--admin"),
    ):
        assert cospan("certs", arguments[0], str(certs), *arguments[1:]).returncode == 0
    tmp_path.chmod(0o755)
    give_to_containers(client, image, certs)
    stack = start(
        *("--scale", f"agent={AGENTS}"),
        overlays=[OVERLAY],
        COSPAN_CERTS=certs,
        COSPAN_AGENTS=AGENTS,
        COSPAN_ROUNDS=ROUNDS,
        PACE_SECONDS=0.01,
    )
    stack.wait_until_said("round 0: run started")
    stack.wait_for(lambda: stack.coordinator.attrs["State"]["Health"]["Status"] == "healthy", "it is healthy")
    port = stack.coordinator.attrs["NetworkSettings"]["Ports"]["15051/tcp"][0]["HostPort"]
    admin = certs / "admin"
    files = [f"--tls-{name}={admin / file}.pem" for name, file in (("cert", "cert"), ("key", "key"), ("ca", "ca"))]
    address = f"127.0.0.1:{port}"
    assert cospan("status", "--coordinator", address, *files).returncode == 0
    refused = cospan("status", "--coordinator", address)
    assert (refused.returncode, "asks for a client certificate" in refused.stderr) == (1, True)

    assert cospan("certs", "renew", str(certs), "--all").returncode == 0
    give_to_containers(client, image, certs)
    stack.wait_for(
        lambda: sum("agent back" in line for line in stack.said()) >= AGENTS,
        "every agent shows its new certificate",
    )
    assert stack.end() == 0
    result = stack.result()
    assert (result["rounds"], result["departures"]) == (ROUNDS, [])
    assert {row["contributors"] for row in stack.rounds()} == {str(AGENTS)}, "no round is lost"
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in "".join(stack.said()), "the log says why a handshake was refused"
    alone = basis_alone("paced:rings", AGENTS, ROUNDS, "--secure-sums")
    assert result["basis_sha256"] == alone, "the overlay has secure sums, and a new certificate makes no new key"
