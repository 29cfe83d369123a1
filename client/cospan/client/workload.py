"""What a user brings: an environment that never ends, features of its states, and a policy to judge.

A *workload* makes, for an agent index and a seed, a *site*: the environment, the feature map and the policy of
one agent, and the truth where it is known. It is named `package.module:name` on the command line. Where the steps
of a site are not those of an environment, as with logs, it is a `SourceSite`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import gymnasium
import numpy as np
from jaxtyping import Float

from cospan.client.step_source import StepSource
from cospan.core.exact_solutions import ReferenceSolution

Policy: TypeAlias = Callable[[Any, np.random.Generator], Any]
"""Maps (observation, generator) to an action of the environment's action space."""

Exogenous: TypeAlias = Sequence[int | str] | Callable[[Any], Any]
"""The parts of an observation that no action changes, such as a clock or the weather: places in an array or tuple,
keys of a dictionary; or a function of several observations that gives them as numbers, one row for each."""


@runtime_checkable
class FeatureMap(Protocol):
    """A map from observations to R^d with ‖φ(s)‖ ≤ 1 and no nonzero constant function in its span."""

    @property
    def dim(self) -> int:
        """d, the length of a feature vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """A short text that is equal exactly for equal maps; all agents of a run share it."""
        ...

    def __call__(self, observation: Any) -> Float[np.ndarray, " d"]:
        """φ(s) of one observation, float64."""
        ...

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several observations at once, one per row, float64.

        Args:
            observations: a sequence of observations of the environment's observation space.
        """
        ...


@runtime_checkable
class Resumable(Protocol):
    """An environment that can save its state, so that a restarted agent continues the same chain.

    `env.unwrapped` is asked, so a wrapper with a state of its own, such as a time limit, starts over. The state of
    `np_random` is kept too; any other generator belongs into what is saved. That is *plain*: numbers, text, NumPy
    arrays and scalars, and lists, tuples and dictionaries (keys: text) of these.
    """

    def save_state(self) -> Mapping[str, Any]:
        """All that the next steps depend on and that is not made from (index, seed) again."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what `save_state` gave, types as they were; called after a `reset`.

        Raises:
            Exception: of any kind, if it cannot use the state; its chain then starts over.
        """
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Decisions:
    """What a site knows of its actions before it takes them; with it, its policy can be improved from its values.

    All functions take m observations and m actions at once, with a leading axis. A site gives either `afterstates`
    and `step_rewards`, or `action_features`.

    Attributes:
        rule: observations → the actions of the site's given policy, without what it does at random; None where that
            policy draws at random, in which case improvement begins at the policy that draws uniformly.
        afterstates: (observations, actions) → what the actions leave behind, before chance has its part
            (post-decision states; Powell 2011, "Approximate Dynamic Programming"). The site's features are asked
            for their values, so they are of the form of observations.
        step_rewards: (observations, actions) → the rewards of the step, as far as they can be known before it.
        action_features: features of pairs (observation, action), where the consequence of an action is not known.
        replayed: (observed, afterstates) → the observations that would have followed these afterstates, where
            `observed` did follow others. It says that nothing else of an observation depends on the actions, so a
            policy can be tried on what was observed under another one. Where the afterstate is the true one, the
            result is `observed` itself. None where that is not known: policies are then tried in turn.
    """

    rule: Callable[[np.ndarray], np.ndarray] | None = None
    afterstates: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    step_rewards: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    action_features: FeatureMap | None = None
    replayed: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError where it is neither the one kind nor the other."""
        if (self.afterstates is None) != (self.step_rewards is None):
            raise ValueError("afterstates and step_rewards belong together: a site gives both or neither")
        if (self.afterstates is None) == (self.action_features is None):
            raise ValueError("a site gives either afterstates and step_rewards, or action_features")
        if self.replayed is not None and self.afterstates is None:
            raise ValueError("replayed needs afterstates: it says what would have followed them")


@dataclass(frozen=True, eq=False, slots=True)
class Site:
    """One agent's part of a workload.

    Attributes:
        env: follows Gymnasium's API. A true end (`terminated`) is a transition into the next start state; a time
            limit (`truncated`) is no end, and the environment is stepped on. It may be `Resumable`. It is of this
            site alone: the parts of a vector environment are several sites, see `cospan.client.vector_sites`.
        features: observation → R^d.
        policy: (observation, generator) → action.
        reference: what is known to be true, or None.
        label: a name of the site for people; the agent's index where empty.
        exogenous: that of the workload, which is taken where this is None.
        decisions: what is known of its actions; None where its policy can only be judged.
    """

    env: gymnasium.Env[Any, Any]
    features: FeatureMap
    policy: Policy
    reference: ReferenceSolution | None = None
    label: str = ""
    exogenous: Exogenous | None = None
    decisions: Decisions | None = None


@dataclass(frozen=True, eq=False, slots=True)
class SourceSite:
    """One agent's part of a workload whose steps come from elsewhere than an environment, as from a log.

    Attributes:
        open_source: the agent's name → its steps, from the beginning; called once, in the learning thread.
        features: observation → R^d.
        reference: what is known to be true, or None.
        label: as of a `Site`.
        mapping: the `LogMapping` of the site's columns, by which a feed can take the place of the source; or None.
    """

    open_source: Callable[[str], StepSource]
    features: FeatureMap
    reference: ReferenceSolution | None = None
    label: str = ""
    mapping: object | None = None


AnySite: TypeAlias = Site | SourceSite
"""One agent's part of a workload."""


@runtime_checkable
class Chains(Protocol):
    """n environments under their policies, stepped at once: what makes a large group of agents quick.

    **Chain k sees exactly what it would see alone**: the same observations and rewards, bit for bit, as the site's
    own `env` and `policy` give with the same seed and generator. So a draw is taken from the same generator, in the
    same order, as there.
    """

    def reset(self, seeds: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Starts all chains over: the k-th as with `env.reset(seed=seeds[k])`, its policy with generators[k]."""
        ...

    def advance(self, steps: int) -> tuple[np.ndarray, Float[np.ndarray, "n L"]]:
        """The next L steps of each: the observations s_0 … s_L, shape (n, L + 1, …), and the rewards, (n, L).

        The first observation is the last of the call before.
        """
        ...

    def save_state(self) -> Mapping[str, Any] | None:
        """All that the next steps depend on, generators too; plain values, as those of `Resumable`. None if that is
        not possible: the chains then start over in a restarted process."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what `save_state` gave; called after a `reset`.

        Raises:
            Exception: of any kind, if it cannot use the state; the chains then start over.
        """
        ...


@dataclass(frozen=True, eq=False, slots=True)
class Sites:
    """Several agents' part of a workload, as one; see `Site`.

    Attributes:
        chains: of all of them.
        features: observation → R^d, the same for all.
        references: what is known to be true of each, or None; of many a `ReferenceStack` takes the least memory.
        labels: of the sites.
        exogenous: that of the workload, which is taken where this is None.
    """

    chains: Chains
    features: FeatureMap
    references: Sequence[ReferenceSolution | None]
    labels: tuple[str, ...]
    exogenous: Exogenous | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """Makes the sites of a fleet, one for each agent.

    Attributes:
        make_site: (index, seed) → the site of agent `index`, 0 ≤ index. `seed` is the run's; the site's own
            random draws depend on `(seed, index)` alone. Raises ValueError where there is no such site.
        name: short name, for people.
        rank: r that suits the fleet.
        steps_per_round: L that suits the environments.
        steps_of: () → L that suits the data, where they must be read for it: asked where a run begins without an
            L of its own. None where that is `steps_per_round`. Raises CospanError as `rounds_of` does.
        max_agents: how many different sites there are; None where there is no limit.
        fleet_basis: (agents, rank, seed) → B*, shape (d, r): the best r-dimensional subspace of the true value
            weights of sites 0 … agents − 1, or None where that is unknown.
        make_fleet: (indices, seed) → those sites, to be stepped at once; None where each is stepped by itself.
        rounds_of: L → the rounds after which every site has given all its data; None where there is no end.
            Raises CospanError where the data cannot be learnt from.
        describe: what people should know of the data before a run begins, one sentence each; None where nothing.
        exogenous: the parts of an observation that no action changes; None where that is not said. Where it is,
            ranks and errors judge differences of values within equal exogenous parts, which decisions are made by.
    """

    make_site: Callable[[int, int], AnySite]
    name: str = ""
    rank: int = 3
    steps_per_round: int = 20
    max_agents: int | None = None
    fleet_basis: Callable[[int, int, int], Float[np.ndarray, "d r"] | None] | None = None
    make_fleet: Callable[[Sequence[int], int], Sites] | None = None
    rounds_of: Callable[[int], int] | None = None
    steps_of: Callable[[], int] | None = None
    exogenous: Exogenous | None = None
    describe: Callable[[], Sequence[str]] | None = None
