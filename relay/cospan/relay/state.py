"""The relay's state: frozen values, which `machine.step` replaces and never writes to."""

from dataclasses import dataclass, field, replace

from cospan.core.specification import RunSpecification
from cospan.relay.members import Offered
from cospan.server.machine.state import CoordinatorState
from cospan.wire.messages import RunPhase, Stamp


@dataclass(frozen=True, eq=False)
class RelayState:
    """The whole state of a relay."""

    fleet: CoordinatorState
    """Its agents and their round, as a coordinator knows them. WAITING: the coordinator has opened no round for it.
    CLOSING: the sum is sent, and the coordinator opens the next round. To the fleet every earlier round is durable;
    `durable_round` has the truth."""
    specification: RunSpecification
    """Of the run, as its agents receive it; the fleet's own has a shorter `round_timeout_seconds`."""
    gather_agents: int
    """It joins at once when it hosts this many agents."""
    level: int = 1
    """Number of relays between its agents and the coordinator, itself included."""
    names: tuple[str, ...] = ()
    """The agents with which it last joined the coordinator, sorted."""
    confirmed: frozenset[str] = frozenset()
    """Those of them that the coordinator has welcomed."""
    unwelcomed: frozenset[str] = frozenset()
    """Tokens of the sessions that wait for that."""
    durable_round: int = 0
    """The coordinator's, from its newest message."""
    asking_at: float | None = None
    """When it joins with other names; None if the coordinator knows them."""
    offered: Offered = field(default_factory=Offered)
    """With secure sums: the members with which it last joined."""

    @property
    def stamp(self) -> Stamp:
        """The coordinator's, up to the round that the agents know."""
        fleet = self.fleet
        config = fleet.config
        return Stamp(config.run_id, config.incarnation, fleet.round, min(self.durable_round, fleet.round))

    @property
    def shown(self) -> CoordinatorState:
        """The fleet as agents and observers see it."""
        durability = self.fleet.durability.evolve(durable_round=self.stamp.durable_round)
        return self.fleet.evolve(specification=self.specification, durability=durability)

    def check(self) -> None:
        """Raises AssertionError if an invariant is violated; tests call it after every event."""
        self.fleet.check()
        ours = replace(self.fleet.specification, round_timeout_seconds=self.specification.round_timeout_seconds)
        assert ours == self.specification, "only round_timeout_seconds differs from the run's specification"
        assert list(self.names) == sorted(set(self.names)), "names are sorted and distinct"
        assert self.confirmed <= set(self.names), "only agents of the last join are confirmed"
        assert self.unwelcomed <= set(self.fleet.members.sessions), "only existing sessions wait for a welcome"
        collecting = self.fleet.phase in (RunPhase.COLLECTING, RunPhase.CLOSING)
        assert not collecting or self.fleet.members.sessions, "no round is open without agents"
        for token, session in self.fleet.members.sessions.items():
            known = token in self.unwelcomed or self.confirmed.issuperset(session.agent_ids)
            assert known, "no session is welcomed before the coordinator confirms its agents"
        if self.specification.secure_sums:
            offered = [agent for member in self.offered.offer.members for agent in member.agent_ids]
            assert sorted(offered) == list(self.names), "every agent of the last join is of one member"
        for agents in self.fleet.open_round.counted.blocks:
            assert set(agents) <= set(self.names), "only agents of the last join are summed"
