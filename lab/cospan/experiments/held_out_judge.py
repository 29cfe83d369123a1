"""Judges value functions by transitions that no method has learnt from, where a site's true values are unknown."""

import contextlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.client.agent import default_agent_id
from cospan.client.environment.rollout import source_of
from cospan.client.environment.workload_loader import make_site
from cospan.client.workload import Workload
from cospan.core.learning.baselines import lstd_alone, with_transitions
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.linalg.leading_axes import applied
from cospan.core.rank import FeatureMoments

_BLOCKS = 16
_RIDGE_STEPS = 3.0


@dataclass(frozen=True, eq=False, slots=True)
class HeldOutJudge:
    """What held-out transitions of one site tell of its values: an estimate z₀ of the weights, and its noise.

    ‖ẑ − z₀‖² in the metric C of the values exceeds the error of ẑ by the noise of z₀, which is estimated from how
    its blocks differ and subtracted. So an error may come out below 0.

    Attributes:
        weights: z₀, LSTD of all blocks, shape (d,).
        covariance: C, shape (d, d).
        noise: the variance of z₀ in that metric.
    """

    weights: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]
    noise: float

    @classmethod
    def of(cls, blocks: list[TransitionSums], covariance: Float[np.ndarray, "d d"]) -> "HeldOutJudge":
        """Of blocks of consecutive transitions, two or more."""
        whole = blocks[0]
        for block in blocks[1:]:
            whole = whole.joined_with(block)
        weights, dim = lstd_alone(whole, _RIDGE_STEPS), len(covariance)
        ridge = _RIDGE_STEPS * float(whole.squares) / whole.steps / dim
        system = whole.system + (ridge + (ridge == 0.0)) * np.eye(dim)
        left = [
            block.rewards - float(whole.gain_estimate) * block.traces - applied(block.system, weights)
            for block in blocks
        ]
        moves = np.linalg.solve(system, np.stack(left, axis=1))
        count = len(blocks)
        noise = float(np.einsum("dk,de,ek->", moves, covariance, moves)) * count / (count - 1)
        return cls(weights, covariance, noise)

    def value_errors(self, weights: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
        """Relative value errors of several estimates, one per row; nan where all values may be noise."""
        rows = np.concatenate([weights, np.zeros((1, len(self.weights)))]) - self.weights
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("md,md->m", rows, rows @ self.covariance) - self.noise
            return np.asarray(squares[:-1] / (squares[-1] if squares[-1] > 0.0 else np.nan))


def judge_of(workload: Workload, index: int, seed: int, *, rounds: int, steps_per_round: int) -> HeldOutJudge:
    """Simulates a site for as many rounds as methods learn from, with data of their own.

    Raises:
        WorkloadBehaviourError: the workload broke its contract.
    """
    site = make_site(workload, index, seed)
    chain = source_of(site, name=default_agent_id(index), index=index, seed=seed, first_round=rounds)
    dim = site.features.dim
    blocks, moments, reference = [TransitionSums.of_features(dim)] * _BLOCKS, FeatureMoments.of_nothing(dim), None
    with contextlib.closing(chain):
        for number in range(max(rounds, _BLOCKS)):
            walk = chain.advance(steps_per_round)
            reference = float(walk.rewards[0]) if reference is None else reference
            place = number * _BLOCKS // max(rounds, _BLOCKS)
            blocks[place] = with_transitions(blocks[place], walk, reference)
            moments = moments.updated(walk.features[:-1])
    return HeldOutJudge.of(blocks, moments.covariance)
