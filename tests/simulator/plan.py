"""What a simulated run is made of, and what is broken in it when: a plan that follows from a seed alone."""

import random
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

from cospan.core.run_fields import Participation

FAULT_SECONDS = 20.0
"""Faults happen within this time; afterwards the run has to make progress."""
_MOST_FAULTS, _MOST_CALM_FAULTS = 80, 4
_LATE_SHARE, _LONGEST_LATE_SECONDS = 0.1, 75.0
"""Of runs in which a process is late; longer than a run waits for its fleet."""


class Kind(Enum):
    """What can go wrong."""

    COORDINATOR_KILL = "coordinator: killed between two commands"
    COORDINATOR_POWER = "coordinator: its machine is gone, and no connection is reset"
    COORDINATOR_DRAIN = "coordinator: asked to go down"
    COORDINATOR_STALL = "coordinator: stands still"
    COORDINATOR_CLOCK = "coordinator: clock jumps ahead"
    STORE_LOST = "coordinator: restarted without its store"
    STORE_COPIED = "coordinator: restarted from an older copy of its store"
    DISK_FULL = "disk: full for a time"
    DISK_SLOW = "disk: slow for a time"
    AGENT_KILL = "agent: killed between two commands"
    AGENT_REPLACED = "agent: killed, and replaced by one of another name"
    AGENT_ADDED = "agent: one more joins"
    AGENT_MOVED = "agent: moves from its process to another"
    AGENT_LEAVE = "agent: leaves, and comes back"
    AGENT_STALL = "agent: stands still"
    AGENT_CLOCK = "agent: clock jumps ahead"
    AGENT_SLOW = "agent: slow to learn for a time"
    AGENT_HANGS = "agent: hangs in its environment, and answers"
    ALL_HANG = "agents: all hang in their environments, and answer"
    JOIN_LOST = "agent: starts again, and the answer to its join is lost"
    REPLAY_LOST = "agents: those of a replay are lost as it begins"
    RELAY_KILL = "relay: killed between two commands"
    RELAY_STALL = "relay: stands still"
    RELAY_CUT = "relay: its stream with the coordinator breaks"
    CUT = "network: connection reset"
    HALF_OPEN = "network: one end is told, and not the other"
    BLACK_HOLE = "network: takes everything, and delivers nothing"
    DELAY = "network: slow for a time"
    PARTITION = "network: no new connections for a time"
    REPEAT = "peer: sends a gradient again"
    OVERTAKE = "peer: sends a gradient after the next one"
    PART = "peer: sends the sum of some of its agents"
    LIE = "peer: sends a gradient that it must not send"
    TAKEN_BACK = "coordinator: killed ahead of its disk, as an agent leaves for good"
    RETURNS_LATE = "coordinator: restarted, and no agent can return in time"
    LATE_HANGS = "agents: all hang, and one that is started again as well"
    ONE_HANGS = "agents: all take long, and then one takes longer"
    AGENT_GROWS = "agent: started again with one more in its process"
    RELAY_DRAIN = "relay: asked to go down as it gathers agents"
    RELAY_JOINED = "relay: one more agent joins it"
    RELAY_REPEATS = "relay: sends its sums again"
    RELAY_AWAY = "relay: an agent comes back twice as its coordinator stands still"
    RELAY_DESERTED = "relay: all its agents leave, and the store is lost"
    RELAY_DECLINED = "relay: an agent leaves after its vector, and another declines"
    COPIED_BELOW = "relay: an older copy of the store opens its round again"
    COHORT_LOST = "agent: lost while its run waits for its smallest cohort"
    KEY_CHANGED = "peer: comes back with another key"
    KEY_STOLEN = "peer: offers the key of another"
    PART_LATE = "peer: sends the sum of some of its agents, and of all when the round is over"
    OUT_OF_TURN = "peer: declines, or sends, what it must not"


_NEED_CALM = [
    Kind.COORDINATOR_KILL,
    Kind.AGENT_HANGS,
    Kind.ALL_HANG,
    Kind.REPLAY_LOST,
    Kind.REPEAT,
    Kind.OVERTAKE,
    Kind.PART,
]
"""What they lead to takes seconds, in which most plans have the next fault."""
_SECURE_SHARE = 0.25
"""Of the seeds have secure sums."""
_OF_SECURE_SUMS = [Kind.STORE_COPIED, Kind.AGENT_MOVED]
_NOT_OF_SECURE_SUMS = [Kind.PART]
"""A process masks one sum, over all of its agents."""


_SITUATION_SHARE = 0.3
"""Of the seeds have one of these situations, most of them little else: what follows takes several steps."""
SITUATIONS = {
    Kind.TAKEN_BACK: "relayed",
    Kind.RETURNS_LATE: "",
    Kind.LATE_HANGS: "perhaps relayed",
    Kind.ONE_HANGS: "",
    Kind.AGENT_GROWS: "late secure",
    Kind.RELAY_DRAIN: "relayed",
    Kind.RELAY_JOINED: "relayed secure",
    Kind.RELAY_REPEATS: "relayed",
    Kind.RELAY_AWAY: "relayed secure",
    Kind.RELAY_DESERTED: "relayed",
    Kind.RELAY_DECLINED: "relayed secure",
    Kind.COPIED_BELOW: "relayed secure",
    Kind.COHORT_LOST: "secure whole",
    Kind.KEY_CHANGED: "secure",
    Kind.KEY_STOLEN: "secure",
    Kind.OUT_OF_TURN: "perhaps secure",
    Kind.REPLAY_LOST: "",
    Kind.PART_LATE: "quorum",
}
"""What the run has for them."""
_ALSO_SINGLE = (Kind.REPLAY_LOST,)
_RARELY_SO = (Kind.LATE_HANGS, Kind.LATE_HANGS, Kind.RELAY_REPEATS, Kind.PART_LATE)
"""What they are for comes of few of them only."""
_MOST_SITUATIONS = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at: seconds from the start of the run.
        kind: what happens.
        whom: chooses the agent, of those that there are.
        amount: 0 to 1; how long it lasts, or how many commands later it happens, by its kind.
    """

    at: float
    kind: Kind
    whom: int
    amount: float


@dataclass(frozen=True, slots=True)
class Settings:
    """The run without its faults.

    Attributes:
        processes: agents that each process hosts.
        min_cohort: fewest processes whose sum is formed; 0 without secure sums.
        relayed: how many of the first processes join a relay, and not the coordinator.
        rounds: of the run; 0 for one without an end.
        participation: whether every round waits for all agents.
        quorum: share of the agents, or number of them; 0 with full participation.
        deadline_seconds: of a quorum.
        max_staleness: of a quorum.
        inflight_rounds: most rounds that run ahead of the disk.
        gathers: whether gradients are handed over together, as on the fast path.
        compute_seconds: time that a basis takes; 0 for at once.
        learn_seconds: mean time of an agent for a round.
        network_seconds: mean time of a message on its way.
        disk_seconds: mean time of a write.
        late_seconds: after which the last process starts, which the others wait for.
    """

    processes: tuple[int, ...] = (1, 1, 1)
    min_cohort: int = 0
    relayed: int = 0
    rounds: int = 0
    participation: Participation = Participation.ALL
    quorum: float = 0.0
    deadline_seconds: float = 0.0
    max_staleness: int = 0
    inflight_rounds: int = 2
    gathers: bool = True
    compute_seconds: float = 0.0
    learn_seconds: float = 0.3
    network_seconds: float = 0.02
    disk_seconds: float = 0.02
    late_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A run and its faults. Everything else that is random in it follows from the seed."""

    seed: int
    settings: Settings = Settings()
    faults: tuple[Fault, ...] = ()


def plan_of(seed: int) -> Plan:
    """The plan of a seed: the size of the run, its network and disk, and which kinds of faults there are."""
    rng = random.Random(f"plan {seed}")
    secure = random.Random(f"secure sums {seed}").random() < _SECURE_SHARE
    calm = rng.random() < 0.25
    single = (kind for kind in Kind if kind not in SITUATIONS or kind in _ALSO_SINGLE)
    pool = [kind for kind in single if kind not in (_NOT_OF_SECURE_SUMS if secure else _OF_SECURE_SUMS)]
    need_calm = [*filter(pool.__contains__, _NEED_CALM), *(_OF_SECURE_SUMS if secure else ())]
    kinds = rng.sample(need_calm, 2) if calm else rng.sample(pool, rng.choice([2, 3, 4, 10, 10, 15]))
    if rng.random() < 0.5 and Kind.STORE_LOST in kinds:
        kinds.remove(Kind.STORE_LOST)  # it ends a run, and with it what can go wrong in one
    relayed = bool({Kind.RELAY_KILL, Kind.RELAY_STALL, Kind.RELAY_CUT} & set(kinds))
    grouped = bool({Kind.PART, Kind.AGENT_MOVED} & set(kinds))
    settings = _settings(rng, grouped=grouped, relayed=relayed)
    if secure:
        settings = _with_secure_sums(rng, settings)
    settings = replace(settings, late_seconds=_late_seconds(seed))
    count = rng.randint(1, _MOST_CALM_FAULTS if calm else _MOST_FAULTS)
    times = sorted(round(time, 3) for time in _times(rng, count))
    faults = tuple(Fault(at, rng.choice(kinds), rng.randrange(100), round(rng.random(), 3)) for at in times)
    return _with_situation(Plan(seed, settings, faults))


def _with_situation(plan: Plan) -> Plan:
    """The plan, or in some seeds one that begins with a situation, of which half have nothing else."""
    rng = random.Random(f"situations {plan.seed}")
    if rng.random() >= _SITUATION_SHARE:
        return plan
    kind = rng.choice([*SITUATIONS, *_RARELY_SO])
    settings, needs = plan.settings, SITUATIONS[kind].split()
    if "perhaps" in needs and rng.random() < 0.4:
        needs = []
    relayed = "relayed" in needs
    if relayed or "quorum" in needs:
        settings = _settings(
            rng, grouped=rng.random() < 0.7, relayed=relayed, share_of_quorums=0.0 if relayed else 1.0
        )
    # Of those that no setting is needed for, some take part with secure sums.
    if "secure" in needs or (not relayed and bool(settings.min_cohort)) or (relayed and rng.random() < 0.5):
        settings = _with_secure_sums(rng, replace(settings, relayed=settings.relayed if relayed else 0))
    if "whole" in needs:
        settings = replace(settings, min_cohort=len(settings.processes))
    late = _LONGEST_LATE_SECONDS / 2.0 if "late" in needs else plan.settings.late_seconds
    settings = replace(settings, rounds=plan.settings.rounds, late_seconds=late)
    count = 1 if kind is Kind.COPIED_BELOW else rng.randint(1, _MOST_SITUATIONS)
    latest = 2.5 if kind in (Kind.LATE_HANGS, Kind.ONE_HANGS) else 5.0
    times = sorted(round(rng.uniform(0.4, latest), 3) for _ in range(count))
    more = () if rng.random() < 0.7 else plan.faults
    own = [Fault(at, kind, rng.randrange(100), round(rng.random(), 3)) for at in times]
    if kind is Kind.REPLAY_LOST:  # without an agent that joins: the others have this in part
        own = [replace(each, whom=4 * (each.whom // 4), amount=each.amount / 2.0) for each in own]
    faults = (*own, *more, Fault(FAULT_SECONDS, Kind.REPEAT, 0, 0.0))  # until then nothing is healed
    return Plan(plan.seed, settings, tuple(sorted(faults, key=lambda fault: fault.at)))


def _late_seconds(seed: int) -> float:
    rng = random.Random(f"late {seed}")
    return round(rng.uniform(1.0, _LONGEST_LATE_SECONDS), 3) if rng.random() < _LATE_SHARE else 0.0


def _times(rng: random.Random, count: int) -> list[float]:
    """When faults happen; in half of the plans in bursts, so that one meets the consequences of another."""
    if rng.random() < 0.5:
        return [rng.uniform(0.0, FAULT_SECONDS) for _ in range(count)]
    bursts = [rng.uniform(0.0, FAULT_SECONDS - 2.0) for _ in range(1 + count // 8)]
    return [rng.choice(bursts) + min(2.0, rng.expovariate(2.0)) for _ in range(count)]


def _settings(rng: random.Random, *, grouped: bool, relayed: bool, share_of_quorums: float = 0.4) -> Settings:
    processes = rng.choice([3, 3, 4, 5, 6, 12])
    grouped = grouped or rng.random() < 0.2
    quorum: dict[str, Any] = {}
    if rng.random() < share_of_quorums:
        quorum = {
            "participation": Participation.QUORUM,
            "quorum": rng.choice([0.5, 0.7, 2.0]),
            "deadline_seconds": rng.choice([0.0, 0.2, 1.0]),
            "max_staleness": rng.choice([0, 1, 2, 2]),
        }
    relayed = relayed and not quorum  # a relay's sum cannot be late
    return Settings(
        relayed=rng.choice([2, 3, processes]) if relayed else 0,
        processes=tuple(rng.choice([1, 2, 3]) if grouped else 1 for _ in range(processes)),
        rounds=rng.choice([0, 0, 0, 15]),
        inflight_rounds=rng.choice([1, 2, 4, 64]),
        gathers=rng.random() < 0.7,
        compute_seconds=rng.choice([0.0, 0.0, 0.05]),
        learn_seconds=rng.choice([0.1, 0.3, 0.3, 1.0]),
        network_seconds=rng.choice([0.001, 0.02, 0.1]),
        disk_seconds=rng.choice([0.001, 0.05, 0.5]),
        **quorum,
    )


def _with_secure_sums(rng: random.Random, settings: Settings) -> Settings:
    """The same run with secure sums, and so with full participation."""
    processes = len(settings.processes)
    return replace(
        settings,
        min_cohort=rng.choice([3, 3, processes - 1, processes]) if processes > 3 else rng.choice([2, 3, 3]),
        participation=Participation.ALL,
        quorum=0.0,
        deadline_seconds=0.0,
        max_staleness=0,
    )


def source_of(plan: Plan) -> str:
    """The plan as Python, for a test."""
    changed = [
        f"{each.name}={getattr(plan.settings, each.name)}"
        for each in fields(Settings)
        if getattr(plan.settings, each.name) != each.default
    ]
    lines = [f"Fault({each.at!r}, Kind.{each.kind.name}, {each.whom}, {each.amount!r})," for each in plan.faults]
    body = "".join(f"\n        {line}" for line in lines)
    return f"Plan(\n    {plan.seed},\n    Settings({', '.join(changed)}),\n    ({body}\n    ),\n)"
