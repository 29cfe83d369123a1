"""A fleet of access-control queues, each with its own traffic; everything true of them is known exactly.

The queue is example 10.2 of Sutton and Barto, "Reinforcement Learning", 2nd edition (2018): ten servers, and
at every step a customer at the head of an endless queue, of priority 1, 2, 4 or 8. The customer is accepted
if a server is free and the policy says so, pays the priority, and takes the server; otherwise it is turned
away for good. Then every busy server becomes free with probability p.

Timing: the server that was just taken also has its chance of becoming free in the same step. The example
leaves this open. With ten servers, p = 0.06, equally likely priorities and a policy that accepts with probability
one half, this timing has the gain 1.6982, the other one 1.6573.

The queues of the fleet differ in p, uniform in [0.02, 0.15], and in the mix of priorities, Dirichlet(2, 2, 2,
2). Their policy, the one that is judged, is trunk reservation: the fewer servers are free, the more a
customer has to pay to be accepted.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from math import comb
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Float, Int

from cospan.client.features import BatchFeatures, OneHotFeatures, fingerprint
from cospan.client.workload import Decisions, Site, Sites, Workload
from cospan.client.workloads.models.finite_chains import FiniteChainEnv, FiniteChains
from cospan.core.exact_solutions import (
    ReferenceSolution,
    common_subspace,
    differential_value,
    feature_covariance,
    gain,
    stationary_distribution,
)

SERVERS = 10
PRIORITIES = (1.0, 2.0, 4.0, 8.0)
"""What a customer of each priority pays, in units of reward."""

FREE_PROBABILITY_RANGE = (0.02, 0.15)
MIX_CONCENTRATION = 2.0
RESERVED = (3, 2, 1, 0)
"""Servers that are kept free of customers of each priority: one is accepted only if more than these are free."""

_TAG = 0x71756575  # "queu": keeps these draws apart from other draws of the same (seed, index)

FEATURES = OneHotFeatures(states=(SERVERS + 1) * len(PRIORITIES), reference=10)
"""One-hot, d = 43. Left out is two free servers and priority 4, the state whose least probability over a large
fleet is the largest (0.003 over 300 queues), so that no queue comes close to having a constant in the span of what
it visits."""


class AdmissionFeatures(BatchFeatures):
    """Of pairs (state, decision): the servers free after it, and the priority of whom it lets in; d = 10 + 4 = 14.

    Both are indicators, divided by √2 so that ‖φ‖ ≤ 1. The value of a decision is what is paid for it and the value
    of the servers that are free then, so the features hold the values of every policy exactly; what is paid has to
    be learnt. Left out are three free servers, so that no constant is in the span: of all numbers the one whose
    least probability over a fleet is the largest under the uniform policy (0.02 over 60 queues).
    """

    dim = SERVERS + len(PRIORITIES)
    fingerprint = fingerprint("queue-admission", np.array([SERVERS, len(PRIORITIES)], dtype="<i8").tobytes())

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        """φ of several pairs, one per row.

        Raises:
            ValueError: a state or a decision is none of these.
        """
        pairs = np.array([[float(state), float(action)] for state, action in observations]).reshape(-1, 2)
        pairs = pairs.astype(np.intp)
        if ((pairs < 0) | (pairs >= [FEATURES.states, 2])).any():
            raise ValueError(f"a pair is none of states 0 to {FEATURES.states - 1} and decisions 0 and 1")
        return np.asarray(_ADMISSION_ROWS[pairs[:, 0], pairs[:, 1]])


def _admission_rows() -> Float[np.ndarray, "s 2 d"]:
    """φ of every pair."""
    rows = np.zeros((FEATURES.states, 2, SERVERS + len(PRIORITIES)))
    for state, accepts in np.ndindex(FEATURES.states, 2):
        free, priority = divmod(state, len(PRIORITIES))
        taken = int(accepts and free > 0)
        left = free - taken
        if left != _REFERENCE_FREE:
            rows[state, accepts, left - (left > _REFERENCE_FREE)] = 1.0
        if taken:
            rows[state, accepts, SERVERS + priority] = 1.0
    return rows / math.sqrt(2.0)


_REFERENCE_FREE = 3
_ADMISSION_ROWS = _admission_rows()
ACTION_FEATURES = AdmissionFeatures()
"""Of state and decision."""

DECISIONS = Decisions(action_features=ACTION_FEATURES)
"""The value of accepting and of turning away. Improvement begins at the policy that accepts with probability ½:
it knows nothing of queues, where trunk reservation is close to the best already."""


def after_decision(
    free_probability: float, mix: Float[np.ndarray, " m"], servers: int = SERVERS
) -> Float[np.ndarray, "f s"]:
    """The distribution of the next state given the servers free after the decision.

    Row g: servers − g servers are busy, of which Binomial(servers − g, p) become free; the next customer's
    priority is drawn from the mix. State = free servers · number of priorities + priority.

    Args:
        free_probability: p of one busy server in one step, 0 to 1.
        mix: probabilities of the priorities, shape (m,).
        servers: number of servers; the result has shape (servers + 1, (servers + 1) · m).
    """
    p = free_probability
    freed = np.zeros((servers + 1, servers + 1))
    for free in range(servers + 1):
        busy = servers - free
        for more in range(busy + 1):
            freed[free, free + more] = comb(busy, more) * p**more * (1.0 - p) ** (busy - more)
    return np.kron(freed, mix[None, :])


def markov_chain(
    free_probability: float,
    mix: Float[np.ndarray, " m"],
    accept_probability: float | Float[np.ndarray, " s"],
    servers: int = SERVERS,
) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, " s"]]:
    """P and R of a queue whose policy accepts with probability a(s), one number or one for each state.

    P(s, ·) = (1 − a) D(f, ·) + a D(f − 1, ·) and R(s) = a · priority where f > 0 servers are free; P(s, ·) =
    D(0, ·) and R(s) = 0 where none is. D is `after_decision`.
    """
    outcome = after_decision(free_probability, mix, servers)
    free = np.repeat(np.arange(servers + 1), mix.size)
    priority = np.tile(np.array(PRIORITIES[: mix.size]), servers + 1)
    accepted = np.where(free > 0, accept_probability, 0.0)
    transition = (1.0 - accepted)[:, None] * outcome[free] + accepted[:, None] * outcome[np.maximum(free - 1, 0)]
    return transition, accepted * priority


class QueueEnv(FiniteChainEnv):
    """One access-control queue.

    Observation: Discrete(44), free servers · 4 + priority class (0 to 3). Action: 0 turns the customer away, 1
    accepts it if a server is free. Reward: the priority (1, 2, 4, 8) of an accepted customer, else 0. It never
    ends, and begins with all servers free and a first customer from the mix.
    """

    def __init__(self, free_probability: float, mix: Float[np.ndarray, " m"]) -> None:
        """See `after_decision` for the arguments."""
        super().__init__(after_decision(free_probability, mix), actions=2)

    def _first(self, uniform: float) -> int:
        return bisect_right(self._cumulative[SERVERS], uniform)

    def step(self, action: SupportsIndex) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Decides on the customer at the head of the queue.

        Raises:
            ResetNeeded: the environment was never reset.
            ValueError: the action is neither 0 nor 1.
        """
        free, priority = divmod(self._state, 4)
        reward = 0.0
        if action == 1:
            if free > 0:
                free -= 1
                reward = PRIORITIES[priority]
        elif action != 0:
            raise ValueError(f"action {action!r}: allowed are 0 (turn away) and 1 (accept)")
        return self._moved(free), reward, False, False, {}


def reserve_trunks(observation: int, generator: np.random.Generator) -> int:
    """Accept if more servers are free than are reserved for customers who pay more; nothing is random in it."""
    del generator
    free, priority = divmod(observation, len(PRIORITIES))
    return int(free > RESERVED[priority])


def fleet_chain(
    free_probability: float, mix: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, " s"]]:
    """`markov_chain` under the fleet's policy."""
    return markov_chain(free_probability, mix, fleet_policy())


def fleet_policy() -> Float[np.ndarray, " s"]:
    """With which probability the fleet's policy accepts, in each state: 0 or 1, and 0 where no server is free."""
    rng = np.random.default_rng(0)
    states = range((SERVERS + 1) * len(PRIORITIES))
    return np.array([reserve_trunks(state, rng) for state in states], dtype=np.float64)


def queue_parameters(index: int, seed: int) -> tuple[float, Float[np.ndarray, " m"]]:
    """p and the mix of priorities of queue `index`.

    Raises:
        ValueError: the index or the seed is negative.
    """
    if index < 0 or seed < 0:
        raise ValueError(f"queue {index} with seed {seed}: both must be 0 or more")
    rng = np.random.default_rng(np.random.SeedSequence((seed, index, _TAG)))
    free_probability = float(rng.uniform(*FREE_PROBABILITY_RANGE))
    return free_probability, rng.dirichlet(np.full(len(PRIORITIES), MIX_CONCENTRATION))


def reference_solution(free_probability: float, mix: Float[np.ndarray, " m"]) -> ReferenceSolution:
    """J, z* and C under the fleet's policy, from the Poisson equation: z*_i = V(i) − V(reference), exact."""
    transition, rewards = fleet_chain(free_probability, mix)
    stationary = stationary_distribution(transition)
    value = differential_value(transition, rewards)
    return ReferenceSolution(
        gain=gain(stationary, rewards),
        weights=np.delete(value - value[FEATURES.reference], FEATURES.reference),
        covariance=feature_covariance(FEATURES.batch(np.arange(FEATURES.states)), stationary),
    )


def make_site(index: int, seed: int) -> Site:
    """Queue `index` of the fleet drawn from `seed`; see `queue_parameters` for what it raises."""
    free_probability, mix = queue_parameters(index, seed)
    return Site(
        env=QueueEnv(free_probability, mix),
        features=FEATURES,
        policy=reserve_trunks,
        reference=reference_solution(free_probability, mix),
        label=label_of(index, free_probability),
        decisions=DECISIONS,
    )


def label_of(index: int, free_probability: float) -> str:
    """What people call a queue."""
    return f"queue {index} (p = {free_probability:.3f})"


def priority_of(observations: Any) -> Int[np.ndarray, " m"]:
    """The class of the customer at the head of the queue, of several states: no decision changes who comes."""
    return np.asarray(np.asarray(observations, dtype=np.intp) % len(PRIORITIES))


def fleet_basis(agents: int, rank: int, seed: int) -> Float[np.ndarray, "d r"]:
    """The best r-dimensional subspace of the exact z* of queues 0 … agents − 1."""
    weights = [reference_solution(*queue_parameters(index, seed)).weights for index in range(agents)]
    return common_subspace(np.stack(weights), rank)[0]


def make_fleet(indices: Sequence[int], seed: int) -> Sites:
    """Several queues of the fleet drawn from `seed`, to be stepped at once."""
    parameters = [queue_parameters(index, seed) for index in indices]
    outcomes = np.stack([after_decision(*each) for each in parameters])
    accepted = fleet_policy() > 0.0
    free = np.repeat(np.arange(SERVERS + 1), len(PRIORITIES))
    rewards = accepted * np.tile(np.array(PRIORITIES), SERVERS + 1)
    return Sites(
        chains=FiniteChains(
            np.cumsum(outcomes, axis=2)[:, :, :-1],
            rows=free - accepted,
            rewards=np.broadcast_to(rewards, (len(parameters), len(rewards))),
            first_row=SERVERS,
        ),
        features=FEATURES,
        references=tuple(reference_solution(*each) for each in parameters),
        labels=tuple(label_of(index, each[0]) for index, each in zip(indices, parameters, strict=True)),
    )


workload = Workload(
    make_site=make_site,
    name="queues",
    rank=2,
    steps_per_round=20,
    fleet_basis=fleet_basis,
    make_fleet=make_fleet,
    exogenous=priority_of,
)
"""The fleet of queues, as large as you like."""
