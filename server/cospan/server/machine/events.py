"""Events, which the shell hands to the machine, and commands, which the machine returns to the shell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import BasisMove, Contribution
from cospan.core.specification import RunSpecification
from cospan.server.machine.collections.agent_set import AgentSet
from cospan.server.machine.sessions import Departure, Session
from cospan.wire import messages
from cospan.wire.errors import RemoteError

# Events -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JoinRequested:
    """A process asks to join over stream `stream`; `token` is new, and names the session if one is opened."""

    join: messages.Join
    stream: int
    token: str


@dataclass(frozen=True, eq=False, slots=True)
class GradientArrived:
    """A session has sent a gradient."""

    token: str
    upload: messages.GradientUpload


@dataclass(frozen=True, eq=False, slots=True)
class GradientsArrived:
    """Several sessions have sent a gradient, and no other event came between them.

    Attributes:
        uploads: token → gradient of that session; one or more, each of which
            `cospan.server.machine.counting.is_batchable` accepts.
    """

    uploads: Mapping[str, messages.GradientUpload]


@dataclass(frozen=True, slots=True)
class HeartbeatArrived:
    """A process is alive, and its file holds all rounds below `saved_rounds`; 0 if it does not say."""

    token: str
    saved_rounds: int = 0


@dataclass(frozen=True, slots=True)
class LeaveArrived:
    """A process leaves; `returning` if it will join again."""

    token: str
    cause: str
    returning: bool = False


@dataclass(frozen=True, slots=True)
class DeclineArrived:
    """With secure sums: a process sends no vector for a round."""

    token: str
    round: int


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """A stream has ended without a leave."""

    token: str
    stream: int


@dataclass(frozen=True, eq=False, slots=True)
class BasisComputed:
    """The result of a closing round."""

    round: int
    """Its number."""
    move: BasisMove
    """The next basis, and how it was reached."""
    left_out: tuple[int, ...] = ()
    """Indices of the contributions left out because the arithmetic fails with them, in the order of agent ids."""
    problem: str = ""
    """How it fails with them, in one sentence."""
    void_cause: str = ""
    """With secure sums: why the round is void, in one sentence; empty where it is not."""


@dataclass(frozen=True, slots=True)
class BasisFailed:
    """A closing round has no finite result."""

    round: int
    message: str


@dataclass(frozen=True, eq=False, slots=True)
class RoundsStored:
    """Rounds have become durable, in order."""

    records: Sequence["RoundRecord"]


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The store has failed; nothing can be stored any more."""

    message: str


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """This process shall stop, and another resume the run after about `resume_after_seconds`."""

    message: str
    resume_after_seconds: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline (`machine.next_deadline`) may have passed."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """An operator stops the run."""

    message: str


Event: TypeAlias = (
    JoinRequested
    | GradientArrived
    | GradientsArrived
    | HeartbeatArrived
    | LeaveArrived
    | DeclineArrived
    | StreamClosed
    | BasisComputed
    | BasisFailed
    | RoundsStored
    | StoreFailed
    | DrainRequested
    | Tick
    | StopRequested
)

# Commands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Send:
    """Send a message to one session."""

    token: str
    message: messages.Welcome | messages.Receipt | messages.SumMembers


@dataclass(frozen=True, eq=False, slots=True)
class Broadcast:
    """Send the same message to every session that is connected."""

    message: messages.BasisUpdate | messages.Finish | messages.Drain


@dataclass(frozen=True, eq=False, slots=True)
class ComputeBasis:
    """Compute the next basis and report it as `BasisComputed`."""

    round: int
    basis: Float[np.ndarray, "d r"]
    contributions: tuple[Contribution | messages.MaskedVector, ...]
    """In the order of agent ids; with secure sums all are masked vectors."""
    step_memory: Float[np.ndarray, " m"] | None = None
    head_covariance: Float[np.ndarray, "r r"] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class SameRound(Mapping[str, int]):
    """Agent id → round, if the round is the same for all."""

    names: AgentSet
    round: int

    def __getitem__(self, name: str) -> int:
        if name not in self.names:
            raise KeyError(name)
        return self.round

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class RoundRecord:
    """What is stored of a closed round."""

    stamp: messages.Stamp
    """Of the state after it, once it is durable."""
    contributors: Mapping[str, int]
    """Agent id → the round of its gradient that was counted."""
    weight: float
    """Number of gradients in the mean."""
    move: BasisMove
    """The next basis, and how it was reached."""
    closed: float
    """When its result was known, in seconds on the machine's clock."""
    seconds: float
    """How long it was open."""
    departed_agent_ids: tuple[str, ...] = ()
    """Agents that departed while it was open."""
    absent_agent_ids: tuple[str, ...] = ()
    """Agents that were present and not counted."""
    outlier_agent_ids: tuple[str, ...] = ()
    """Agents whose gradients were outliers."""
    finished: bool = False
    """Whether it was the last round of the run."""

    @property
    def closed_round(self) -> int:
        """Its number."""
        return self.stamp.round - 1

    @cached_property
    def report(self) -> messages.RoundReport:
        """Its report, built on first use: the store's thread uses it first, so the event loop need not build it."""
        return messages.RoundReport(
            stamp=self.stamp,
            closed_round=self.closed_round,
            seconds=self.seconds,
            contributors=len(self.contributors),
            departed_agent_ids=self.departed_agent_ids,
            basis_movement=self.move.movement,
            orthonormality_error=self.move.orthonormality_error,
            basis=self.move.basis,
            finished=self.finished,
            absent_agent_ids=self.absent_agent_ids,
            outlier_agent_ids=self.outlier_agent_ids,
        )


@dataclass(frozen=True, eq=False, slots=True)
class StoreRound:
    """Store a round after everything that was to be stored before it, and report it in `RoundsStored`."""

    record: RoundRecord
    """Of the round."""
    announced: bool = False
    """Whether the agents know its result already; if not, they wait for it to be stored."""


@dataclass(frozen=True, slots=True)
class StoreSpecification:
    """Store the specification after the first join has set its feature fingerprint."""

    specification: RunSpecification


@dataclass(frozen=True, slots=True)
class StoreMember:
    """Store a new session."""

    session: Session


@dataclass(frozen=True, slots=True)
class DropMember:
    """Store that a session has ended, and the departures of its agents."""

    token: str
    departures: tuple[Departure, ...]


@dataclass(frozen=True, slots=True)
class CloseStream:
    """End a stream with an error; without one if a newer stream has replaced it."""

    stream: int
    error: RemoteError | None


@dataclass(frozen=True, eq=False, slots=True)
class ReportRound:
    """Report a closed and stored round to observers."""

    report: messages.RoundReport
    """Of the round."""
    closed: float
    """When its result was known, in seconds on the machine's clock."""


@dataclass(frozen=True, slots=True)
class Note:
    """Log an incident of this `kind`."""

    kind: str
    round: int
    agent_ids: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class EndRun:
    """The run is over."""

    cause: messages.FinishCause
    message: str


@dataclass(frozen=True, slots=True)
class Suspend:
    """This process stops, and the run can be resumed; `failed` if it stops because of a failure."""

    message: str
    failed: bool


StoreCommand: TypeAlias = StoreRound | StoreSpecification | StoreMember | DropMember
AgentCommand: TypeAlias = Send | Broadcast | CloseStream | Note | EndRun | Suspend
"""What a relay's machine returns as well."""
Command: TypeAlias = AgentCommand | StoreCommand | ComputeBasis | ReportRound
