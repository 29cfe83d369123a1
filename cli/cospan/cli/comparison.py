"""Several methods over the same transitions: what each reaches, when, and what it sends for it.

One process plays the chains of all agents and lets every method learn from them, so differences are the methods'.
The joint method is the one that runs over gRPC, bit for bit.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.cli.recorder import known
from cospan.client.agent import default_agent_id
from cospan.client.chain import Chain
from cospan.client.loading import make_site
from cospan.client.workload import Workload
from cospan.core.fleets import FleetMethod, IndependentFleet, JointFleet, LstdFleet, TwoTimescaleFleet
from cospan.core.method import Corrections, Method
from cospan.core.specification import RunSpecification
from cospan.core.subspace import principal_angle_sine
from cospan.core.targets import ReferenceSolution
from cospan.wire.errors import InvalidValueError

JOINT, INDEPENDENT = "joint", "independent TD"
TWO_TIMESCALE_STEPS = (0.003, 0.03, 0.3, 3.0)
"""ζ that two time scales are run with side by side; its best is reported."""
_POINTS = 40
_BYTES = 8
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Point:
    """What one method has reached in one run after so many rounds.

    Attributes:
        method: its name.
        seed: of the run.
        rounds: that have closed.
        steps: environment steps of one agent.
        sent: bytes that one agent has sent and received.
        value_error: median over agents of the relative value error, with the step size that is best at the end.
        subspace_error: sine of the largest angle to B*; None where there is no basis or no B*.
    """

    method: str
    seed: int
    rounds: int
    steps: int
    sent: int
    value_error: float
    subspace_error: float | None


COLUMNS = tuple(field.name for field in fields(Point))


@dataclass(frozen=True, slots=True)
class Summary:
    """One method at the end, over all runs: the mean of the runs' medians and its bootstrap interval."""

    method: str
    value_error: float
    low: float | None
    high: float | None
    ratio: float
    bytes_per_round: float


def contenders(spec: RunSpecification, true_basis: Float[np.ndarray, "d q"] | None) -> dict[str, list[FleetMethod]]:
    """Every method by its name; several of one name are its step sizes."""
    d, n, basis = spec.feature_dim, spec.agents, spec.initial_basis()
    slow = replace(
        spec.method,
        corrections=Corrections.EVERY_STEP,
        preconditioned=False,
        row_scaled=False,
        forgetting=0.0,
        warm_up_rounds=0,
    )
    methods: dict[str, list[FleetMethod]] = {
        JOINT: [JointFleet.initial(spec.method, basis, n)],
        INDEPENDENT: [IndependentFleet.initial(spec.method, d, n)],
        "independent LSTD": [LstdFleet.initial(d, n, trace_decay=decay) for decay in (0.0, 0.7)],
        "FedTD-Uniform": [IndependentFleet.initial(spec.method, d, n, rank=0)],
        f"TD, rank-{spec.rank} SVD at the server": [IndependentFleet.initial(spec.method, d, n, rank=spec.rank)],
        "two time scales": [
            TwoTimescaleFleet.initial(replace(slow, basis_step=step), basis, n) for step in TWO_TIMESCALE_STEPS
        ],
    }
    if true_basis is not None:
        frozen: Method = replace(spec.method, basis_step=0.0, warm_up_rounds=0)
        methods["joint, B* known"] = [JointFleet.initial(frozen, true_basis, n)]
    return methods


def play(workload: Workload, spec: RunSpecification, on_round: Callable[[int], None]) -> list[Point]:
    """One run of every method.

    Raises:
        InvalidValueError: the truth of a site is unknown, so nothing can be compared with it.
        WorkloadBehaviourError: the workload broke its contract.
    """
    sites = [make_site(workload, index, spec.seed) for index in range(spec.agents)]
    references = [site.reference for site in sites if site.reference is not None]
    if len(references) < len(sites):
        raise InvalidValueError(
            f"workload {spec.workload!r} knows no true values of its sites, so nothing can be compared; "
            "give its sites a reference"
        )
    find = workload.fleet_basis
    true_basis = None if find is None else find(spec.agents, spec.rank, spec.seed)
    chains = [
        Chain(site, name=default_agent_id(index), index=index, seed=spec.seed) for index, site in enumerate(sites)
    ]
    fleets = contenders(spec, true_basis)
    sent = dict.fromkeys(fleets, 0)
    courses: dict[str, list[tuple[int, int, np.ndarray, float | None]]] = {name: [] for name in fleets}
    shown = checkpoints(spec.rounds)
    for number in range(1, spec.rounds + 1):
        trajectories = [chain.advance(spec.method.steps_per_round) for chain in chains]
        for name, variants in fleets.items():
            with np.errstate(
                over="ignore", invalid="ignore"
            ):  # a step that is too large may diverge: that is found
                fleets[name] = [variant.learning_from(trajectories) for variant in variants]
            sent[name] += _BYTES * fleets[name][0].numbers_sent
            if number in shown:
                basis = fleets[name][0].basis
                angle = None if basis is None or true_basis is None else principal_angle_sine(basis, true_basis)
                courses[name].append((number, sent[name], _errors(fleets[name], references), angle))
        on_round(number)
    return [point for name, course in courses.items() for point in _points(name, course, spec)]


def checkpoints(rounds: int) -> frozenset[int]:
    """The rounds after which errors are measured: some 40, closer together at the beginning, and the last."""
    return frozenset(np.unique(np.geomspace(1.0, rounds, _POINTS).round().astype(int)).tolist())


def _errors(fleet: Sequence[FleetMethod], references: Sequence[ReferenceSolution]) -> Float[np.ndarray, " m"]:
    """The median over agents, for each step size; inf for one that has diverged."""
    weights = np.concatenate([variant.weights for variant in fleet])
    with np.errstate(over="ignore", invalid="ignore"):
        errors = np.stack([reference.value_errors(weights[:, k]) for k, reference in enumerate(references)])
    return np.asarray(np.median(np.where(np.isfinite(errors), errors, np.inf), axis=0))


def _points(
    name: str, course: Sequence[tuple[int, int, np.ndarray, float | None]], spec: RunSpecification
) -> Iterable[Point]:
    best = int(np.argmin(course[-1][2]))
    for rounds, sent, errors, angle in course:
        yield Point(
            method=name,
            seed=spec.seed,
            rounds=rounds,
            steps=rounds * spec.method.steps_per_round,
            sent=sent,
            value_error=float(errors[best]),
            subspace_error=angle,
        )


def summaries(points: Sequence[Point]) -> list[Summary]:
    """Every method at the end, best first."""
    last = max(point.rounds for point in points)
    final = [point for point in points if point.rounds == last]
    independent = {point.seed: point.value_error for point in final if point.method == INDEPENDENT}
    found = []
    for name in dict.fromkeys(point.method for point in final):
        own = [point for point in final if point.method == name]
        errors = np.array([point.value_error for point in own])
        low, high = interval(errors)
        found.append(
            Summary(
                method=name,
                value_error=float(errors.mean()),
                low=low,
                high=high,
                ratio=float(np.mean([point.value_error / independent[point.seed] for point in own])),
                bytes_per_round=float(np.mean([point.sent / point.rounds for point in own])),
            )
        )
    return sorted(found, key=lambda summary: summary.value_error)


def interval(values: Float[np.ndarray, " n"]) -> tuple[float | None, float | None]:
    """The 95 % bootstrap interval of the mean (percentiles); None for fewer than two values, or one not finite."""
    from scipy.stats import bootstrap

    if len(values) < 2 or not np.isfinite(values).all():
        return None, None
    if np.ptp(values) == 0.0:
        return float(values[0]), float(values[0])
    found = bootstrap(
        (values,), np.mean, confidence_level=_CONFIDENCE, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def document(spec: RunSpecification, seeds: Sequence[int], found: Sequence[Summary]) -> dict[str, Any]:
    """`comparison.json`."""
    return {
        "workload": spec.workload,
        "agents": spec.agents,
        "rounds": spec.rounds,
        "steps_per_agent": spec.rounds * spec.method.steps_per_round,
        "feature_dim": spec.feature_dim,
        "rank": spec.rank,
        "seeds": list(seeds),
        "confidence": _CONFIDENCE,
        "methods": [
            {
                "method": summary.method,
                "value_error": known(summary.value_error),
                "low": summary.low,
                "high": summary.high,
                "times_independent_td": known(summary.ratio),
                "bytes_per_agent_and_round": summary.bytes_per_round,
            }
            for summary in found
        ],
    }
