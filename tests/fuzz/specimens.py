"""What fuzzing begins with: runs of several kinds, and valid messages of each."""

import hashlib
import random
from dataclasses import replace
from typing import Any

import numpy as np

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.linalg.matrices import DenseMatrix, FactoredMatrix, Gradient
from cospan.core.linalg.subspace import random_basis
from cospan.core.method import compact, full_history, paper, practical
from cospan.core.run_fields import Participation
from cospan.core.secure_sums.fixed_point import encode
from cospan.core.secure_sums.layout import layout_of
from cospan.core.secure_sums.membership import Member, Membership
from cospan.core.specification import RunSpecification
from cospan.wire import messages as m
from cospan.wire.secure_sums.proof import KeyProof

D, R = 5, 2
RUN_ID = "run-1"
FINGERPRINT = "map-1"
HOSTED: tuple[tuple[str, ...], ...] = (("a", "a-2", "a-3"), ("b",))
"""The agents of the two processes that are in every run from its beginning: a group, and one alone."""
TOKENS = ("token-0", "token-1")
"""Those of their sessions."""
STAMP = m.Stamp(RUN_ID, 1, 1, 1)

PLAIN = RunSpecification(
    workload="rings",
    feature_dim=D,
    rank=R,
    agents=4,
    rounds=0,
    seed=1,
    method=paper(3),
    feature_fingerprint=FINGERPRINT,
    session_timeout_seconds=5.0,
    round_timeout_seconds=30.0,
)
SPECIFICATIONS: dict[str, RunSpecification] = {
    "plain": PLAIN,
    "few rounds": replace(PLAIN, rounds=4),
    "waiting": replace(PLAIN, agents=6, min_agents=2, feature_fingerprint=""),
    "preconditioned": replace(PLAIN, method=compact(3)),
    "with row sums": replace(PLAIN, method=full_history(3)),
    "posterior": replace(PLAIN, method=practical(3)),
    "quorum": replace(PLAIN, participation=Participation.QUORUM, quorum=0.5, max_staleness=2),
    "quick quorum": replace(PLAIN, participation=Participation.QUORUM, quorum=2.0, deadline_seconds=0.5),
    "warm-up": replace(PLAIN, method=replace(full_history(3), warm_up_rounds=3)),
    "rank one": replace(PLAIN, rank=1, method=replace(paper(3), preconditioned=True)),
    "secure sums": replace(PLAIN, secure_sums=True, min_cohort=2),
    "secure sums of a posterior": replace(PLAIN, method=practical(3), secure_sums=True, min_cohort=2),
    "full rank": replace(PLAIN, rank=D, method=replace(paper(3), row_scaled=True)),
}


def key_of(name: str) -> bytes:
    """The public key of the process that hosts an agent: 32 bytes, and no more is known of it here."""
    return hashlib.sha256(name.encode()).digest()


MEMBERS = tuple(sorted(Member(key_of(agents[0]), agents) for agents in HOSTED))
"""Of secure sums: the two processes."""
EPOCH_ID = Membership.of(RUN_ID, MEMBERS).epoch_id


def with_key(spec: RunSpecification, joining: m.Join) -> m.Join:
    """The join with a key where the run has secure sums."""
    if not spec.secure_sums:
        return joining
    key = key_of((joining.agent_ids or (joining.instance_id,))[0])
    proofs = {key: KeyProof(b"certificate", b"signature")} if joining.workload else {}
    return replace(joining, sum_members=(Member(key, ()),), key_proofs=proofs)


def masked(spec: RunSpecification, upload: m.GradientUpload, rng: random.Random) -> m.GradientUpload:
    """The upload as a vector; masks that cancel are as good as none."""
    number = upload.round
    length = spec.pooled_length if spec.sends_pooled_in(number) else 0
    plain = replace(upload.plain, pooled=np.full(length, 0.5 * upload.plain.weight) if length else None)
    epoch_id = EPOCH_ID if rng.random() < 0.9 else bytes(32)
    vector = m.MaskedVector(encode(plain, layout_of(spec, number)).words, epoch_id, plain.weight)
    return replace(upload, contribution=vector)


def agent_message(spec: RunSpecification, rng: random.Random) -> m.AgentMessage:
    """Something that a process of this run may say."""
    if spec.secure_sums and rng.random() < 0.1:
        return m.RoundDeclined(rng.randrange(4))
    match rng.randrange(12):
        case 0:
            return m.Heartbeat()
        case 1:
            return m.Leave(rng.choice(("", "maintenance")), rng.random() < 0.5)
        case 2 | 3:
            return join(spec, rng)
        case _:
            return gradient(spec, rng)


def join(spec: RunSpecification, rng: random.Random) -> m.Join:
    """A new process, one that comes back, one that asks for a site; with secure sums also a relay."""
    if spec.secure_sums and rng.random() < 0.3:
        return relayed(spec, rng)
    return with_key(spec, _join(spec, rng))


def relayed(spec: RunSpecification, rng: random.Random) -> m.Join:
    """A relay with a key for each process below it: a new one, or one that joins again with one more."""
    which = rng.randrange(len(HOSTED) + 1)
    if which < len(HOSTED):
        members = [Member(key_of(HOSTED[which][0]), HOSTED[which]), Member(key_of("z"), ("z",))]
        name = instance(which)
    else:
        members, name = [Member(key_of(agent), (agent,)) for agent in ("c", "d")], "relay"
    agents = tuple(sorted(agent for member in members for agent in member.agent_ids))
    proofs = {each.public_key: KeyProof(b"certificate", b"signature") for each in members if rng.random() < 0.5}
    joining = m.Join(name, agents, spec.feature_dim, fingerprint_of(spec))
    return replace(joining, sum_members=tuple(sorted(members)), key_proofs=proofs)


def _join(spec: RunSpecification, rng: random.Random) -> m.Join:
    name, print_ = rng.choice(("c", "d", "site-1")), fingerprint_of(spec)
    new = m.Join(f"process {rng.randrange(3)}", (name,), spec.feature_dim, print_)
    match rng.randrange(4):
        case 0:
            return new
        case 1:
            return replace(new, agent_ids=("e", "e-2"), workload="rings", client_version="0.1.0")
        case 2:
            return replace(new, agent_ids=(), site_claim_id=rng.choice(("container-1", "container-2")))
        case _:
            which = rng.randrange(len(HOSTED))
            resumption = m.Resumption(TOKENS[which], RUN_ID, rng.randrange(4)) if rng.random() < 0.7 else None
            again = m.Join(instance(which), HOSTED[which], spec.feature_dim, print_)
            return replace(again, resumption=resumption)


def fingerprint_of(spec: RunSpecification) -> str:
    """Of the feature map; the one of these runs where none is fixed yet."""
    return spec.feature_fingerprint or FINGERPRINT


def instance(which: int) -> str:
    """The instance id of one of the two processes."""
    return f"process of {HOSTED[which][0]}"


def gradient(
    spec: RunSpecification,
    rng: random.Random,
    round_number: int | None = None,
    agents: tuple[str, ...] | None = None,
) -> m.GradientUpload:
    """A gradient of one of the first rounds, for a group or for one agent, unless it is said which."""
    number = rng.randrange(4) if round_number is None else round_number
    names = rng.choice((*HOSTED, ("a",), ("a-2", "a-3"))) if agents is None else agents
    values = np.random.default_rng(rng.getrandbits(32))
    d, r = spec.feature_dim, spec.rank
    kind: Any = rng.choice((np.float64, np.float64, np.float32))
    estimates = spec.method.brings_estimates_in(number)
    payload: Gradient = DenseMatrix(values.standard_normal((d, 2 if estimates else r)).astype(kind))
    if not estimates and rng.random() < 0.5:
        factors = rng.randint(1, r)
        left, right = values.standard_normal((d, factors)), values.standard_normal((r, factors))
        payload = FactoredMatrix(left.astype(kind), right.astype(kind))
    heads = values.standard_normal((r, 3))
    sent_anyway = rng.random() < 0.1
    moment = heads @ heads.T if spec.method.preconditioned or sent_anyway else None
    pooled = values.random(spec.method.pooled_length(d) or d) if spec.method.sends_pooled or sent_anyway else None
    contribution = Contribution(payload, float(len(names)), moment, pooled)
    unsaid = names in HOSTED and rng.random() < 0.5
    upload = m.GradientUpload(number, contribution, () if unsaid else names)
    return masked(spec, upload, rng) if spec.secure_sums else upload


def rounds_in_turn(spec: RunSpecification, rng: random.Random) -> list[tuple[int, m.AgentMessage]]:
    """What the two processes say in a run without trouble, each message with who says it."""
    said: list[tuple[int, m.AgentMessage]] = []
    for number in range(rng.randint(1, 3)):
        for which in rng.sample(range(len(HOSTED)), len(HOSTED)):
            agents = HOSTED[which]
            apart = spec.method.brings_estimates_in(number)  # estimates are not summed
            sums = [(name,) for name in agents] if apart else [agents]
            said += [(which, gradient(spec, rng, number, names)) for names in sums]
    return said


def coordinator_message(spec: RunSpecification, rng: random.Random) -> m.CoordinatorMessage:
    """Something that the coordinator of this run may say."""
    number = rng.randrange(4)
    stamp = replace(STAMP, round=number, durable_round=max(0, number - rng.randrange(2)))
    basis = random_basis(spec.feature_dim, spec.rank, np.random.default_rng(rng.getrandbits(32)))
    return _coordinator_message(spec, stamp, basis, rng)


def told_in_turn(spec: RunSpecification, rng: random.Random) -> list[m.CoordinatorMessage]:
    """What an agent is told in a run without trouble."""
    basis = spec.initial_basis()
    stamps = [replace(STAMP, round=number, durable_round=number) for number in range(rng.randint(1, 6))]
    started = rng.random() < 0.5
    welcome = m.Welcome(stamps[0], TOKENS[0], spec, basis, 0, started=started, agent_ids=HOSTED[0])
    epoch_id = EPOCH_ID if spec.secure_sums else b""
    rest: list[m.CoordinatorMessage] = [m.BasisUpdate(stamp, basis[:, ::-1], epoch_id=epoch_id) for stamp in stamps]
    if spec.secure_sums:
        rest.insert(rng.randrange(2), m.SumMembers(stamps[0], MEMBERS))
    finish = m.Finish(stamps[-1], m.FinishCause.ROUNDS_REACHED, "all rounds are done", basis)
    return [welcome, *rest, finish]


def _coordinator_message(
    spec: RunSpecification, stamp: m.Stamp, basis: np.ndarray, rng: random.Random
) -> m.CoordinatorMessage:
    number = stamp.round
    if spec.secure_sums and rng.random() < 0.3:
        proofs = {MEMBERS[0].public_key: KeyProof(b"certificate", b"signature")} if rng.random() < 0.5 else {}
        members = m.SumMembers(stamp, MEMBERS, proofs)
        if rng.random() < 0.5:
            return members
        return m.Welcome(stamp, TOKENS[0], spec, basis, number, True, HOSTED[0], membership=members)
    match rng.randrange(8):
        case 0:
            first, started = number + rng.randrange(2), rng.random() < 0.8
            return m.Welcome(stamp, TOKENS[0], spec, spec.initial_basis(), first, started, HOSTED[0])
        case 1:
            return m.Welcome(
                stamp, TOKENS[1], spec, basis, number, started=True, agent_ids=("site-0",), site_index=0
            )
        case 2:
            return m.Receipt(stamp, rng.randrange(4), rng.choice(tuple(m.Disposition)))
        case 3:
            return m.Finish(stamp, rng.choice(tuple(m.FinishCause)), "it is over", basis)
        case 4:
            return m.Drain(stamp, rng.choice((0.0, 1.0)))
        case _:
            return m.BasisUpdate(stamp, basis, epoch_id=EPOCH_ID if spec.secure_sums else b"")


def run_report(spec: RunSpecification, rng: random.Random) -> m.RunReport:
    """A run as an observer is told of it."""
    agents = tuple(
        m.AgentReport(name, rng.choice(tuple(m.AgentPhase)), 0.5, rng.random() < 0.5, 3, 1, 2, "silent", 1, 2)
        for name in ("a", "b")
    )
    return m.RunReport(STAMP, spec, rng.choice(tuple(m.RunPhase)), 2.5, agents, m.FinishCause.STOPPED, 12.5)


def round_report(spec: RunSpecification, rng: random.Random) -> m.RoundReport:
    """A round as an observer is told of it."""
    return m.RoundReport(STAMP, 3, 0.25, 2, ("c",), 0.125, 1e-16, spec.initial_basis(), rng.random() < 0.5, ("d",))
