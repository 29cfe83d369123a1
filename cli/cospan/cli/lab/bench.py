"""`cospan bench`: runs a benchmark, prints its table, and writes its numbers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cospan.benchmarks.tools.machine import describe
from cospan.benchmarks.tools.report import Report, lines_of
from cospan.cli.lab.compare import say_on_stderr
from cospan.cli.output.table import table
from cospan.cli.processes.this_process import claim_stdout, use_one_blas_thread
from cospan.cli.run_folder.layout import write_text
from cospan.wire.errors import InvalidValueError


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What is said of every benchmark: seconds for each case, and where its numbers go."""

    seconds: float
    output: Path | None
    json: bool = False
    quiet: bool = False


def bench_rounds(chosen: BenchOptions, agents: int, feature_dim: int, rank: int, *, sweep: bool) -> int:
    """The coordinator against its bare ceiling; the exit code."""
    from cospan.benchmarks import rounds
    from cospan.benchmarks.tools.processes import Case

    _require_shape(feature_dim, rank)
    cases = rounds.sweep() if sweep else (Case(agents, feature_dim, rank),)
    return _run(chosen, lambda say: rounds.benchmark(cases, chosen.seconds, say))


def bench_orthonormalise(chosen: BenchOptions, shapes: Sequence[tuple[int, int]]) -> int:
    """The QR step in copies of its matrix; the exit code."""
    from cospan.benchmarks import orthonormalise

    return _run(chosen, lambda say: orthonormalise.benchmark(shapes or orthonormalise.SHAPES, chosen.seconds, say))


def bench_learner(chosen: BenchOptions) -> int:
    """Transitions per second of an agent; the exit code."""
    from cospan.benchmarks import learner

    return _run(chosen, lambda say: learner.benchmark(learner.cases(), chosen.seconds, say))


def bench_encodings(chosen: BenchOptions, shapes: Sequence[tuple[int, int]]) -> int:
    """Sizes and costs of uploads; the exit code."""
    from cospan.benchmarks import encodings

    chosen_shapes = shapes or encodings.SHAPES
    return _run(chosen, lambda say: encodings.benchmark(chosen_shapes, encodings.GROUPS, chosen.seconds, say))


def bench_peers(chosen: BenchOptions, agents: Sequence[int], feature_dim: int, rank: int, environment: Path) -> int:
    """Cospan beside what else a user might pick; the exit code."""
    from cospan.benchmarks import peers
    from cospan.benchmarks.tools.processes import Case

    _require_shape(feature_dim, rank)
    cases = [Case(each, feature_dim, rank) for each in agents or peers.AGENTS]
    return _run(chosen, lambda say: peers.benchmark(cases, environment, chosen.seconds, say))


def bench_cost_growth(chosen: BenchOptions, series: Sequence[str]) -> int:
    """How the coordinator's time and memory grow; the exit code."""
    from cospan.benchmarks import cost_growth as growth

    known: dict[str, Callable[[], growth.Series]] = {
        "streams": growth.streams,
        "groups": growth.groups,
        "numbers": growth.numbers,
    }
    unknown = [name for name in series if name not in known]
    if unknown:
        raise InvalidValueError(f"--series is {unknown[0]!r}; it must be one of {', '.join(known)}")
    asked = [known[name]() for name in dict.fromkeys(series or known)]
    return _run(chosen, lambda say: growth.benchmark(asked, chosen.seconds, say))


def bench_agent_start(chosen: BenchOptions, workload: str, turns: int) -> int:
    """CPU of an agent until its first gradient; the exit code."""
    from cospan.benchmarks import agent_start

    return _run(chosen, lambda say: agent_start.benchmark(workload, turns, say))


def bench_groups(chosen: BenchOptions, agents: int, group: int, feature_dim: int, rank: int) -> int:
    """Updates a second of groups against single agents; the exit code."""
    from cospan.benchmarks import group_updates

    _require_shape(feature_dim, rank)
    if group > agents:
        raise InvalidValueError(f"--group is {group}; it must be 2 to the number of agents, {agents}")
    shape = (feature_dim, rank)
    return _run(chosen, lambda say: group_updates.benchmark([agents], group, shape, chosen.seconds, say))


def bench_fleet(chosen: BenchOptions, workload: str, agents: int, processes: int, rounds: int) -> int:
    """Rounds a second and memory of a whole fleet; the exit code."""
    from cospan.benchmarks import fleet

    if processes > agents:
        raise InvalidValueError(f"--processes is {processes}; it must be 1 to the number of agents, {agents}")
    asked = fleet.Fleet(workload, agents, processes, rounds)
    return _run(chosen, lambda say: fleet.benchmark(asked, say))


def bench_time_to_accuracy(
    chosen: BenchOptions, workload: str, agents: int, value_error: float, rounds: int, turns: int
) -> int:
    """Seconds to a value error, over the network and in process; the exit code."""
    from cospan.benchmarks import time_to_accuracy

    target = time_to_accuracy.Target(workload, agents, value_error, rounds)
    return _run(chosen, lambda say: time_to_accuracy.benchmark(target, turns, say))


def _require_shape(feature_dim: int, rank: int) -> None:
    if rank > feature_dim:
        raise InvalidValueError(f"rank is {rank}; it must be 1 to feature_dim = {feature_dim}")


def shapes_of(texts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(d, r) of each DxR.

    Raises:
        InvalidValueError: one of them is something else.
    """
    shapes = []
    for text in texts:
        d, _, r = text.partition("x")
        if not (d.isascii() and d.isdigit() and r.isascii() and r.isdigit()) or not 1 <= int(r) <= int(d):
            raise InvalidValueError(f"--shape is {text!r}; it must be DxR with 1 ≤ R ≤ D, as 65536x32")
        shapes.append((int(d), int(r)))
    return tuple(shapes)


def _run(chosen: BenchOptions, measure: Callable[[Callable[[str], None]], Report]) -> int:
    data = claim_stdout() if chosen.json else None
    if chosen.output is not None and not chosen.output.parent.is_dir():
        raise InvalidValueError(f"there is no folder {str(chosen.output.parent)!r} for --output; make it first")
    use_one_blas_thread()
    report = measure((lambda _: None) if chosen.quiet else say_on_stderr)
    machine = describe()
    document = report.document(machine)
    if chosen.output is not None:
        write_text(chosen.output, f"{json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)}\n")
    if data is not None:
        print(json.dumps(document, ensure_ascii=False, allow_nan=False), file=data, flush=True)
    else:
        print("\n".join(_lines(report, machine)))
    return 0


def _lines(report: Report, machine: dict[str, str | int]) -> list[str]:
    numbers = [index for index, column in enumerate(report.columns) if column.form]
    header = [column.header for column in report.columns]
    return [*lines_of(machine), "", *table(header, report.cells(), numbers=numbers), "", *report.notes]
