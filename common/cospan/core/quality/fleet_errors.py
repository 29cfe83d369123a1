"""Errors on held-out data of a fleet, and which of them can be told apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cospan.core.quality.held_out import NAMES, HeldOutErrors

_QUANTILE = 1.959963984540054
"""Of the normal distribution at 97.5 %."""


@dataclass(frozen=True, slots=True)
class SiteErrors:
    """Those of one site, as `HeldOutErrors` has them; `td_alone` is None without that baseline."""

    joint: float
    joint_error: float
    lstd_alone: float
    mean_only: float
    advantage: float
    advantage_error: float
    blocks: int
    td_alone: float | None = None

    @property
    def verdict(self) -> int:
        """1 if the joint method is better than LSTD alone, −1 if it is worse, 0 if they cannot be told apart."""
        return verdict(self.advantage, self.advantage_error, self.blocks - 1)

    @property
    def ratio(self) -> float | None:
        """The error of the joint method over that of LSTD alone; None if they cannot be told apart."""
        if not self.verdict or self.lstd_alone <= 0.0:
            return None
        return max(0.0, self.joint) / self.lstd_alone


@dataclass(frozen=True, slots=True)
class FleetErrors:
    """Means over the sites, each a share of the variance of that site's values.

    Attributes:
        sites: how many are known.
        joint: mean error of the joint method.
        joint_error: its standard error.
        lstd_alone: that of LSTD alone.
        td_alone: that of TD alone; None without it.
        mean_only: that of V = 0.
        advantage: by how much the error of LSTD alone exceeds that of the joint method.
        advantage_error: its standard error, of these sites: what they differ in is no noise.
        sites_better: where the joint method is better, beyond its standard error.
        sites_worse: where LSTD alone is.
        blocks: of which a site's standard errors are, the fewest of any.
    """

    sites: int
    joint: float
    joint_error: float
    lstd_alone: float
    td_alone: float | None
    mean_only: float
    advantage: float
    advantage_error: float
    sites_better: int
    sites_worse: int
    blocks: int

    @classmethod
    def of(cls, sites: Sequence[SiteErrors]) -> "FleetErrors | None":
        """Of the sites whose errors are known; None without any."""
        if not sites:
            return None
        td_alone = [site.td_alone for site in sites if site.td_alone is not None]
        return cls(
            sites=len(sites),
            joint=float(np.mean([site.joint for site in sites])),
            joint_error=_of_mean([site.joint_error for site in sites]),
            lstd_alone=float(np.mean([site.lstd_alone for site in sites])),
            td_alone=float(np.mean(td_alone)) if len(td_alone) == len(sites) else None,
            mean_only=float(np.mean([site.mean_only for site in sites])),
            advantage=float(np.mean([site.advantage for site in sites])),
            advantage_error=_of_mean([site.advantage_error for site in sites]),
            sites_better=sum(site.verdict > 0 for site in sites),
            sites_worse=sum(site.verdict < 0 for site in sites),
            blocks=min(site.blocks for site in sites),
        )

    @property
    def verdict(self) -> int:
        """As of a site."""
        return verdict(self.advantage, self.advantage_error, self.blocks - 1)

    @property
    def ratio(self) -> float | None:
        """The mean error of the joint method over that of LSTD alone; None if the fleet's cannot be told apart."""
        return max(0.0, self.joint) / self.lstd_alone if self.verdict and self.lstd_alone > 0.0 else None


def site_of(errors: HeldOutErrors) -> SiteErrors | None:
    """The errors of one agent; None where they are unknown."""
    found = {name: float(getattr(errors, name)) for name in NAMES}
    alone = found.pop("td_alone")
    if not np.isfinite(list(found.values())).all():
        return None
    return SiteErrors(**found, blocks=errors.blocks, td_alone=alone if math.isfinite(alone) else None)


def verdict(difference: float, standard_error: float, freedom: int) -> int:
    """The sign of a difference that is beyond chance at 95 %, by Student's t; else 0.

    The quantile is taken from its expansion in 1 / ν (Cornish and Fisher 1938).
    """
    z, free = _QUANTILE, max(1, freedom)
    quantile = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    if not (math.isfinite(difference) and abs(difference) > quantile * standard_error):
        return 0
    return 1 if difference > 0.0 else -1


def _of_mean(standard_errors: Sequence[float]) -> float:
    """The standard error of a mean of independent numbers."""
    return float(np.sqrt(np.square(standard_errors).sum())) / len(standard_errors)
