"""The twenty-five microgrids with coarser and finer features: one fleet, five feature maps, d = 47 to 623.

Environment, policy and gain are those of `microgrids`; what grows is d, and with it what a site alone has to learn
from the same hours. Each map's knots are among those of the next one, so each span is a part of the next. Charge
keeps its two knots: under the fleet's policy a battery is seldom half full, and the features of more knots would
hardly ever be excited. Named on the command line as `cospan.client.workloads.microgrids_finer:d191`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.features import BatchFeatures, fingerprint
from cospan.client.workload import FeatureMap, Site, Workload
from cospan.client.workloads import microgrids
from cospan.client.workloads.microgrids import CHARGE, FEATURES, HOUR, OUTLOOK, hats
from cospan.client.workloads.models.microgrids import DATA, HOURS
from cospan.core.exact_solutions import ReferenceSolution, common_subspace

REFERENCE_FILE = DATA / "microgrids_finer.npz"


@dataclass(frozen=True, eq=False, slots=True)
class HatFeatures(BatchFeatures):
    """Products of hat functions over hour of day, state of charge and outlook, less the first.

    As `microgrids.MicrogridFeatures`, with any knots; the same map serves every site.

    Attributes:
        hour_knots: ascending, from 0 to 23.
        charge_knots: ascending, from 0 to 1.
        outlook_knots: ascending, from 0 to 1.
    """

    hour_knots: Float[np.ndarray, " k"]
    charge_knots: Float[np.ndarray, " c"]
    outlook_knots: Float[np.ndarray, " o"]

    @property
    def dim(self) -> int:
        """d = number of products − 1."""
        return self.hour_knots.size * self.charge_knots.size * self.outlook_knots.size - 1

    @property
    def fingerprint(self) -> str:
        """As of the map of `microgrids`: equal for equal knots."""
        knots = (self.hour_knots, self.charge_knots, self.outlook_knots)
        return fingerprint("microgrid-hats", *(each.astype("<f8").tobytes() for each in knots))

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several observations, one per row; values outside the knots count as at the nearest one."""
        values = np.asarray(observations, dtype=np.float64)
        hour = hats(values[:, HOUR], self.hour_knots)
        charge = hats(values[:, CHARGE], self.charge_knots)
        outlook = hats(values[:, OUTLOOK], self.outlook_knots)
        inner = (charge[:, :, None] * outlook[:, None, :]).reshape(len(values), -1)
        return np.asarray((hour[:, :, None] * inner[:, None, :]).reshape(len(values), -1)[:, 1:])

    def among(self, finer: "HatFeatures") -> Float[np.ndarray, "D d"]:
        """T with φ = Tᵀ φ_finer, wherever every knot here is one of the finer map as well.

        A hat of linear interpolation is linear between finer knots too: the sum of the finer hats, each times its
        own value at that knot. The hat that is left out is zero at every other knot here, so T has no row of it.
        """
        along = [
            hats(fine, coarse)
            for fine, coarse in zip(
                (finer.hour_knots, finer.charge_knots, finer.outlook_knots),
                (self.hour_knots, self.charge_knots, self.outlook_knots),
                strict=True,
            )
        ]
        return np.kron(np.kron(along[0], along[1]), along[2])[1:, 1:]


_EMPTY_AND_FULL = np.array([0.0, 1.0])
_EVERY_HOUR = np.arange(float(HOURS))
_EVERY_SECOND_HOUR = np.append(_EVERY_HOUR[:-2:2], HOURS - 1.0)
_THIRDS, _SIXTHS, _TWELFTHS = (np.arange(parts + 1.0) / parts for parts in (3, 6, 12))

MAPS: Mapping[int, HatFeatures] = MappingProxyType(
    {
        features.dim: features
        for features in (
            HatFeatures(np.array([0.0, 6.0, 10.0, 14.0, 18.0, 23.0]), _EMPTY_AND_FULL, _THIRDS),
            HatFeatures(_EVERY_SECOND_HOUR, _EMPTY_AND_FULL, _THIRDS),
            HatFeatures(_EVERY_HOUR, _EMPTY_AND_FULL, _THIRDS),
            HatFeatures(_EVERY_HOUR, _EMPTY_AND_FULL, _SIXTHS),
            HatFeatures(_EVERY_HOUR, _EMPTY_AND_FULL, _TWELFTHS),
        )
    }
)
"""d → its map, coarsest first: 47, 95, 191, 335, 623."""
FINEST = MAPS[max(MAPS)]
INNER = FINEST.charge_knots.size * FINEST.outlook_knots.size
"""Products of the finest map that are not zero at one hour."""


def features_with(d: int) -> FeatureMap:
    """The map with d features; that of `microgrids` itself for 95.

    Raises:
        ValueError: there is none.
    """
    if d not in MAPS:
        raise ValueError(
            f"there is no feature map of the microgrids with d = {d}; take {', '.join(map(str, MAPS))}"
        )
    return FEATURES if d == FEATURES.dim else MAPS[d]


@cache
def _archive() -> dict[str, np.ndarray]:
    with REFERENCE_FILE.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@cache
def _weights(d: int) -> Float[np.ndarray, "n d"]:
    """z* of every site.

    Raises:
        RuntimeError: the file's are of other features than these.
    """
    values = _archive()
    found = str(values[f"fingerprint_{d}"])
    if found != features_with(d).fingerprint:
        raise RuntimeError(
            f"the reference solutions with d = {d} are of features {found}, not of {features_with(d).fingerprint}; "
            f"make them again with `python -m {__package__}.references.microgrids_finer`"
        )
    return values[f"weights_{d}"].astype(np.float64)


def second_moments(hourly_upper: Float[np.ndarray, "24 u"]) -> Float[np.ndarray, "D D"]:
    """E[ψψᵀ] of all products ψ of the finest map, from the upper triangle of its block of each hour.

    An hour is a knot of its own there, so products of different hours are never both excited.
    """
    size = HOURS * INNER
    moments = np.zeros((size, size))
    upper = np.triu_indices(INNER)
    for hour, values in enumerate(hourly_upper):
        block = np.zeros((INNER, INNER))
        block[upper] = values
        part = slice(hour * INNER, (hour + 1) * INNER)
        moments[part, part] = block + np.triu(block, 1).T
    return moments


def covariance_of(features: HatFeatures, hourly_upper: Float[np.ndarray, "24 u"]) -> Float[np.ndarray, "d d"]:
    """C of a map, Tᵀ (E[ψψᵀ] − E[ψ] E[ψ]ᵀ) T; the ψ sum to one, so E[ψ] = E[ψψᵀ] 1."""
    moments = second_moments(hourly_upper)
    mean = moments.sum(axis=1)
    into = features.among(FINEST)
    covariance = into.T @ (moments[1:, 1:] - np.outer(mean[1:], mean[1:])) @ into
    return np.asarray(0.5 * (covariance + covariance.T))


@cache
def _reference(d: int, index: int) -> ReferenceSolution:
    """The shipped reference solution of a site; `references.microgrids_finer` makes them."""
    values = _archive()
    return ReferenceSolution(
        gain=float(values["gain"][index]),
        weights=_weights(d)[index],
        covariance=covariance_of(MAPS[d], values["hourly_upper"][index].astype(np.float64)),
        weights_uncertainty=float(values[f"weights_uncertainty_{d}"][index]),
        gain_uncertainty=float(values["gain_uncertainty"][index]),
    )


def microgrids_with(d: int) -> Workload:
    """The fleet of 25 sites, its features the d of `features_with`.

    Raises:
        ValueError: there is no such map.
    """
    features = features_with(d)

    def make_site(index: int, seed: int) -> Site:
        site = microgrids.make_site(index, seed)
        return replace(site, features=features, reference=_reference(d, index))

    def fleet_basis(agents: int, rank: int, seed: int) -> Float[np.ndarray, "d r"]:
        del seed
        return common_subspace(_weights(d)[:agents], rank)[0]

    return replace(microgrids.workload, make_site=make_site, name=f"microgrids-d{d}", fleet_basis=fleet_basis)


d47, d95, d191, d335, d623 = map(microgrids_with, MAPS)
"""The same 25 sites, coarsest features first; `d95` has those of `microgrids`."""
