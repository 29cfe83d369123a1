"""The largest gain of a finite decision process that is known: what learnt policies are measured by."""

import numpy as np
from jaxtyping import Float, Int


def optimal_gain(
    transitions: Float[np.ndarray, "a s s"],
    rewards: Float[np.ndarray, "a s"],
    *,
    tolerance: float = 1e-10,
    most_sweeps: int = 100_000,
) -> tuple[float, Int[np.ndarray, " s"]]:
    """J* and a policy that has it, by relative value iteration (Puterman 1994, "Markov Decision Processes", 8.5.5).

    Args:
        transitions: P of each action; every policy's chain has one recurrent class and is aperiodic.
        rewards: R of each action.
        tolerance: J* is bracketed by the span of the last change; within this.
        most_sweeps: after which it has not converged.

    Returns:
        The optimal gain, reward per step; and the best action of each state.

    Raises:
        ValueError: it does not converge, as where the chain is periodic.
    """
    values = np.zeros(rewards.shape[1])
    for _ in range(most_sweeps):
        actions = rewards + transitions @ values
        following = actions.max(axis=0)
        change = following - values
        values = following - following[0]
        if np.ptp(change) < tolerance:
            return float((change.max() + change.min()) / 2.0), actions.argmax(axis=0)
    raise ValueError(f"value iteration has not converged after {most_sweeps} sweeps: is the chain periodic?")
