"""A coordinator's operator who keeps what arrives, and what can be made of it: the attacks of docs/security.md.

`logged` plays real agents against bases that the operator sends, and keeps what it decodes from the wire. The
attacks take nothing but that log; the agents' secrets stand beside it, to hold the result against. But for `paper`
they use directions alone, so they do not depend on how an upload is scaled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from runs import States, specification

from cospan.client.learning.site_learner import SiteLearner
from cospan.client.workload import Site
from cospan.core.aggregation.basis_update import initial_head_covariance, next_basis
from cospan.core.aggregation.evidence_step import unpacked
from cospan.core.learning.least_squares import TransitionSums
from cospan.core.learning.posterior import PosteriorState
from cospan.core.linalg.matrices import to_dense
from cospan.core.linalg.subspace import orthonormalise
from cospan.core.method import Method
from cospan.core.secure_sums.announcement import announcement_digest, specification_digest
from cospan.core.secure_sums.fixed_point import added, decode, encode, sum_problem
from cospan.core.secure_sums.layout import layout_of
from cospan.core.secure_sums.membership import Member, Membership
from cospan.rpc.v1 import coordinator_service_pb2 as pb
from cospan.wire.codec.messages import decode_agent_message, encode_agent_message
from cospan.wire.messages import GradientUpload, MaskedVector
from cospan.wire.secure_sums.keys import KeyPair
from cospan.wire.secure_sums.masker import Masker

D, R = 9, 2
INNER = slice(1, D - 1)
"""The features of states whose neighbours all have features."""


class Walk(gymnasium.Env[int, int]):
    """A walk on a ring of D + 1 states, of which state 0 has no feature; it keeps a secret."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Discrete(D + 1)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.states, self.rewards = [0], list[float]()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
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
    gains: np.ndarray
    sums: TransitionSums | None
    head_covariances: list[np.ndarray | None]
    posteriors: list[PosteriorState | None]

    def directions(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of the left factor and of the agent's value weights B w, both of length one, with one open sign."""
        left, sizes, right = np.linalg.svd(
            to_dense(self.uploads[number].contribution.gradient), full_matrices=False
        )
        weights = self.bases[number] @ right[0]
        return (left[:, 0], weights) if sizes[0] > 0.0 else (np.zeros(D), np.zeros(D))


def logged(
    method: Method, rounds: int, chosen: Callable[[int, np.ndarray], np.ndarray | None] = lambda _t, _b: None
) -> Log:
    """The log of one agent's run; `chosen` says which basis comes next, None for the method's own."""
    spec = specification(method, feature_dim=D, rank=R, agents=1, rounds=0)
    walk = Walk()
    agent = SiteLearner(Site(walk, States(D), lambda _o, _r: 0), spec, name="site-0", index=0, with_baseline=False)
    basis, rows, covariance = spec.initial_basis(), None, initial_head_covariance(method, R)
    bases, uploads, exact, gains, covariances, posteriors = [], [], [], [], [], []
    for number in range(rounds):
        gains.append(agent.state.gain_estimate)
        sent = agent.learn(number, basis, covariance)
        request = pb.CollaborateRequest.FromString(encode_agent_message(sent).SerializeToString())
        upload = decode_agent_message(request, spec)
        assert isinstance(upload, GradientUpload)
        bases.append(basis)
        covariances.append(covariance)
        posteriors.append(agent.state.posterior)
        uploads.append(upload)
        sums = agent.state.statistics
        exact.append(np.zeros(D) if sums is None else sums.row_sums)
        own = next_basis(basis, [upload.contribution], method, number, rows, head_covariance=covariance)
        choice = chosen(number, basis)
        basis, rows, covariance = own.basis if choice is None else choice, own.step_memory, own.head_covariance
    secrets = np.array(walk.states), np.array(walk.rewards), np.array(gains), agent.state.statistics
    return Log(bases, uploads, exact, *secrets, covariances, posteriors)


def logged_of_secure_sums(method: Method, rounds: int, agents: int = 3) -> Log:
    """The log of the first agent's uploads in a run with secure sums of some agents, each walking by itself.

    The operator reads an upload as what it would be without masks. It knows the bases, which follow from the sums.
    """
    spec = specification(method, feature_dim=D, rank=R, agents=agents, rounds=0, secure_sums=True, min_cohort=3)
    walks = [Walk() for _ in range(agents)]
    learners = [
        SiteLearner(Site(walk, States(D), lambda _o, _r: 0), spec, name=f"site-{k}", index=k, with_baseline=False)
        for k, walk in enumerate(walks)
    ]
    keys = [KeyPair(bytes([k + 1]) * 32) for k in range(agents)]
    members = [Member(key.public_key, (f"site-{k}",)) for k, key in enumerate(keys)]
    maskers = [Masker(key, Membership.of("run-1", members)) for key in keys]
    basis, rows, covariance = spec.initial_basis(), None, initial_head_covariance(method, R)
    bases, uploads, gains, covariances = [], [], [], []
    for number in range(rounds):
        gains.append(learners[0].state.gain_estimate)
        layout, vectors = layout_of(spec, number), []
        announcement = announcement_digest(specification_digest(spec), number, basis, covariance)
        for masker, learner in zip(maskers, learners, strict=True):
            words = encode(learner.learn(number, basis, covariance).plain, layout).words
            vector = MaskedVector(masker.mask(number, announcement, words), masker.epoch_id, 1.0)
            request = encode_agent_message(GradientUpload(number, vector)).SerializeToString()
            upload = decode_agent_message(pb.CollaborateRequest.FromString(request), spec)
            assert isinstance(upload, GradientUpload)
            assert isinstance(upload.contribution, MaskedVector)
            vectors.append(upload.contribution.words)
        bases.append(basis)
        covariances.append(covariance)
        uploads.append(GradientUpload(number, decode(vectors[0], layout)))
        summed = added(vectors)
        assert not sum_problem(summed, layout, agents)
        own = next_basis(basis, [decode(summed, layout)], method, number, rows, head_covariance=covariance)
        basis, rows, covariance = own.basis, own.step_memory, own.head_covariance
    state = learners[0].state
    secrets = np.array(walks[0].states), np.array(walks[0].rewards), np.array(gains), state.statistics
    return Log(bases, uploads, [], *secrets, covariances, [state.posterior])


def turned_by(degrees: float, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Turns a basis by an angle, in a direction drawn at random."""

    def turned(basis: np.ndarray) -> np.ndarray:
        step = rng.standard_normal(basis.shape)
        step -= basis @ (basis.T @ step)
        return orthonormalise(basis + np.tan(np.radians(degrees)) / np.linalg.norm(step, 2) * step)

    return turned


# Attacks ----------------------------------------------------------------------------------------------------------


def support(log: Log) -> np.ndarray:
    """`paper`: the one feature in each left factor; -1 where there is none."""
    found = []
    for number in range(len(log.uploads)):
        left = np.abs(to_dense(log.uploads[number].contribution.gradient)).max(axis=1)
        found.append(int(left.argmax()) if left.max() > 0.0 else -1)
    return np.array(found)


def seen(log: Log) -> list[set[int]]:
    """The features whose rows of the gradient are not zero, round by round."""
    return [
        set(np.flatnonzero(np.abs(to_dense(upload.contribution.gradient)).max(axis=1)).tolist())
        for upload in log.uploads
    ]


def sums_of_rewards(log: Log, method: Method) -> dict[int, float]:
    """`paper`: Σ (r − η) of a round, but for its sign, wherever it and the next one begin in states with features.

    A row of the gradient is (δ / L) w. The next one is that of w + (β / L) δ Bᵀφ, whose direction tells the
    length of w.
    """
    states, found = support(log), {}
    for number in range(1, len(states) - 1):
        here, there = states[number], states[number + 1]
        if min(here, there) < 0:
            continue
        row = to_dense(log.uploads[number].contribution.gradient)[here]
        after = to_dense(log.uploads[number + 1].contribution.gradient)[there]
        head, size = row / np.linalg.norm(row), np.linalg.norm(row)
        features = log.bases[number][here]
        cross = head[0] * after[1] - head[1] * after[0]
        square = -method.head_step * size * (features[0] * after[1] - features[1] * after[0]) / cross
        weights = log.bases[number] @ (np.sqrt(square) * head)
        error = method.steps_per_round * size / np.sqrt(square)
        found[number] = float(error - (weights[there] - weights[here]))
    return found


def counts_of(row_sums: list[np.ndarray], steps: int) -> np.ndarray:
    """How often each inner state was left in each round: differences of row sums of all steps, halved."""
    totals = np.array([(number + 1) * steps * rows for number, rows in enumerate(row_sums)])
    return np.diff(totals, axis=0, prepend=0.0)[:, INNER] / 2.0


def held(log: Log) -> list[np.ndarray]:
    """The row sums that the operator has in each round: the last that were sent."""
    found, last = [], np.zeros(D)
    for upload in log.uploads:
        sent = upload.contribution.pooled
        last = last if sent is None else sent
        found.append(last)
    return found


def jumps(log: Log) -> np.ndarray:
    """The feature whose entry of the left factor changes most from one round to the next.

    All other entries follow the basis and the gain, which both move slowly, so most of them tell the common scale.
    """
    found, before = [-1], log.directions(0)[0]
    for number in range(1, len(log.uploads)):
        now = log.directions(number)[0]
        both = (np.abs(before) > 1e-12) & (np.abs(now) > 1e-12)
        scale = np.median(before[both] / now[both]) if both.any() else 1.0
        found.append(int(np.abs(before - scale * now).argmax()))
        before = now
    return np.array(found)


def rewards_of(log: Log, states: np.ndarray, since: int) -> tuple[np.ndarray, int]:
    """With L = 1 and the states in order: the rewards since a round, but for their unit and a constant.

    In round t the left factor is c (Σ e r − η Σ e) − a A z / ‖z‖, of which the scales c and a are unknown and A is
    known from the states: linear in the rewards and in the scales. Second: how many other solutions there are.
    """
    rounds = len(log.uploads)
    one_hot = np.vstack([np.zeros(D), np.eye(D)])[states]
    system, visits, rows = np.zeros((D, D)), np.zeros(D), []
    for number in range(rounds):
        here, there = one_hot[number], one_hot[number + 1]
        system, visits = system + np.outer(here, here - there), visits + here
        left, weights = log.directions(number)
        row = np.zeros((D, 3 * rounds))
        row[:, : number + 1] = one_hot[: number + 1].T - visits[:, None] / (number + 1)
        row[:, rounds + number], row[:, 2 * rounds + number] = -left, -(system @ weights)
        rows.append(row)
    _, sizes, vectors = np.linalg.svd(np.vstack(rows), full_matrices=False)
    null = vectors[sizes < 1e-9 * sizes[0], since:rounds].T
    found, sizes, _ = np.linalg.svd(null - null.mean(axis=0), full_matrices=False)
    return found[:, 0], int((sizes[1:] > 1e-6 * sizes[0]).sum())


def system_of(log: Log, since: int) -> tuple[np.ndarray, np.ndarray]:
    """A and b, each but for a factor, from rounds in which the bases are many and the data nearly the same.

    The left factor is c (b − A z), so one direction of the log is b; and Bᵀ(b − A z) is the ridge times w. What is
    left open, A + b hᵀ, is settled by the transitions that never happen: most entries of a column of A are zero.

    Args:
        log: of the whole run.
        since: the first of those rounds.
    """
    lefts, weights, sizes = [], [], []
    for number in range(since, len(log.uploads)):
        left, z = log.directions(number)
        within, right = log.bases[number].T @ left, log.bases[number].T @ z
        lefts.append(left)
        weights.append(z)
        sizes.append(float(within @ right))
    left, scaled = np.array(lefts).T, (np.array(weights) * np.array(sizes)[:, None]).T
    null = np.linalg.svd(scaled)[2][D:].T
    b = np.linalg.svd(left @ null)[0][:, 0]
    system = (np.outer(b, b @ left) - left) @ np.linalg.pinv(scaled)
    shift = np.median(system / b[:, None], axis=0)
    return system - np.outer(b, shift), b


def curvature_and_score(log: Log, number: int) -> tuple[np.ndarray, np.ndarray]:
    """`practical`: K and s of a round in which K is sent; s but for its sign.

    Both are sent times the agent's weight, and that weight with them. The gradient is K B N − g gᵀB with N = (I + W
    BᵀK B)⁻¹, and g = (I − K B N W Bᵀ) s.
    """
    upload, basis, covariance = log.uploads[number], log.bases[number], log.head_covariances[number]
    assert upload.contribution.pooled is not None
    assert covariance is not None
    weight = upload.contribution.pooled[-1]
    curvature, gradient = (
        unpacked(upload.contribution.pooled[:-1], D) / weight,
        to_dense(upload.contribution.gradient),
    )
    inner = np.linalg.inv(np.eye(R) + covariance @ basis.T @ curvature @ basis)
    left, sizes, right = np.linalg.svd(curvature @ basis @ inner - gradient / weight)
    along = np.sqrt(sizes[0]) * right[0]  # a multiple of gᵀB, as the left vector is one of g
    residual = left[:, 0] * np.sqrt(sizes[0])
    scale = np.sqrt(abs(float(along @ (residual @ basis)) / float((residual @ basis) @ (residual @ basis))))
    score = np.linalg.solve(np.eye(D) - curvature @ basis @ inner @ covariance @ basis.T, scale * residual)
    return curvature, score


def angle(found: np.ndarray, truth: np.ndarray) -> float:
    """Relative error of a vector or matrix that is known but for a factor."""
    found, truth = found.ravel(), truth.ravel()
    return float(np.sqrt(max(0.0, 1.0 - (found @ truth) ** 2 / (found @ found) / (truth @ truth))))
