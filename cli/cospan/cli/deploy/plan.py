"""What is to be deployed, and the command lines of coordinator and agents that follow from it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Any

from cospan.cli.settings.layers import Settings, load_settings
from cospan.client.workloads import BUILT_IN
from cospan.core import fields
from cospan.core.method import Method
from cospan.core.privacy.request import OFF
from cospan.core.run_fields import DEFAULT_MIN_COHORT, RunFields
from cospan.wire.address import parse_address
from cospan.wire.errors import InvalidValueError
from cospan.wire.limits import MAX_GROUP

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_WORKLOAD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]{0,254}")
_PROGRAM = re.compile(r"/[A-Za-z0-9._/+-]+")
_MOST_GROUPS = 100_000
_DEFAULT_GROUPS = 8
_ROUNDS = 300
_OWN = ("agents", "rounds", "feature_dim", "fingerprint")
_WAITING = {"round_timeout_seconds": "300", "start_seconds": "600"}
"""Longer than an engine takes to start a group elsewhere: with the defaults a run may end before that."""
STATE = "/var/lib/cospan"
"""Where the image and the units of systemd keep files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be deployed.

    Attributes:
        workload: a built-in one, or package.module:name.
        agents: number of agents.
        groups: number of processes that host them, each an equal part.
        rounds: number of rounds; 0 for an endless run.
        name: of the deployment: lower-case letters, digits and hyphens.
        image: of the containers.
        program: path of the command `cospan`, where there are no containers.
        address: at which agents reach the coordinator, where the engine gives it no name.
        tls: whether every process presents a certificate.
        settings: further options of the coordinator by name, with underscores.
    """

    workload: str
    agents: int
    groups: int
    rounds: int
    name: str
    image: str
    program: str
    address: str
    tls: bool
    settings: Mapping[str, str]

    def coordinator(self, *, host: str, runs_folder: str = STATE) -> list[str]:
        """The arguments of the coordinator's process."""
        return [
            "coordinator",
            f"--workload={self.workload}",
            f"--agents={self.agents}",
            f"--rounds={self.rounds}",
            *(_option(name, value) for name, value in (_WAITING | dict(self.settings)).items()),
            f"--host={host}",
            *(() if self.tls or _is_local(host) else ("--insecure",)),
            f"--runs-folder={runs_folder}",
            "--once",
        ]

    def agent(self, *, index: str, coordinator: str, output: str = STATE) -> list[str]:
        """The arguments of a process of agents; `index` is K of `--shard K/N`."""
        return [
            "agent",
            self.workload,
            f"--agents={self.agents}",
            f"--shard={index}/{self.groups}",
            f"--coordinator={coordinator}",
            "--engine-patience",
            f"--output={output}",
        ]

    @property
    def sentence(self) -> str:
        """What it runs."""
        rounds = f"{self.rounds} rounds" if self.rounds else "without an end"
        return f"{self.agents} agents of {self.workload} in {self.groups} groups, {rounds}"


def _is_local(host: str) -> bool:
    return host == "127.0.0.1"


def planned(
    workload: str,
    given: Mapping[str, Any],
    config: Path | None,
    *,
    groups: int | None,
    name: str,
    image: str,
    program: str,
    tls: bool,
) -> Plan:
    """The plan of the options and settings of all layers.

    Raises:
        InvalidValueError: one of them is not as it must be, or is missing.
    """
    settings = load_settings(given, config)
    run = settings.of(RunFields)
    agents = run.get("agents")
    if agents is None:
        raise InvalidValueError("agents is not set; say how many agents the fleet has with --agents")
    checks = (
        (workload in BUILT_IN or _WORKLOAD.fullmatch(workload), "workload", workload, _names_of_workloads()),
        (_NAME.fullmatch(name), "--name", name, "it must be 1 to 40 lower-case letters, digits and hyphens"),
        (_IMAGE.fullmatch(image), "--image", image, "it must be the name of an image, as registry/cospan:1"),
        (_PROGRAM.fullmatch(program), "--program", program, "it must be the absolute path of cospan"),
    )
    for is_right, what, value, expected in checks:
        if not is_right:
            raise InvalidValueError(f"{what} is {value[:80]!r}; {expected}")
    if settings.dp not in (None, OFF):
        raise InvalidValueError(
            f"dp is {settings.dp!r}; the processes that an engine starts are groups, and a group never forms the "
            "uploads of its agents that differential privacy clips: start `cospan agent` for each agent, or leave "
            "out dp"
        )
    problems = fields.value_problems(RunFields, run) + fields.value_problems(Method, settings.of(Method))
    if problems:
        raise InvalidValueError("; ".join(problems))
    parse_address(settings.coordinator, "coordinator")
    groups = _groups(agents, groups)
    _check_secure_sums(run, groups)
    return Plan(
        workload=workload,
        agents=agents,
        groups=groups,
        rounds=run.get("rounds", _ROUNDS),
        name=name,
        image=image,
        program=program,
        address=settings.coordinator,
        tls=tls,
        settings=_further(settings),
    )


def _names_of_workloads() -> str:
    return f"it must be {', '.join(BUILT_IN)}, or package.module:name"


def _groups(agents: int, groups: int | None) -> int:
    """The number of groups, checked.

    Raises:
        InvalidValueError: there are more groups than agents, or a group would have too many agents.
    """
    if groups is None:
        return min(max(_DEFAULT_GROUPS, -(-agents // MAX_GROUP)), agents)
    if not 1 <= groups <= min(agents, _MOST_GROUPS):
        raise InvalidValueError(
            f"groups is {groups}, and there are {agents} agents; it must be 1 to {min(agents, _MOST_GROUPS)}"
        )
    if agents > groups * MAX_GROUP:
        raise InvalidValueError(
            f"groups is {groups}, and a group hosts at most {MAX_GROUP} of the {agents} agents; it must be "
            f"{-(-agents // MAX_GROUP)} or more"
        )
    return groups


def _check_secure_sums(run: Mapping[str, Any], groups: int) -> None:
    """Checks what only a coordinator would find at its start, and what that cannot know: the number of groups.

    Raises:
        InvalidValueError: no secure sum could be formed, or a setting of secure sums is given without them.
    """
    if not run.get("secure_sums"):
        if run.get("min_cohort"):
            raise InvalidValueError(f"min_cohort is {run['min_cohort']} without secure sums; say --secure-sums")
        return
    if run.get("quorum"):
        raise InvalidValueError(
            f"quorum is {run['quorum']:g}; with secure sums participation must be all, for the masks cancel only "
            "in the sum of all members: leave out quorum"
        )
    least = run.get("min_cohort", DEFAULT_MIN_COHORT)
    if groups < least:
        raise InvalidValueError(
            f"the fleet has {groups} groups, and of fewer than min_cohort = {least} processes no secure sum is "
            "formed; have more --groups"
        )


def _further(settings: Settings) -> dict[str, str]:
    """What is set of the run and its method, as the text of options, in the order of the tables."""
    names = [*fields.settings(RunFields), *fields.settings(Method), "preset", "start_seconds"]
    values = {name: getattr(settings, name) for name in names if name not in _OWN}
    return {name: _text(value) for name, value in values.items() if value is not None}


def _option(name: str, value: str) -> str:
    """As the coordinator takes it; secure sums are a flag without a value."""
    option = name.replace("_", "-")
    if name == "secure_sums":
        return f"--{option}" if value == "true" else f"--no-{option}"
    return f"--{option}={value}"


def _text(value: Any) -> str:
    """As an option has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def filled(template: str, **values: str) -> str:
    """A file of `templates`, with the values in place of its @names@.

    Lines that consist of a name alone are taken out where its value is empty.
    """
    text = files("cospan.cli.deploy").joinpath("templates", f"{template}.tmpl").read_text(encoding="utf-8")
    for name, value in values.items():
        if not value:
            text = re.sub(rf"^[ \t]*@{name}@\n", "", text, flags=re.MULTILINE)
        text = text.replace(f"@{name}@", value)
    return text


def listed(arguments: list[str], indent: int) -> str:
    """Arguments as items of a YAML list, without the first line's indentation."""
    return f"\n{' ' * indent}".join(f"- {_quoted(each)}" for each in arguments)


def _quoted(text: str) -> str:
    """As YAML reads it back; plain where that is the same."""
    is_plain = re.fullmatch(r"--[a-z-]+(=[A-Za-z0-9_./:@*-]+)?|[a-z]+", text)
    return text if is_plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def continued(arguments: list[str], indent: int = 2) -> str:
    """Arguments on lines of a shell command or a unit of systemd, each but the last ended by a backslash."""
    return f" \\\n{' ' * indent}".join(arguments)
