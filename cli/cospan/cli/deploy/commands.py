"""Commands that write what engines run: deploy kubernetes, swarm, compose, slurm, systemd."""

import inspect
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from cospan.cli.interface import options as o
from cospan.cli.interface import setting_options as s
from cospan.cli.interface.completion import WORKLOADS, one_of
from cospan.cli.interface.setting_options import with_settings

_Workload: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="WORKLOAD",
        help="A built-in workload, or package.module:name of the image.",
        autocompletion=one_of(WORKLOADS),
    ),
]
_Groups: TypeAlias = Annotated[
    int | None,
    o.fleet_option(
        "--groups",
        "Number of processes that host the agents, an equal part each.",
        "G",
        show_default="8, or one for each of fewer agents",
    ),
]
_Name: TypeAlias = Annotated[str, o.fleet_option("--name", "Name of the deployment.", "NAME")]
_Image: TypeAlias = Annotated[str, o.fleet_option("--image", "The image of all containers.", "IMAGE")]
_Program: TypeAlias = Annotated[str, o.fleet_option("--program", "Path of cospan there.", "PATH")]
_Tls: TypeAlias = Annotated[
    bool, typer.Option("--tls", help="Every process presents a certificate; the files say how to make them.")
]
_Output: TypeAlias = Annotated[Path | None, o.file_option("--output", "Folder to write the files to.", "FOLDER")]
_DryRun: TypeAlias = Annotated[bool, o.file_option("--dry-run", "Print the files, and write nothing.", None)]

_RUN = (
    s.DEPLOY_AGENTS,
    s.DEPLOY_ROUNDS,
    s.RUN["seed"],
    *s.LEARNING_RULE,
    *s.WAITING,
    *s.SECURE_SUMS,
    *s.DEPLOY_TIMEOUTS,
    s.COORDINATOR_START,
)
_PROGRAM = "/opt/cospan/bin/cospan"
_IMAGE = "cospan:0.1.0"


def _deliver(engine: str, given: Mapping[str, Any], config: Path | None, chosen: dict[str, Any]) -> None:
    """Makes the files of an engine, and writes or prints them."""
    from cospan.cli.deploy import containers, hosts, kubernetes
    from cospan.cli.deploy.plan import Plan, planned
    from cospan.cli.deploy.writing import deliver

    writing = {name: chosen.pop(name) for name in ("output", "dry_run", "force")}
    insecure = bool(given.get("insecure", False))
    values = {"image": _IMAGE, "program": _PROGRAM, "name": "fleet", **chosen}
    plan = planned(values.pop("workload"), given, config, **values)
    makers: dict[str, Callable[[Plan], dict[str, str]]] = {
        "kubernetes": kubernetes.kubernetes,
        "swarm": containers.swarm,
        "compose": containers.compose,
        "slurm": hosts.slurm,
        "systemd": lambda plan: hosts.systemd(plan, insecure=insecure),
    }
    raise typer.Exit(deliver(makers[engine](plan), **writing))


def _every_option(
    given: o.Given,
    workload: _Workload,
    groups: _Groups = None,
    name: _Name = "fleet",
    image: _Image = _IMAGE,
    program: _Program = _PROGRAM,
    tls: _Tls = False,
    output: _Output = None,
    dry_run: _DryRun = False,
    force: o.Force = False,
    *,
    config: o.Config = None,
    debug: o.Debug = False,
) -> None:
    """The parameters of the commands below, which are all alike; each engine lacks some."""


def _command(engine: str, text: str, *settings: s.SettingOption, lacks: Collection[str]) -> Callable[..., None]:
    """The command of an engine.

    Args:
        engine: its name.
        text: the help of the command.
        settings: of the engine alone, after those of the run.
        lacks: the parameters that the engine has no use for.
    """

    def deploy(given: o.Given, config: Path | None, debug: bool, **chosen: Any) -> None:
        _deliver(engine, given, config, chosen)

    parameters = inspect.signature(_every_option).parameters.values()
    signature = inspect.Signature([each for each in parameters if each.name not in lacks])
    deploy.__dict__["__signature__"] = signature
    deploy.__doc__ = text
    return with_settings(*_RUN, *settings)(deploy)


deploy_kubernetes = _command(
    "kubernetes",
    "Write a Helm chart and its values: the coordinator in a Job with a volume, groups in an Indexed Job.",
    lacks=("program",),
)
deploy_swarm = _command(
    "swarm",
    "Write a stack of Docker Swarm: the coordinator on a labelled node, a task for each group.",
    lacks=("program",),
)
deploy_compose = _command(
    "compose",
    "Write a file of Compose for one machine: the coordinator, and a service for each group.",
    lacks=("name", "program"),
)
deploy_slurm = _command(
    "slurm",
    "Write batch scripts of Slurm: the coordinator in a job, groups in an array, one folder that nodes share.",
    lacks=("image", "program"),
)
deploy_systemd = _command(
    "systemd",
    "Write units of systemd: the coordinator, a template for groups of agents, and their target.",
    s.COORDINATOR,
    s.INSECURE,
    lacks=("name", "image"),
)
