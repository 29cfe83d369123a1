"""Checks of a feature map: its contract at single observations, and what its features span where chains go."""

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from jaxtyping import Float

from cospan.client.environment.ownership import user_code
from cospan.client.environment.rollout import checked_features
from cospan.client.workload import FeatureMap
from cospan.client.workload_check.findings import Finding, Severity
from cospan.client.workload_check.play import is_same
from cospan.core.learning.feature_span import FeatureSpan
from cospan.core.learning.least_squares import TransitionSums
from cospan.wire.errors import WorkloadBehaviourError
from cospan.wire.text import listed, split_remedy

_DRAWN = 500
"""Observations that are drawn from the observation space."""
_ROWS = 50
"""Observations of which a batch is compared with its rows."""
_STATES_PER_FEATURE = 2
"""Different feature vectors for each feature below which a span is not judged."""
_STATES_FOR_RANK = 10
"""The same for the rank, which rarely used features need more states to have."""
_MOST_LISTED = 10_000
"""Observations of a finite space that are all looked at."""
_SMALL_NORM = 0.05
_STEPS_PER_FEATURE = 10
"""Steps for each feature below which TD errors say nothing of the features."""
_LEAST_BLOCKS, _BLOCK = 8, 20
_CORRELATED, _STANDARD_ERRORS = 0.1, 3.0
"""A correlation of TD errors above the first number and this multiple of its standard error is reported."""
_NO_RADIUS = 1e12


def of_map(
    features: FeatureMap, observations: Sequence[Any], space: gymnasium.Space[Any], where: str
) -> tuple[list[Finding], Float[np.ndarray, "n d"] | None]:
    """Of single observations: length, norm, batches, drawn observations; and the features of those visited.

    Args:
        features: the map.
        observations: that were visited.
        space: of observations.
        where: names the site in findings.

    Returns:
        The findings, and φ of the observations; None where they cannot be computed.
    """
    kept = copy.deepcopy(list(observations[:_ROWS]))
    try:
        rows = checked_features(features, observations, where)
    except WorkloadBehaviourError as failure:
        return [Finding.of_failure("feature-contract", failure, where)], None
    found = _of_batch(features, observations, rows, where)
    if not all(map(is_same, kept, observations)):
        what, remedy = "the feature map writes into the observation", "let it compute on a copy"
        found.append(Finding(Severity.PROBLEM, "feature-contract", what, where, remedy))
    largest = float(np.sqrt(np.square(rows).sum(axis=1).max()))
    if 0.0 < largest < _SMALL_NORM:
        what = f"the largest norm of a feature vector is {largest:.2g}, far below 1"
        remedy = "scale the features, so that the largest norm is near 1"
        found.append(Finding(Severity.WARNING, "feature-norm", what, where, remedy))
    return found + _of_space(features, space, where), rows


def _of_batch(
    features: FeatureMap, observations: Sequence[Any], rows: Float[np.ndarray, "n d"], where: str
) -> list[Finding]:
    """Whether the map of one observation is its row of a batch, and gives the same twice."""
    for place in range(min(_ROWS, len(rows))):
        with user_code("the feature map of one observation raised"):
            single = np.asarray(features(observations[place]), dtype=np.float64)
        if not np.array_equal(single, rows[place]):
            size = float(np.abs(single - rows[place]).max()) if single.shape == rows[place].shape else np.inf
            what = f"the features of one observation differ from its row of a batch by {size:.2g}"
            remedy = (
                "compute one observation as a batch of one, row by row: a matrix product may round otherwise for "
                "other numbers of rows"
            )
            severity = Severity.PROBLEM if size > 1e-9 else Severity.WARNING
            return [Finding(severity, "feature-batch", what, f"{where}, step {place}", remedy)]
    return []


def _of_space(features: FeatureMap, space: gymnasium.Space[Any], where: str) -> list[Finding]:
    """Of observations drawn from the space, which a longer play may visit."""
    own = copy.deepcopy(space)  # a draw from the environment's own would change its draws
    try:
        own.seed(0)
        drawn = [own.sample() for _ in range(_DRAWN)]
    except Exception:  # not every space can be sampled
        return []
    try:
        checked_features(features, drawn, f"{where} at observations drawn from its space")
    except WorkloadBehaviourError as failure:
        what, remedy = split_remedy(str(failure))
        remedy = remedy or "let the map take every observation of the space, or correct the space"
        return [Finding(Severity.WARNING, "feature-space", what, where, remedy)]
    return []


def of_span(rows: Float[np.ndarray, "n d"], whole: Float[np.ndarray, "k d"] | None, where: str) -> list[Finding]:
    """Of one site: whether a constant function is in the span of its features where its chain goes.

    Args:
        rows: features of the visited observations.
        whole: those of all observations of the space, where it is finite: then few visited ones are no hindrance.
        where: names the site in findings.
    """
    different = np.unique(rows, axis=0)
    if len(different) == 1:
        what, remedy = "the features are the same at every step", "see that they depend on what the chain changes"
        return [Finding(Severity.WARNING, "feature-span", what, where, remedy)]
    span = FeatureSpan.of(different)
    if len(different) < _STATES_PER_FEATURE * max(span.used, 1):
        if whole is None:
            what = (
                f"{len(different)} different feature vectors are too few to judge the span of {span.used} features"
            )
            return [Finding(Severity.NOTE, "feature-span", what, where, "check more steps, or take fewer features")]
        different = whole
        span = FeatureSpan.of(whole)
    if not span.has_constant:
        return []
    what = (
        f"a constant function is in the span of the features: over {len(different)} different states they give 1 "
        f"up to {span.constant_residual:.2g}, so weights drift"
    )
    remedy = "leave out one feature, as the indicator of one state, or centre them"
    return [Finding(Severity.PROBLEM, "feature-constant", what, where, remedy)]


def of_finite_space(features: FeatureMap, space: gymnasium.Space[Any]) -> Float[np.ndarray, "k d"] | None:
    """The features of all observations of a small finite space; None of any other, and where the map fails."""
    if not isinstance(space, Discrete) or space.n > _MOST_LISTED:
        return None
    try:
        return checked_features(features, [int(space.start + number) for number in range(space.n)], "the space")
    except WorkloadBehaviourError:
        return None


def of_all_spans(rows: Float[np.ndarray, "n d"]) -> list[Finding]:
    """Of all sites that were checked: features that are never used, or follow from the others."""
    used = rows.any(axis=0)
    dead = np.flatnonzero(~used)
    found = []
    if 0 < len(dead) < rows.shape[1]:
        shown = listed([str(number) for number in dead])
        what = f"{len(dead)} of {rows.shape[1]} features are 0 at every visited state: {shown}"
        remedy = "fit the features to where the chains go, or check more steps"
        severity = Severity.WARNING if 2 * len(dead) > rows.shape[1] else Severity.NOTE
        found.append(Finding(severity, "feature-dead", what, "all sites", remedy))
    if not used.any():
        what, remedy = "all features are 0 at every visited state", "fit the features to where the chains go"
        return [Finding(Severity.PROBLEM, "feature-dead", what, "all sites", remedy)]
    different = np.unique(rows, axis=0)
    span = FeatureSpan.of(different)
    if span.dependent and len(different) >= _STATES_FOR_RANK * span.used:
        what = (
            f"over {len(different)} different states {span.used} features have rank {span.rank}, so their weights "
            "are not unique"
        )
        remedy = f"leave out {span.dependent} of them, or check more steps"
        found.append(Finding(Severity.WARNING, "feature-dependent", what, "all sites", remedy))
    return found


def of_td_errors(rows: Float[np.ndarray, "n d"], rewards: Float[np.ndarray, " L"], where: str) -> list[Finding]:
    """A hint whether the features hold what the future depends on.

    The correlation of TD errors one step apart, with LSTD weights of the same play. It is 0 where the features hold
    the value function (`cospan.core.quality.error_correlation`). A play too short for its features is not judged.
    """
    steps, dim = len(rewards), rows.shape[1]
    if steps < max(_STEPS_PER_FEATURE * dim, _LEAST_BLOCKS * _BLOCK) or not rewards.std() > 0.0:
        return []
    sums = TransitionSums.of_features(dim).updated(rows, rows[:-1], rewards, 0.0)
    errors = rewards + (rows[1:] - rows[:-1]) @ sums.head(_NO_RADIUS)
    correlation, spread = _correlation(errors - errors.mean())
    if not correlation > max(_CORRELATED, _STANDARD_ERRORS * spread):
        return []
    what = (
        f"TD errors one step apart have a correlation of {correlation:.2f} ± {spread:.2f}: the features lack "
        "something that persists"
    )
    remedy = (
        "add what the future depends on (the hour, a stock, an order under way) to the observation and features"
    )
    return [Finding(Severity.WARNING, "markov", what, where, remedy)]


def _correlation(errors: Float[np.ndarray, " L"]) -> tuple[float, float]:
    """The autocorrelation at lag one, and its standard error from blocks; nan where all errors are equal."""
    variance = float(np.square(errors).mean())
    if not variance > 0.0:
        return float("nan"), float("nan")
    products = errors[:-1] * errors[1:] / variance
    blocks = products[: len(products) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).mean(axis=1)
    return float(products.mean()), float(blocks.std(ddof=1) / np.sqrt(len(blocks)))


def of_equal_maps(
    first: FeatureMap, other: FeatureMap, observations: Sequence[Any], sites: tuple[str, str]
) -> list[Finding]:
    """Whether two sites' maps, whose fingerprints agree, are the same map.

    Args:
        first: the map of one site.
        other: that of the other.
        observations: visited at the first one.
        sites: names of both.
    """
    if first is other or not len(observations):
        return []
    shown = list(observations[:_ROWS])
    with user_code(f"the feature map of {sites[1]} raised for observations of {sites[0]}"):
        ours, theirs = np.asarray(first.batch(shown)), np.asarray(other.batch(shown))
    if ours.shape == theirs.shape and np.array_equal(ours, theirs):
        return []
    what = f"the feature maps of {sites[0]} and {sites[1]} have one fingerprint, {first.fingerprint!r}, and differ"
    remedy = "give all sites the same map, or let the fingerprint depend on everything that the map depends on"
    return [Finding(Severity.PROBLEM, "feature-fingerprint", what, sites[1], remedy)]
