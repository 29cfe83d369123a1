"""How far an agent's values may be from the true ones: the covariance of its weights about what it answers.

Three parts (docs/adr/0024):

* **Within and between.** The answer mixes those of several ψ. Its second moment about the answer is the mean of
  their posterior covariances, and of the squares of what separates them from it: the law of total variance.
* **The prior may not hold.** Basis and head covariance are estimated from n agents, this one among them, and
  the posterior takes them as given: what it lacks is of the order 1 / n (Morris 1983, "Parametric empirical Bayes
  inference"; Kass and Steffey 1989, "Approximate Bayesian inference in conditionally independent hierarchical
  models"). So with probability ε = min(1, `CONTAMINATION` / n) the prior is void, and the agent's weights are known
  from its own data alone: an ε-contaminated prior (Berger and Berliner 1986, "Robust Bayes and empirical Bayes
  analysis with ε-contaminated priors").
* **TD errors may be correlated.** The posterior takes them as martingale differences. Where the features do not
  hold the values they are not, and all is multiplied by the ratio of the long-run variance of the estimate, from
  sums over blocks of consecutive steps, to that of uncorrelated errors, where it is above 1.

The noise is estimated from the TD errors of fitted weights, which are smaller than those of the true ones: all is
also multiplied by t / (t − d) for t steps, at most 4 (MacKinnon and White 1985, "Some heteroskedasticity-consistent
covariance matrix estimators", HC1).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from cospan.core.history.feature_rows import dense
from cospan.core.learning.learner_state import LearnerState
from cospan.core.learning.least_squares import PRIOR_STEPS
from cospan.core.learning.posterior import RISK_RIDGE, Moments, PosteriorState, prior_factor, with_noise
from cospan.core.learning.units import Units
from cospan.core.linalg.leading_axes import applied
from cospan.core.uncertainty.mixture import SHARES, TINY, DiagonalInformation, Mixture, mixed

CONTAMINATION = 3.0
"""ε times the number of agents. Chosen on seeds 9001 to 9006 of three workloads (docs/adr/0024)."""
_MOST_FITTED = 0.75
"""Of the steps, the most that the d weights are taken to have fitted."""
BLOCK_STEPS = 16
"""The least steps of a block whose sum tells of correlated errors, where rounds that follow each other are kept."""


@dataclass(frozen=True, eq=False, slots=True)
class ValueSpread:
    """What intervals of one agent's values are made of.

    Attributes:
        root: F, shape (d, d), float32: E[(z − ẑ)(z − ẑ)ᵀ] is u² F Fᵀ, z being the true weights.
        unit: u, σ / ρ of the agent.
        visited: the mean of φ over the agent's states, shape (d,).
    """

    root: Float[np.ndarray, "d d"]
    unit: float
    visited: Float[np.ndarray, " d"]

    def deviations(self, differences: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
        """The standard deviations of xᵀ(z − ẑ), shape (m,), for differences x of features, shape (m, d)."""
        return np.asarray(self.unit * np.sqrt(np.square(differences @ self.root.astype(np.float64)).sum(axis=1)))


def value_spread(
    learner: LearnerState, *, contamination: float = CONTAMINATION, correlated: bool = True
) -> ValueSpread | None:
    """The spread of one agent's weights, from all its transitions; None where it has no posterior yet.

    It takes some 60 d³ operations, more than a refresh of the posterior; so it is computed when it is asked for.

    Args:
        learner: of one agent.
        contamination: ε times n; experiments set it to 0.
        correlated: whether correlated TD errors count; experiments leave them out.

    Raises:
        numpy.linalg.LinAlgError: its moments cannot be solved, as those of a damaged file.
    """
    state, sums = learner.posterior, learner.statistics
    prior = None if state is None else state.prior
    if state is None or sums is None or prior is None:
        return None
    units = Units.of(learner.rewards.variance, learner.feature_squares / learner.rewards.count)
    data = Moments.of(state, sums, units)
    state, noise = with_noise(state, data, units)
    found = DiagonalInformation.of(data.centred, data.rewards, noise, data.covariance)
    own = applied(found.from_weights, data.ridge_solution(PRIOR_STEPS))
    unit = np.maximum(own @ (found.whole_metric @ own) / len(own), TINY)[None]
    answer = found.from_weights @ (state.weights / units.head)
    alone = 1.0 / (found.information + 1.0 / (SHARES[-1] * unit))
    if prior.agents < 2:
        second = np.diag(alone) + np.outer(own - answer, own - answer)
    else:
        factor = prior_factor(state, prior, found)
        unbiased = applied(found.from_weights, data.ridge_solution(RISK_RIDGE))
        mixture = mixed(found, factor, unit, (own, unbiased))
        void = min(1.0, contamination / prior.agents)
        second = _second_moment(mixture, alone, answer, void)
    # The answer is that of the newest refresh, and the moments have come further.
    scale = max(1.0, state.rounds / max(1, state.refreshed))
    scale /= 1.0 - min(len(own) / sums.steps, _MOST_FITTED)
    if correlated:
        scale *= _long_run_ratio(state, data, units, found)
    return ValueSpread(
        root=_root(scale * (found.to_weights @ second @ found.to_weights.T)),
        unit=float(units.head),
        visited=data.mean * units.feature,
    )


def _second_moment(
    mixture: Mixture, alone: Float[np.ndarray, " d"], answer: Float[np.ndarray, " d"], void: float
) -> Float[np.ndarray, "d d"]:
    """E[(y − ŷ)(y − ŷ)ᵀ] under the mixture with probability 1 − ε, and under the agent's data alone with ε.

    Args:
        mixture: of the posteriors.
        alone: the diagonal of the covariance of the answer from the agent's data alone.
        answer: ŷ.
        void: ε.
    """
    chances = (1.0 - void) * mixture.chances
    chances[-1] += void
    edges = [np.sqrt(chance) * edge for chance, edge in zip(chances, mixture.edges, strict=False)]
    away = np.sqrt(chances)[:, None] * (np.stack(mixture.means) - answer)
    columns = np.concatenate([*edges, away.T], axis=1)
    diagonal = chances[-1] * alone
    for chance, psi, damped in zip(chances, mixture.psis, mixture.damped, strict=False):
        diagonal = diagonal + chance * psi * damped
    return np.asarray(columns @ columns.T + np.diag(diagonal))


def _long_run_ratio(state: PosteriorState, data: Moments, units: Units, found: DiagonalInformation) -> float:
    """By what the variance of the agent's own estimate exceeds that with uncorrelated errors; 1 or more.

    Both are of A⁻¹ Σ φ δ in the metric of the values: of the sums over blocks, which hold the correlations within a
    block, and of single steps (batch means; Flegal and Jones 2010). A block is a round, or several short ones where
    all rounds are kept.
    """
    features, errors = np.stack([dense(each) for each in state.features]), np.stack(state.rewards)
    features = features / units.feature
    errors = (errors - data.gain) / units.reward
    errors = errors + (features[:, 1:] - features[:, :-1]) @ (state.weights / units.head)
    known = np.stack([np.ones(errors.shape[1], np.bool_) if each is None else each for each in state.is_transition])
    errors = np.where(known, errors - errors[known].mean(), 0.0)
    rounds, steps = errors.shape
    joined = -(-BLOCK_STEPS // steps) if state.stride == 1 else 1
    kept = rounds // joined * joined
    if kept < 2 * joined:
        return 1.0
    moments = (features[:kept, :-1] - data.mean) * errors[:kept, :, None]
    dim = moments.shape[-1]
    inverse = np.linalg.inv(data.system + (PRIOR_STEPS / dim) * np.eye(dim))
    metric = found.from_weights.T @ found.whole_metric @ found.from_weights
    weighing = inverse.T @ metric @ inverse
    single, block = moments.reshape(-1, dim), moments.reshape(kept // joined, -1, dim).sum(axis=1)
    uncorrelated, total = (float(np.vdot(each @ weighing, each)) for each in (single, block))
    return max(1.0, total / uncorrelated) if uncorrelated > 0.0 else 1.0


def _root(second: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """F of F Fᵀ, read-only."""
    eigenvalues, vectors = np.linalg.eigh(second)
    rounded = (vectors * np.sqrt(np.maximum(eigenvalues, 0.0))).astype(np.float32)
    rounded.setflags(write=False)
    return np.asarray(rounded)
