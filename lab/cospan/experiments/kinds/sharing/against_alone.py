"""A method against LSTD alone, site by site: the median, the mean, and the sites that would do better alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.experiments.estimates import Estimate, mean, resampled
from cospan.experiments.methods.catalogue import LSTD_ALONE
from cospan.experiments.runner import WHOLE_FLEET, Point
from cospan.wire.errors import InvalidValueError

TOLERANCE = 1.1
"""Times its own LSTD, above which a site counts as worse than alone."""


@dataclass(frozen=True, slots=True)
class Against:
    """What sharing does to the sites of a fleet.

    Attributes:
        median: the median over the sites, averaged over the runs, as a ratio to that of LSTD alone.
        mean: the same of the mean over the sites.
        worse: sites whose error, averaged over the runs, is above `TOLERANCE` times that of their own LSTD.
        worse_in_a_run: how many are so in one run, averaged over the runs; much of it is chance.
        sites: how many there are.
    """

    median: Estimate
    mean: Estimate
    worse: int
    worse_in_a_run: Estimate
    sites: int


@dataclass(frozen=True, eq=False, slots=True)
class SiteErrors:
    """The value errors of all sites.

    Attributes:
        errors: by setting, method and number of rounds, then by seed and agent.
    """

    errors: Mapping[tuple[str, str, int], Mapping[int, Mapping[int, float]]]

    @classmethod
    def of(cls, points: Sequence[Point]) -> "SiteErrors":
        """Those of all points of single agents."""
        found: dict[tuple[str, str, int], dict[int, dict[int, float]]] = {}
        for point in points:
            if point.agent != WHOLE_FLEET:
                runs = found.setdefault((point.setting, point.method, point.rounds), {})
                runs.setdefault(point.seed, {})[point.agent] = point.value_error
        return cls(found)

    def at(
        self, method: str, rounds: int, setting: str = "", agents: Sequence[int] | None = None
    ) -> Float[np.ndarray, "seeds agents"]:
        """The errors of one method, by seed and agent, both in their order.

        Args:
            method: its name.
            rounds: after which.
            setting: of the experiment.
            agents: those that are wanted; None for all.

        Raises:
            InvalidValueError: there are no such runs.
        """
        runs = self.errors.get((setting, method, rounds))
        if runs is None:
            raise InvalidValueError(f"there are no runs of {method!r} with setting {setting!r} and {rounds} rounds")
        return np.array([[runs[seed][k] for k in agents or sorted(runs[seed])] for seed in sorted(runs)])

    def against_alone(
        self, method: str, rounds: int, setting: str = "", agents: Sequence[int] | None = None
    ) -> Against:
        """One method against LSTD alone; see `at`."""
        own, alone = (self.at(name, rounds, setting, agents) for name in (method, LSTD_ALONE))
        return compared(own, alone)


def compared(own: Float[np.ndarray, "seeds agents"], alone: Float[np.ndarray, "seeds agents"]) -> Against:
    """Errors of a method against those of LSTD alone, of the same seeds and agents."""
    worse = own.mean(axis=0) > TOLERANCE * alone.mean(axis=0)
    return Against(
        median=ratio_of_means(np.median(own, axis=1), np.median(alone, axis=1)),
        mean=ratio_of_means(own.mean(axis=1), alone.mean(axis=1)),
        worse=int(worse.sum()),
        worse_in_a_run=mean((own > TOLERANCE * alone).sum(axis=1)),
        sites=own.shape[1],
    )


def ratio_of_means(own: Float[np.ndarray, " seeds"], others: Float[np.ndarray, " seeds"]) -> Estimate:
    """The ratio of two means over the runs: single runs with small errors do not weigh more than others."""
    return resampled(lambda above, below: float(above / below), own, others)
