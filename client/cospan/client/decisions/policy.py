"""A policy made from learnt values: asked without a network, saved, loaded, and able to explain itself."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from cospan.client.decisions.actions import enumerated
from cospan.client.environment.rollout import checked_features
from cospan.client.environment.workload_loader import load_workload, make_site
from cospan.client.files.agent_result import AgentResult
from cospan.client.workload import Decisions, FeatureMap, Site, Workload
from cospan.client.workloads import BUILT_IN
from cospan.wire.errors import InvalidValueError, RunFileError, WorkloadBehaviourError
from cospan.wire.files.npz import load_npz, save_npz

FORMAT = "cospan-policy-1"
INTERVAL = 0.9
"""Coverage that the intervals of `explain` are made for, where the model of the weights holds."""
_ROUNDING = 1e-12
"""Of the largest value: an advantage over the mean action that is not above this is none."""
_MOST_PLACES = 100_000
"""Observations whose action a policy remembers."""
_TAG = 0x64726177  # "draw": keeps a policy's own draws apart from others of the same (seed, index)


class ActionValue(NamedTuple):
    """What a policy knows of one action in one observation.

    Attributes:
        action: of the action space.
        advantage: how much more than the rule's action it brings in the long run, in the unit of the rewards;
            without a rule, than the mean action.
        low: end of the interval of the advantage; nan where the uncertainty of the weights is not known.
        high: the other end.
        chosen: whether the policy takes it; of no action where the policy draws one of them.
        is_rule: whether it is what the rule does.
    """

    action: Any
    advantage: float
    low: float
    high: float
    chosen: bool
    is_rule: bool


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class GreedyPolicy:
    """The best action by learnt values; that of the given policy, where none is better beyond the error bars.

        policy = result.policies[7]
        policy(observation); policy.batch(observations); policy.explain(observation); policy.save("site-7.npz")

    An action's advantage over the rule's action is the difference of its step's reward and the values of what it
    leaves behind: c(s, a) + φ(x(s, a))ᵀ z, or φ(s, a)ᵀ z. The action with the largest advantage − κ · its standard
    deviation is taken, and that of the rule is zero (safe policy improvement; Laroche, Trichelair and
    Tachet des Combes 2019, "Safe policy improvement with baseline bootstrapping").

    Without a rule the given policy draws uniformly, and the advantage is over the mean action. Where that of no
    action, less κ deviations, is above zero, the policy draws as the given one does: in a state that was never seen
    a fixed choice may be a trap, a draw leaves it. It draws from the generator that is passed to it, otherwise from
    its own, which `seed` and `index` determine: one number for each observation in which it draws, in their order.
    A policy that was made or loaded again draws the same from the beginning.

    Attributes:
        decisions: of the site.
        features: of afterstates, or of pairs (observation, action).
        actions: to choose among, one per row; beside the rule's own.
        weights: z, shape (d,); None for the given policy itself: the rule, or the uniform policy without one.
        root: F with Cov z = F Fᵀ, shape (d, d); None where it is not known, and the error bars are then zero.
        caution: κ, 0 or more.
        index: of the site.
        workload: of the run.
        seed: of the run, 0 or more.
    """

    decisions: Decisions
    features: FeatureMap
    actions: np.ndarray
    weights: Float[np.ndarray, " d"] | None = None
    root: Float[np.ndarray, "d d"] | None = None
    caution: float = 0.0
    index: int = 0
    workload: str = ""
    seed: int = 0
    _own: np.random.Generator = field(init=False)
    _places: dict[int, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_own", np.random.default_rng((self.seed, self.index, _TAG)))

    @classmethod
    def given(cls, site: Site, *, index: int = 0, workload: str = "", seed: int = 0) -> "GreedyPolicy":
        """The policy that improvement begins with: the site's rule, or the uniform one.

        Raises:
            InvalidValueError: the site has no `decisions`, or its actions cannot be enumerated.
        """
        decisions = site.decisions
        if decisions is None:
            raise InvalidValueError(
                f"site {index} of {workload or 'the workload'} does not say what its actions lead to, so its "
                "policy cannot be improved; give Site(decisions=…)"
            )
        features = site.features if decisions.action_features is None else decisions.action_features
        return cls(
            decisions, features, enumerated(site.env.action_space), index=index, workload=workload, seed=seed
        )

    @property
    def is_given(self) -> bool:
        """Whether it is the given policy still."""
        return self.weights is None

    def learnt(
        self, weights: Float[np.ndarray, " d"], root: Float[np.ndarray, "d d"] | None, caution: float
    ) -> "GreedyPolicy":
        """The greedy policy of the same site with other values."""
        return replace(
            self, weights=_read_only(weights), root=None if root is None else _read_only(root), caution=caution
        )

    def __call__(self, observation: Any, generator: np.random.Generator | None = None) -> Any:
        """The action in one observation; `generator` is for its draws, if it draws in this one."""
        seen = np.asarray(observation)
        if seen.ndim == 0 and seen.dtype.kind == "i" and self.decisions.rule is None:
            place = self._place(int(seen))
            if place < 0:
                place = int((self._own if generator is None else generator).integers(len(self.actions), size=1)[0])
            action = self.actions[place]
        else:
            action = self.batch(seen[None], generator)[0]
        return int(action) if np.ndim(action) == 0 else action

    def _place(self, state: int) -> int:
        """That of the action in one of finitely many observations, without a rule; −1 where the policy draws."""
        if self.weights is None:
            return -1
        if (known := self._places.get(state)) is not None:
            return known
        if len(self._places) >= _MOST_PLACES:
            self._places.clear()
        found = int(self._best(self._scored(np.array([state]))[1])[0])
        self._places[state] = found
        return found

    def batch(self, observations: Any, generator: np.random.Generator | None = None) -> np.ndarray:
        """The actions in several observations, one per row.

        Args:
            observations: stacked along the first axis.
            generator: for the draws; without it, the policy's own.

        Raises:
            WorkloadBehaviourError: the workload's own functions fail on them.
        """
        seen = np.asarray(observations)
        rule = self.decisions.rule
        if self.weights is None and rule is not None:
            return np.asarray(rule(seen))
        chosen = np.full(len(seen), -1)
        candidates = np.broadcast_to(self.actions, (len(seen), *self.actions.shape))
        if self.weights is not None:
            candidates, scores = self._scored(seen)
            chosen = self._best(scores)
        undecided = np.flatnonzero(chosen < 0)
        drawing = self._own if generator is None else generator
        chosen[undecided] = drawing.integers(len(self.actions), size=len(undecided))
        taken: np.ndarray = candidates[np.arange(len(seen)), chosen]
        return taken

    def draws(self, observations: Any) -> Bool[np.ndarray, " m"]:
        """In which of several observations the policy draws one of its actions uniformly; never with a rule.

        Raises:
            WorkloadBehaviourError: the workload's own functions fail on them.
        """
        seen = np.asarray(observations)
        if self.decisions.rule is not None or self.weights is None:
            return np.full(len(seen), self.decisions.rule is None)
        return np.asarray(self._best(self._scored(seen)[1]) < 0)

    def explored(self, observation: Any, share: float, generator: np.random.Generator) -> Any:
        """The action in one observation, and in this share of the steps any of the actions, drawn uniformly."""
        if generator.random() < share:
            action = self.actions[int(generator.integers(len(self.actions)))]
            return int(action) if np.ndim(action) == 0 else action
        return self(observation, generator)

    def explain(self, observation: Any) -> tuple[ActionValue, ...]:
        """Every action's advantage in one observation, with its interval, the best first; it draws nothing.

        Raises:
            InvalidValueError: nothing has been learnt: it is the given policy.
        """
        if self.weights is None:
            raise InvalidValueError("this is the given policy; it has no values to explain its actions by")
        seen = np.asarray(observation)[None]
        candidates, advantages, phi = self._valued(seen)
        scores, deviations = self._less_caution(advantages, phi), self._deviations(phi)
        half = NormalDist().inv_cdf((1.0 + INTERVAL) / 2.0) * deviations[0]
        if self.root is None:
            half = np.full(len(half), math.nan)
        taken, has_rule = int(self._best(scores)[0]), self.decisions.rule is not None
        found = [
            ActionValue(
                action=int(action) if np.ndim(action) == 0 else action,
                advantage=float(advantage),
                low=float(advantage - width),
                high=float(advantage + width),
                chosen=place == taken,
                is_rule=has_rule and place == 0,
            )
            for place, (action, advantage, width) in enumerate(zip(candidates[0], advantages[0], half, strict=True))
        ]
        return tuple(sorted(found, key=lambda each: -each.advantage))

    def candidates(self, observations: np.ndarray) -> np.ndarray:
        """The actions to choose among in each of several observations, one row for each; the rule's own first."""
        found = np.broadcast_to(self.actions, (len(observations), *self.actions.shape))
        if self.decisions.rule is None:
            return found
        return np.concatenate([np.asarray(self.decisions.rule(observations))[:, None], found], axis=1)

    def pairs(self, observations: np.ndarray, actions: np.ndarray) -> Any:
        """What the values are of: the afterstates of these steps, or the pairs (observation, action)."""
        after = self.decisions.afterstates
        if after is not None:
            return np.asarray(after(observations, actions))
        return list(zip(observations, actions, strict=True))

    def _scored(self, seen: np.ndarray) -> tuple[np.ndarray, Float[np.ndarray, "m a"]]:
        """The candidates of each observation, the rule's first, and advantage − κ · deviation of each."""
        candidates, advantages, phi = self._valued(seen)
        return candidates, self._less_caution(advantages, phi)

    def _less_caution(
        self, advantages: Float[np.ndarray, "m a"], phi: Float[np.ndarray, "m a d"]
    ) -> Float[np.ndarray, "m a"]:
        """Advantage − κ · deviation."""
        if not self.caution:  # deviations take longer than all else
            return advantages
        return np.asarray(advantages - self.caution * self._deviations(phi))

    def _valued(self, seen: np.ndarray) -> tuple[np.ndarray, Float[np.ndarray, "m a"], Float[np.ndarray, "m a d"]]:
        """The candidates of each observation, the rule's first; their advantages; and φ.

        An advantage over the mean action that only rounding makes is zero.
        """
        assert self.weights is not None
        rows, rule = len(seen), self.decisions.rule
        candidates = self.candidates(seen)
        number = candidates.shape[1]
        repeated = np.repeat(seen, number, axis=0)
        flat = candidates.reshape(rows * number, *candidates.shape[2:])
        phi = checked_features(self.features, self.pairs(repeated, flat), f"the policy of site {self.index}")
        values = phi @ self.weights
        if self.decisions.step_rewards is not None:
            values = values + self.decisions.step_rewards(repeated, flat)
        values = values.reshape(rows, number)
        if not np.isfinite(values).all():
            raise WorkloadBehaviourError(
                f"step_rewards of site {self.index} gave a reward that is not finite; each must be a number"
            )
        phi = phi.reshape(rows, number, -1)
        return candidates, values - values[:, :1] if rule is not None else _over_the_mean(values), phi

    def _deviations(self, phi: Float[np.ndarray, "m a d"]) -> Float[np.ndarray, "m a"]:
        """Standard deviations of the advantages; zero where those of the weights are not known."""
        if self.root is None:
            return np.zeros(phi.shape[:2])
        middle = phi[:, :1] if self.decisions.rule is not None else phi.mean(axis=1, keepdims=True)
        turned = (phi - middle) @ self.root
        return np.asarray(np.sqrt(np.einsum("mad,mad->ma", turned, turned)))

    def _best(self, scores: Float[np.ndarray, "m a"]) -> Int[np.ndarray, " m"]:
        """The place of the best candidate of each observation; −1 where the policy draws."""
        best = scores.argmax(axis=1)
        if self.decisions.rule is None:
            best[scores.max(axis=1) <= 0.0] = -1
        return np.asarray(best)

    def save(self, path: Path | str) -> None:
        """Writes it as an npz file without pickle; the file appears whole or not at all.

        Raises:
            RunFileError: it cannot be written.
        """
        dim = self.features.dim
        save_npz(
            Path(path),
            format=FORMAT,
            workload=self.workload,
            seed=self.seed,
            index=self.index,
            feature_fingerprint=self.features.fingerprint,
            is_given=np.bool_(self.is_given),
            weights=np.zeros(dim) if self.weights is None else self.weights,
            root=np.zeros((0, dim)) if self.root is None else self.root,
            caution=float(self.caution),
        )

    @classmethod
    def load(cls, path: Path | str, *, workload: Workload | str | None = None) -> "GreedyPolicy":
        """Reads what `save` has written; the site is made again, and nothing else is asked.

        Args:
            path: of the file.
            workload: whose site it is. Without it, that of the file if it is built in: no file may name other code
                to be run.

        Raises:
            RunFileError: the file is missing, damaged, or of other features.
            WorkloadError: there is no such workload or site.
        """
        path = Path(path)
        values = load_npz(path, "a policy")
        if str(values.get("format")) != FORMAT:
            raise RunFileError(f"{path} has the format {str(values.get('format'))[:40]!r}; a policy has {FORMAT}")
        result = AgentResult(values)
        named = result.text("workload")
        if workload is None and named not in BUILT_IN:
            raise RunFileError(
                f"{path} is of workload {named[:80]!r}, which does not come with Cospan; pass workload=… to load it"
            )
        index, seed = result.whole("index"), result.whole("seed")
        site = make_site(load_workload(named if workload is None else workload), index, seed)
        if not isinstance(site, Site):
            raise RunFileError(f"{path} is of site {index} of {named[:80]!r}, which has no actions to choose among")
        policy = cls.given(site, index=index, workload=named, seed=seed)
        learnt_with = result.text("feature_fingerprint")
        if learnt_with != policy.features.fingerprint:
            raise RunFileError(
                f"{path} was learnt with the features {learnt_with[:80]!r}, and this site has "
                f"{policy.features.fingerprint!r}; pass the workload of that run"
            )
        if result.flag("is_given"):
            return policy
        dim = policy.features.dim
        root = None if result.array("root").shape[:1] == (0,) else result.vector("root", dim, dim)
        caution = result.number("caution")
        if not 0.0 <= caution < math.inf:
            raise RunFileError(f"{path} has a caution of {caution}; it must be a number from 0 on")
        return policy.learnt(result.vector("weights", dim), root, caution)

    def __repr__(self) -> str:
        if self.is_given:
            return f"<GreedyPolicy of site {self.index}: the given policy>"
        return f"<GreedyPolicy of site {self.index}: greedy, caution {self.caution:g}>"


def _over_the_mean(values: Float[np.ndarray, "m a"]) -> Float[np.ndarray, "m a"]:
    found = values - values.mean(axis=1, keepdims=True)
    found[np.abs(found) <= _ROUNDING * np.abs(values).max(axis=1, keepdims=True)] = 0.0
    return np.asarray(found)


def _read_only(array: np.ndarray) -> np.ndarray:
    copy = np.array(array, dtype=np.float64)
    copy.setflags(write=False)
    return copy
