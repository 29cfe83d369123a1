"""The promise of differential privacy in a run's specification: what speaks against it, and whether it is kept."""

from cospan.core.method import HeadUpdate
from cospan.core.privacy.accounting import epsilon_of_vectors
from cospan.core.run_fields import RunFields

OF_PRIVACY = (
    "dp_epsilon",
    "dp_delta",
    "dp_vectors",
    "dp_noise_multiplier",
    "dp_gradient_bound",
    "dp_curvature_bound",
    "dp_influence_bound",
)
"""The fields of differential privacy; a run without it has 0 in all of them."""
_KEPT_WITHIN = 1e-9
"""By how much, relatively, rounding may raise an ε above the one that is promised."""


def promise_problems(run: RunFields) -> list[str]:
    """What a run with differential privacy cannot have beside it, and how its numbers break its promise.

    Agents, too, refuse a run with such a problem: none of them takes the word of its coordinator for the noise.

    Args:
        run: whose fields are in their ranges.
    """
    if run.dp_epsilon == 0.0:
        return []
    if found := _excluded(run):
        return found
    if run.dp_vectors < run.rounds:
        found.append(
            f"dp_vectors is {run.dp_vectors} and rounds is {run.rounds}; an agent sends a vector in each round, so "
            "the budget must be for as many or more"
        )
    if run.dp_delta * run.agents >= 1.0:
        found.append(
            f"dp_delta is {run.dp_delta:g} and agents is {run.agents}; it must be below 1 / agents, or the promise "
            "allows that one of them is shown"
        )
    if found:
        return found
    cost = epsilon_of_vectors(run.dp_noise_multiplier, run.dp_vectors, run.dp_delta)
    if cost > run.dp_epsilon * (1.0 + _KEPT_WITHIN):
        found.append(
            f"dp_noise_multiplier is {run.dp_noise_multiplier:g}; {run.dp_vectors} vectors with it cost "
            f"ε = {cost:.4g} (δ = {run.dp_delta:g}), and {run.dp_epsilon:g} is promised"
        )
    return found


def _excluded(run: RunFields) -> list[str]:
    """What differential privacy cannot be combined with, each with the reason."""
    why, method = f"dp_epsilon is {run.dp_epsilon:g}", run.method
    found = []
    if not run.secure_sums:
        found.append(
            f"{why}; differential privacy needs secure sums, without which the coordinator sees each upload with "
            "the little noise that its agent adds: set secure_sums (--secure-sums), or leave out --dp"
        )
    if not run.rounds:
        found.append(f"{why} and rounds is 0; a budget is for a number of rounds, so say how many there are")
    if run.improve:
        found.append(
            f"{why} and improve is {run.improve}; improvement steps send more than the vector that is clipped and "
            "noisy, so leave out one of them"
        )
    if method.head_update is not HeadUpdate.POSTERIOR:
        found.append(
            f"{why}; differential privacy is for the preset practical, and this run has "
            f"{method.head_update.value} head updates: take --preset practical, or leave out --dp"
        )
    return found
