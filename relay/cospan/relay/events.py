"""Events and commands of a relay's machine in addition to those of a coordinator's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.secure_sums.membership import Membership
from cospan.server.machine import events as server
from cospan.server.machine.secure_sums.epochs import Offer
from cospan.wire.errors import RemoteError
from cospan.wire.messages import Finish, MaskedVector, Stamp, Welcome
from cospan.wire.secure_sums.proof import KeyProof

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
class EpochAbove:
    """With secure sums: the epoch of a round, as the coordinator has named it to the relay.

    Attributes:
        membership: all members, of the whole run.
        key_proofs: public key → proof, of the neighbours of the members below the relay; empty without TLS.
        own: how many of the members with which the relay joined are in it.
    """

    membership: Membership
    key_proofs: Mapping[bytes, KeyProof]
    own: int


@dataclass(frozen=True, eq=False, slots=True)
class RoundOpened:
    """A round is open: the agents compute gradients at this basis; with secure sums in this epoch."""

    stamp: Stamp
    round: int
    basis: Float[np.ndarray, "d r"]
    head_covariance: Float[np.ndarray, "r r"] | None = None
    epoch: EpochAbove | None = None


@dataclass(frozen=True, eq=False, slots=True)
class RunFinished:
    """The run is over."""

    finish: Finish


UpstreamEvent: TypeAlias = Welcomed | Refused | RoundOpened | RunFinished
Event: TypeAlias = server.Event | UpstreamEvent

# Commands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostAgents:
    """Join the coordinator as the host of these agents; without any, leave the run until there are some.

    With secure sums the offer has their keys and proofs, unchanged; else None.
    """

    agent_ids: tuple[str, ...]
    feature_fingerprint: str
    offer: Offer | None = None


@dataclass(frozen=True, eq=False, slots=True)
class SumUp:
    """Send the sum of these contributions, which are in the order of agent ids; with secure sums all are masked."""

    round: int
    agent_ids: tuple[str, ...]
    contributions: tuple[Contribution | MaskedVector, ...]


@dataclass(frozen=True, slots=True)
class DeclineUp:
    """With secure sums: tell the coordinator that no sum of this round comes, for a member's vector is missing."""

    round: int


Command: TypeAlias = server.AgentCommand | HostAgents | SumUp | DeclineUp
