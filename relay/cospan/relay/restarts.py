"""What a welcome shows of a coordinator that was started again, and what follows for the relay's agents.

An agent without a relay learns of it from the welcome that it receives itself. Behind a relay its stream stays
open, so the relay has to see to it.
"""

from cospan.relay.state import RelayState
from cospan.server.machine.events import CloseStream
from cospan.server.machine.state import CoordinatorState, OpenRound
from cospan.wire.errors import DrainingError
from cospan.wire.messages import AgentPhase, RunPhase, Welcome


def streams_to_close(state: RelayState, welcome: Welcome) -> tuple[CloseStream, ...]:
    """Ends the streams of welcomed agents if the coordinator resumed an older copy of its store.

    Its incarnation may be that of the coordinator before it, or a lower one. An agent accepts that from a welcome
    alone, which says when the coordinator was started; any other message shows it a damaged coordinator.

    Args:
        state: before the welcome.
        welcome: of the relay by its coordinator.
    """
    config, stamp = state.fleet.config, welcome.stamp
    later = welcome.coordinator_started > config.coordinator_started > 0.0
    if not later or stamp.run_id != config.run_id or stamp.incarnation > config.incarnation:
        return ()
    error = DrainingError("the coordinator was started again from an older copy of its store; join again")
    return tuple(
        CloseStream(session.stream, error)
        for token, session in state.fleet.members.sessions.items()
        if token not in state.unwelcomed and session.phase is AgentPhase.CONNECTED
    )


def without_first_round(fleet: CoordinatorState, welcome: Welcome) -> CoordinatorState:
    """The fleet without the round that it has open, if the coordinator waits for agents before its first round.

    While a sum is on its way the relay joins with no new agents, and the coordinator may wait for just these. It
    has stored no round, so it repeats none; `cospan.client.session.machine` forgets the sum likewise. With secure
    sums agents are added at any time, and a vector is sent once.
    """
    waits = not welcome.started and not welcome.stamp.round and not welcome.specification.secure_sums
    if not waits or fleet.phase not in (RunPhase.COLLECTING, RunPhase.CLOSING):
        return fleet
    return fleet.evolve(phase=RunPhase.WAITING, open_round=OpenRound())
