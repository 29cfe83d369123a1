"""A small run with kills and restarts at the boundaries of its rounds, and how it is performed on a stage.

Every agent holds its gradient back until the script says that it may send it, so that both worlds break the same
processes at the same place of the same round.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

_ROUNDS = 6
AGENTS = 3
_MOST_ACTS = 5


class What(Enum):
    """What is done at the boundary of a round: every agent has learnt it, and has not sent it."""

    AGENT_RESTARTS = "an agent is killed, and started again"
    AGENT_LEAVES = "an agent leaves"
    AGENT_RETURNS = "an agent that has left comes back"
    COORDINATOR_RESTARTS = "the coordinator is killed, and started again"
    BOTH_RESTART = "the coordinator and an agent are killed, and started again"
    SOME_SENT = "one gradient has counted, and the coordinator is killed and started again"
    SOME_SENT_AGENT_RESTARTS = "one gradient has counted, and another agent is killed and started again"
    ALL_SENT = "all gradients were sent, and the coordinator is killed and started again"


_FIRST = (What.AGENT_RESTARTS, What.SOME_SENT_AGENT_RESTARTS)
"""Before a round is stored no session may be, and a run that begins awaits all of its agents."""


@dataclass(frozen=True, slots=True)
class Act:
    """What happens at the boundary of a round, counted from the start of the run; `whom` chooses an agent."""

    boundary: int
    what: What
    whom: int


@dataclass(frozen=True, slots=True)
class Script:
    """A run of few rounds; 0 of `min_cohort` is one without secure sums."""

    seed: int
    min_cohort: int
    acts: tuple[Act, ...]
    rounds: int = _ROUNDS


@dataclass(frozen=True, slots=True)
class Standing:
    """A round that collects gradients, as a coordinator knows it."""

    round: int
    durable_round: int
    present: frozenset[str]
    """All agents that have a session."""
    awaited: frozenset[str]
    counted: frozenset[str]


Ended = tuple[tuple[tuple[str, ...], str], ...]
"""For each round its contributors, and the SHA-256 of the basis that it has led to."""


class Stage(Protocol):
    """A world with one coordinator, and at most one process of each agent."""

    @property
    def standing(self) -> Standing | None:
        """None while no coordinator collects gradients."""

    @property
    def learnt(self) -> Mapping[str, int]:
        """Agent → the round whose gradient it holds back."""

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""

    def happen(self) -> None:
        """Lets time pass until something may have changed; raises AssertionError if that takes too long."""

    def send(self, agent: str) -> None:
        """Lets an agent send the gradient that it holds back."""

    def start(self, agent: str) -> None:
        """Starts a process of an agent."""

    def kill(self, agent: str) -> None:
        """Kills the process of an agent."""

    def leave(self, agent: str) -> None:
        """Lets an agent leave, as one that comes back."""

    def restart_coordinator(self, meanwhile: Callable[[], None]) -> None:
        """Kills the coordinator, does something, and starts it again."""

    def ended(self) -> Ended:
        """What the store holds, once the run is over."""


def script_of(seed: int) -> Script:
    """The script of a seed."""
    rng = random.Random(f"alike {seed}")
    boundaries = sorted(rng.sample(range(_ROUNDS), rng.randint(1, _MOST_ACTS)))
    acts = tuple(Act(each, rng.choice(list(What) if each else _FIRST), rng.randrange(100)) for each in boundaries)
    return Script(seed, rng.choice([0, 2]), acts)


def names() -> tuple[str, ...]:
    """The agents of a script."""
    return tuple(f"agent-{index:02}-0" for index in range(AGENTS))


@dataclass
class Performance:
    """A script that is being performed."""

    script: Script
    stage: Stage
    present: set[str] = field(default_factory=lambda: set(names()))

    def perform(self) -> Ended:
        """Performs the script to the end of the run."""
        acts = {act.boundary: act for act in self.script.acts}
        boundary = 0
        while self._settle():
            if boundary in acts:
                self._do(acts[boundary])
                self._settle()
            if not self.stage.is_over:
                self._send_all()
            boundary += 1
        return self.stage.ended()

    def _settle(self) -> bool:
        """Waits until all whom the open round awaits have learnt it; False if the run is over."""
        while not self.stage.is_over:
            standing = self.stage.standing
            if standing is not None and self._is_settled(standing):
                return True
            # A round that has closed without an agent is not learnt further: its gradient comes too late.
            for agent, number in list(self.stage.learnt.items()):
                if standing is not None and number < standing.round and standing.present == self.present:
                    self.stage.send(agent)
            self.stage.happen()
        return False

    def _is_settled(self, standing: Standing) -> bool:
        awaited, learnt = standing.awaited, self.stage.learnt
        all_learnt = bool(awaited) and all(learnt.get(agent) == standing.round for agent in awaited)
        # What is stored of a session is stored before the round that it joined in.
        return all_learnt and standing.present == self.present and standing.durable_round == standing.round

    def _send_all(self) -> None:
        for agent in sorted(self.stage.learnt):
            self.stage.send(agent)

    def _do(self, act: Act) -> None:
        agents = sorted(self.present)
        chosen, other = agents[act.whom % len(agents)], agents[(act.whom + 1) % len(agents)]
        gone = sorted(set(names()) - self.present)
        match act.what:
            case What.AGENT_RESTARTS:
                self._restart(chosen)
            case What.AGENT_LEAVES if len(agents) > 2:
                self.present.discard(chosen)
                self.stage.leave(chosen)
            case What.AGENT_RETURNS if gone:
                self.present.add(gone[0])
                self.stage.start(gone[0])
            case What.COORDINATOR_RESTARTS:
                self.stage.restart_coordinator(lambda: None)
            case What.BOTH_RESTART:
                self.stage.restart_coordinator(lambda: self._restart(chosen))
            case What.SOME_SENT:
                self._send_counted(chosen)
                self.stage.restart_coordinator(lambda: None)
            case What.SOME_SENT_AGENT_RESTARTS:
                self._send_counted(chosen)
                self._restart(other)
            case What.ALL_SENT:
                self._send_all()
                self.stage.restart_coordinator(lambda: None)
            case _:
                pass  # no agent can

    def _restart(self, agent: str) -> None:
        self.stage.kill(agent)
        self.stage.start(agent)

    def _send_counted(self, agent: str) -> None:
        """An agent sends, and the coordinator has counted it; if it is awaited, and not the only one."""
        standing = self.stage.standing
        if standing is None or self.stage.learnt.get(agent) != standing.round or len(standing.awaited) == 1:
            return
        self.stage.send(agent)
        while (now := self.stage.standing) is None or agent not in now.counted:
            self.stage.happen()
