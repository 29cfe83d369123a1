"""Whether an agent took a new policy in an improvement step, and the evidence."""

import math
from dataclasses import dataclass
from typing import Any

from cospan.core.decisions.paired_bound import PairedBound
from cospan.core.statistics import known

NO_TRIAL = PairedBound(math.nan, -math.inf, 0)


@dataclass(frozen=True, slots=True)
class StepDecision:
    """Whether an agent took its new policy in one step, and why.

    Attributes:
        step: from 0 on.
        index: of the site.
        taken: whether it holds the new policy from now on.
        reason: one sentence.
        bound: of the trial; of no blocks where there was none.
        caution: κ of the new policy; nan where there was none.
    """

    step: int
    index: int
    taken: bool
    reason: str
    bound: PairedBound = NO_TRIAL
    caution: float = math.nan

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file; None for what is not known."""
        return {
            "step": self.step,
            "site": self.index,
            "taken": self.taken,
            "reason": self.reason,
            "gain_difference": known(self.bound.mean),
            "lower_bound": known(self.bound.lower),
            "blocks": self.bound.pairs,
            "caution": known(self.caution),
        }

    @classmethod
    def of_dict(cls, values: Any) -> "StepDecision":
        """What `as_dict` gave; the values come from a file, and may be anything.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        mean, lower, caution = (values[name] for name in ("gain_difference", "lower_bound", "caution"))
        bound = PairedBound(
            math.nan if mean is None else float(mean),
            -math.inf if lower is None else float(lower),
            int(values["blocks"]),
        )
        step, index, taken = int(values["step"]), int(values["site"]), values["taken"] is True
        return cls(
            step, index, taken, str(values["reason"]), bound, math.nan if caution is None else float(caution)
        )
