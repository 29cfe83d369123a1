"""What can happen to a relay beside what happens to a coordinator, and what it then wants done."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import Contribution
from cospan.server.machine import events as server
from cospan.wire.errors import RemoteError
from cospan.wire.messages import Finish, Stamp, Welcome

# Events: what the coordinator says -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Welcomed:
    """The coordinator takes the relay for the host of the agents that the welcome names."""

    welcome: Welcome


@dataclass(frozen=True, slots=True)
class Refused:
    """The coordinator does not take the relay as the host of those it has named last."""

    error: RemoteError


@dataclass(frozen=True, eq=False, slots=True)
class RoundOpened:
    """The gradients of a round are wanted, taken at this basis."""

    stamp: Stamp
    round: int
    basis: Float[np.ndarray, "d r"]


@dataclass(frozen=True, eq=False, slots=True)
class RunFinished:
    """The run is over."""

    finish: Finish


UpstreamEvent: TypeAlias = Welcomed | Refused | RoundOpened | RunFinished
Event: TypeAlias = server.Event | UpstreamEvent

# Commands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Host:
    """Be the host of these agents to the coordinator from now on; of none: leave the run until there are some."""

    agent_ids: tuple[str, ...]
    feature_fingerprint: str


@dataclass(frozen=True, eq=False, slots=True)
class SumUp:
    """Send the sum of these contributions, which are in the order of the agents' names."""

    round: int
    agent_ids: tuple[str, ...]
    contributions: tuple[Contribution, ...]


Command: TypeAlias = (
    server.Send
    | server.Broadcast
    | server.CloseStream
    | server.Note
    | server.EndRun
    | server.Suspend
    | Host
    | SumUp
)
