"""Who has a session after a join, and what it is told; and when a run ends for want of agents."""

from collections.abc import Iterable, Sequence

from cospan.server.machine import events
from cospan.server.machine.sessions import Session
from cospan.server.machine.state import CoordinatorState
from cospan.wire.errors import AgentIdTakenError, RemoteError
from cospan.wire.messages import AgentMessage, AgentPhase, FinishCause, Join, RunPhase, Welcome

_OPEN = (RunPhase.COLLECTING, RunPhase.CLOSING)
_JOINABLE = (RunPhase.WAITING, *_OPEN)


def check_membership(
    before: CoordinatorState, event: events.Event, state: CoordinatorState, commands: Sequence[events.Command]
) -> None:
    """Holds a step against what a join, and a leave, may lead to."""
    if isinstance(event, events.JoinRequested):
        _check_join(before, event, state, commands)
    is_deserted = state.phase in _OPEN and not state.members.sessions
    assert (state.members.deserted_since is not None) == is_deserted, "a run is deserted when no agent is there"
    for command in commands:
        if isinstance(command, events.EndRun) and command.cause is FinishCause.NO_AGENTS:
            left = isinstance(event, events.LeaveArrived) and not event.returning and not state.members.sessions
            collecting = before.phase is RunPhase.COLLECTING
            assert isinstance(event, events.Tick) or (left and collecting), "a run ends, and its agents come back"


def _check_join(
    before: CoordinatorState,
    event: events.JoinRequested,
    state: CoordinatorState,
    commands: Sequence[events.Command],
) -> None:
    assert before.phase in _JOINABLE, "a process joins a run that is over, or a coordinator that goes down"
    join = event.join
    former = _own_session(before, join)
    assert former is not None or join.resumption is None, "a process resumes a session that is gone"
    token = former.token if former is not None else event.token
    session = state.members.sessions.get(token)
    assert session is not None, "a process has the session that it had, or a new one"
    assert session.agent_ids == join.agent_ids, "a session hosts the agents of its process"
    assert (session.stream, session.phase) == (event.stream, AgentPhase.CONNECTED), "a session is on its new stream"
    closed = {command.stream for command in commands if isinstance(command, events.CloseStream)}
    for other in before.members.sessions.values():
        gone = other.token not in state.members.sessions or other.token == token
        assert not gone or other.phase is AgentPhase.LOST or other.stream in closed, "an older stream is closed"
        taken = other.token != token and not set(join.agent_ids).isdisjoint(other.agent_ids)
        connected = other.phase is AgentPhase.CONNECTED and other.instance_id != join.instance_id
        assert not (taken and connected), "the agents of a connected process are not taken from it"
    welcomes = [each for each in commands if isinstance(each, events.Send) and isinstance(each.message, Welcome)]
    assert [each.token for each in welcomes] == [token], "who joins is welcomed"
    opens = any(isinstance(command, events.Broadcast) for command in commands)
    _check_welcome(before, state, join, welcomes[0].message, opens=opens)
    fixed = state.specification.secure_sums  # then the members of an open round are
    if former is None and not opens and not fixed and state.phase is RunPhase.COLLECTING:
        current = state.open_round
        allowed = not current.replaying or state.durability.replay_agents.issuperset(join.agent_ids)
        wanted = allowed and current.counted.isdisjoint(join.agent_ids)
        assert current.awaited.isdisjoint(join.agent_ids) != wanted, "a round awaits who joins and can take part"


def check_refusal(sessions: Iterable[Session], message: AgentMessage, error: RemoteError) -> None:
    """Holds the refusal of a join against what is known: agents belong to a process as long as it is connected."""
    if isinstance(message, Join) and isinstance(error, AgentIdTakenError):
        others = (each for each in sessions if each.instance_id != message.instance_id)
        connected = (each for each in others if each.phase is AgentPhase.CONNECTED)
        taken = any(not set(message.agent_ids).isdisjoint(each.agent_ids) for each in connected)
        assert taken, "a process is refused agents that no other one has"


def _own_session(state: CoordinatorState, join: Join) -> Session | None:
    """The session that a process has already: it shows its token, or has not received the answer to a join.

    If a part of its agents counts in the open round, it had that answer, and does not know of this sum any more.
    """
    if join.resumption is not None:
        return state.members.sessions.get(join.resumption.session_token)
    sessions, current = state.members.sessions.values(), state.open_round
    if not current.awaited.isdisjoint(join.agent_ids) and not current.counted.isdisjoint(join.agent_ids):
        return None
    same = (each for each in sessions if (each.instance_id, each.agent_ids) == (join.instance_id, join.agent_ids))
    return next((each for each in same if _has_same_keys(state, each, join)), None)


def _has_same_keys(state: CoordinatorState, session: Session, join: Join) -> bool:
    """With other keys, as a relay brings them whose agents were started again, a process is another member."""
    known = state.members.offers.get(session.token)
    return known is None or known.keys == tuple(each.public_key for each in join.sum_members)


def _check_welcome(
    before: CoordinatorState, state: CoordinatorState, join: Join, welcome: object, *, opens: bool
) -> None:
    assert isinstance(welcome, Welcome)
    number = welcome.stamp.round
    assert welcome.started == (before.phase is not RunPhase.WAITING), "a welcome says whether a round is open"
    awaited = welcome.first_round == number
    assert awaited or welcome.first_round == number + 1, "a welcome names the open round, or the next"
    if not welcome.started:
        assert awaited, "who joins before a round is open takes part in it"
    elif not opens and state.phase is before.phase:
        assert awaited != state.open_round.awaited.isdisjoint(join.agent_ids), "who is awaited is told so"
