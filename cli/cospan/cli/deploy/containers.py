"""Files for containers: a stack of Docker Swarm, and a file of Compose for one machine."""

from cospan.cli.deploy.plan import Plan, filled, listed

_CERTS = "/certs"


def swarm(plan: Plan) -> dict[str, str]:
    """The stack, by file name."""
    tasks = plan.agent(index="SWARM_TASK_SLOT", coordinator="coordinator:15051")
    values = {
        "sentence": plan.sentence,
        "name": plan.name,
        "image": plan.image,
        "groups": str(plan.groups),
        "coordinator": listed(plan.coordinator(host="0.0.0.0"), 6),
        "agent": listed(tasks, 6),
        "tls_hint": _swarm_hint(plan) if plan.tls else "",
        "tls_environment": _tls_environment(6) if plan.tls else "",
        "coordinator_secrets": _secrets("coordinator") if plan.tls else "",
        "agent_secrets": _secrets("fleet") if plan.tls else "",
        "all_secrets": _all_secrets(plan.name) if plan.tls else "",
    }
    return {"stack.yml": filled("stack.yml", **values)}


def _swarm_hint(plan: Plan) -> str:
    identities = ("coordinator", "fleet")
    lines = [
        "# Certificates, once, in the folder of `cospan certs init certs`. Swarm changes no Secret: renew under a",
        "# new name, and change it below.",
        "#   cospan certs issue certs --coordinator coordinator",
        "#   cospan certs issue certs --agents '*'",
        *(
            f"#   docker secret create {plan.name}-{identity}-{part} certs/{identity}/{part}.pem"
            for identity in identities
            for part in ("cert", "key")
        ),
        f"#   docker secret create {plan.name}-ca certs/coordinator/ca.pem",
    ]
    return "\n".join(lines)


def _tls_environment(indent: int) -> str:
    lines = (f"COSPAN_TLS_{part.upper()}: {_CERTS}/{part}.pem" for part in ("cert", "key", "ca"))
    return f"\n{' ' * indent}".join(lines)


def _secrets(identity: str) -> str:
    parts = ((f"{identity}-cert", "cert"), (f"{identity}-key", "key"), ("ca", "ca"))
    items = (
        f'- {{source: {source}, target: {_CERTS}/{part}.pem, uid: "10001", gid: "10001", mode: 0400}}'
        for source, part in parts
    )
    return "secrets:\n      " + "\n      ".join(items)


def _all_secrets(name: str) -> str:
    sources = ("coordinator-cert", "coordinator-key", "fleet-cert", "fleet-key", "ca")
    return "secrets:\n" + "\n".join(f"  {each}: {{external: true, name: {name}-{each}}}" for each in sources)


def compose(plan: Plan) -> dict[str, str]:
    """The file of Compose, by file name: a service for each group, for a container of Compose has no number."""
    services = "\n".join(_group(plan, number) for number in range(plan.groups))
    values = {
        "sentence": plan.sentence,
        "image": plan.image,
        "coordinator": listed(plan.coordinator(host="0.0.0.0"), 6),
        "coordinator_certs": _mounted("coordinator") if plan.tls else "",
        "agent_certs": _mounted("fleet") if plan.tls else "",
        "services": services,
        "files": f"x-files: &files\n  {_tls_environment(2)}\n" if plan.tls else "",
        "environment": "environment: *files" if plan.tls else "",
        "tls_hint": _COMPOSE_HINT if plan.tls else "",
    }
    return {"compose.yml": filled("compose.yml", **values)}


_COMPOSE_HINT = """# Certificates, once; the folders must be readable for uid 10001:
#   cospan certs init certs
#   cospan certs issue certs --coordinator coordinator
#   cospan certs issue certs --agents '*'"""


def _mounted(identity: str) -> str:
    return f'- "./certs/{identity}:{_CERTS}:ro"'


def _group(plan: Plan, number: int) -> str:
    arguments = listed(plan.agent(index=str(number), coordinator="coordinator:15051"), 6)
    return f"  agents-{number}:\n    <<: *agents\n    command:\n      {arguments}\n"
