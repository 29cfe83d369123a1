"""What can happen to the coordinator, and what it then wants done."""

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
from cospan.wire.errors import RemoteError
from cospan.wire.messages import (
    BasisUpdate,
    Drain,
    Finish,
    FinishCause,
    GradientUpload,
    Join,
    Receipt,
    RoundReport,
    Stamp,
    Welcome,
)

# Events: what happened -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JoinRequested:
    """A process asks to join over stream `stream`; `token` is fresh and is used if a session is opened."""

    join: Join
    stream: int
    token: str


@dataclass(frozen=True, eq=False, slots=True)
class GradientArrived:
    """A gradient came in."""

    token: str
    upload: GradientUpload


@dataclass(frozen=True, eq=False, slots=True)
class GradientsArrived:
    """Gradients came in, and nothing else happened meanwhile.

    Attributes:
        uploads: token → what its session sent; each of them is plain (`cospan.server.machine.rounds.is_plain`).
    """

    uploads: Mapping[str, GradientUpload]


@dataclass(frozen=True, slots=True)
class HeartbeatArrived:
    """A process says that it is alive, and that all rounds below `saved_rounds` are in its file; 0 says nothing."""

    token: str
    saved_rounds: int = 0


@dataclass(frozen=True, slots=True)
class LeaveArrived:
    """A process leaves, for good unless it means to come back."""

    token: str
    cause: str
    returning: bool = False


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """A stream ended without good-bye."""

    token: str
    stream: int


@dataclass(frozen=True, eq=False, slots=True)
class BasisComputed:
    """The arithmetic of a round is done.

    Attributes:
        round: of which.
        move: what it came to.
        left_out: places of the contributions that it fails with and does without, in the order of agents' names.
        problem: how it fails with them, in one sentence.
    """

    round: int
    move: BasisMove
    left_out: tuple[int, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class BasisFailed:
    """The arithmetic of a round has no finite result."""

    round: int
    message: str


@dataclass(frozen=True, eq=False, slots=True)
class RoundsStored:
    """Rounds are durable; their reports may go out."""

    records: Sequence["RoundRecord"]


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """Nothing can be stored any more."""

    message: str


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """The coordinator is to go down and come back: everybody is asked to wait for it so many seconds."""

    message: str
    resume_after_seconds: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody stops the run."""

    message: str


Event: TypeAlias = (
    JoinRequested
    | GradientArrived
    | GradientsArrived
    | HeartbeatArrived
    | LeaveArrived
    | StreamClosed
    | BasisComputed
    | BasisFailed
    | RoundsStored
    | StoreFailed
    | DrainRequested
    | Tick
    | StopRequested
)

# Commands: what is to be done ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Send:
    """Send a message to one session."""

    token: str
    message: Welcome | Receipt


@dataclass(frozen=True, eq=False, slots=True)
class Broadcast:
    """Send the same message to every session that is connected."""

    message: BasisUpdate | Finish | Drain


@dataclass(frozen=True, eq=False, slots=True)
class ComputeBasis:
    """Compute the next basis and report it as `BasisComputed`."""

    round: int
    basis: Float[np.ndarray, "d r"]
    contributions: tuple[Contribution, ...]
    row_squares: Float[np.ndarray, " d"] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class OfOneRound(Mapping[str, int]):
    """Agent → round, where it is the same round for all."""

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
    """What is stored of a round that has closed.

    Attributes:
        stamp: names the state after it, and says that it is durable.
        contributors: agent → the round of its gradient that counted.
        weight: the number of gradients in the mean.
        move: what the round did to the basis.
        closed: when its basis was there, in seconds on the machine's clock.
        seconds: how long it was open.
        departed_agent_ids: who went meanwhile.
        absent_agent_ids: who was here, and whose gradients it did without.
        outlier_agent_ids: whose gradients were far from the others.
        finished: whether it was the last.
    """

    stamp: Stamp
    contributors: Mapping[str, int]
    weight: float
    move: BasisMove
    closed: float
    seconds: float
    departed_agent_ids: tuple[str, ...] = ()
    absent_agent_ids: tuple[str, ...] = ()
    outlier_agent_ids: tuple[str, ...] = ()
    finished: bool = False

    @property
    def closed_round(self) -> int:
        """Which round it was."""
        return self.stamp.round - 1

    @cached_property
    def report(self) -> RoundReport:
        """For onlookers. Made when first asked for: who stores the round asks first, in a thread of its own."""
        return RoundReport(
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
    """Store a round, and report it in `RoundsStored`; what was to be stored before is stored with it, or was.

    Attributes:
        record: of the round.
        told: whether the agents know of it already; if not, they wait.
    """

    record: RoundRecord
    told: bool = False


@dataclass(frozen=True, slots=True)
class StoreSpecification:
    """Store the specification, whose fingerprint the first agent has fixed."""

    specification: RunSpecification


@dataclass(frozen=True, slots=True)
class StoreMember:
    """Store a session that was opened."""

    session: Session


@dataclass(frozen=True, slots=True)
class DropMember:
    """Store that a session is over, and what is left of its agents."""

    token: str
    departures: tuple[Departure, ...]


@dataclass(frozen=True, slots=True)
class CloseStream:
    """End a stream, with an error for the other side or, where it is superseded, without."""

    stream: int
    error: RemoteError | None


@dataclass(frozen=True, eq=False, slots=True)
class ReportRound:
    """A round has closed, and is stored by now; tell the onlookers.

    Attributes:
        report: of the round.
        closed: when, in seconds on the machine's clock.
    """

    report: RoundReport
    closed: float


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a log should hold: `kind` and its facts."""

    kind: str
    round: int
    agent_ids: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class EndRun:
    """The run is over."""

    cause: FinishCause
    message: str


@dataclass(frozen=True, slots=True)
class Suspend:
    """The coordinator goes down, and the run can go on when it is started again; `failed` where it has to."""

    message: str
    failed: bool


Command: TypeAlias = (
    Send
    | Broadcast
    | ComputeBasis
    | StoreRound
    | StoreSpecification
    | StoreMember
    | DropMember
    | CloseStream
    | ReportRound
    | Note
    | EndRun
    | Suspend
)
