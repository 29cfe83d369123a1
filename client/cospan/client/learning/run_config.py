"""From a workload to the specification of a run: the defaults, and what its features fix."""

from dataclasses import fields, replace
from enum import Enum
from numbers import Integral, Real
from typing import Any

from cospan.client.decisions.improver import features_for
from cospan.client.environment.ownership import close_site, closing_on_failure, user_code
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.learning.default_run import (
    DEFAULT_PRESET,
    DEFAULT_ROUNDS,
    asked_of,
    checked,
    improvement_rounds,
    new_specification,
    with_cohort,
    with_improvement,
    with_privacy,
)
from cospan.client.workload import AnySite, SourceSite, Workload
from cospan.core.method import PRESETS, Aggregation, HeadUpdate, Method
from cospan.core.privacy.promise import OF_PRIVACY
from cospan.core.run_fields import Participation
from cospan.core.specification import RunSpecification
from cospan.wire.errors import InvalidValueError

_KINDS: dict[str, type[Enum]] = {
    "head_update": HeadUpdate,
    "aggregation": Aggregation,
    "participation": Participation,
}
_NUMBERS: dict[object, tuple[type, str]] = {int: (Integral, "a whole number"), float: (Real, "a number")}
_TYPES = {field.name: field.type for of in (Method, RunSpecification) for field in fields(of)}
_OF_METHOD = frozenset(field.name for field in fields(Method))
_SAID_OTHERWISE = frozenset({"workload", "feature_dim", "feature_fingerprint", "method", *OF_PRIVACY})
"""The settings that follow from the workload or from `dp`, or are given by its parts."""
_OF_RUN = frozenset(field.name for field in fields(RunSpecification)) - _SAID_OTHERWISE


def specify(
    workload: Workload | str,
    *,
    agents: int | None = None,
    rounds: int | None = None,
    seed: int = 0,
    preset: str = DEFAULT_PRESET,
    **constants: Any,
) -> RunSpecification:
    """The specification of a run of this workload, as `cospan run` would make it; see `specify_with_site`."""
    found, site = specify_with_site(workload, agents=agents, rounds=rounds, seed=seed, preset=preset, **constants)
    close_site(site)
    return found


def specify_with_site(
    workload: Workload | str,
    *,
    agents: int | None = None,
    rounds: int | None = None,
    seed: int = 0,
    preset: str = DEFAULT_PRESET,
    **constants: Any,
) -> tuple[RunSpecification, AnySite]:
    """The specification of a run of this workload, and the first site, never stepped; the caller closes it.

    Args:
        workload: a workload, or its name as on the command line; it gives d, r, L and the fingerprint.
        agents: how many; by default all sites where the workload has a number of them, else 8.
        rounds: how many; 0 for a run that ends when it is stopped. By default 300, or as many as the workload's
            data need, or those of the improvement steps (`improve`) and of one more evaluation.
        seed: of the run.
        preset: the method's constants to begin with: paper, practical, compact or full-history.
        constants: single constants of the method, as `steps_per_round=50`, or values of the run, as `rank=4`; the
            names are those of `Method` and `RunSpecification`. A choice may be its text: `aggregation="trimmed"`.
            `dp="epsilon=8,delta=1e-5"` asks for differential privacy (needs the extra `dp`, and secure sums).

    Raises:
        InvalidValueError: a name that there is not, or a value that is not allowed or does not fit the workload.
        WorkloadError: there is no such workload.
    """
    if preset not in PRESETS:
        raise InvalidValueError(f"preset is {preset!r}; it must be one of {', '.join(PRESETS)}")
    made = load_workload(workload)
    reference = workload if isinstance(workload, str) else made.name
    length = steps_of(made) if constants.get("steps_per_round") is None else made.steps_per_round
    start = new_specification(reference, made.rank, made.max_agents, length, DEFAULT_ROUNDS, preset=preset)
    privacy = constants.pop("dp", None)
    of_fleet = {"seed": seed, **{k: v for k, v in (("agents", agents), ("rounds", rounds)) if v is not None}}
    said = _chosen(of_fleet | constants)
    if said.get("quorum") and "participation" not in said:  # who names a quorum need not say that there is one
        said["participation"] = Participation.QUORUM
    method = replace(start.method, **{name: value for name, value in said.items() if name in _OF_METHOD})
    of_run = {name: value for name, value in said.items() if name in _OF_RUN}
    whole = with_cohort(with_improvement(replace(start, method=method, **of_run), of_run), of_run)
    if rounds is None:
        whole = replace(whole, rounds=default_rounds(whole, made))
    if privacy is not None:
        whole = with_privacy(whole, asked_of(str(privacy)))
    found, site = with_features(whole, made)
    with closing_on_failure(site):
        return checked(found), site


def _chosen(constants: dict[str, Any]) -> dict[str, Any]:
    """The constants, a choice that is a text made what it stands for."""
    found = {}
    for name, value in constants.items():
        if name not in _OF_METHOD | _OF_RUN:
            names = ", ".join(sorted(_OF_METHOD | _OF_RUN | {"dp"}))
            raise InvalidValueError(f"there is no value {name!r} of a run; there are {names}")
        kind = _KINDS.get(name)
        if kind is not None and isinstance(value, str):
            allowed = [choice.value for choice in kind]
            if value not in allowed:
                raise InvalidValueError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
            value = kind(value)  # noqa: PLW2901
        found[name] = _plain(name, value)
    return found


def _plain(name: str, value: Any) -> Any:
    """A value of the type that its name stands for, which numpy's numbers are made.

    Raises:
        InvalidValueError: it is of another kind.
    """
    expected = _TYPES[name]
    allowed, words = _NUMBERS.get(expected, (expected, f"of type {getattr(expected, '__name__', expected)}"))
    assert isinstance(allowed, type)
    if not isinstance(value, allowed) or (isinstance(value, bool) and expected is not bool):
        raise InvalidValueError(f"{name} is {value!r}, of type {type(value).__name__}; it must be {words}")
    return expected(value) if expected in (int, float) and isinstance(expected, type) else value


def rounds_of(workload: Workload, steps_per_round: int, default: int = DEFAULT_ROUNDS) -> int:
    """The number of rounds that the data of a workload need; the default where they have no end.

    Raises:
        CospanError: the data cannot be learnt from.
    """
    return default if workload.rounds_of is None else workload.rounds_of(steps_per_round)


def default_rounds(specification: RunSpecification, workload: Workload, default: int = DEFAULT_ROUNDS) -> int:
    """The number of rounds where none is said: see `rounds_of`; with improvement steps, `improvement_rounds`.

    A default of 0, for a run that ends when it is stopped, stays 0 with improvement steps.
    """
    if specification.improve > 0 and default:
        return improvement_rounds(specification)
    return rounds_of(workload, specification.method.steps_per_round, default)


def steps_of(workload: Workload) -> int:
    """L that suits a workload, whose data are read where it takes that.

    Raises:
        CospanError: the data cannot be learnt from.
    """
    return workload.steps_per_round if workload.steps_of is None else workload.steps_of()


def with_features(specification: RunSpecification, workload: Workload) -> tuple[RunSpecification, AnySite]:
    """The specification with d and the fingerprint of its workload; and the first site, never stepped.

    The caller closes the site.

    Raises:
        InvalidValueError: there are more agents than sites; or the run has improvement steps, and the first site
            does not say what its actions lead to.
        WorkloadError: the first site cannot be made.
    """
    most = workload.max_agents
    if most is not None and specification.agents > most:
        raise InvalidValueError(
            f"agents is {specification.agents}; workload {specification.workload!r} has {most} sites, "
            f"so it must be 1 to {most}"
        )
    site = make_site(workload, 0, specification.seed)
    if isinstance(site, SourceSite) and specification.method.head_update is HeadUpdate.END_OF_ROUND:
        raise InvalidValueError(
            f"head_update is end-of-round, whose errors span {specification.method.steps_per_round} steps, and "
            "logs have gaps; choose another preset, as practical"
        )
    what = f"the features of {specification.workload!r} have no dim and fingerprint"
    with closing_on_failure(site):
        features = features_for(site, specification, 0)
        with user_code(what):
            dim, fingerprint = features.dim, features.fingerprint
    return replace(specification, feature_dim=dim, feature_fingerprint=fingerprint), site
