"""Claims of a spec file: bounds on the ratio of two value errors."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from cospan.experiments.estimates import mean
from cospan.experiments.experiment import Finding
from cospan.experiments.plots.tables import estimate
from cospan.experiments.runner import Point, errors_of
from cospan.wire.errors import InvalidValueError


class Claim(BaseModel):
    """One `[[options.claims]]`.

    Attributes:
        name: short, for machines.
        text: a sentence; {ratio} is replaced with the ratio and its interval.
        of: method and setting of the numerator.
        against: methods and settings; the smallest of their errors is the denominator.
        at_most: upper bound of the ratio; without either bound nothing is claimed.
        at_least: lower bound of the ratio.
        sign_at_most: upper bound that runs of any size must keep.
        sign_at_least: lower bound that runs of any size must keep.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    text: str
    of: tuple[str, str]
    against: list[tuple[str, str]]
    at_most: float | None = None
    at_least: float | None = None
    sign_at_most: float | None = None
    sign_at_least: float | None = None

    def judged(self, points: Sequence[Point]) -> Finding:
        """The ratio, averaged over the seeds, and whether it is as claimed.

        Raises:
            InvalidValueError: there are no such runs.
        """
        own = errors_of(points, *self.of)
        others = [errors_of(points, *each) for each in self.against]
        if not len(own) or any(len(other) != len(own) for other in others):
            raise InvalidValueError(f"claim {self.name!r}: there are no runs of {self.of} or {self.against}")
        ratio = mean(own / np.min(others, axis=0))
        return Finding(
            self.name,
            self.text.replace("{ratio}", estimate(ratio)),
            ratio,
            holds=_kept(ratio.value, self.at_most, self.at_least),
            sign=_kept(ratio.value, self.sign_at_most, self.sign_at_least),
        )


def _kept(value: float, at_most: float | None, at_least: float | None) -> bool | None:
    if at_most is None and at_least is None:
        return None
    return (at_most is None or value <= at_most) and (at_least is None or value >= at_least)


def judged(claims: Sequence[object], points: Sequence[Point]) -> tuple[Finding, ...]:
    """All claims of a spec file."""
    return tuple(Claim.model_validate(each).judged(points) for each in claims)
