"""Commands of `cospan bench`: each measures its subject and a reference in turns, in one run.

A command returns its measurement, which takes a function for lines of progress.
"""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from cospan.cli.interface import options as o
from cospan.wire.errors import InvalidValueError

if TYPE_CHECKING:
    from cospan.benchmarks.tools.report import Report

Measure: TypeAlias = "Callable[[Callable[[str], None]], Report]"


def _number(name: str, text: str, metavar: str, **ends: float) -> Any:
    """An option with a bounded number."""
    return typer.Option(name, help=text, metavar=metavar, **ends)  # type: ignore[arg-type]


Agents: TypeAlias = Annotated[int, _number("--agents", "Number of agents.", "N", min=1, max=4096)]
FeatureDim: TypeAlias = Annotated[int, _number("--feature-dim", "d: rows of a gradient.", "D", min=1)]
Rank: TypeAlias = Annotated[int, _number("--rank", "r: columns of a gradient.", "R", min=1)]
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
    typer.Option("--environment", help="Virtual environment with the peers.", metavar="FOLDER"),
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
Turns: TypeAlias = Annotated[int, _number("--turns", "Number of measurements of each side.", "TURNS", min=1)]
Seconds: TypeAlias = Annotated[float, _number("--seconds", "Seconds per case.", "SECONDS", min=0.0)]
Output: TypeAlias = Annotated[Path | None, o.file_option("--output", "Also write the numbers here (JSON).")]


def _benchmark(command: Callable[..., Measure]) -> Callable[..., None]:
    """Gives a command the options of all benchmarks, and runs the measurement that it returns."""
    common = inspect.signature(_common).parameters

    @wraps(command)
    def called(**values: Any) -> None:
        from cospan.cli.lab.bench import run_benchmark

        output, json, quiet, _ = (values.pop(name) for name in common)
        raise typer.Exit(run_benchmark(command(**values), output, json=json, quiet=quiet))

    parameters = [*inspect.signature(command).parameters.values(), *common.values()]
    called.__dict__["__signature__"] = inspect.Signature(parameters)
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called


def _common(
    output: Output = None, json: o.Json = False, quiet: o.Quiet = False, debug: o.Debug = False
) -> None: ...


@_benchmark
def bench_rounds(
    agents: Agents = 8, feature_dim: FeatureDim = 20, rank: Rank = 3, sweep: Sweep = False, seconds: Seconds = 10.0
) -> Measure:
    """Rounds per second of the coordinator, with its store, against the bare ceiling of gRPC and numpy."""
    from cospan.benchmarks import rounds
    from cospan.benchmarks.tools.processes import Case

    return partial(rounds.benchmark, rounds.sweep() if sweep else (Case(agents, feature_dim, rank),), seconds)


@_benchmark
def bench_orthonormalise(shape: Shapes = None, seconds: Seconds = 2.0) -> Measure:
    """Time of the QR step by shape, in copies of its matrix, and against numpy's QR."""
    from cospan.benchmarks import orthonormalise
    from cospan.cli.lab.bench import shapes_of

    return partial(orthonormalise.benchmark, shapes_of(shape or ()) or orthonormalise.SHAPES, seconds)


@_benchmark
def bench_learner(seconds: Seconds = 0.5) -> Measure:
    """Transitions per second of one agent on one core, against straightforward numpy."""
    from cospan.benchmarks import learner

    return partial(learner.benchmark, learner.cases(), seconds)


@_benchmark
def bench_logs(
    rows: Annotated[int, typer.Option("--rows", help="Rows of the log.", min=1000, metavar="N")] = 200_000,
) -> Measure:
    """Rows per second of one agent that learns from Parquet and CSV on one core."""
    from cospan.benchmarks import logs

    return partial(logs.benchmark, logs.cases(rows))


@_benchmark
def bench_encodings(shape: Shapes = None, seconds: Seconds = 0.2) -> Measure:
    """Bytes and CPU of encoding and decoding an upload: dense, factored, float64, float32, groups."""
    from cospan.benchmarks import encodings
    from cospan.cli.lab.bench import shapes_of

    return partial(encodings.benchmark, shapes_of(shape or ()) or encodings.SHAPES, encodings.GROUPS, seconds)


@_benchmark
def bench_peers(
    agents: Fleets = None,
    feature_dim: FeatureDim = 256,
    rank: Rank = 16,
    environment: Environment = Path(".venv-peers"),
    seconds: Seconds = 20.0,
) -> Measure:
    """Rounds per second against Flower, Ray and MPI at the same job; peers that are not installed are left out."""
    from cospan.benchmarks import peers
    from cospan.benchmarks.tools.processes import Case

    cases = [Case(each, feature_dim, rank) for each in agents or peers.AGENTS]
    return partial(peers.benchmark, cases, environment, seconds)


@_benchmark
def bench_cost_growth(series: Series = None, seconds: Seconds = 3.0) -> Measure:
    """Growth of the coordinator's time and memory with agents, groups and d · r: fitted exponents."""
    from cospan.benchmarks import cost_growth as growth

    known: dict[str, Callable[[], growth.Series]] = {
        "streams": growth.streams,
        "groups": growth.groups,
        "numbers": growth.numbers,
    }
    unknown = [name for name in series or () if name not in known]
    if unknown:
        raise InvalidValueError(f"--series is {unknown[0]!r}; it must be one of {', '.join(known)}")
    return partial(growth.benchmark, [known[name]() for name in dict.fromkeys(series or known)], seconds)


@_benchmark
def bench_agent_start(workload: o.Workload = "queues", turns: Turns = 11) -> Measure:
    """CPU seconds of `cospan agent` from its start to its first gradient."""
    from cospan.benchmarks import agent_start

    return partial(agent_start.benchmark, workload, turns)


@_benchmark
def bench_groups(
    agents: Agents = 1000,
    group: Group = 1000,
    feature_dim: FeatureDim = 20,
    rank: Rank = 3,
    seconds: Seconds = 10.0,
) -> Measure:
    """Agents' updates per second: in groups against one stream per agent, in turns."""
    from cospan.benchmarks import group_updates
    from cospan.benchmarks.tools.processes import Case

    if group > agents:
        raise InvalidValueError(f"--group is {group}; it must be 2 to the number of agents, {agents}")
    return partial(group_updates.benchmark, [Case(agents, feature_dim, rank, group)], seconds)


@_benchmark
def bench_fleet(
    workload: o.Workload = "synthetic",
    agents: FleetSize = 10_000,
    processes: Processes = 2,
    rounds: FleetRounds = 100,
) -> Measure:
    """Rounds per second of a whole fleet on this machine, and the memory of all its processes."""
    from cospan.benchmarks import fleet

    if processes > agents:
        raise InvalidValueError(f"--processes is {processes}; it must be 1 to the number of agents, {agents}")
    return partial(fleet.benchmark, fleet.Fleet(workload, agents, processes, rounds))


@_benchmark
def bench_time_to_accuracy(
    workload: o.Workload = "queues",
    agents: Agents = 8,
    value_error: TargetError = 0.005,
    rounds: MostRounds = 1000,
    turns: Turns = 5,
) -> Measure:
    """Seconds of `cospan run` to a value error, against the same run in one process."""
    from cospan.benchmarks import time_to_accuracy

    target = time_to_accuracy.Target(workload, agents, value_error, rounds)
    return partial(time_to_accuracy.benchmark, target, turns)
