"""Who is in a run, who was, and who has which site: plain frozen values."""

from dataclasses import dataclass

from cospan.wire.messages import AgentPhase

_SAME_TIME_SECONDS = 0.01
"""Who is heard again so soon was heard at the same time: far below any bound on silence, and of many gradients a
second nearly none then changes a session."""


@dataclass(frozen=True)
class Session:
    """One agent process in the run.

    Attributes:
        token: the session's secret name.
        instance_id: the process' own random name.
        agent_ids: the agents it hosts, sorted.
        stream: number of the stream it speaks through; an event of an older stream is void.
        phase: CONNECTED, or LOST when the stream has broken.
        last_seen: when it was last heard, or up to 10 ms before.
        opened: when it joined; no round waits for it since before that.
        reconnects: how often it came back.
        site_claim_id: who asked for the site that was given out; empty where the process brought its own names.
        site_index: of that site.
        needs_from: the bases from this round on are kept for it, since its file does not hold those rounds yet;
            None where it keeps no file.
    """

    token: str
    instance_id: str
    agent_ids: tuple[str, ...]
    stream: int
    phase: AgentPhase
    last_seen: float
    opened: float = 0.0
    reconnects: int = 0
    site_claim_id: str = ""
    site_index: int | None = None
    needs_from: int | None = None

    def heard(self, now: float) -> "Session":
        """The session that was heard now, or just before."""
        if now - self.last_seen < _SAME_TIME_SECONDS:
            return self
        after = object.__new__(type(self))
        after.__dict__.update(self.__dict__, last_seen=now)
        return after


@dataclass(frozen=True, slots=True)
class Seat:
    """A site that was given out.

    Attributes:
        index: of the site.
        instance_id: of its holder's newest process.
    """

    index: int
    instance_id: str


@dataclass(frozen=True, slots=True)
class Departure:
    """An agent that is gone.

    Attributes:
        agent_id: its name.
        round: the round that was open.
        cause: one sentence.
        last_seen: when it was last heard.
        reconnects: how often it had come back.
    """

    agent_id: str
    round: int
    cause: str
    last_seen: float
    reconnects: int
