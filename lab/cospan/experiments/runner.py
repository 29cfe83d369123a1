"""Runs several methods on the same transitions and records the errors and the traffic of each.

One process simulates all agents and every method learns from the same chains, so differences are the methods'.
The joint method is that of the networked system, bit for bit.
"""

import contextlib
import csv
import io
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import astuple, dataclass, field, fields, replace
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Protocol

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from cospan.client.agent import default_agent_id
from cospan.client.environment.import_path import spawned, spawning_safely
from cospan.client.environment.ownership import close_site
from cospan.client.environment.rollout import source_of
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.step_source import StepSource
from cospan.client.workload import AnySite, Site, Workload
from cospan.core.exact_solutions import ReferenceSolution
from cospan.core.linalg.subspace import principal_angle_sine, random_basis, tangent_projection
from cospan.core.specification import basis_digest
from cospan.experiments.held_out_judge import judge_of
from cospan.experiments.methods.attacks import Attack
from cospan.experiments.methods.catalogue import ComparedMethod, Stage
from cospan.experiments.methods.compared_methods import FleetMethod
from cospan.wire.errors import InvalidValueError

WHOLE_FLEET = -1
_POINTS = 40
_BYTES = 8
_SAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Point:
    """The state of one method in one run after a number of rounds.

    Attributes:
        setting: of the experiment; empty if there is only one.
        method: its name.
        seed: of the run.
        agent: index, or `WHOLE_FLEET`.
        rounds: that have closed.
        steps: environment steps of one agent.
        sent: bytes that one agent has sent and received.
        value_error: relative value error of the variant that is best at the end; the median over the agents for the
            fleet.
        subspace_error: sine of the largest angle to B*; None without a basis or without B*.
        subspace_squared: ‖m‖²_F, the sum of the squared sines of all angles to B*, averaged over the rounds since
            the previous point; None as above.
        probed_value: V̂ of the probed state of an agent.
        coverage: share of the intervals that hold the true number.
        half_width: half the median width of these intervals, as a share of the standard deviation of the values, or
            of the rewards for the gain.
        gain: mean reward per step of the policy as it is judged.
        episode_return: mean return of its episodes.
    """

    setting: str
    method: str
    seed: int
    agent: int
    rounds: int
    steps: int
    sent: int
    value_error: float
    subspace_error: float | None = None
    subspace_squared: float | None = None
    probed_value: float | None = None
    coverage: float | None = None
    half_width: float | None = None
    gain: float | None = None
    episode_return: float | None = None


COLUMNS = tuple(f.name for f in fields(Point))


@dataclass(frozen=True, slots=True)
class Task:
    """One run of several methods.

    Attributes:
        seed: of the first basis, and of every site.
        workload: its name, or a picklable function that makes it.
        methods: that are compared.
        agents: n.
        rounds: of L steps.
        setting: of the experiment.
        rank: r; None for the workload's.
        steps_per_round: L; None for the workload's.
        counted: the agents whose errors count; None for all.
        each_agent: whether there are also points for each agent.
        probe: from an agent's index to the vector whose product with the weights is recorded; None for none.
        stops: largest number of rounds after which errors are measured.
        also_at: further rounds after which errors are measured.
        attack: see `cospan.experiments.methods.catalogue.Stage`.
        held_out: whether held-out transitions judge where a site has no reference solution.
    """

    seed: int
    workload: str | Callable[[], Workload]
    methods: tuple[ComparedMethod, ...]
    agents: int
    rounds: int
    setting: str = ""
    rank: int | None = None
    steps_per_round: int | None = None
    counted: tuple[int, ...] | None = None
    each_agent: bool = False
    probe: Callable[[int], Float[np.ndarray, " d"]] | None = None
    stops: int = _POINTS
    also_at: tuple[int, ...] = ()
    attack: Attack | None = None
    held_out: bool = False

    def run(self, on_round: Callable[[int], None] = lambda _: None) -> "TaskResult":
        """Runs the task in this process; see `run_task`."""
        return run_task(self, on_round)


class Judge(Protocol):
    """What tells the errors of value functions: a reference solution, or held-out transitions."""

    def value_errors(self, weights: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
        """Relative value errors of several estimates, one per row."""


class RunnableTask(Protocol):
    """A unit of work for a process: a `Task`, or another source of points."""

    @property
    def seed(self) -> int:
        """Of the run."""

    @property
    def setting(self) -> str:
        """Of the experiment."""

    @property
    def agents(self) -> int:
        """n."""

    @property
    def rounds(self) -> int:
        """Of L steps."""

    def run(self, on_round: Callable[[int], None] = ...) -> "TaskResult":
        """Runs in this process."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The points of a task, and the SHA-256 of each method's last basis."""

    task: RunnableTask
    points: tuple[Point, ...]
    basis_sha256: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _MethodProgress:
    """The fleets of one method, one per variant, and what was measured of them."""

    variants: list[FleetMethod]
    sent: int = 0
    squares: list[float] = field(default_factory=list)
    stops: list[tuple[int, int, np.ndarray, np.ndarray | None, float | None, float | None]] = field(
        default_factory=list
    )


def run_task(task: Task, on_round: Callable[[int], None] = lambda _: None) -> TaskResult:
    """Runs one task in this process.

    Raises:
        InvalidValueError: a site has no reference solution.
        WorkloadBehaviourError: the workload broke its contract.
    """
    workload = load_workload(task.workload) if isinstance(task.workload, str) else task.workload()
    with contextlib.ExitStack() as owned:
        sites = []
        for index in range(task.agents):
            sites.append(make_site(workload, index, task.seed))
            owned.callback(close_site, sites[-1])
        return _run_on(task, workload, sites, on_round)


def _run_on(
    task: Task, workload: Workload, sites: Sequence[AnySite], on_round: Callable[[int], None]
) -> TaskResult:
    stage = _stage(task, workload, sites[0].features.dim)
    references: Sequence[Judge]
    unknown = any(site.reference is None for site in sites)
    if task.held_out and unknown and all(isinstance(site, Site) for site in sites):
        steps = stage.steps_per_round
        references = [
            judge_of(workload, index, task.seed, rounds=task.rounds, steps_per_round=steps)
            for index in range(task.agents)
        ]
    else:
        references = references_of(sites, workload.name)
    chains = chains_of(enumerate(sites), task.seed)
    probes = None if task.probe is None else np.stack([task.probe(index) for index in range(task.agents)])
    all_progress = {each.name: _MethodProgress(fleets) for each in task.methods if (fleets := each.fleets(stage))}
    stops = checkpoints(task.rounds, task.stops) | set(task.also_at)
    for number in range(1, task.rounds + 1):
        trajectories = [chain.advance(stage.steps_per_round) for chain in chains]
        for progress in all_progress.values():
            _learn(progress, trajectories, stage)
            if number in stops:
                _measure(progress, number, references, probes, stage)
        on_round(number)
    points = [point for name, progress in all_progress.items() for point in _points(name, progress, task, stage)]
    digests = {
        name: basis_digest(basis)
        for name, progress in all_progress.items()
        if len(progress.variants) == 1 and (basis := progress.variants[0].basis) is not None
    }
    return TaskResult(task, tuple(points), digests)


def chains_of(sites: Iterable[tuple[int, AnySite]], seed: int) -> list[StepSource]:
    """The chain of each site, which is given with its index."""
    return [source_of(site, name=default_agent_id(index), index=index, seed=seed) for index, site in sites]


def references_of(sites: Sequence[AnySite], name: str) -> list[ReferenceSolution]:
    """The reference solution of each site.

    Raises:
        InvalidValueError: a site has none.
    """
    references = [site.reference for site in sites if site.reference is not None]
    if len(references) < len(sites):
        raise InvalidValueError(
            f"the sites of workload {name!r} have no reference solution, so errors cannot be measured; "
            "give its sites a reference"
        )
    return references


def _stage(task: Task, workload: Workload, feature_dim: int) -> Stage:
    rank = task.rank or workload.rank
    if rank > feature_dim:
        raise InvalidValueError(f"rank is {rank}; it must be 1 to feature_dim = {feature_dim}")
    find = workload.fleet_basis
    return Stage(
        agents=task.agents,
        basis=random_basis(feature_dim, rank, np.random.default_rng(task.seed)),
        steps_per_round=task.steps_per_round or workload.steps_per_round,
        true_basis=None if find is None else find(task.agents, rank, task.seed),
        attack=task.attack,
    )


@np.errstate(over="ignore", invalid="ignore")  # a step that is too large may diverge
def _learn(progress: _MethodProgress, trajectories: Sequence[object], stage: Stage) -> None:
    progress.variants = [variant.learning_from(trajectories) for variant in progress.variants]  # type: ignore[arg-type]
    progress.sent += _BYTES * progress.variants[0].numbers_sent
    basis = progress.variants[0].basis
    if basis is not None and stage.true_basis is not None:
        progress.squares.append(float(np.sum(tangent_projection(basis, stage.true_basis) ** 2)))


def _measure(
    progress: _MethodProgress,
    number: int,
    references: Sequence[Judge],
    probes: Float[np.ndarray, "n d"] | None,
    stage: Stage,
) -> None:
    weights = np.concatenate([variant.weights for variant in progress.variants])
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.stack([reference.value_errors(weights[:, k]) for k, reference in enumerate(references)])
        probed = None if probes is None else np.einsum("mnd,nd->nm", weights, probes)
    angle = None
    basis = progress.variants[0].basis
    if progress.squares and stage.true_basis is not None and basis is not None:
        angle = principal_angle_sine(basis, stage.true_basis) if np.isfinite(basis).all() else math.nan
    square = float(np.mean(progress.squares)) if progress.squares else None
    progress.squares.clear()
    progress.stops.append(
        (number, progress.sent, np.where(np.isfinite(errors), errors, np.inf), probed, angle, square)
    )


def checkpoints(rounds: int, most: int = _POINTS) -> frozenset[int]:
    """Rounds after which errors are measured, spaced geometrically; includes the last."""
    return frozenset(np.unique(np.geomspace(1.0, rounds, most).round().astype(int)).tolist())


def _points(name: str, progress: _MethodProgress, task: Task, stage: Stage) -> Iterator[Point]:
    counted = list(range(task.agents) if task.counted is None else task.counted)
    best = int(np.argmin(np.median(progress.stops[-1][2][counted], axis=0)))
    for rounds, sent, errors, probed, angle, square in progress.stops:
        fleet = Point(
            setting=task.setting,
            method=name,
            seed=task.seed,
            agent=WHOLE_FLEET,
            rounds=rounds,
            steps=rounds * stage.steps_per_round,
            sent=sent,
            value_error=float(np.median(errors[counted, best])),
            subspace_error=angle,
            subspace_squared=square,
        )
        yield fleet
        if task.each_agent:
            for agent in counted:
                value = None if probed is None else float(probed[agent, best])
                yield replace(fleet, agent=agent, value_error=float(errors[agent, best]), probed_value=value)


def run_all(tasks: Sequence[RunnableTask], processes: int, say: Callable[[str], None]) -> list[TaskResult]:
    """Runs tasks in several processes; the results are in the order of the tasks.

    Args:
        tasks: to run.
        processes: at once; 1 runs the tasks in this process.
        say: takes lines of progress.
    """
    if processes == 1 or len(tasks) == 1:
        return [
            _reported(task.run(now_and_then(say, f"seed {task.seed}: round", task.rounds)), i, len(tasks), say)
            for i, task in enumerate(tasks, start=1)
        ]
    done: list[TaskResult | None] = [None] * len(tasks)
    at_once = min(processes, len(tasks))
    with spawning_safely(), ProcessPoolExecutor(at_once, get_context("spawn"), _begin) as pool:
        # The longest first, so that no process ends up with it alone.
        order = sorted(range(len(tasks)), key=lambda index: -tasks[index].agents * tasks[index].rounds)
        running: dict[Future[TaskResult], int] = {pool.submit(_run, tasks[index]): index for index in order}
        try:
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    index = running.pop(future)
                    count = len(tasks) - len(running)
                    done[index] = _reported(future.result(), count, len(tasks), say)
        except BaseException:
            # Running tasks may take minutes. (After `shutdown` the pool no longer has the processes.)
            for process in list(pool._processes.values()):
                process.terminate()
                process.join()
            raise
    return [result for result in done if result is not None]


def now_and_then(say: Callable[[str], None], what: str, count: int) -> Callable[[int], None]:
    """Takes the number of each unit of work that is done, and says it every few seconds."""
    due = time.monotonic() + _SAY_SECONDS

    def on_unit(number: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + _SAY_SECONDS
            say(f"{what} {number} of {count}")

    return on_unit


def _run(task: RunnableTask) -> TaskResult:
    return task.run()


def _begin() -> None:
    """Sets up a new process: one BLAS thread, Ctrl-C left to the parent, exit with the parent."""
    spawned()
    threadpool_limits(limits=1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _reported(result: TaskResult, number: int, total: int, say: Callable[[str], None]) -> TaskResult:
    task = result.task
    setting = f", {task.setting}" if task.setting else ""
    say(f"{number} of {total} runs: seed {task.seed}{setting}")
    return result


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def points_of(results: Iterable[TaskResult]) -> list[Point]:
    """The points of all results, in order."""
    return [point for result in results for point in result.points]


def points_csv(points: Iterable[Point]) -> str:
    """CSV with a header and one line per point."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(point) for point in points)
    return text.getvalue()


def finals(points: Iterable[Point]) -> list[Point]:
    """The last point of the whole fleet, for every setting, method and seed."""
    last: dict[tuple[str, str, int], Point] = {}
    for point in points:
        if point.agent == WHOLE_FLEET:
            key = (point.setting, point.method, point.seed)
            if key not in last or point.rounds > last[key].rounds:
                last[key] = point
    return list(last.values())


def method_names(points: Iterable[Point]) -> list[str]:
    """The methods of the points, in the order of their first."""
    return list(dict.fromkeys(point.method for point in points))


def errors_of(points: Iterable[Point], method: str, setting: str = "") -> Float[np.ndarray, " seeds"]:
    """The final value errors, in the order of the seeds."""
    found = {p.seed: p.value_error for p in finals(points) if p.method == method and p.setting == setting}
    return np.array([found[seed] for seed in sorted(found)])
