"""What happens to a session (events), and what the machine then wants done (commands)."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.client.session.run_checks import Turn
from cospan.core.specification import RunSpecification
from cospan.wire.errors import CospanError
from cospan.wire.messages import (
    AgentMessage,
    CoordinatorMessage,
    FinishCause,
    GradientUpload,
    Join,
    Stamp,
    SumMembers,
    Welcome,
)

# Events -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Described:
    """The coordinator has said what the run is."""

    specification: RunSpecification


@dataclass(frozen=True, slots=True)
class Prepared:
    """The site is made; this is how to join with it."""

    join: Join


@dataclass(frozen=True, slots=True)
class Connected:
    """A stream is open."""


@dataclass(frozen=True, eq=False, slots=True)
class Received:
    """A message came in."""

    message: CoordinatorMessage


@dataclass(frozen=True, slots=True)
class StreamBroke:
    """The stream ended, or could not be opened. `jitter` is uniform in [0, 1)."""

    error: CospanError
    jitter: float


@dataclass(frozen=True, eq=False, slots=True)
class GradientReady:
    """The learner has finished a round."""

    upload: GradientUpload


@dataclass(frozen=True, slots=True)
class Agreed:
    """With secure sums: the members of this epoch were found in order, and masks can be made."""

    epoch_id: bytes


@dataclass(frozen=True, slots=True)
class Counted:
    """With differential privacy: one vector more is counted in the process' file, and may be sent."""


@dataclass(frozen=True, slots=True)
class LearningFailed:
    """The user's environment, features or policy broke."""

    error: CospanError


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The agent is to leave the run, for good unless it means to come back."""

    cause: str
    returning: bool = False


@dataclass(frozen=True, slots=True)
class Regrouped:
    """The process hosts other agents than before; at least one, and their names are sorted."""

    agent_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsummed:
    """With secure sums, of a process that passes rounds on: no vector comes for this round."""

    round: int


@dataclass(frozen=True, slots=True)
class Saved:
    """Every round below this one is in the process' file."""

    rounds: int


@dataclass(frozen=True, slots=True)
class FeedSilent:
    """The feed of the process has had no step for these seconds, longer than usual; 0 once steps come again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The coordinator has answered the question of `Ask`, with this stamp."""

    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The question of `Ask` has failed, or its time is over."""

    error: CospanError


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = (
    Described
    | Prepared
    | Connected
    | Received
    | StreamBroke
    | GradientReady
    | Agreed
    | Counted
    | LearningFailed
    | StopRequested
    | Regrouped
    | Saved
    | FeedSilent
    | Answered
    | Unanswered
    | Unsummed
    | Tick
)

# Commands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inquire:
    """Ask what the run is, after a pause in seconds."""

    after_seconds: float


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make the site for this run."""

    specification: RunSpecification


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a stream after a pause in seconds."""

    after_seconds: float


@dataclass(frozen=True, eq=False, slots=True)
class Transmit:
    """Send a message."""

    message: AgentMessage


@dataclass(frozen=True, eq=False, slots=True)
class Agree:
    """With secure sums: check the members of an epoch, and make keys with the neighbours.

    `Agreed` follows at once, or `LearningFailed` where this process must not send in that epoch.
    """

    members: SumMembers


@dataclass(frozen=True, eq=False, slots=True)
class TransmitMasked:
    """With secure sums: mask an upload in an epoch, and send it; the second time send the same bytes.

    Attributes:
        upload: the only one of its round that is ever masked.
        epoch_id: the only epoch that it is ever masked in.
        basis: B_t that the round was opened with.
        head_covariance: W_t likewise; None where the method has none.
    """

    upload: GradientUpload
    epoch_id: bytes
    basis: Float[np.ndarray, "d r"]
    head_covariance: Float[np.ndarray, "r r"] | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """With differential privacy: count one vector more, in the process' file, before it is sent.

    `Counted` follows, or `LearningFailed` where the budget is spent or the file cannot be written.
    """


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the coordinator for its stamp, over the connection of the open stream.

    `Answered` or `Unanswered` follows within that time, and nothing where the stream was hung up meanwhile.
    """

    within_seconds: float


@dataclass(frozen=True, eq=False, slots=True)
class Begin:
    """The session has been welcomed for the first time; prepare to learn."""

    welcome: Welcome


@dataclass(frozen=True, eq=False, slots=True)
class Learn:
    """Hold this basis against the last one that was learnt at; take L steps and compute the gradient at it.

    The head covariance is W_t; None where the method has none.
    """

    round: int
    basis: Float[np.ndarray, "d r"]
    turn: Turn | None = None
    head_covariance: Float[np.ndarray, "r r"] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Conclude:
    """It is over, in order.

    Attributes:
        message: why.
        basis: the newest; None where the run never began.
        left: whether it left on request, before the end of the run.
        cause: of the run's end; STOPPED where the coordinator did not say it.
        head_covariance: what came with the basis; None where the method has none.
    """

    message: str
    basis: Float[np.ndarray, "d r"] | None
    left: bool = False
    cause: FinishCause = FinishCause.STOPPED
    head_covariance: Float[np.ndarray, "r r"] | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """It is over, and not in order."""

    error: CospanError


Command: TypeAlias = (
    Inquire | Prepare | Connect | Transmit | Agree | TransmitMasked | Count | Ask | Begin | Learn | Conclude | Fail
)


def answer_to_ask(answer: Stamp | CospanError) -> Event:
    """The event that an answer to `Ask`, or the want of one, is."""
    return Answered(answer) if isinstance(answer, Stamp) else Unanswered(answer)
