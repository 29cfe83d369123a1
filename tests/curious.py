"""A coordinator's operator who keeps what arrives, and what can be made of it: the attacks of docs/security.md.

`logged` plays real agents against bases that the operator sends, and keeps what it decodes from the wire. The attacks
take nothing but that log; the agents' secrets stand beside it, to hold the result against. They use directions alone,
no sizes, so they do not depend on how an upload is scaled.
"""

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium
import numpy as np
from runs import States, specification

from cospan.client.site_learner import SiteLearner
from cospan.client.workload import Site
from cospan.core.aggregation import next_basis
from cospan.core.least_squares import TransitionSums
from cospan.core.matrices import to_dense
from cospan.core.method import Method
from cospan.core.subspace import orthonormalise
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec import decode_agent_message, encode_agent_message
from cospan.wire.messages import GradientUpload

D, R = 9, 2
INNER = slice(1, D - 1)
"""The features of states whose neighbours all have features."""


class Walk(gymnasium.Env):
    """A walk on a ring of D + 1 states, of which state 0 has no feature; it keeps what nobody is to know."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Discrete(D + 1)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.states, self.rewards = [0], list[float]()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        state = (self.states[-1] + (1 if self.np_random.random() < 0.5 else -1)) % (D + 1)
        self.rewards.append(float(np.sin(self.states[-1]) + self.np_random.standard_normal()))
        self.states.append(state)
        return state, self.rewards[-1], False, False, {}


@dataclass(frozen=True)
class Log:
    """What the operator has: the bases that it sent, and the uploads that came. And what it is after."""

    bases: list[np.ndarray]
    uploads: list[GradientUpload]
    exact_row_sums: list[np.ndarray]
    states: np.ndarray
    rewards: np.ndarray
    sums: TransitionSums | None
    bounds: list[float]

    def directions(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of the left factor and of the agent's value weights B w, both of length one, with one open sign."""
        left, sizes, right = np.linalg.svd(to_dense(self.uploads[number].contribution.gradient), full_matrices=False)
        weights = self.bases[number] @ right[0]
        return (left[:, 0], weights) if sizes[0] > 0.0 else (np.zeros(D), np.zeros(D))


def logged(
    method: Method, rounds: int, chosen: Callable[[int, np.ndarray], np.ndarray | None] = lambda _t, _b: None
) -> Log:
    """The log of one agent's run; `chosen` says which basis comes next, None for the method's own."""
    spec = specification(method, feature_dim=D, rank=R, agents=1, rounds=0)
    walk = Walk()
    agent = SiteLearner(
        Site(walk, States(D), lambda _o, _r: 0), spec, name="site-0", index=0, with_baseline=False
    )
    basis, rows = spec.initial_basis(), None
    bases, uploads, exact, bounds = [], [], [], []
    for number in range(rounds):
        sent = agent.learn(number, basis)
        request = pb.CollaborateRequest.FromString(encode_agent_message(sent).SerializeToString())
        upload = decode_agent_message(request, spec)
        assert isinstance(upload, GradientUpload)
        bases.append(basis)
        uploads.append(upload)
        sums = agent.state.statistics
        exact.append(np.zeros(D) if sums is None else sums.row_sums)
        own = next_basis(basis, [upload.contribution], method, number, rows)
        choice = chosen(number, basis)
        basis, rows = own.basis if choice is None else choice, own.row_squares
        bounds.append(method.largest_turn_between(number, number + 1))
    return Log(bases, uploads, exact, np.array(walk.states), np.array(walk.rewards), agent.state.statistics, bounds)
