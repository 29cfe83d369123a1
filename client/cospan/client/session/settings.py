"""What a process waits for, refuses and keeps: of every session, and of one that learns."""

from dataclasses import dataclass
from pathlib import Path

from cospan.client.session.message_checks import MEMORY_GIB
from cospan.client.session.run_checks import Demands
from cospan.core.method import DEFAULT_MIN_STEPS

CHECKPOINT_SECONDS = 5.0
"""The shortest time between two writes of an agent's file, unless its user says another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How long a process waits for its coordinator, and which runs it refuses.

    Attributes:
        progress_timeout_seconds: seconds without progress of the run, or without an answer of the coordinator,
            after which the process gives up.
        min_steps_per_round: a run with fewer steps a round is refused before it is joined: the fewer, the more each
            upload shows. 1 to 2^32 − 1.
        require_secure_sums: whether a run without secure sums is refused likewise.
        max_epsilon: a run is refused likewise unless it has differential privacy with this ε or less; above 0, None
            where it need not.
        farewell_seconds: how long a stream that is given up may take to send what is queued.
        close_seconds: how long it may take to close; after that it is left behind.

    Raises:
        InvalidValueError: `min_steps_per_round` or `max_epsilon` is out of its range.
    """

    progress_timeout_seconds: float = 60.0
    min_steps_per_round: int = DEFAULT_MIN_STEPS
    require_secure_sums: bool = False
    max_epsilon: float | None = None
    farewell_seconds: float = 1.0
    close_seconds: float = 5.0

    def __post_init__(self) -> None:
        _ = self.demands

    @property
    def demands(self) -> Demands:
        """What a run must have to be joined."""
        return Demands(self.min_steps_per_round, self.require_secure_sums, self.max_epsilon)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings(SessionSettings):
    """What an agent or a group does beside learning, and what it refuses; beside what every session has.

    Attributes:
        with_baseline: whether TD alone learns beside each agent from the same transitions, and LSTD alone where the
            method's own sums are not its; None means that they do with an agent, and do not with a group.
        resume_from: a file of `save`, of the same run and agents, to continue from.
        state_file: where to keep what is learnt, during the run and at its end. For an agent a file, or a folder
            for a file with the agent's name; a file of the same run and agent is continued from without being told,
            one of another run is given another name. For a group a folder, for `group-<first>..<last>.npz` during
            the run and `<id>.npz` of each agent at its end.
        checkpoint_seconds: the shortest time between two writes of that file; 0 means at the end alone.
        share_td_error: whether the coordinator is told an agent's root mean square TD error, for observers; not
            allowed with a group.
        memory_gib: GiB that the rounds of a run may need in this process; a run that needs more is refused.
    """

    with_baseline: bool | None = None
    resume_from: Path | str | None = None
    state_file: Path | str | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    share_td_error: bool = False
    memory_gib: float = MEMORY_GIB
