"""What the containers may have and do, as the compose files say it; no Docker is needed."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from cospan.cli.main import app
from cospan.cli.settings.layers import unknown_variables

ROOT = Path(__file__).resolve().parents[2]
FILES = [*sorted(ROOT.glob("docker-compose*.yml")), ROOT / "tests" / "e2e" / "compose.yml"]
WRITABLE = {"grafana"}
"""The services that need a root file system which they can write to; their file says why."""


def documents() -> list[dict[str, Any]]:
    return [yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES]


def services() -> dict[str, dict[str, Any]]:
    """Each service with all that the main file and every overlay say of it; lists are joined."""
    found: dict[str, dict[str, Any]] = {}
    for document in documents():
        for name, said in document["services"].items():
            service = found.setdefault(name, {})
            for key, value in said.items():
                both = isinstance(value, list) and key in service and key != "environment"
                service[key] = service[key] + value if both else value
    return found


SERVICES = services()
ALL = pytest.mark.parametrize("name", sorted(SERVICES))


def volumes(name: str) -> list[list[str]]:
    """Source, target and options of each volume that a service can write to."""
    found = [
        text.replace("${COSPAN_CERTS:-./certs}", "./certs").split(":") for text in SERVICES[name].get("volumes", ())
    ]
    return [volume for volume in found if volume[-1] != "ro"]


def test_all_files_are_seen() -> None:
    assert len(FILES) >= 4
    assert {"coordinator", "agent", "prometheus", "grafana", "proxy"} <= SERVICES.keys()


@ALL
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("read_only", False) is (name not in WRITABLE)
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices", "user"} & service.keys()
    assert not any("docker.sock" in volume for volume in service.get("volumes", ()))


@ALL
def test_a_service_cannot_use_up_the_machine(name: str) -> None:
    """Threads, memory, open files, and memory by way of a file system in it."""
    service = SERVICES[name]
    assert 64 <= service["pids_limit"] <= 1024
    assert service["deploy"]["resources"]["limits"]["memory"][-1] in "mg"
    files = service["ulimits"]["nofile"]
    assert 1024 <= files["soft"] == files["hard"] <= 1 << 20
    assert service["ulimits"]["core"] == 0, "a core dump holds keys and tokens"
    for mount in service.get("tmpfs", ()):
        _, _, options = mount.partition(":")
        sizes = [option.removeprefix("size=") for option in options.split(",") if option.startswith("size=")]
        assert len(sizes) == 1, f"{mount} has no size: it may take half of the machine's memory"
        assert sizes[0].endswith("m")


@ALL
def test_ports_are_published_to_this_machine_alone(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        assert port.startswith("127.0.0.1:")


def test_agents_do_not_see_the_coordinators_store() -> None:
    """It holds the session token of every agent, with which another process can speak in its place."""
    stores = {source for source, *_ in volumes("coordinator")}
    assert stores == {"runs"}
    for name in SERVICES.keys() - {"coordinator"}:
        assert not stores & {source for source, *_ in volumes(name)}, name
    key = "/coordinator:/certs:ro"
    assert any(text.endswith(key) for text in SERVICES["coordinator"]["volumes"])
    assert not any(text.endswith(key) for text in SERVICES["agent"]["volumes"])


def test_agents_write_into_their_own_volume() -> None:
    """The folder of the image, which belongs to the user that they run as: so a new volume does, too."""
    ((_, target),) = volumes("agent")
    outputs = [
        word.removeprefix("--output=") for word in SERVICES["agent"]["command"] if word.startswith("--output=")
    ]
    assert outputs == [target]
    assert f"chown 10001:10001 {target}" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_every_volume_and_network_is_declared() -> None:
    declared = {name for document in documents() for name in document.get("volumes", ())}
    used = {source for name in SERVICES for source, *_ in volumes(name)}
    assert used == declared
    assert {network for service in SERVICES.values() for network in service["networks"]} == {"fleet"}


def test_no_variable_of_the_compose_files_is_warned_of() -> None:
    """A shell that exports what .env.example names runs other commands, too."""
    texts = [path.read_text(encoding="utf-8") for path in (*FILES, ROOT / ".env.example")]
    names = {name for text in texts for name in re.findall(r"\bCOSPAN_[A-Z_]+\b", text)}
    assert {"COSPAN_AGENTS", "COSPAN_AGENT_CERTS"} <= names
    assert unknown_variables(dict.fromkeys(names, "")) == []


@pytest.mark.parametrize("name", ["coordinator", "agent"])
def test_a_service_gives_options_that_its_command_has(name: str) -> None:
    command, *words = SERVICES[name]["command"]
    found: Any = typer.main.get_command(app)
    known = {option for parameter in found.commands[command].params for option in parameter.opts}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given
    assert given <= known
