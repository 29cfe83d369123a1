"""What a relay knows: plain frozen values, written only by `machine.step`."""

from dataclasses import dataclass, replace

from cospan.core.specification import RunSpecification
from cospan.server.machine.state import CoordinatorState
from cospan.wire.messages import RunPhase, Stamp


@dataclass(frozen=True, eq=False)
class RelayState:
    """The whole state of a relay.

    Attributes:
        fleet: its agents and their round, as a coordinator knows them. WAITING: the coordinator has opened no round
            for it. CLOSING: the sum is made, and the next round is the coordinator's to open. Earlier rounds are
            durable, as far as the fleet is concerned: what they really are is in `durable_round`.
        specification: of the run, as agents are given it; the fleet's own has a shorter `round_timeout_seconds`.
        gather_agents: with how many agents it joins at once.
        level: how many levels it is below the coordinator; 1 where that is no relay.
        names: the agents whose host the coordinator was last asked to take it for, sorted.
        confirmed: those of them that the coordinator has welcomed.
        unwelcomed: tokens of sessions whose welcome waits for that.
        durable_round: what the coordinator last said of it.
        asking_at: when the coordinator is to be told of other names; None where it knows them.
    """

    fleet: CoordinatorState
    specification: RunSpecification
    gather_agents: int
    level: int = 1
    names: tuple[str, ...] = ()
    confirmed: frozenset[str] = frozenset()
    unwelcomed: frozenset[str] = frozenset()
    durable_round: int = 0
    asking_at: float | None = None

    @property
    def stamp(self) -> Stamp:
        """The coordinator's, as far as the agents have been told."""
        fleet = self.fleet
        return Stamp(fleet.run_id, fleet.incarnation, fleet.round, min(self.durable_round, fleet.round))

    @property
    def shown(self) -> CoordinatorState:
        """The fleet, as agents and onlookers may see it."""
        return self.fleet.evolve(specification=self.specification, durable_round=self.stamp.durable_round)

    def check(self) -> None:
        """Raises AssertionError where an invariant does not hold; called by tests after every event."""
        self.fleet.check()
        ours = replace(self.fleet.specification, round_timeout_seconds=self.specification.round_timeout_seconds)
        assert ours == self.specification, "but for the time for a round the specification is the run's"
        assert list(self.names) == sorted(set(self.names)), "names are sorted, and each is there once"
        assert self.confirmed <= set(self.names), "only whom the coordinator was asked for is confirmed"
        assert self.unwelcomed <= set(self.fleet.sessions), "only who is here waits for a welcome"
        collecting = self.fleet.phase in (RunPhase.COLLECTING, RunPhase.CLOSING)
        assert not collecting or self.fleet.sessions, "no round is open without agents"
        for token, session in self.fleet.sessions.items():
            known = token in self.unwelcomed or self.confirmed.issuperset(session.agent_ids)
            assert known, "no agent is welcomed before the coordinator knows it"
        for agents in self.fleet.counted.blocks:
            assert set(agents) <= set(self.names), "no agent is in a sum that the coordinator does not know"
