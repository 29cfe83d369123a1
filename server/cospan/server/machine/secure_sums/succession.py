"""A session that takes the place of another in an open round of secure sums.

A relay joins again when its agents change, and one that was started again joins with those that have come back.
The members of the open round are fixed; but where all members of the former session are in the new one, nothing
that masks depend on has changed, and the vector of that session is that of the same members. So the round still
waits for it. Without this, every agent that joins a relay would void a round.
"""

from cospan.server.machine.secure_sums.epochs import with_session
from cospan.server.machine.state import CoordinatorState


def with_successor(state: CoordinatorState, former: CoordinatorState, token: str) -> CoordinatorState:
    """The state whose open round awaits of a new session what it awaited of the one that the session has displaced.

    Where the session lacks a member of that one, or has displaced two, the round stays without them, and is void.

    Args:
        state: with the new session.
        former: the state before its join.
        token: of the new session.
    """
    epoch, offer = former.open_round.epoch, state.members.offers.get(token)
    if epoch is None or offer is None:
        return state
    hosts, agents = former.members.hosts, state.members.sessions[token].agent_ids
    displaced = epoch.tokens.intersection(hosts[agent] for agent in agents if agent in hosts)
    if len(displaced) != 1:
        return state
    (before,) = displaced
    if not set(former.members.offers[before].members) <= set(offer.members):
        return state
    current, back = state.open_round, set(former.members.sessions[before].agent_ids)
    # The members that it has in the round: it may have brought others since, when it took the place of another.
    block = next((block for block in former.open_round.awaited.blocks if back.issuperset(block)), None)
    return state.evolve(
        open_round=current.evolve(
            epoch=with_session(epoch, before, token, offer),
            awaited=current.awaited if block is None else current.awaited.add(block),
            departed=tuple(agent for agent in current.departed if agent not in back),
        )
    )
