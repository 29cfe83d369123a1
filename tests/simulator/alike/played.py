"""The simulator's stage: a simulated run without faults of its own, whose processes do as a script says."""

import hashlib
from collections.abc import Callable

from cospan.client.session import machine as session
from cospan.wire.messages import GradientUpload, RunPhase
from simulator import toy
from simulator.alike.script import AGENTS, Ended, Script, Standing, names
from simulator.parties.agent import AgentProcess
from simulator.plan import Plan, Settings
from simulator.world import World

_LONGEST_SECONDS = 300.0
"""Of virtual time, between two changes that the script waits for."""


class _HeldAgent(AgentProcess):
    """An agent that holds its gradient back."""

    held: session.Learn | None = None

    def learn(self, command: session.Learn) -> None:
        """Learns at once."""
        assert self.held is None, "one round is learnt at a time"
        self._around.witness.learns(self, command.round, command.basis)
        self.held = command

    def send_held(self) -> None:
        """The gradient is ready now."""
        command, self.held = self.held, None
        assert command is not None
        contribution = toy.contribution(self.agents, command.round, command.basis)
        self.do(lambda: self.post(session.GradientReady(GradientUpload(command.round, contribution))))


class PlayedStage(World):
    """Stage of simulated processes. An agent that has left is not started again."""

    agent_class = _HeldAgent

    def __init__(self, script: Script) -> None:
        self._away: set[str] = set()
        settings = Settings(
            processes=(1,) * AGENTS, rounds=script.rounds, min_cohort=script.min_cohort, inflight_rounds=2
        )
        super().__init__(Plan(script.seed, settings))
        self._since = 0.0

    def _agent_ended(self, index: int, process: AgentProcess) -> None:
        if names()[index] in self._away:
            del self.agents[index]
        else:
            super()._agent_ended(index, process)

    @property
    def standing(self) -> Standing | None:
        """As the coordinator's machine has it."""
        if self.coordinator is None or self.coordinator.state.phase is not RunPhase.COLLECTING:
            return None
        state = self.coordinator.state
        current = state.open_round
        present = frozenset(state.members.hosts)
        durable, awaited = state.durability.durable_round, frozenset(current.awaited)
        return Standing(state.round, durable, present, awaited, frozenset(current.counted))

    @property
    def learnt(self) -> dict[str, int]:
        """Who holds a gradient back."""
        agents = [process for process in self.agents.values() if isinstance(process, _HeldAgent)]
        return {process.agents[0]: process.held.round for process in agents if process.held is not None}

    @property
    def is_over(self) -> bool:
        """Whether all rounds are stored."""
        return self.finished

    def happen(self) -> None:
        """The next event."""
        self._next()
        assert self.timeline.now - self._since < _LONGEST_SECONDS, f"the script waits in vain: {self.standing}"

    def _agent(self, agent: str) -> _HeldAgent:
        self._since = self.timeline.now
        process = self.agents[names().index(agent)]
        assert isinstance(process, _HeldAgent)
        return process

    def send(self, agent: str) -> None:
        """Its gradient is ready."""
        self._agent(agent).send_held()

    def start(self, agent: str) -> None:
        """One that was killed is started again in a moment; one that has left is started now."""
        if agent in self._away:
            self._away.discard(agent)
            self._start_agent(names().index(agent))

    def kill(self, agent: str) -> None:
        """Its connection is reset."""
        self._agent(agent).die()

    def leave(self, agent: str) -> None:
        """In order."""
        process = self._agent(agent)
        self._away.add(agent)
        process.do(lambda: process.post(session.StopRequested("a script says so", returning=True)))

    def restart_coordinator(self, meanwhile: Callable[[], None]) -> None:
        """It is started again in a moment."""
        self._since = self.timeline.now
        self._kill_coordinator()
        meanwhile()

    def ended(self) -> Ended:
        """Of the simulated disk."""
        return tuple(
            (tuple(sorted(record.contributors)), hashlib.sha256(record.move.basis.tobytes()).hexdigest())
            for record in self.disk.store.rounds
        )
