"""What can happen to the coordinator, and what it then wants done."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation import BasisMove, Contribution
from cospan.wire.errors import RemoteError
from cospan.wire.messages import (
    BasisUpdate,
    Finish,
    FinishCause,
    GradientUpload,
    Join,
    Receipt,
    RoundReport,
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


@dataclass(frozen=True, slots=True)
class HeartbeatArrived:
    """A process says that it is alive."""

    token: str


@dataclass(frozen=True, slots=True)
class LeaveArrived:
    """A process leaves for good."""

    token: str
    cause: str


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """A stream ended without good-bye."""

    token: str
    stream: int


@dataclass(frozen=True, eq=False, slots=True)
class BasisComputed:
    """The arithmetic of a round is done."""

    round: int
    move: BasisMove


@dataclass(frozen=True, slots=True)
class BasisFailed:
    """The arithmetic of a round has no finite result."""

    round: int
    message: str


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
    | HeartbeatArrived
    | LeaveArrived
    | StreamClosed
    | BasisComputed
    | BasisFailed
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

    message: BasisUpdate | Finish


@dataclass(frozen=True, eq=False, slots=True)
class ComputeBasis:
    """Compute the next basis and report it as `BasisComputed`."""

    round: int
    basis: Float[np.ndarray, "d r"]
    contributions: tuple[Contribution, ...]
    row_squares: Float[np.ndarray, " d"] | None = None


@dataclass(frozen=True, slots=True)
class CloseStream:
    """End a stream, with an error for the other side or, where it is superseded, without."""

    stream: int
    error: RemoteError | None


@dataclass(frozen=True, eq=False, slots=True)
class ReportRound:
    """A round has closed; tell the onlookers."""

    report: RoundReport


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


Command: TypeAlias = Send | Broadcast | ComputeBasis | CloseStream | ReportRound | Note | EndRun
