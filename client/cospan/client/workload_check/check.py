"""`check`: plays some sites of a workload, and reports what would go wrong in a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.environment.ownership import close_site, user_code
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.workload import AnySite, FeatureMap, Site, SourceSite, Workload
from cospan.client.workload_check import chain_checks, feature_checks, source_checks
from cospan.client.workload_check.chain_checks import guarded
from cospan.client.workload_check.findings import CheckReport, Finding, Severity, in_order
from cospan.client.workload_check.play import Play, difference, play
from cospan.wire.errors import CospanError, InvalidValueError, WorkloadError

DEFAULT_SITES, DEFAULT_STEPS = 3, 1000
_MOST_SITES = 1000
_SAVED_STEPS = 50
"""Steps before and after a state is saved."""


@dataclass(slots=True)
class _Seen:
    """What sites showed that concerns all of them."""

    features: FeatureMap | None = None
    first: str = ""
    observations: list[Any] = field(default_factory=list)
    rows: list[Float[np.ndarray, "n d"]] = field(default_factory=list)
    plays: list[Play] = field(default_factory=list)


def check(
    workload: Workload | str,
    *,
    sites: int | Sequence[int] = DEFAULT_SITES,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
) -> CheckReport:
    """Checks that a workload keeps its promises: environment, features, policy, seeds, saved states.

        report = check("my_fleet:tanks", sites=4, steps=500)
        print(report)
        report.raise_problems()

    Each site is made three to five times, and each time stepped under its own policy, `steps` times or fewer: an
    environment that stands for a real system is stepped as well. What user code raises is a finding.

    Args:
        workload: or its name, as on the command line.
        sites: how many, from site 0 on; or their indices.
        steps: to play each site, at least 2. With d features at least 10 d tell whether they suffice.
        seed: of the run.

    Raises:
        InvalidValueError: `sites` or `steps` is out of range.
        WorkloadError: there is no workload of this name.
    """
    found_workload = load_workload(workload)
    indices = _indices(found_workload, sites)
    if steps < 2:
        raise InvalidValueError(f"steps is {steps}; a check needs at least 2")
    found = _of_settings(found_workload)
    seen = _Seen()
    for index in indices:
        found += _of_site(found_workload, seen, index=index, seed=seed, steps=steps)
    found += _of_all(found_workload, seen, indices, seed=seed, steps=steps)
    name = found_workload.name or (workload if isinstance(workload, str) else "")
    return CheckReport(name, tuple(indices), steps, in_order(found))


def _indices(workload: Workload, sites: int | Sequence[int]) -> list[int]:
    if isinstance(sites, int):
        if not 1 <= sites <= _MOST_SITES:
            raise InvalidValueError(f"sites is {sites}; a check takes 1 to {_MOST_SITES}")
        return list(range(sites if workload.max_agents is None else min(sites, workload.max_agents)))
    if not sites:
        raise InvalidValueError("sites is empty; name at least one")
    return [int(index) for index in sites]


def _of_settings(workload: Workload) -> list[Finding]:
    """Of the run's default settings, which need no site."""
    found = []
    for name, value in (("rank", workload.rank), ("steps_per_round", workload.steps_per_round)):
        if value < 1:
            what, remedy = f"{name} is {value}", "give 1 or more"
            found.append(Finding(Severity.PROBLEM, "settings", what, "the workload", remedy))
    return found


def _of_site(workload: Workload, seen: _Seen, *, index: int, seed: int, steps: int) -> list[Finding]:
    where = f"site {index}"
    try:
        site = make_site(workload, index, seed)
    except CospanError as failure:
        return [Finding.of_failure("make-site", failure, where)]
    if isinstance(site, SourceSite):
        return guarded(
            "source", where, lambda: _of_source(workload, site, seen, where, index=index, seed=seed, steps=steps)
        )
    try:
        return list(_of_made(workload, site, seen, where, index=index, seed=seed, steps=steps))
    finally:
        close_site(site)


def _of_source(
    workload: Workload, site: SourceSite, seen: _Seen, where: str, *, index: int, seed: int, steps: int
) -> list[Finding]:
    found, rows = source_checks.of_source(workload, site, where, index=index, seed=seed, steps=steps)
    found += _of_dimension(workload, site, where) + _of_shared_map(site, [], seen, where)
    if rows is not None:
        seen.rows.append(rows)
    return found


def _of_made(
    workload: Workload, site: Site, seen: _Seen, where: str, *, index: int, seed: int, steps: int
) -> Iterator[Finding]:
    played = play(site, where, index=index, seed=seed, steps=steps)
    yield from played.findings
    if not played.observations:
        return
    seen.plays.append(played)
    yield from guarded("feature-contract", where, lambda: _of_dimension(workload, site, where))
    yield from guarded("feature-contract", where, lambda: _of_features(site, played, seen, where))
    if not played.complete:
        return
    yield from chain_checks.of_play(played, where)
    yield from guarded("policy-function", where, lambda: chain_checks.of_policy(site, played, where))
    yield from guarded(
        "deterministic",
        where,
        lambda: chain_checks.of_determinism(workload, site, played, where, index=index, seed=seed),
    )
    yield from guarded(
        "feature-fingerprint", where, lambda: _of_fingerprint(workload, site, where, index=index, seed=seed)
    )
    saved_steps = max(1, min(_SAVED_STEPS, steps // 2))
    yield from guarded(
        "resumable",
        where,
        lambda: chain_checks.of_saved_state(workload, where, index=index, seed=seed, steps=saved_steps),
    )


def _of_dimension(workload: Workload, site: AnySite, where: str) -> list[Finding]:
    """Whether d and the rank fit each other."""
    with user_code(f"the feature map of {where} has no dim"):
        dim = int(site.features.dim)
    if workload.rank > dim:
        what, remedy = f"rank is {workload.rank}, and there are {dim} features", f"give a rank of at most {dim}"
        return [Finding(Severity.PROBLEM, "settings", what, "the workload", remedy)]
    if dim < 2 * workload.rank:
        what = f"there are {dim} features for rank {workload.rank}, fewer than twice as many"
        remedy = "take a smaller rank, or agents might as well learn alone"
        return [Finding(Severity.WARNING, "settings", what, "the workload", remedy)]
    return []


def _of_features(site: Site, played: Play, seen: _Seen, where: str) -> list[Finding]:
    features = site.features
    found, rows = feature_checks.of_map(features, played.observations, site.env.observation_space, where)
    shared = _of_shared_map(site, played.observations, seen, where)
    found += shared
    if rows is None or any(each.rule == "feature-fingerprint" for each in shared):
        return found
    seen.rows.append(rows)
    whole = feature_checks.of_finite_space(features, site.env.observation_space)
    found += feature_checks.of_span(rows, whole, where)
    return found + feature_checks.of_td_errors(rows, np.array(played.rewards), where)


def _of_shared_map(site: AnySite, observations: list[Any], seen: _Seen, where: str) -> list[Finding]:
    """Whether the site has the map of the sites before it."""
    features = site.features
    if seen.features is None:
        seen.features, seen.first, seen.observations = features, where, observations
        return []
    if (seen.features.dim, seen.features.fingerprint) == (features.dim, features.fingerprint):
        return feature_checks.of_equal_maps(seen.features, features, seen.observations, (seen.first, where))
    what = (
        f"the feature map is {features.fingerprint!r} with length {features.dim}, and that of {seen.first} is "
        f"{seen.features.fingerprint!r} with length {seen.features.dim}"
    )
    remedy = "give all sites of a workload the same map: equal bounds, centres and orders"
    return [Finding(Severity.PROBLEM, "feature-fingerprint", what, where, remedy)]


def _of_fingerprint(workload: Workload, site: Site, where: str, *, index: int, seed: int) -> list[Finding]:
    """Whether a site made again has the same fingerprint, as it must in another process."""
    twin = make_site(workload, index, seed)
    try:
        if twin.features.fingerprint == site.features.fingerprint:
            return []
    finally:
        close_site(twin)
    what = (
        f"made twice, the site has two fingerprints of features, {site.features.fingerprint!r} and "
        f"{twin.features.fingerprint!r}"
    )
    remedy = "let the fingerprint follow from the map's constants alone, as cospan.client.features.fingerprint does"
    return [Finding(Severity.PROBLEM, "feature-fingerprint", what, where, remedy)]


def _of_all(workload: Workload, seen: _Seen, indices: Sequence[int], *, seed: int, steps: int) -> list[Finding]:
    """What concerns all sites."""
    found = []
    if seen.rows:
        found += feature_checks.of_all_spans(np.concatenate(seen.rows))
    if len(seen.plays) > 1 and all(not difference(seen.plays[0], other) for other in seen.plays[1:]):
        what = f"all {len(seen.plays)} sites play exactly alike"
        remedy = "let the site's numbers follow from its index, or run one agent: copies of a site add no data"
        found.append(Finding(Severity.WARNING, "sites-differ", what, "all sites", remedy))
    if len(seen.plays) == len(indices) and all(each.complete for each in seen.plays):
        try:
            found += chain_checks.of_fleet(workload, indices, seed=seed, steps=steps)
        except WorkloadError as failure:
            found.append(Finding.of_failure("make-fleet", failure, "make_fleet"))
    return found
