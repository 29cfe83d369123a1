"""What improvement came to: every agent's policy, and the evidence for each step that was taken or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.client.decisions.policy import GreedyPolicy
from cospan.client.decisions.step_decision import StepDecision
from cospan.core.specification import SITE_PREFIX, RunSpecification


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class ImprovementResult:
    """The policies that a fleet's agents hold after some improvement steps.

    Attributes:
        specification: of the rounds of evaluation.
        policies: one for each site, in their order; None where a site's policy can only be judged.
        labels: of the sites, for people.
        decisions: of every step and site, steps first.
        basis: B after the last step, shape (d, r); None before the first.
    """

    specification: RunSpecification
    policies: tuple[GreedyPolicy | None, ...]
    labels: tuple[str, ...]
    decisions: tuple[StepDecision, ...]
    basis: Float[np.ndarray, "d r"] | None

    @property
    def improved(self) -> tuple[int, ...]:
        """The sites whose policy is not the given one any more."""
        return tuple(
            index for index, policy in enumerate(self.policies) if policy is not None and not policy.is_given
        )

    def of_site(self, index: int) -> Sequence[StepDecision]:
        """The decisions of one site, in the order of the steps."""
        return [each for each in self.decisions if each.index == index]

    def save(self, folder: Path | str) -> None:
        """Writes every policy as site-<index>.npz into a folder that exists.

        Raises:
            RunFileError: the folder is missing or cannot be written to.
        """
        for index, policy in enumerate(self.policies):
            if policy is not None:
                policy.save(Path(folder) / f"{SITE_PREFIX}{index}.npz")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {"improved": list(self.improved), "decisions": [each.as_dict() for each in self.decisions]}

    def __repr__(self) -> str:
        steps = len(self.decisions) // max(1, len(self.policies))
        return (
            f"<ImprovementResult: {len(self.improved)} of {len(self.policies)} policies improved in {steps} steps>"
        )

    def __str__(self) -> str:
        """A table: of each site which policy it holds, and the newest reason."""
        lines = ["site  policy                reason of the last step"]
        for index in range(len(self.policies)):
            taken = [each.step + 1 for each in self.of_site(index) if each.taken]
            held = f"new, of step {taken[-1]}" if taken else "the given one"
            of_site = self.of_site(index)
            lines.append(f"{index:4d}  {held:20s}  {of_site[-1].reason if of_site else ''}")
        return "\n".join(lines)
