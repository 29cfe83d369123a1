"""The default specification of a run. It needs no workload, and imports none."""

from cospan.core.method import PRESETS
from cospan.core.specification import RunSpecification
from cospan.wire.errors import InvalidValueError

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


def checked(specification: RunSpecification) -> RunSpecification:
    """The same. Raises InvalidValueError: a value is out of range."""
    problems = specification.problems()
    if problems:
        raise InvalidValueError("; ".join(problems))
    return specification
