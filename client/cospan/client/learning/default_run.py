"""The default specification of a run. It needs no workload, and imports none."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from cospan.core.method import GROWTH_OF_MANY, MANY_AGENTS, PRESETS, SAMPLE_OF_MANY
from cospan.core.privacy.private_run import mechanism_problem
from cospan.core.privacy.promise import OF_PRIVACY
from cospan.core.privacy.request import PrivacyRequest
from cospan.core.run_fields import DEFAULT_MIN_COHORT, IMPROVEMENT_DEFAULTS
from cospan.core.specification import RunSpecification
from cospan.wire.errors import InvalidValueError
from cospan.wire.privacy_budget import Budget

DEFAULT_AGENTS = 8
DEFAULT_ROUNDS = 300
DEFAULT_PRESET = "practical"
DEFAULT_STEPS_PER_ROUND = 20


def new_specification(
    reference: str,
    rank: int,
    sites: int | None,
    steps_per_round: int | None,
    rounds: int,
    *,
    preset: str = DEFAULT_PRESET,
) -> RunSpecification:
    """The defaults; the features are still to be filled in.

    Args:
        reference: the workload's name.
        rank: r.
        sites: how many there are, None where there is no limit.
        steps_per_round: L, None where it is unknown.
        rounds: how many.
        preset: the method's constants.
    """
    return RunSpecification(
        workload=reference,
        feature_dim=1,
        rank=rank,
        agents=DEFAULT_AGENTS if sites is None else sites,
        rounds=rounds,
        seed=0,
        method=PRESETS[preset](DEFAULT_STEPS_PER_ROUND if steps_per_round is None else steps_per_round),
    )


def with_improvement(specification: RunSpecification, said: Collection[str]) -> RunSpecification:
    """The same, with what holds of improvement steps, where it has some, for what is not said of them.

    Args:
        specification: of the run.
        said: the names of the fields that were given, whose values stay, whatever they are.
    """
    if specification.improve <= 0:
        return specification
    unsaid: dict[str, Any] = {
        name: value
        for name, value in IMPROVEMENT_DEFAULTS.items()
        if name not in said and getattr(specification, name) == 0
    }
    return replace(specification, **unsaid)


def with_cohort(specification: RunSpecification, said: Collection[str]) -> RunSpecification:
    """The same, with the smallest cohort of secure sums where it has them and no such number was given.

    Args:
        specification: of the run.
        said: the names of the fields that were given, whose values stay, whatever they are.
    """
    if not specification.secure_sums or specification.min_cohort or "min_cohort" in said:
        return specification
    return replace(specification, min_cohort=DEFAULT_MIN_COHORT)


def with_refreshes(specification: RunSpecification, said: Collection[str]) -> RunSpecification:
    """The same, with the refreshes that suit the size of its fleet, where nothing is said of them.

    A refresh takes most of an agent's time, the basis of a large fleet needs fewer of them, and the last round has
    one (docs/adr/0037). So does a sample of its agents in most of these rounds (docs/adr/0041).

    Args:
        specification: of the run.
        said: the names of the constants of the method that were given.
    """
    method = specification.method
    suits = method.has_head_covariance and specification.agents > MANY_AGENTS and not specification.improve
    if not suits or "refresh_growth" in said or method.refresh_growth:
        return specification
    sample = method.refresh_sample if "refresh_sample" in said else method.refresh_sample or SAMPLE_OF_MANY
    return replace(specification, method=replace(method, refresh_growth=GROWTH_OF_MANY, refresh_sample=sample))


def with_privacy(specification: RunSpecification, asked: PrivacyRequest | None) -> RunSpecification:
    """The same, with the differential privacy that is asked for, and the least noise that keeps its promise.

    Args:
        specification: of the run, with its rounds.
        asked: None for none.

    Raises:
        InvalidValueError: the run has no end, so no budget; or the package that chooses the noise is missing.
    """
    if asked is None:
        none: dict[str, Any] = dict.fromkeys(OF_PRIVACY, 0)
        return replace(specification, **none)
    if not specification.rounds:
        raise InvalidValueError(
            f"dp asks for ε = {asked.epsilon:g} and rounds is 0; a budget has a number of rounds, so say how many"
        )
    vectors = asked.vectors or specification.rounds
    return replace(
        specification,
        dp_epsilon=asked.epsilon,
        dp_delta=asked.delta,
        dp_vectors=vectors,
        dp_noise_multiplier=Budget.of(asked.epsilon, asked.delta, vectors).multiplier,
        dp_gradient_bound=asked.gradient_bound,
        dp_curvature_bound=asked.curvature_bound,
        dp_influence_bound=asked.influence_bound,
    )


def asked_of(text: str) -> PrivacyRequest | None:
    """What a text asks of differential privacy, as of the setting `dp`; None for `off`.

    Raises:
        InvalidValueError: it asks for nothing.
    """
    try:
        return PrivacyRequest.parse(text)
    except ValueError as failure:
        raise InvalidValueError(f"dp is {text[:200]!r}; {failure}") from failure


def improvement_rounds(specification: RunSpecification) -> int:
    """Rounds of all improvement steps, and of an evaluation of the policies that are held after them."""
    return specification.schedule.rounds + specification.evaluation_rounds


def checked(specification: RunSpecification) -> RunSpecification:
    """The same. Raises InvalidValueError: a value is out of range, or agents could not send with this noise."""
    problems = specification.problems()
    if not problems and (problem := mechanism_problem(specification)):
        problems = [problem]
    if problems:
        raise InvalidValueError("; ".join(problems))
    return specification
