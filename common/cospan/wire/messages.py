"""What agents and the coordinator say to each other, as plain values; `codec` turns them into protobuf and back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.privacy.private_run import Spent, most_sent, spent_after
from cospan.core.secure_sums.fixed_point import Words
from cospan.core.secure_sums.membership import Member
from cospan.core.specification import RunSpecification
from cospan.wire.secure_sums.proof import KeyProof


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which state of which run a message describes; see StateStamp in run.proto."""

    run_id: str
    incarnation: int
    round: int
    durable_round: int


@dataclass(frozen=True, slots=True)
class Resumption:
    """What an agent shows to continue a session after a broken stream."""

    session_token: str
    run_id: str
    last_round: int


@dataclass(frozen=True, slots=True)
class Join:
    """Asks to join, or to continue after a broken stream; without `agent_ids`, to be given a site."""

    instance_id: str
    agent_ids: tuple[str, ...]
    feature_dim: int
    feature_fingerprint: str
    workload: str = ""
    client_version: str = ""
    resumption: Resumption | None = None
    site_claim_id: str = ""
    keeps_state: bool = False
    sum_members: tuple[Member, ...] = ()
    """With secure sums: the process, or those below a relay. One without agents has all of the session's."""
    key_proofs: Mapping[bytes, KeyProof] = field(default_factory=dict)
    """Public key of a member → its proof; empty without TLS."""


@dataclass(frozen=True, eq=False, slots=True)
class MaskedVector:
    """All numbers of an upload with secure sums, in fixed point and masked (`cospan.core.secure_sums`).

    Attributes:
        words: the vector, uint64.
        epoch_id: of the epoch whose masks were added, 32 bytes.
        weight: the number of agents that it is a sum over.
    """

    words: Words
    epoch_id: bytes
    weight: float


@dataclass(frozen=True, eq=False, slots=True)
class GradientUpload:
    """The subspace gradient of one round. No `agent_ids` means all agents of the session.

    `td_error` is for observers: the root mean square TD error of the round, in the workload's unit of reward.
    `bounded` too: agents whose heads the ball of radius U has cut; and `improved`: those that hold an improved
    policy, in the last round of a trial.
    """

    round: int
    contribution: Contribution | MaskedVector
    agent_ids: tuple[str, ...] = ()
    td_error: float | None = None
    bounded: tuple[str, ...] = ()
    improved: tuple[str, ...] = ()

    @property
    def plain(self) -> Contribution:
        """The contribution of an upload that is not masked, as every learner gives it."""
        assert isinstance(self.contribution, Contribution)
        return self.contribution


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The agent is alive.

    Attributes:
        saved_rounds: every round below this one is in its file; 0 says nothing.
        feed_silent_seconds: since the last step of its feed, where it waits for longer than usual; 0 once steps
            come again; None says nothing.
    """

    saved_rounds: int = 0
    feed_silent_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Leave:
    """The agent leaves, for good unless it says that it means to come back."""

    cause: str = ""
    returning: bool = False


@dataclass(frozen=True, slots=True)
class RoundDeclined:
    """With secure sums: no vector will come for this round, for another one was masked before."""

    round: int


AgentMessage: TypeAlias = Join | GradientUpload | Heartbeat | Leave | RoundDeclined


@dataclass(frozen=True, slots=True)
class SumMembers:
    """The members of an epoch of secure sums, as the coordinator names them to one session.

    Attributes:
        stamp: of the state.
        members: in the order of their public keys.
        key_proofs: public key → proof, of some of them.
    """

    stamp: Stamp
    members: tuple[Member, ...]
    key_proofs: Mapping[bytes, KeyProof] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Welcome:
    """The answer to `Join`."""

    stamp: Stamp
    session_token: str
    specification: RunSpecification
    basis: Float[np.ndarray, "d r"]
    first_round: int
    started: bool
    agent_ids: tuple[str, ...] = ()
    site_index: int | None = None
    coordinator_started: float = 0.0
    """When the coordinator was started, in seconds since 1970 by its clock; 0 where it does not say."""
    head_covariance: Float[np.ndarray, "r r"] | None = None
    """W of the stamp's round; None where the method has none."""
    membership: SumMembers | None = None
    """With secure sums: the epoch of the stamp's round; None where the session is not in it."""


@dataclass(frozen=True, eq=False, slots=True)
class BasisUpdate:
    """A new round is open: with B_t, W_t where the method has it, and its epoch with secure sums, else b""."""

    stamp: Stamp
    basis: Float[np.ndarray, "d r"]
    head_covariance: Float[np.ndarray, "r r"] | None = None
    epoch_id: bytes = b""


class Disposition(Enum):
    """What became of a gradient that did not count."""

    DUPLICATE = "duplicate"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class Receipt:
    """A gradient changed nothing."""

    stamp: Stamp
    gradient_round: int
    disposition: Disposition


class FinishCause(Enum):
    """Why a run is over."""

    ROUNDS_REACHED = "rounds-reached"
    STOPPED = "stopped"
    NO_AGENTS = "no-agents"
    NOT_STARTED = "not-started"
    FAILED = "failed"


@dataclass(frozen=True, eq=False, slots=True)
class Finish:
    """The run is over."""

    stamp: Stamp
    cause: FinishCause
    message: str
    basis: Float[np.ndarray, "d r"]
    head_covariance: Float[np.ndarray, "r r"] | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """The coordinator goes down; come back later."""

    stamp: Stamp
    resume_after_seconds: float


CoordinatorMessage: TypeAlias = Welcome | BasisUpdate | Receipt | Finish | Drain | SumMembers


class RunPhase(Enum):
    """Where a run stands."""

    WAITING = "waiting"
    COLLECTING = "collecting"
    CLOSING = "closing"
    FINISHED = "finished"
    DRAINING = "draining"


class AgentPhase(Enum):
    """Where one agent stands."""

    CONNECTED = "connected"
    LOST = "lost"
    GONE = "gone"


class RecalledBasis(NamedTuple):
    """What a past round was announced with.

    Attributes:
        round: t.
        basis: B_t.
        head_covariance: W_t; None where the method has none.
    """

    round: int
    basis: Float[np.ndarray, "d r"]
    head_covariance: Float[np.ndarray, "r r"] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class RecalledRounds:
    """Past rounds in which all agents of a session counted; see RecallRoundsResponse in coordinator_service.proto.

    Attributes:
        bases: of each, oldest first.
        next_round: where to ask on from.
        lost: how many cannot be recalled; then there are no bases.
    """

    bases: tuple[RecalledBasis, ...]
    next_round: int
    lost: int = 0


@dataclass(frozen=True, slots=True)
class AgentReport:
    """What the coordinator knows of one agent; see AgentStatus in coordinator_service.proto."""

    agent_id: str
    phase: AgentPhase
    seconds_since_last_message: float
    awaited: bool
    rounds_counted: int
    reconnects: int
    gone_in_round: int | None = None
    gone_cause: str = ""
    absent_rounds: int = 0
    last_round: int | None = None
    outlier_rounds: int = 0
    td_error: float | None = None
    head_bounded: bool = False
    policy_improved: bool = False
    feed_silent_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    """The run as it stands."""

    stamp: Stamp
    specification: RunSpecification
    phase: RunPhase
    phase_seconds: float
    agents: tuple[AgentReport, ...]
    finish_cause: FinishCause | None = None
    rounds_per_second: float = 0.0
    epoch_members: int = 0
    """With secure sums: members of the open round's epoch; 0 without, and while no round is open."""

    @property
    def spent(self) -> Spent | None:
        """With differential privacy: what agents have spent at most, as the coordinator knows; None without."""
        is_open = self.phase in (RunPhase.COLLECTING, RunPhase.CLOSING)
        vectors = most_sent(self.stamp.round, self.stamp.incarnation, is_open=is_open)
        return spent_after(self.specification, vectors)


@dataclass(frozen=True, eq=False, slots=True)
class RoundReport:
    """One round, closed."""

    stamp: Stamp
    closed_round: int
    seconds: float
    contributors: int
    departed_agent_ids: tuple[str, ...]
    basis_movement: float
    orthonormality_error: float
    basis: Float[np.ndarray, "d r"] | None = None
    finished: bool = False
    absent_agent_ids: tuple[str, ...] = ()
    outlier_agent_ids: tuple[str, ...] = ()
