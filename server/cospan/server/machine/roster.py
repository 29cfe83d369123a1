"""How many agents a run remembers: all who are here, those who went, and who had which site. Pure.

A peer may join under one new name after the other; each is remembered, shown in reports and stored. So there is a
bound, far above what a fleet of the specification's size needs.
"""

from cospan.core.specification import RunSpecification
from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.server.machine.sessions import Seat
from cospan.server.machine.state import CoordinatorState
from cospan.wire.errors import TooManyAgentsError
from cospan.wire.limits import most_known_agents


def most_agents(specification: RunSpecification) -> int:
    """How many agents a run remembers, and how many holders of sites."""
    return most_known_agents(specification.agents)


def check_room(state: CoordinatorState, agent_ids: tuple[str, ...]) -> None:
    """Sees to it that these agents may join, as far as their number goes.

    Raises:
        TooManyAgentsError: with them the run would have known too many.
    """
    new = sum(1 for agent in agent_ids if agent not in state.hosts and agent not in state.departures)
    known, most = len(state.hosts) + len(state.departures), most_agents(state.specification)
    if new and known + new > most:
        raise TooManyAgentsError(
            f"this run has had {known} agents, and with {new} more it would be above {most}; use names that it "
            "knows, or begin a run of more agents"
        )


def remembered(seats: PersistentMap[str, Seat], specification: RunSpecification) -> PersistentMap[str, Seat]:
    """The newest seats; of the oldest holders it is forgotten which site they had."""
    surplus = max(0, len(seats) - most_agents(specification))
    return seats.remove(*list(seats)[:surplus]) if surplus else seats
