"""How the process that hosts some agents of a run is started."""

from cospan.cli.run_folder import RunFolder
from cospan.cli.specifying import RunPlan
from cospan.fleet.hosts import Host


def arguments_of(host: Host, plan: RunPlan, folder: RunFolder, address: str) -> list[str]:
    """How `cospan` is called to start it."""
    settings = plan.settings
    if host.is_group:
        sites = ["--ids", f"{host.indices[0]}-{host.indices[-1]}"]
    else:
        sites = ["--id", host.name, "--index", str(host.indices[0])]
    baseline = () if settings.baseline is None else ("--baseline" if settings.baseline else "--no-baseline",)
    return [
        *("agent", plan.specification.workload, *sites, "--json", "--coordinator", address),
        *("--output", str(folder.agents if host.is_group else folder.agent(host.name))),
        *("--checkpoint-seconds", str(settings.checkpoint_seconds), "--patience", str(settings.patience)),
        *("--memory-gib", str(settings.memory_gib)),
        *baseline,
        *(() if host.is_group else ("--share-td-error",)),  # it stays on this machine
    ]
