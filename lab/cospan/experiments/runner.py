"""Several methods over the same transitions: what each reaches, when, and what it sends for it.

One process plays the chains of all agents and lets every method learn from them, so differences are the methods'.
The joint method is the one that runs over gRPC, bit for bit.
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
from cospan.client.environment.rollout import Chain
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.workload import Site, Workload
from cospan.core.exact_solutions import ReferenceSolution
from cospan.core.linalg.subspace import principal_angle_sine, random_basis, tangent_projection
from cospan.core.specification import basis_digest
from cospan.experiments.methods.attacks import Attack
from cospan.experiments.methods.catalogue import Contender, Stage
from cospan.experiments.methods.compared_methods import FleetMethod
from cospan.wire.errors import InvalidValueError

WHOLE_FLEET = -1
_POINTS = 40
_BYTES = 8
_SAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Point:
    """What one method has reached in one run after so many rounds.

    Attributes:
        setting: of the experiment; empty where there is only one.
        method: its name.
        seed: of the run.
        agent: index, or `WHOLE_FLEET`.
        rounds: that have closed.
        steps: environment steps of one agent.
        sent: bytes that one agent has sent and received.
        value_error: relative value error, with the variant that is best at the end; of the fleet the median over
            its agents.
        subspace_error: sine of the largest angle to B*; None where there is no basis or no B*.
        subspace_squared: ‖m‖²_F, the sum of the squared sines of all angles to B*, its mean over the rounds since
            the point before; None as above.
        probed_value: V̂ of the probed state, for an agent where there is one.
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


COLUMNS = tuple(f.name for f in fields(Point))


@dataclass(frozen=True, slots=True)
class Task:
    """One run of several methods.

    Attributes:
        seed: of the first basis, and of every site.
        workload: its name, or what makes it (a function that other processes can find).
        contenders: what plays.
        agents: n.
        rounds: of L steps.
        setting: of the experiment.
        rank: r; None for the workload's.
        steps_per_round: L; None for the workload's.
        counted: the agents whose errors count; all where None.
        each_agent: whether there are points for every agent, too.
        probe: makes, of an agent's index, the vector whose product with its weights is followed; None for none.
        stops: how often errors are measured, at most.
        also_at: rounds after which they are measured as well.
        attack: see `cospan.experiments.methods.catalogue.Stage`.
    """

    seed: int
    workload: str | Callable[[], Workload]
    contenders: tuple[Contender, ...]
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

    def play(self, on_round: Callable[[int], None] = lambda _: None) -> "Played":
        """Plays it in this process; see `play`."""
        return play(self, on_round)


class Playable(Protocol):
    """What a process can be given to do: a `Task`, or something else that gives points."""

    @property
    def seed(self) -> int:
        """Of the run."""
        ...

    @property
    def setting(self) -> str:
        """Of the experiment."""
        ...

    @property
    def agents(self) -> int:
        """n."""
        ...

    @property
    def rounds(self) -> int:
        """Of L steps."""
        ...

    def play(self, on_round: Callable[[int], None] = ...) -> "Played":
        """Does it."""
        ...


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a task: its points, and the SHA-256 of each last basis, by method."""

    task: Playable
    points: tuple[Point, ...]
    basis_sha256: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Course:
    """One contender on its way."""

    variants: list[FleetMethod]
    sent: int = 0
    squares: list[float] = field(default_factory=list)
    stops: list[tuple[int, int, np.ndarray, np.ndarray | None, float | None, float | None]] = field(
        default_factory=list
    )


def play(task: Task, on_round: Callable[[int], None] = lambda _: None) -> Played:
    """Plays one task in this process.

    Raises:
        InvalidValueError: the truth of a site is unknown, so nothing can be compared with it.
        WorkloadBehaviourError: the workload broke its contract.
    """
    workload = load_workload(task.workload) if isinstance(task.workload, str) else task.workload()
    with contextlib.ExitStack() as owned:
        sites = []
        for index in range(task.agents):
            sites.append(make_site(workload, index, task.seed))
            owned.callback(close_site, sites[-1])
        return _played(task, workload, sites, on_round)


def _played(task: Task, workload: Workload, sites: Sequence[Site], on_round: Callable[[int], None]) -> Played:
    references = references_of(sites, workload.name)
    stage = _stage(task, workload, sites[0].features.dim)
    chains = [
        Chain(site, name=default_agent_id(index), index=index, seed=task.seed) for index, site in enumerate(sites)
    ]
    probes = None if task.probe is None else np.stack([task.probe(index) for index in range(task.agents)])
    courses = {each.name: _Course(fleets) for each in task.contenders if (fleets := each.fleets(stage))}
    stops = checkpoints(task.rounds, task.stops) | set(task.also_at)
    for number in range(1, task.rounds + 1):
        trajectories = [chain.advance(stage.steps_per_round) for chain in chains]
        for course in courses.values():
            _advance(course, trajectories, stage)
            if number in stops:
                _stop(course, number, references, probes, stage)
        on_round(number)
    points = [point for name, course in courses.items() for point in _points(name, course, task, stage)]
    digests = {
        name: basis_digest(basis)
        for name, course in courses.items()
        if len(course.variants) == 1 and (basis := course.variants[0].basis) is not None
    }
    return Played(task, tuple(points), digests)


def references_of(sites: Sequence[Site], name: str) -> list[ReferenceSolution]:
    """What is true of each site.

    Raises:
        InvalidValueError: it is unknown of one of them.
    """
    references = [site.reference for site in sites if site.reference is not None]
    if len(references) < len(sites):
        raise InvalidValueError(
            f"workload {name!r} knows no true values of its sites, so nothing can be compared; "
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


@np.errstate(over="ignore", invalid="ignore")  # a step that is too large may diverge: that is found
def _advance(course: _Course, trajectories: Sequence[object], stage: Stage) -> None:
    course.variants = [variant.learning_from(trajectories) for variant in course.variants]  # type: ignore[arg-type]
    course.sent += _BYTES * course.variants[0].numbers_sent
    basis = course.variants[0].basis
    if basis is not None and stage.true_basis is not None:
        course.squares.append(float(np.sum(tangent_projection(basis, stage.true_basis) ** 2)))


def _stop(
    course: _Course,
    number: int,
    references: Sequence[ReferenceSolution],
    probes: Float[np.ndarray, "n d"] | None,
    stage: Stage,
) -> None:
    weights = np.concatenate([variant.weights for variant in course.variants])
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.stack([reference.value_errors(weights[:, k]) for k, reference in enumerate(references)])
        probed = None if probes is None else np.einsum("mnd,nd->nm", weights, probes)
    angle = None
    basis = course.variants[0].basis
    if course.squares and stage.true_basis is not None and basis is not None:
        angle = principal_angle_sine(basis, stage.true_basis) if np.isfinite(basis).all() else math.nan
    square = float(np.mean(course.squares)) if course.squares else None
    course.squares.clear()
    course.stops.append((number, course.sent, np.where(np.isfinite(errors), errors, np.inf), probed, angle, square))


def checkpoints(rounds: int, most: int = _POINTS) -> frozenset[int]:
    """The rounds after which errors are measured: closer together at the beginning, and the last."""
    return frozenset(np.unique(np.geomspace(1.0, rounds, most).round().astype(int)).tolist())


def _points(name: str, course: _Course, task: Task, stage: Stage) -> Iterator[Point]:
    counted = list(range(task.agents) if task.counted is None else task.counted)
    best = int(np.argmin(np.median(course.stops[-1][2][counted], axis=0)))
    for rounds, sent, errors, probed, angle, square in course.stops:
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


def play_all(tasks: Sequence[Playable], processes: int, say: Callable[[str], None]) -> list[Played]:
    """Plays tasks in several processes; what they give is in the order of the tasks.

    Args:
        tasks: what is to be played.
        processes: how many at once; 1 plays in this one.
        say: is told, now and then, how far it has come.
    """
    if processes == 1 or len(tasks) == 1:
        return [_said(task.play(_rounds(task, say)), i, len(tasks), say) for i, task in enumerate(tasks, start=1)]
    done: list[Played | None] = [None] * len(tasks)
    at_once = min(processes, len(tasks))
    with spawning_safely(), ProcessPoolExecutor(at_once, get_context("spawn"), _begin) as pool:
        # The longest first, so that no process ends up with it alone.
        order = sorted(range(len(tasks)), key=lambda index: -tasks[index].agents * tasks[index].rounds)
        running: dict[Future[Played], int] = {pool.submit(_play, tasks[index]): index for index in order}
        try:
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    index = running.pop(future)
                    count = len(tasks) - len(running)
                    done[index] = _said(future.result(), count, len(tasks), say)
        except BaseException:
            # A run may take minutes, and nobody waits for it any more. (After `shutdown` the pool forgets its own.)
            for process in list(pool._processes.values()):
                process.terminate()
                process.join()
            raise
    return [played for played in done if played is not None]


def _rounds(task: Playable, say: Callable[[str], None]) -> Callable[[int], None]:
    """Says now and then how far a run has come."""
    due = time.monotonic() + _SAY_SECONDS

    def on_round(number: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + _SAY_SECONDS
            say(f"seed {task.seed}: round {number} of {task.rounds}")

    return on_round


def _play(task: Playable) -> Played:
    return task.play()


def _begin() -> None:
    """In a new process: one BLAS thread; Ctrl-C is the parent's affair; and without a parent there is no work."""
    spawned()
    threadpool_limits(limits=1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _said(played: Played, number: int, total: int, say: Callable[[str], None]) -> Played:
    task = played.task
    setting = f", {task.setting}" if task.setting else ""
    say(f"{number} of {total} runs: seed {task.seed}{setting}")
    return played


def cores() -> int:
    """How many processes may compute at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def points_csv(points: Iterable[Point]) -> str:
    """One line a point, with a header."""
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


def errors_of(points: Iterable[Point], method: str, setting: str = "") -> Float[np.ndarray, " seeds"]:
    """The value errors at the end, in the order of the seeds."""
    found = {p.seed: p.value_error for p in finals(points) if p.method == method and p.setting == setting}
    return np.array([found[seed] for seed in sorted(found)])
