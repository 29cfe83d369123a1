"""What is broken, and when: a plan that follows from a seed alone."""

import random
from dataclasses import dataclass
from enum import Enum

_IN_A_START = 0.1
"""Share of the kills that hit a coordinator while it starts."""
_START_SECONDS = 0.8
"""About as long as a coordinator takes until it listens, and its agents to come back."""
_ROUND_SECONDS = 0.03


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL of the coordinator.

    Attributes:
        after_round: it comes when an agent has been told of this round; None where it hits a start.
        seconds: delay after that, or after the start.
    """

    after_round: int | None
    seconds: float


def plan_kills(seed: int, *, kills: int, rounds: int) -> list[Kill]:
    """The kills of one run, in order; no two in a row hit a start, or the stall would be that of two kills."""
    rng = random.Random(f"kills {seed}")
    in_a_start = round(_IN_A_START * kills)
    numbers = sorted(rng.sample(range(1, rounds - 10), kills - in_a_start))
    plan = [Kill(number, rng.uniform(0.0, _ROUND_SECONDS)) for number in numbers]
    for position in sorted(rng.sample(range(1, len(plan) + 1), in_a_start), reverse=True):
        plan.insert(position, Kill(None, rng.uniform(0.0, _START_SECONDS)))
    return plan


class Kind(Enum):
    """What can be done to a process, or to the connection of an agent."""

    COORDINATOR_KILL = "coordinator: SIGKILL"
    COORDINATOR_TERM = "coordinator: SIGTERM"
    COORDINATOR_STOP = "coordinator: SIGSTOP, SIGCONT"
    AGENT_KILL = "agent: SIGKILL"
    AGENT_TERM = "agent: SIGTERM"
    AGENT_STOP = "agent: SIGSTOP, SIGCONT"
    DROP = "network: reset"
    DELAY = "network: delay"
    PAUSE = "network: pause"
    BLACK_HOLE = "network: black hole"
    REFUSE = "network: refuse"

    @property
    def of_coordinator(self) -> bool:
        """Whether the coordinator is hit, and not an agent."""
        return self.name.startswith("COORDINATOR")

    @property
    def of_agent(self) -> bool:
        """Whether the process of an agent is hit, and not its connection."""
        return self.name.startswith("AGENT")


_WEIGHTS = {
    Kind.COORDINATOR_KILL: 3,
    Kind.COORDINATOR_TERM: 1,
    Kind.COORDINATOR_STOP: 1,
    Kind.AGENT_KILL: 3,
    Kind.AGENT_TERM: 2,
    Kind.AGENT_STOP: 2,
    Kind.DROP: 3,
    Kind.DELAY: 2,
    Kind.PAUSE: 2,
    Kind.BLACK_HOLE: 2,
    Kind.REFUSE: 1,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that breaks.

    Attributes:
        kind: of it.
        round: it comes when an agent has been told of this round, or `latest_seconds` after the fault before.
        latest_seconds: see `round`.
        jitter: seconds after that.
        agent: which agent is hit; of no meaning where the coordinator is.
        seconds: how long it lasts: until the process is started again or continues, or the network is mended.
        delay: of the network, in seconds.
    """

    kind: Kind
    round: int
    latest_seconds: float
    jitter: float
    agent: int
    seconds: float
    delay: float


@dataclass(frozen=True, slots=True)
class QuorumRun:
    """One run with a quorum, or with secure sums, and what happens to it."""

    seed: int
    agents: int
    rounds: int
    quorum: str
    deadline_seconds: float
    max_staleness: int
    min_agents: int
    faults: tuple[Fault, ...]
    secure: bool = False

    def flags(self) -> list[str]:
        """How it is asked for on the command line."""
        values: dict[str, object] = {"agents": self.agents, "rounds": self.rounds, "seed": self.seed}
        if self.secure:
            words = [text for name, value in values.items() for text in (f"--{name}", str(value))]
            return [*words, "--secure-sums", "--min-cohort", "3"]
        values |= {
            "quorum": self.quorum,
            "deadline-seconds": self.deadline_seconds,
            "max-staleness": self.max_staleness,
            "min-agents": self.min_agents,
        }
        return [text for name, value in values.items() for text in (f"--{name}", str(value))]


_ROUNDS_PER_FAULT = 6
_ROUNDS_AFTER = 40
_UNDER_WAY_SECONDS = 60.0
"""The first fault comes to a run that is under way: else all might be over before it has begun."""
SESSION_TIMEOUT_SECONDS = 2.0


def plan_quorum_run(seed: int, number: int, *, faults: int, secure: bool = False) -> QuorumRun:
    """Run `number` of those that follow from a seed."""
    rng = random.Random(f"mixed {seed} {number}")
    agents = rng.randint(4, 6)
    return QuorumRun(
        seed=rng.randrange(2**31),
        agents=agents,
        rounds=faults * _ROUNDS_PER_FAULT + _ROUNDS_AFTER,
        quorum=rng.choice(("0.5", "0.6", "0.75", "2", "3")),
        deadline_seconds=rng.choice((0.0, 0.0, 0.05, 0.2)),
        max_staleness=rng.choice((0, 0, 1, 2, 3)),
        min_agents=rng.randint(1, agents),
        faults=tuple(_fault(rng, index, agents) for index in range(faults)),
        secure=secure,
    )


def _fault(rng: random.Random, index: int, agents: int) -> Fault:
    kind = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    short = rng.random() < 0.7
    longest = 0.5 if short else 1.6 * SESSION_TIMEOUT_SECONDS
    return Fault(
        kind=kind,
        round=(index + 1) * _ROUNDS_PER_FAULT,
        latest_seconds=rng.uniform(0.2, 1.0) if index else _UNDER_WAY_SECONDS,
        jitter=rng.uniform(0.0, 0.1),
        agent=rng.randrange(agents),
        seconds=rng.uniform(0.0, longest),
        delay=rng.uniform(0.01, 0.3),
    )
