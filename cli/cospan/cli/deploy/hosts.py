"""Files for hosts without containers: scripts of Slurm, and units of systemd."""

from cospan.cli.deploy.plan import Plan, continued, filled
from cospan.wire.address import parse_address
from cospan.wire.errors import InvalidValueError

_STATE = "%S/cospan"
"""The beginning of the state folders of units: /var/lib/cospan."""
_GROUP = "cospan-certs"
_CERTIFICATES = f"# A dynamic user owns no file: those in /etc/cospan must be readable for the group {_GROUP}."


def slurm(plan: Plan) -> dict[str, str]:
    """Two batch scripts, and the one that submits them, by file name."""
    certs = {identity: _certs(plan, f"certs/{identity}") for identity in ("coordinator", "fleet")}
    serve = plan.coordinator(host='"$address"', runs_folder="runs")
    serve = [each for each in serve if each != "--insecure"]
    serve += ["--port=0", "--address-file=address", *certs["coordinator"]]
    if not plan.tls:
        serve.append("--insecure")
    learn = plan.agent(index="SLURM_ARRAY_TASK_ID", coordinator="@address", output="agents") + certs["fleet"]
    again = filled("again.sh").rstrip("\n")
    values = {"sentence": plan.sentence, "name": plan.name, "program": "cospan", "last": str(plan.groups - 1)}
    return {
        "coordinator.sbatch": filled("coordinator.sbatch", **values, again=again, command=continued(serve)),
        "agents.sbatch": filled("agents.sbatch", **values, again=again, command=continued(learn)),
        "submit.sh": filled("submit.sh", **values),
    }


def _certs(plan: Plan, folder: str) -> list[str]:
    if not plan.tls:
        return []
    return [f"--tls-{part}={folder}/{part}.pem" for part in ("cert", "key", "ca")]


def systemd(plan: Plan, *, insecure: bool) -> dict[str, str]:
    """The units of the coordinator and of the groups of agents, by file name.

    Args:
        plan: what is to be deployed; agents reach the coordinator at its address.
        insecure: whether a coordinator that other machines reach may do without TLS.

    Raises:
        InvalidValueError: it may not, and there is no TLS.
    """
    address = parse_address(plan.address, "coordinator")
    if not (address.is_local or plan.tls or insecure):
        raise InvalidValueError(
            f"coordinator is {plan.address}, which other machines can reach, and there is no TLS; give --tls, or "
            "--insecure if the network is trusted"
        )
    host = address.host if address.is_local else "0.0.0.0"
    listen = plan.coordinator(host=f"unix:{host}" if address.is_unix else host, runs_folder=f"{_STATE}-coordinator")
    if address.is_local:
        listen = [each for each in listen if each != "--insecure"]
    if not address.is_unix:
        listen.append(f"--port={address.port}")
    listen += _certs(plan, "/etc/cospan/coordinator")
    learn = plan.agent(index="%i", coordinator=plan.address, output=f"{_STATE}-agents-%i") + _certs(
        plan, "/etc/cospan/fleet"
    )
    hardened = filled("hardened.service").rstrip("\n")
    values = {"sentence": plan.sentence, "program": plan.program, "groups": str(plan.groups), "hardened": hardened}
    values["certificates"] = f"{_CERTIFICATES}\nSupplementaryGroups={_GROUP}" if plan.tls else ""
    instances = " ".join(f"cospan-agents@{number}.service" for number in range(plan.groups))
    return {
        "cospan-coordinator.service": filled("cospan-coordinator.service", **values, command=continued(listen, 4)),
        "cospan-agents@.service": filled("cospan-agents@.service", **values, command=continued(learn, 4)),
        "cospan-agents.target": filled("cospan-agents.target", **values, instances=instances),
    }
