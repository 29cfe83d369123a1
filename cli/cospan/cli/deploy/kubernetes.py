"""Files for Kubernetes: values of the Helm chart, and the chart."""

from importlib.resources import files
from importlib.resources.abc import Traversable

from cospan.cli.deploy.plan import Plan, filled


def kubernetes(plan: Plan) -> dict[str, str]:
    """The values, the chart, by file name."""
    repository, _, tag = plan.image.rpartition(":")
    if not repository or "/" in tag:
        repository, tag = plan.image, ""
    settings = "".join(f'\n    {name.replace("_", "-")}: "{value}"' for name, value in plan.settings.items())
    values = {
        "sentence": plan.sentence,
        "name": plan.name,
        "workload": plan.workload,
        "agents": str(plan.agents),
        "rounds": str(plan.rounds),
        "groups": str(plan.groups),
        "repository": repository,
        "tag": tag,
        "settings": settings or " {}",
        "tls": filled("values-tls.yaml", name=plan.name) if plan.tls else "",
    }
    return {"values.yaml": filled("values.yaml", **values), **chart()}


def chart() -> dict[str, str]:
    """The files of the chart, below `chart`."""
    found: dict[str, str] = {}

    def gather(folder: Traversable, before: str) -> None:
        for entry in sorted(folder.iterdir(), key=lambda each: each.name):
            if entry.is_dir():
                gather(entry, f"{before}{entry.name}/")
            else:
                found[f"{before}{entry.name}"] = entry.read_text(encoding="utf-8")

    gather(files("cospan.cli.deploy").joinpath("chart"), "chart/")
    return found
