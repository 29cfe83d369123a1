"""From settings, a workload, or the file of an earlier run, to the specification of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cospan.cli.settings.layers import Settings, load_settings
from cospan.client.learning.default_run import (
    asked_of,
    checked,
    new_specification,
    with_cohort,
    with_improvement,
    with_privacy,
    with_refreshes,
)
from cospan.core import fields
from cospan.core.method import PRESETS, Method
from cospan.core.run_fields import Participation, RunFields
from cospan.core.specification import RunSpecification
from cospan.wire.errors import InvalidValueError
from cospan.wire.files.spec_file import load_spec

if TYPE_CHECKING:  # a coordinator that resumes a stored run needs no workload, and imports neither it nor Gymnasium
    from cospan.client.workload import AnySite, Workload

_OF_A_SPECIFICATION = fields.settings(RunFields).keys() | fields.settings(Method).keys() | {"preset", "dp"}
"""Settings that a specification file sets; only flags override it."""


@dataclass(frozen=True, eq=False, slots=True)
class RunPlan:
    """A run that can start. Its maker closes it.

    Attributes:
        specification: of the run, free of problems.
        settings: of all layers.
        workload: if one was named.
        site: its first site, not stepped; `close` it unless it is used.
    """

    specification: RunSpecification
    settings: Settings
    workload: "Workload | None" = None
    site: "AnySite | None" = None

    def close(self) -> None:
        """Closes the site."""
        if self.site is not None:
            from cospan.client.environment.ownership import close_site

            close_site(self.site)


def plan_with_workload(
    flags: Mapping[str, Any], config: Path | None, *, reference: str | None, spec_file: Path | None, rounds: int
) -> RunPlan:
    """A run whose workload is at hand: it fills in d, r, L and the fingerprint.

    Args:
        flags: of the command line.
        config: the file of settings, or None.
        reference: the workload's name; None for that of `spec_file`.
        spec_file: a specification to run again, or None.
        rounds: default number of rounds.

    Raises:
        InvalidValueError: a setting has a value that is not allowed, or does not fit the workload.
        WorkloadError: there is no such workload.
        RunFileError: `spec_file` is no specification.
    """
    from cospan.client.environment.workload_loader import load_workload
    from cospan.client.learning.run_config import default_rounds, steps_of

    settings, base = _layers(flags, config, spec_file)
    if base is None:
        if reference is None:
            raise InvalidValueError("no workload is named; say which, as in `cospan run queues`, or give --spec")
        workload = load_workload(reference)
        steps = settings.of(Method).get("steps_per_round") or steps_of(workload)
        start = new_specification(reference, workload.rank, workload.max_agents, steps, rounds)
        if "rounds" not in settings.of(RunFields):
            start = replace(start, rounds=default_rounds(_with_settings(start, settings), workload, rounds))
    else:
        _check_same_workload(base, reference, spec_file)
        workload, start = load_workload(base.workload), base
    return _of_workload(start, settings, workload, base, str(spec_file))


def plan_resumed(
    held: RunSpecification,
    flags: Mapping[str, Any],
    config: Path | None,
    *,
    reference: str,
    spec_file: Path | None,
    rounds: int,
) -> RunPlan:
    """The run that is asked for by a workload's name if a run is stored: the workload is not loaded.

    Its defaults are taken from the stored run: r, L, the number of agents, the features. Agents load the workload
    and refuse a run with other features.

    Args: `held` is the specification of the stored run; the others as for `plan_with_workload`.

    Returns:
        A plan whose specification may differ from `held` and is not checked.

    Raises:
        InvalidValueError: a setting has a value that is not allowed.
        RunFileError: `spec_file` is no specification.
    """
    settings, base = _layers(flags, config, spec_file)
    if base is None:
        base = new_specification(reference, held.rank, held.agents, held.method.steps_per_round, rounds)
    else:
        _check_same_workload(base, reference, spec_file)
    found = replace(
        _with_settings(base, settings, is_whole=spec_file is not None),
        feature_dim=held.feature_dim,
        feature_fingerprint=held.feature_fingerprint,
    )
    return RunPlan(found, settings)


def plan_again(base: RunSpecification, flags: Mapping[str, Any], config: Path | None) -> RunPlan:
    """A run that was started, with its workload; only flags change its specification.

    Raises:
        InvalidValueError: a flag has a value that is not allowed.
        WorkloadError: its workload no longer exists.
    """
    from cospan.client.environment.workload_loader import load_workload

    settings = _only_flags(load_settings(flags, config), flags)
    return _of_workload(base, settings, load_workload(base.workload), again=True)


def _of_workload(
    start: RunSpecification,
    settings: Settings,
    workload: "Workload",
    held: RunSpecification | None = None,
    name: str = "",
    *,
    again: bool = False,
) -> RunPlan:
    """The checked plan of a workload; its features must be those of `held`, which the file `name` has.

    `again` says that the run was started before.
    """
    from cospan.client.learning.run_config import with_features

    found, site = with_features(_with_settings(start, settings, is_whole=held is not None or again), workload)
    plan = RunPlan(found, settings, workload, site)
    try:
        if held is not None and held.seed == found.seed:
            _check_same_features(held, found, name)
        checked(found)
    except InvalidValueError:
        plan.close()
        raise
    return plan


def plan_alone(flags: Mapping[str, Any], config: Path | None, *, spec_file: Path | None, rounds: int) -> RunPlan:
    """A run of a coordinator without its workload: d and r come from settings or a file; see `plan_with_workload`.

    Raises:
        InvalidValueError: a setting is missing or has a value that is not allowed.
        RunFileError: `spec_file` is no specification.
    """
    settings, base = _layers(flags, config, spec_file)
    if base is None and not {"feature_dim", "rank"} <= settings.of(RunFields).keys():
        raise InvalidValueError(
            "the coordinator knows neither d nor r; name a workload with --workload, or give both "
            "--feature-dim and --rank, or the --spec of a run"
        )
    start = base or new_specification("", 1, None, None, rounds)
    return RunPlan(checked(_with_settings(start, settings, is_whole=base is not None)), settings)


def preset_of(method: Method) -> str | None:
    """The preset whose constants these are, or None."""
    method = replace(method, refresh_growth=0.0, refresh_sample=0)  # they follow from the size of the fleet
    return next((name for name, preset in PRESETS.items() if preset(method.steps_per_round) == method), None)


def _layers(
    flags: Mapping[str, Any], config: Path | None, spec_file: Path | None
) -> tuple[Settings, RunSpecification | None]:
    """The settings, and the specification to start from, which only flags override."""
    settings = load_settings(flags, config)
    if spec_file is None:
        return settings, None
    return _only_flags(settings, flags), load_spec(spec_file)


def _only_flags(settings: Settings, flags: Mapping[str, Any]) -> Settings:
    """The settings without those of a specification that are not flags."""
    return settings.model_copy(update=dict.fromkeys(_OF_A_SPECIFICATION - flags.keys()))


def _with_settings(start: RunSpecification, settings: Settings, *, is_whole: bool = False) -> RunSpecification:
    """The specification with all settings; a quorum implies its participation, improvement steps the rest of it.

    Args:
        start: to begin with.
        settings: that override it.
        is_whole: whether it is that of a run, and says all: then no constant is chosen by the size of the fleet.
    """
    method, values = start.method, settings.of(RunFields)
    if settings.preset is not None:
        method = PRESETS[settings.preset](method.steps_per_round)
    if values.get("quorum"):
        values.setdefault("participation", Participation.QUORUM)
    constants = settings.of(Method)
    found = with_improvement(replace(start, method=replace(method, **constants), **values), values)
    found = with_cohort(found, values)
    if settings.dp is not None:
        found = with_privacy(found, asked_of(settings.dp))
    return found if is_whole else with_refreshes(found, constants)


def _check_same_workload(base: RunSpecification, reference: str | None, spec_file: Path | None) -> None:
    if reference not in (None, base.workload):
        raise InvalidValueError(
            f"{spec_file} is of workload {base.workload!r}, and the command names {reference!r}; "
            "name that workload, or leave out --spec"
        )


def _check_same_features(base: RunSpecification, found: RunSpecification, name: str) -> None:
    for field, what in (("feature_dim", "features of dimension"), ("feature_fingerprint", "the feature map")):
        ours, theirs = getattr(found, field), getattr(base, field)
        if theirs not in ("", ours):
            raise InvalidValueError(
                f"{name} has {what} {theirs!r}, and workload {found.workload!r} now has {ours!r}; "
                "it was written by another version of the workload: leave out --spec"
            )
