"""Events and commands of a relay's machine in addition to those of a coordinator's."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import Contribution
from cospan.server.machine import events as server
from cospan.wire.errors import RemoteError
from cospan.wire.messages import Finish, Stamp, Welcome

# Events: messages of the coordinator -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Welcomed:
    """The coordinator accepts the relay as the host of the agents in the welcome."""

    welcome: Welcome


@dataclass(frozen=True, slots=True)
class Refused:
    """The coordinator rejects the relay as the host of the agents of its last join."""

    error: RemoteError


@dataclass(frozen=True, eq=False, slots=True)
class RoundOpened:
    """A round is open: the agents compute gradients at this basis."""

    stamp: Stamp
    round: int
    basis: Float[np.ndarray, "d r"]
    head_covariance: Float[np.ndarray, "r r"] | None = None


@dataclass(frozen=True, eq=False, slots=True)
class RunFinished:
    """The run is over."""

    finish: Finish


UpstreamEvent: TypeAlias = Welcomed | Refused | RoundOpened | RunFinished
Event: TypeAlias = server.Event | UpstreamEvent

# Commands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostAgents:
    """Join the coordinator as the host of these agents; without any, leave the run until there are some."""

    agent_ids: tuple[str, ...]
    feature_fingerprint: str


@dataclass(frozen=True, eq=False, slots=True)
class SumUp:
    """Send the sum of these contributions, which are in the order of agent ids."""

    round: int
    agent_ids: tuple[str, ...]
    contributions: tuple[Contribution, ...]


Command: TypeAlias = server.AgentCommand | HostAgents | SumUp
