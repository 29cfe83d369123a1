"""The chain of one site: ends, time limits, seeds, and sentences about whatever breaks the contract."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from runs import D, States, coin, ring_site

from cospan.client.environment.group_rollout import chain_group
from cospan.client.environment.rollout import Chain, checked_features, origin_of_chain
from cospan.client.features import TabularFeatures
from cospan.client.workload import FeatureMap, Policy, Site, Sites
from cospan.wire.errors import WorkloadBehaviourError


class Scripted(gymnasium.Env[Any, int]):
    """Gives the steps (observation, reward, terminated, truncated) in turn, and start states 10, 20, 30, …"""

    def __init__(self, *steps: tuple[Any, Any, bool, bool]) -> None:
        self.observation_space = gymnasium.spaces.Discrete(100)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.steps = iter(steps)
        self.seeds: list[int | None] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.seeds.append(seed)
        return 10 * len(self.seeds), {}

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return (*next(self.steps), {})


class Numbers:
    """The observation itself, in hundredths, as the one feature."""

    dim, fingerprint = 1, "numbers"

    def __call__(self, observation: Any) -> np.ndarray:
        return self.batch([observation])[0]

    def batch(self, observations: Any) -> np.ndarray:
        return np.array([[float(np.sum(observation)) / 100.0] for observation in observations])


def chain(env: gymnasium.Env[Any, Any], policy: Policy = coin, features: FeatureMap | None = None) -> Chain:
    return Chain(Site(env=env, features=features or Numbers(), policy=policy), name="site-7", index=7, seed=1)


def states(features: np.ndarray) -> list[float]:
    return [round(100.0 * value) for value in features[:, 0]]


def test_one_chain_over_all_rounds() -> None:
    env = Scripted(*((state, 0.5 * state, False, False) for state in range(1, 7)))
    walk = chain(env)
    first, second = walk.advance(2), walk.advance(4)
    assert states(first.features) == [10, 1, 2]
    assert states(second.features) == [2, 3, 4, 5, 6], "it continues where it stood"
    assert first.rewards.tolist() == [0.5, 1.0]
    assert second.rewards.tolist() == [1.5, 2.0, 2.5, 3.0]
    assert (walk.steps, walk.reward_sum) == (6, 10.5)
    assert len(env.seeds) == 1
    assert env.seeds[0] is not None


def test_a_true_end_is_a_transition_into_the_next_start_state() -> None:
    env = Scripted((1, 1.0, False, False), (2, 5.0, True, False), (3, 1.0, False, False))
    walk = chain(env)
    trajectory = walk.advance(3)
    assert states(trajectory.features) == [10, 1, 20, 3], "the state in which it ended succeeds none"
    assert trajectory.rewards.tolist() == [1.0, 5.0, 1.0]
    assert env.seeds[1:] == [None], "a seed again would be the same episode again"


def test_a_time_limit_is_no_end() -> None:
    env = Scripted((1, 1.0, False, True), (2, 1.0, False, True))
    assert states(chain(env).advance(2).features) == [10, 1, 2]
    assert len(env.seeds) == 1


def test_an_end_at_the_time_limit_is_an_end() -> None:
    env = Scripted((1, 1.0, True, True), (2, 1.0, False, False))
    assert states(chain(env).advance(2).features) == [10, 20, 2]


class Reuses(Scripted):
    """Writes every observation into one and the same object."""

    def __init__(self, wrap: Callable[[np.ndarray], Any]) -> None:
        super().__init__()
        self.buffer = np.zeros(1)
        self.observation = wrap(self.buffer)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.buffer[:] = 10.0
        return self.observation, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.buffer += 1.0
        return self.observation, 0.0, False, False, {}


class Sums(Numbers):
    """The sum over whatever arrays an observation holds."""

    def batch(self, observations: Any) -> np.ndarray:
        def total(observation: Any) -> float:
            if isinstance(observation, dict):
                return sum(total(value) for value in observation.values())
            return float(sum(np.sum(value) for value in observation))

        return np.array([[total(observation) / 100.0] for observation in observations])


@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: {"x": {"y": a}}, lambda a: (a,), lambda a: [a]])
def test_an_environment_may_reuse_its_observation(wrap: Callable[[np.ndarray], Any]) -> None:
    walk = chain(Reuses(wrap), features=Sums())
    assert states(walk.advance(3).features) == [10, 11, 12, 13]
    assert states(walk.advance(1).features) == [13, 14]


def test_everything_random_comes_from_the_seed_and_the_index() -> None:
    def walk(index: int, seed: int) -> bytes:
        site = ring_site(index, seed)
        trajectory = Chain(site, name="a", index=index, seed=seed).advance(50)
        return trajectory.features.tobytes() + trajectory.rewards.tobytes()

    assert walk(1, 1) == walk(1, 1)
    assert len({walk(0, 1), walk(5, 1), walk(0, 2)}) == 3


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_an_environment_that_raises() -> None:
    env = Scripted((1, 1.0, False, False))
    env.close = failing(AssertionError("never asked"))  # type: ignore[method-assign]
    walk = chain(env)
    walk.advance(1)
    env.step = failing(ZeroDivisionError("division by zero"))  # type: ignore[method-assign]
    with pytest.raises(
        WorkloadBehaviourError, match="environment or policy of site-7 raised ZeroDivisionError in step 1: div"
    ):
        walk.advance(1)


def test_a_policy_or_a_reset_that_raises() -> None:
    with pytest.raises(WorkloadBehaviourError, match="site-7 raised KeyError in step 0: 'no action'"):
        chain(Scripted((1, 1.0, False, False)), policy=failing(KeyError("no action"))).advance(1)
    env = Scripted()
    env.reset = failing(OSError("no simulator"))  # type: ignore[method-assign]
    with pytest.raises(WorkloadBehaviourError, match="site-7 raised OSError in step 0: no simulator"):
        chain(env).advance(1)


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), np.float32("-inf")])
def test_a_reward_that_is_not_finite(reward: float) -> None:
    env = Scripted((1, 1.0, False, False), (2, reward, False, False))
    with pytest.raises(WorkloadBehaviourError, match=rf"of site-7 gave the reward {float(reward)} in step 1"):
        chain(env).advance(2)


def test_a_reward_that_is_no_number() -> None:
    with pytest.raises(WorkloadBehaviourError, match="site-7 raised TypeError"):
        chain(Scripted((1, None, False, False))).advance(1)


class Gives(States):
    """A feature map that gives what it is told."""

    def __init__(self, values: Any) -> None:
        super().__init__()
        self.values = values

    def batch(self, observations: Any) -> Any:
        if isinstance(self.values, Exception):
            raise self.values
        return self.values


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.zeros((2, D + 1)), r"gave an array of shape \(2, 5\) for 2 observations; its dimension is 4"),
        (np.zeros((3, D)), r"shape \(3, 4\) for 2 observations; .*must be \(2, 4\)"),
        (np.zeros(D), r"shape \(4,\)"),
        (np.array([[0, 0, 0, 0], [0, np.nan, 0, 0]]), "an entry that is not finite for the observation 'second'"),
        (np.array([[0, 0, np.inf, 0], [0, 0, 0, 0]]), "an entry that is not finite for the observation 'first'"),
        (np.array([[1, 0, 0, 0], [0.6, 0.9, 0, 0]]), "a vector of norm 1.08167 for the observation 'second'"),
        ("text", "of site-7 failed: ValueError: could not convert"),
        (IndexError("state 9"), "of site-7 failed: IndexError: state 9"),
    ],
)
def test_features_that_break_their_contract(values: Any, text: str) -> None:
    with pytest.raises(WorkloadBehaviourError, match=text) as caught:
        checked_features(Gives(values), ["first", "second"], "site-7")
    assert "the feature map of site-7" in str(caught.value)


def test_features_within_their_contract() -> None:
    values = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0 + 1e-12]])
    assert checked_features(Gives(values), [1, 2], "site-7") is not None
    integers = checked_features(Gives([[0, 0, 0, 1], [0, 0, 0, 0]]), [1, 2], "site-7")
    assert integers.dtype == np.float64


def test_a_round_with_bad_features_is_an_error_of_the_features() -> None:
    site = Site(env=ring_site(0, 1).env, features=Gives(IndexError("state 9")), policy=coin)
    with pytest.raises(WorkloadBehaviourError, match="the feature map of site-0 failed: IndexError"):
        Chain(site, name="site-0", index=0, seed=1).advance(1)


def test_a_chain_that_begins_late_draws_fresh_data() -> None:
    """An agent that is started again in round 7 must not learn from its first data twice."""
    rewards = [
        Chain(ring_site(0, 1), name="a", index=0, seed=1, first_round=first).advance(20).rewards.tolist()
        for first in (0, 0, 7, 7, 8)
    ]
    assert rewards[0] == rewards[1]
    assert rewards[2] == rewards[3]
    assert len({tuple(row) for row in rewards}) == 3


# Going on ---------------------------------------------------------------------------------------------------


class Walk(gymnasium.Env[Any, Any]):
    """A random walk that ends at 9, with its own generator's draws and the policy's in every step."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Discrete(10)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.at = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at = int(self.np_random.integers(3))
        return {"at": self.at, "before": (np.float32(0.0),)}, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        before, self.at = self.at, max(0, self.at + int(action) + int(self.np_random.integers(-1, 2)))
        observation = {"at": self.at, "before": (np.float32(before / 3),)}
        return observation, 0.1 * self.at, self.at >= 9, False, {}


class SavedWalk(Walk):
    """The same, and it can save its state."""

    def save_state(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state(self, state: Any) -> None:
        self.at = state["at"]


class Places(Numbers):
    """Both numbers of a walk's observation, in hundredths."""

    dim = 2

    def batch(self, observations: Any) -> np.ndarray:
        return np.array([[entry["at"] / 100.0, float(entry["before"][0]) / 100.0] for entry in observations])


def walk_of(env: gymnasium.Env[Any, Any] | None = None, first_round: int = 0) -> Chain:
    site = Site(env=SavedWalk() if env is None else env, features=Places(), policy=coin)
    return Chain(site, name="site-7", index=7, seed=1, first_round=first_round)


def bits(walk: Chain, steps: int) -> bytes:
    trajectory = walk.advance(steps)
    return trajectory.features.tobytes() + trajectory.rewards.tobytes()


@pytest.mark.parametrize("taken", [1, 40, 400])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_saved_chain_goes_on_bit_for_bit(taken: int, wrapped: bool) -> None:
    original = walk_of()
    original.advance(taken)
    saved = original.saved()
    assert saved is not None
    env: gymnasium.Env[Any, Any] = SavedWalk()
    again = walk_of(gymnasium.wrappers.OrderEnforcing(env) if wrapped else env, first_round=3)
    assert again.go_on(taken, original.reward_sum, saved) == ""
    assert bits(again, 300) == bits(original, 300)
    assert (again.steps, again.reward_sum) == (original.steps, original.reward_sum)


def test_a_chain_that_was_not_saved_draws_fresh_data() -> None:
    """Whichever round it joins in, the one it began in included, and as often as it is started again."""
    assert walk_of(Walk()).saved() is None
    seen = {bits(walk_of(Walk()), 100)}
    for first_round, steps in ((0, 100), (0, 200), (5, 100), (5, 200), (5, 0)):
        again = walk_of(Walk(), first_round)
        assert again.go_on(steps, 1.5, None) == "the state of its environment was not saved"
        assert (again.steps, again.reward_sum) == (steps, 1.5)
        seen.add(bits(again, 100))
    assert len(seen) == 6


def test_the_state_of_an_environment_that_cannot_load_one_any_more() -> None:
    original = walk_of()
    original.advance(5)
    again = walk_of(Walk())
    assert again.go_on(5, 0.0, original.saved()) == "its environment cannot load a state"
    assert bits(again, 50) != bits(walk_of(Walk()), 50)


@pytest.mark.parametrize(
    ("saved", "text"),
    [
        (("{}", []), "ValueError: no packed value"),
        (('{"dict": {}}', []), "KeyError: 'environment'"),
        (('{"dict": {"environment": {"dict": {}}}}', []), "KeyError: 'at'"),
        (('{"dict": {"environment": {"dict": {"at": 3}}, "environment_generator": 1}}', []), "TypeError"),
    ],
)
def test_a_state_that_cannot_be_loaded_leaves_a_chain_that_begins_anew(saved: Any, text: str) -> None:
    again, other = walk_of(first_round=2), walk_of(first_round=2)
    problem = again.go_on(60, 1.0, saved)
    assert problem.startswith("the state of its environment cannot be loaded (")
    assert text in problem
    other.go_on(60, 1.0, None)
    assert bits(again, 100) == bits(other, 100), "whatever was loaded before it failed has gone again"


def test_nothing_is_saved_where_there_is_no_whole_state() -> None:
    env = SavedWalk()
    walk = walk_of(env)
    assert walk.saved() is None, "before the first round"
    walk.advance(3)
    before = (walk.steps, walk.reward_sum)
    assert walk.saved() is not None
    env.step = failing(RuntimeError("out of power"))  # type: ignore[method-assign]
    with pytest.raises(WorkloadBehaviourError):
        walk.advance(3)
    assert walk.saved() is None, "after a failure its state is unknown"
    assert (walk.steps, walk.reward_sum) == before


def test_an_environment_that_cannot_save_is_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    env = SavedWalk()
    walk = walk_of(env)
    walk.advance(1)
    env.save_state = lambda: {"at": object()}  # type: ignore[method-assign]
    assert walk.saved() is None
    assert walk.saved() is None
    assert [record.message for record in caplog.records] == [
        "the environment state of site-7 cannot be saved (TypeError: it has a builtins.object); "
        "after a restart the chain starts over"
    ]


def test_the_generators_of_a_group_are_those_of_its_chains_and_stay_the_same() -> None:
    """Made when they are asked for, whatever the order."""
    asked: list[Sequence[np.random.Generator]] = []

    class Kept:
        def reset(self, seeds: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
            assert list(seeds) == [origin_of_chain(3, index, 0, 0)[0] for index in (4, 7, 9)]
            asked.append(generators)

        def advance(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((3, steps + 1), dtype=int), np.zeros((3, steps))

        def save_state(self) -> None: ...

        def load_state(self, state: object) -> None: ...

    features = TabularFeatures(np.array([[0.5], [-0.5]]))
    sites = Sites(Kept(), features, (None,) * 3, ("a", "b", "c"))
    chain_group(sites, names=("a", "b", "c"), indices=(4, 7, 9), seed=3).advance(2)
    (generators,) = asked
    assert len(generators) == 3
    expected = [origin_of_chain(3, index, 0, 0)[1].random(2).tolist() for index in (4, 7, 9)]
    assert generators[-1].random() == expected[2][0]
    assert [each.random() for each in generators[:2]] == [expected[0][0], expected[1][0]]
    assert [each.random() for each in generators] == [row[1] for row in expected]
    with pytest.raises(IndexError):
        generators[3]
