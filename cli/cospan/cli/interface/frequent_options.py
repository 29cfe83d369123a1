"""The options that `--help` shows of commands with many; `--help-all` shows all."""

_DEPLOYED = ("agents", "groups", "rounds", "seed", "preset"), ("secure-sums", "tls", "output", "dry-run", "force")

FREQUENT: dict[str, tuple[str, ...]] = {
    "run": (
        *("agents", "rounds", "seed", "rank", "steps-per-round", "preset", "processes"),
        *("dashboard", "output", "resume", "in-process", "quiet"),
    ),
    "coordinator": (
        *("workload", "agents", "rounds", "rank", "quorum", "host", "port"),
        *("dashboard", "metrics", "tls-cert", "tls-key", "tls-ca", "run-folder"),
    ),
    "agent": (
        *("id", "ids", "coordinator", "output", "resume", "sticky-site", "baseline"),
        *("tls-cert", "tls-key", "tls-ca", "json"),
    ),
    "compare": (
        "agents",
        "rounds",
        "seed",
        "seeds",
        "rank",
        "steps-per-round",
        "preset",
        "output",
        "json",
        "quiet",
    ),
    "doctor": (
        *("workload", "sites", "steps", "logs", "mapping", "coordinator", "host", "port"),
        *("run-folder", "json"),
    ),
    **{
        f"deploy {engine}": (*_DEPLOYED[0], *some, *_DEPLOYED[1])
        for engine, some in (
            *(("kubernetes", ("name", "image")), ("swarm", ("name", "image")), ("compose", ("image",))),
            *(("slurm", ("name",)), ("systemd", ("insecure",))),
        )
    },
    "relay": (
        *("upstream", "agents", "level", "host", "port", "metrics"),
        *("tls-cert", "tls-key", "tls-ca", "json"),
    ),
}
"""Names of options, in the order in which they are shown, by the name of the command."""
