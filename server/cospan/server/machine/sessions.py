"""Records of the agents of a run: sessions, departures, and claims to sites."""

from dataclasses import dataclass

from cospan.wire.messages import AgentPhase

_LAST_SEEN_RESOLUTION_SECONDS = 0.01
"""Messages closer together than this leave `last_seen` as it is: far below any timeout, and it spares a new session
for nearly every gradient of a fast run."""


@dataclass(frozen=True)
class Session:
    """One agent process in the run."""

    token: str
    """The session's secret name."""
    instance_id: str
    """The process' own random name."""
    agent_ids: tuple[str, ...]
    """The agents it hosts, sorted."""
    stream: int
    """Number of its current stream; events of older streams are ignored."""
    phase: AgentPhase
    """CONNECTED, or LOST while its stream is broken."""
    last_seen: float
    """When it last sent a message, or up to 10 ms before."""
    opened: float = 0.0
    """When it joined."""
    reconnects: int = 0
    """How often it has come back."""
    site_claim_id: str = ""
    """Claim under which its site was assigned; empty if the process brought its own agent ids."""
    site_index: int | None = None
    """Index of that site."""
    needs_from: int | None = None
    """The bases of this round and later are kept for it, because its file lacks them; None if it keeps no file."""

    def heard(self, now: float) -> "Session":
        """The session after a message at time `now`."""
        if now - self.last_seen < _LAST_SEEN_RESOLUTION_SECONDS:
            return self
        after = object.__new__(type(self))
        after.__dict__.update(self.__dict__, last_seen=now)
        return after


@dataclass(frozen=True, slots=True)
class SiteClaim:
    """A site that was assigned."""

    index: int
    """Of the site."""
    instance_id: str
    """The newest process that has claimed it."""


@dataclass(frozen=True, slots=True)
class Departure:
    """An agent that has departed."""

    agent_id: str
    """Its name."""
    round: int
    """The round that was open."""
    cause: str
    """One sentence."""
    last_seen: float
    """When its process last sent a message."""
    reconnects: int
    """How often it had come back."""
