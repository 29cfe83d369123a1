"""Commands of `cospan bench`: each measures its subject and a yardstick in turns, in one run."""

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from cospan.cli.interface import options as o


def _number(name: str, text: str, metavar: str, **ends: float) -> Any:
    """The option of a number between two ends."""
    return typer.Option(name, help=text, metavar=metavar, **ends)  # type: ignore[arg-type]


Agents: TypeAlias = Annotated[int, _number("--agents", "Number of agents.", "N", min=1, max=4096)]
FeatureDim: TypeAlias = Annotated[int, _number("--feature-dim", "d: rows of what they send.", "D", min=1)]
Rank: TypeAlias = Annotated[int, _number("--rank", "r: its columns.", "R", min=1)]
Sweep: TypeAlias = Annotated[
    bool, typer.Option("--sweep", help="1 to 1024 agents, 20 × 3 to 65,536 × 32, instead of one case.")
]
Shapes: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--shape", help="d and r; may be repeated.", show_default="a list of them", metavar="DxR"),
]
Fleets: TypeAlias = Annotated[
    list[int] | None,
    typer.Option(
        "--agents", help="Number of agents; may be repeated.", min=2, max=64, show_default="2, 8", metavar="N"
    ),
]
Environment: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--environment", help="The virtual environment that the peers are installed in.", metavar="FOLDER"
    ),
]
TargetError: TypeAlias = Annotated[float, _number("--value-error", "The value error to reach.", "ERROR", min=0.0)]
MostRounds: TypeAlias = Annotated[int, _number("--rounds", "Largest number of rounds.", "ROUNDS", min=1)]
Series: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--series",
        help="What grows: streams, groups or numbers; may be repeated.",
        show_default="all three",
        metavar="SERIES",
    ),
]
Group: TypeAlias = Annotated[
    int, _number("--group", "Number of agents that share a stream.", "N", min=2, max=10_000)
]
FleetSize: TypeAlias = Annotated[int, _number("--agents", "Number of agents.", "N", min=1, max=100_000)]
Processes: TypeAlias = Annotated[
    int, _number("--processes", "Number of processes, each a group of agents.", "P", min=1, max=64)
]
FleetRounds: TypeAlias = Annotated[int, _number("--rounds", "Number of rounds.", "ROUNDS", min=2)]
Turns: TypeAlias = Annotated[int, _number("--turns", "How often each way is measured.", "TURNS", min=1)]
Seconds: TypeAlias = Annotated[float, _number("--seconds", "How long each case is measured.", "SECONDS", min=0.0)]
Output: TypeAlias = Annotated[Path | None, o.file_option("--output", "Also write the numbers here (JSON).")]


def bench_rounds(
    agents: Agents = 8,
    feature_dim: FeatureDim = 20,
    rank: Rank = 3,
    sweep: Sweep = False,
    seconds: Seconds = 10.0,
    output: Output = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Rounds per second of the coordinator, with its store, against the bare ceiling of gRPC and numpy."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_rounds(chosen, agents, feature_dim, rank, sweep=sweep))


def bench_orthonormalise(
    shape: Shapes = None,
    seconds: Seconds = 2.0,
    output: Output = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Time of the QR step by shape, in copies of its matrix, and against numpy's own."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_orthonormalise(chosen, bench.shapes_of(shape or ())))


def bench_learner(
    seconds: Seconds = 0.5,
    output: Output = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Transitions per second of one agent on one core, against plain numpy written straight."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_learner(chosen))


def bench_encodings(
    shape: Shapes = None,
    seconds: Seconds = 0.2,
    output: Output = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Bytes of an upload, and what it costs to make and to read: dense, factored, float64, float32, groups."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_encodings(chosen, bench.shapes_of(shape or ())))


def bench_peers(
    agents: Fleets = None,
    feature_dim: FeatureDim = 256,
    rank: Rank = 16,
    environment: Environment = Path(".venv-peers"),
    seconds: Seconds = 20.0,
    output: Output = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Rounds per second beside Flower, Ray and MPI at the same job; what is not installed is left out."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_peers(chosen, agents or (), feature_dim, rank, environment))


def bench_cost_growth(
    series: Series = None,
    seconds: Seconds = 3.0,
    output: Output = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """How time and memory of the coordinator grow with agents, groups and d · r: fitted exponents."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_cost_growth(chosen, series or ()))


def bench_agent_start(
    workload: o.Workload = "queues",
    turns: Turns = 11,
    output: Output = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """CPU seconds of `cospan agent` from its start to its first gradient."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(0.0, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_agent_start(chosen, workload or "queues", turns))


def bench_groups(
    agents: Agents = 1000,
    group: Group = 1000,
    feature_dim: FeatureDim = 20,
    rank: Rank = 3,
    seconds: Seconds = 10.0,
    output: Output = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Updates of agents a second: in groups against one stream for each agent, in turns."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(seconds, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_groups(chosen, agents, group, feature_dim, rank))


def bench_fleet(
    workload: o.Workload = "synthetic",
    agents: FleetSize = 10_000,
    processes: Processes = 2,
    rounds: FleetRounds = 100,
    output: Output = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Rounds per second of a whole fleet on this machine, and the memory of all its processes."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(0.0, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_fleet(chosen, workload or "synthetic", agents, processes, rounds))


def bench_time_to_accuracy(
    workload: o.Workload = "queues",
    agents: Agents = 8,
    value_error: TargetError = 0.005,
    rounds: MostRounds = 1000,
    turns: Turns = 5,
    output: Output = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Seconds of `cospan run` to a value error, against the same run in one process."""
    from cospan.cli.lab import bench

    chosen = bench.BenchOptions(0.0, output, json=json, quiet=quiet)
    raise typer.Exit(bench.bench_time_to_accuracy(chosen, workload or "queues", agents, value_error, rounds, turns))
