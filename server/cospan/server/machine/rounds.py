"""The part of the coordinator's machine that knows rounds: what opens one, what counts in it, and when it closes.

A round is stored before anybody is told of it, or while the next one is under way where a restart would come to the
same bits: with full participation and the same contributors as the round before, which are on the disk, all of
them here to send again. So does the next one after that, up to `cospan.wire.limits.rounds_ahead` of them. After a
restart no other agent takes part in the rounds that a returning agent was told of. With a quorum every round is
stored before it is told.
"""

from collections.abc import Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Any

from cospan.core.aggregation.basis_update import BasisMove, Contribution
from cospan.core.run_fields import Participation
from cospan.server.machine.collections.agent_set import NOBODY, AgentSet, Block
from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.server.machine.events import (
    BasisComputed,
    Broadcast,
    Command,
    ComputeBasis,
    EndRun,
    GradientArrived,
    Note,
    OfOneRound,
    ReportRound,
    RoundRecord,
    RoundsStored,
    Send,
    StoreRound,
)
from cospan.server.machine.quorum import deadline_seconds, needed, with_round
from cospan.server.machine.round_timeout import with_first
from cospan.server.machine.sessions import Session
from cospan.server.machine.state import CoordinatorState
from cospan.server.machine.transition import Outcome, session_of
from cospan.wire.errors import InvalidMessageError, OutOfTurnError
from cospan.wire.messages import (
    AgentPhase,
    BasisUpdate,
    Disposition,
    Finish,
    FinishCause,
    GradientUpload,
    Receipt,
    RunPhase,
    Stamp,
)

# Opening ------------------------------------------------------------------------------------------------------


def start_if_complete(state: CoordinatorState, now: float) -> Outcome:
    """Opens the round that waits for its agents, once they are all here, or back."""
    if state.phase is not RunPhase.WAITING or not _fleet_is_here(state, now):
        return state, ()
    return start(state, now)


def start(state: CoordinatorState, now: float) -> Outcome:
    """Opens the round that waits for its agents with those that are here."""
    kind = "run-resumed" if state.started else "run-started"
    # Only rounds of full participation run ahead of the disk (`_may_run_ahead`), so only they have to be repeated.
    repeats = state.specification.participation is Participation.ALL
    complete = repeats and bool(state.expected) and state.expected <= connected(state)
    # Who was there before is back, and sends what it sent before: so the round comes to the same bits.
    expected = state.expected if complete else frozenset()
    state = replace(open_round(state, now), started=True, expected=expected)
    if complete:
        told = min(state.told, state.round + state.most_ahead)
        state = _frozen(replace(state, frozen_until=max(told, state.round + 1)))
    started = Note(kind, state.round, tuple(sorted(state.hosts)))
    return state, (Broadcast(BasisUpdate(state.stamp, state.basis)), started)


def _frozen(state: CoordinatorState) -> CoordinatorState:
    """The state whose open round nobody takes part in but those who did before the restart."""
    others = tuple(state.awaited.names - state.expected)
    return replace(state, frozen=True, awaited=state.awaited.remove(others))


def _fleet_is_here(state: CoordinatorState, now: float) -> bool:
    # Asked at every join: most of the time the answer is no, and there are many sessions to look at.
    if not state.expected:
        enough = state.specification.agents
        return len(state.hosts) >= enough and len(connected(state)) >= enough
    late = now - state.phase_since >= state.return_seconds
    back = sum(_are_connected(state, (agent,)) for agent in state.expected)
    return back >= needed(state.specification, len(state.expected)) or (late and bool(connected(state)))


def connected(state: CoordinatorState) -> frozenset[str]:
    """The agents whose streams are open."""
    sessions = (session for session in state.sessions.values() if session.phase is AgentPhase.CONNECTED)
    return frozenset(agent for session in sessions for agent in session.agent_ids)


def open_round(state: CoordinatorState, now: float) -> CoordinatorState:
    """The state with an open round that awaits everybody who is here."""
    return state.evolve(**_opened(state, now))


def _opened(state: CoordinatorState, now: float) -> dict[str, Any]:
    """What is new with a round that has just been opened."""
    return {
        "phase": RunPhase.COLLECTING,
        "phase_since": now,
        "awaited": state.everybody,
        "contributions": PersistentMap(),
        "counted": NOBODY,
        "stale": {},
        "quorum_seconds": None,
        "computed": None,
        "frozen": False,
        "departed_in_round": (),
    }


# Gradients ----------------------------------------------------------------------------------------------------


def on_gradient(state: CoordinatorState, event: GradientArrived, now: float) -> Outcome:
    """Counters a gradient, or says why it does not count.

    Raises:
        RemoteError: it is not one that the session may send now; nothing has changed.
    """
    session = session_of(state, event.token)
    if state.phase is RunPhase.DRAINING:
        return state, ()  # the agent keeps it, and sends it again
    upload = event.upload
    agents = _summed_agents(session, upload)
    _check_gradient(state, session, upload, agents)
    session = session.heard(now)
    # Of those that are awaited together none has counted, and all take part: there is nothing to look up by name.
    if upload.round != state.round or not state.awaited.has(agents):
        disposition = _disposition(state, upload.round, agents)
        if disposition is not None:
            receipt = Receipt(state.stamp, upload.round, disposition)
            return state.with_session(session), (Send(event.token, receipt),)
        state = _evict_stale(state, upload.round, agents)
    counted, awaited = state.counted.add(agents), state.awaited.remove(agents)
    state = state.evolve(
        sessions=state.sessions.set(event.token, session),
        contributions=state.contributions.set(agents[0], upload.contribution),
        counted=counted if awaited else _in_one_order(counted, state.everybody),
        stale={**state.stale, agents: upload.round} if upload.round < state.round else state.stale,
        awaited=awaited,
        quorum_seconds=_quorum_seconds(state, len(counted), now),
        **with_first(state, now),
    )
    return close_if_complete(state, now)


def is_plain(state: CoordinatorState, token: str, upload: GradientUpload) -> bool:
    """Whether a gradient is what the open round waits for, of all of its session's agents, and there is no quorum.

    Several such may be counted as one change: nothing but the last that is awaited can close the round.
    """
    session = state.sessions.get(token)
    return (
        session is not None
        and upload.round == state.round
        and state.phase is RunPhase.COLLECTING
        and state.specification.participation is Participation.ALL
        and _summed_agents(session, upload) is session.agent_ids
        and upload.contribution.weight == len(session.agent_ids)
        and state.awaited.has(session.agent_ids)
    )


def on_plain_gradients(state: CoordinatorState, uploads: Mapping[str, GradientUpload], now: float) -> Outcome:
    """What `on_gradient` does for one after another, for all of them at once.

    A state is cheap to change, and yet with a gradient each the changes were half of what the machine costs.

    Args:
        state: in which each of them is plain.
        uploads: token → gradient; one or more.
        now: the time, in seconds.
    """
    sessions, blocks, summed, heard = state.sessions, list[Block](), dict[str, Contribution](), dict[str, Session]()
    for token, upload in uploads.items():
        session = sessions[token]
        blocks.append(session.agent_ids)
        summed[session.agent_ids[0]] = upload.contribution
        after = session.heard(now)
        if after is not session:
            heard[token] = after
    whole = not state.contributions and len(blocks) == state.awaited.block_count
    counted = state.awaited if whole else state.counted.add_all(blocks)
    awaited = NOBODY if whole else state.awaited.remove_blocks(blocks)
    state = state.evolve(
        sessions=sessions.update(heard) if heard else sessions,
        contributions=state.contributions.update(summed),
        counted=counted if awaited else _in_one_order(counted, state.everybody),
        awaited=awaited,
        **with_first(state, now),
    )
    return close_if_complete(state, now)


def _in_one_order(counted: AgentSet, everybody: AgentSet) -> AgentSet:
    """The set of a round that awaits nobody any more, in an order that does not depend on who came first.

    Where all processes have counted as a whole it is `everybody` itself: the same from round to round, which costs
    nothing to compare.
    """
    if counted is everybody:
        return everybody
    if counted.block_count == everybody.block_count and all(map(counted.has, everybody.blocks)):
        return everybody
    return AgentSet(sorted(counted.blocks))


def _summed_agents(session: Session, upload: GradientUpload) -> Block:
    """The agents that an upload sums over; where it is all of its session's, the session's own tuple of them."""
    if not upload.agent_ids or upload.agent_ids == session.agent_ids:
        return session.agent_ids
    return upload.agent_ids


def _check_gradient(state: CoordinatorState, session: Session, upload: GradientUpload, agents: Block) -> None:
    if agents is not session.agent_ids and not set(agents) <= set(session.agent_ids):
        foreign = sorted(set(agents) - set(session.agent_ids))[0]
        raise InvalidMessageError(f"gradient.agent_ids names {foreign!r}, which this process does not host")
    if upload.contribution.weight != len(agents):
        raise InvalidMessageError(
            f"gradient.weight is {upload.contribution.weight:g}; the sum is over {len(agents)} agents"
        )
    if state.phase is RunPhase.WAITING or upload.round > state.round:
        raise OutOfTurnError(
            f"a gradient of round {upload.round} came while round {state.round} is "
            f"{'not open yet' if state.phase is RunPhase.WAITING else 'open'}; wait for its basis"
        )


def _disposition(state: CoordinatorState, round_number: int, agents: Block) -> Disposition | None:
    """What becomes of a gradient that does not count; None for one that does."""
    if _has_counted(state, round_number, agents):
        return Disposition.DUPLICATE
    if state.phase is not RunPhase.COLLECTING or (state.frozen and not state.expected.issuperset(agents)):
        return Disposition.LATE
    fresh = round_number == state.round
    return None if fresh or _counts_though_stale(state, round_number, agents) else Disposition.LATE


def _has_counted(state: CoordinatorState, round_number: int, agents: Block) -> bool:
    """Whether the gradients of all these agents of that round have counted."""
    if round_number != state.round:
        return state.accepted.get(round_number, NOBODY).covers(agents)
    stands_in = any(not set(agents).isdisjoint(stale) for stale in state.stale)  # one of an earlier round
    return state.counted.covers(agents) and not stands_in


def _counts_though_stale(state: CoordinatorState, round_number: int, agents: Block) -> bool:
    """A gradient of an earlier round stands in for its agents' newest, until that comes."""
    spec = state.specification
    if state.round - round_number > spec.max_staleness or state.frozen:
        return False
    # In a warm-up the payload means something else in every round.
    warming_up = spec.method.warms_up_in(round_number) or spec.method.warms_up_in(state.round)
    accepted = state.accepted.get(round_number, NOBODY)
    return not warming_up and accepted.isdisjoint(agents) and state.counted.isdisjoint(agents)


def _evict_stale(state: CoordinatorState, round_number: int, agents: Block) -> CoordinatorState:
    """The state without the stale contributions that a newer one of these agents takes the place of.

    Raises:
        InvalidMessageError: some of them have counted, with what does not give way.
    """
    for stale in state.stale:
        if not set(stale).isdisjoint(agents):
            state = _without_stale(state, stale)
    overlap = state.counted.intersection(agents)
    if overlap:
        raise InvalidMessageError(
            f"the gradient of round {round_number} sums over {sorted(overlap)[0]!r}, whose gradient has counted"
        )
    return state


def _without_stale(state: CoordinatorState, agents: Block) -> CoordinatorState:
    """The state without a stale contribution; those of its agents that are here are awaited again."""
    awaited = state.awaited
    for name in agents:
        awaited = awaited.add((name,)) if name in state.hosts else awaited
    return replace(
        state,
        contributions=state.contributions.remove(agents[0]),
        stale={key: number for key, number in state.stale.items() if key != agents},
        counted=state.counted.remove(agents),
        awaited=awaited,
    )


def _quorum_seconds(state: CoordinatorState, counted: int, now: float) -> float | None:
    """How long the round took to have its quorum, once `counted` agents make one."""
    if state.quorum_seconds is not None or state.specification.participation is Participation.ALL:
        return state.quorum_seconds
    taking_part = len(state.awaited) + len(state.counted)
    return now - state.phase_since if counted >= needed(state.specification, taking_part) else None


# Closing ------------------------------------------------------------------------------------------------------


def stragglers_wait_until(state: CoordinatorState) -> float | None:
    """When a round that has its quorum closes without those it still awaits; None where it has none, or no need."""
    if state.quorum_seconds is None or state.frozen or not state.awaited or state.is_ahead:
        return None
    if len(state.counted) < needed(state.specification, len(state.awaited) + len(state.counted)):
        return None  # others have joined since
    return state.phase_since + deadline_seconds(state.specification, state.pace)


def close_if_complete(state: CoordinatorState, now: float) -> Outcome:
    """Closes the open round when it has what it waits for."""
    if state.phase is not RunPhase.COLLECTING or not state.contributions or state.is_ahead:
        return state, ()
    if state.awaited:
        until = stragglers_wait_until(state)
        if until is None or now < until:
            return state, ()
    command = ComputeBasis(state.round, state.basis, _in_agent_order(state), state.row_squares)
    commands: tuple[Command, ...] = (command,)
    absent = state.awaited
    if absent and absent - state.absent:
        text = "the round closed without it; it had its quorum, and its deadline was over"
        commands += (Note("agent-absent", state.round, tuple(sorted(absent - state.absent)), text),)
    return state.evolve(phase=RunPhase.CLOSING, awaited=NOBODY, absent=absent), commands


def _in_agent_order(state: CoordinatorState) -> tuple[Contribution, ...]:
    """The one order in which a round is summed: so the result does not depend on who came first."""
    return tuple(contribution for _, contribution in sorted(state.contributions.items(), key=itemgetter(0)))


def on_basis(state: CoordinatorState, event: BasisComputed, now: float) -> Outcome:
    """The arithmetic is done: the round is stored, and everybody told at once where that is safe."""
    if state.phase is not RunPhase.CLOSING or event.round != state.round or state.computed is not None:
        return state, ()  # the run was stopped while the arithmetic went on
    state, noted = _with_outliers(state, event.move)
    noted = (*_left_out(state, event), *noted)
    ahead = _may_run_ahead(state)
    store = StoreRound(_record(state, event.move, now), told=ahead)
    if not ahead:
        return state.evolve(computed=event.move), (store, *noted)
    state = _advanced(state, event.move, now)
    return state, (Broadcast(BasisUpdate(state.stamp, state.basis)), store, *noted)


def _left_out(state: CoordinatorState, event: BasisComputed) -> tuple[Command, ...]:
    """Names those whose gradients the round could not be computed with."""
    if not event.left_out:
        return ()
    ordered = sorted(state.counted.blocks)
    agents = tuple(agent for place in event.left_out for agent in ordered[place])
    return (Note("gradients-left-out", state.round, agents, f"the arithmetic fails with them: {event.problem}"),)


def _with_outliers(state: CoordinatorState, move: BasisMove) -> Outcome:
    """The state that knows whose gradients are outliers in the round that closes; news of it is noted."""
    if not move.outliers:
        return (replace(state, outliers=NOBODY) if state.outliers else state), ()
    ordered = sorted(state.counted.blocks)
    found = AgentSet(ordered[index] for index in move.outliers)
    noted: tuple[Command, ...] = ()
    if found - state.outliers:
        text = "its gradient is far from those of the others, and hardly counts"
        noted = (Note("agent-outlier", state.round, tuple(sorted(found - state.outliers)), text),)
    counts = state.outlier_rounds.add(found, state.round)
    return replace(state, outliers=found, outlier_rounds=counts), noted


def on_stored(state: CoordinatorState, event: RoundsStored, now: float) -> Outcome:
    """Rounds are durable: the next one may close, and who was not told yet is told."""
    commands: tuple[Command, ...] = ()
    for record in event.records:
        if record.closed_round == state.durable_round:
            state, more = _on_one_stored(state, record, now)
            commands += more
    state, more = close_if_complete(state, now)
    return state, commands + more


def _on_one_stored(state: CoordinatorState, record: RoundRecord, now: float) -> Outcome:
    if record.closed_round < state.round:  # it was told before
        return state.evolve(durable_round=record.closed_round + 1), (ReportRound(record.report, record.closed),)
    if state.computed is None:
        return state, ()  # the coordinator went down meanwhile; nobody is told of this round any more
    state = _advanced(state, state.computed, now, durable=True)
    report = ReportRound(record.report, record.closed)
    if state.round == state.specification.rounds:
        text = f"all {state.round} rounds are done"
        state, commands = finish(state, FinishCause.ROUNDS_REACHED, text, now)
        return state, (report, *commands)
    return state, (Broadcast(BasisUpdate(state.stamp, state.basis)), report)


def _may_run_ahead(state: CoordinatorState) -> bool:
    """Whether a restart would close this round with the same contributors, from what is on the disk alone.

    Never with a quorum: it exists for agents that fail, and one that fails together with the coordinator cannot
    send its gradient again, so the repeated round would come to another basis than agents were told.
    """
    if state.specification.participation is not Participation.ALL:
        return False
    if state.counted != state.last_contributors or state.stale or state.round + 1 == state.specification.rounds:
        return False
    if not state.departed_in_round and all(map(_is_connected, state.sessions.values())):
        return True  # all who are here are, and all who have counted are still here
    return all(_are_connected(state, agents) for agents in state.counted.blocks)


def _is_connected(session: Session) -> bool:
    return session.phase is AgentPhase.CONNECTED


def _are_connected(state: CoordinatorState, agents: Block) -> bool:
    """Whether the streams of all these agents are open. A group's sum is of its session's own names, mostly."""
    first = state.sessions.get(state.hosts.get(agents[0], ""))
    if first is not None and first.agent_ids is agents:
        return first.phase is AgentPhase.CONNECTED
    sessions = (state.sessions.get(state.hosts.get(agent, "")) for agent in agents)
    return all(session is not None and session.phase is AgentPhase.CONNECTED for session in sessions)


def _record(state: CoordinatorState, move: BasisMove, now: float) -> RoundRecord:
    """What is stored of the round that closes."""
    after = state.round + 1
    contributors: Mapping[str, int] = OfOneRound(state.counted, state.round)
    if state.stale:
        stale = ((name, number) for agents, number in state.stale.items() for name in agents)
        contributors = {**contributors, **dict(stale)}
    return RoundRecord(
        stamp=Stamp(state.run_id, state.incarnation, after, after),
        contributors=contributors,
        weight=sum(contribution.weight for contribution in state.contributions.values()),
        move=move,
        closed=now,
        seconds=now - state.phase_since,
        departed_agent_ids=state.departed_in_round,
        absent_agent_ids=tuple(sorted(state.absent)) if state.absent else (),
        outlier_agent_ids=tuple(sorted(state.outliers)) if state.outliers else (),
        finished=after == state.specification.rounds,
    )


def _advanced(state: CoordinatorState, move: BasisMove, now: float, *, durable: bool = False) -> CoordinatorState:
    """The state in which the next round is open."""
    closed, counted = state.round, state.counted
    stays_frozen = state.frozen and closed + 1 < state.frozen_until and counted == state.expected
    pace = state.pace
    if state.quorum_seconds is not None and state.specification.deadline_seconds == 0.0:
        pace = with_round(pace, state.quorum_seconds)
    state = state.evolve(
        basis=move.basis,
        row_squares=move.row_squares,
        round=closed + 1,
        durable_round=closed + 1 if durable else state.durable_round,
        accepted=_accepted(state),
        last_contributors=counted,
        expected=state.expected if stays_frozen else frozenset(),
        pace=pace,
        rounds_counted=state.rounds_counted.add(counted, closed),
        absent_rounds=state.absent_rounds.add(state.absent, closed),
        **_opened(state, now),
    )
    return _frozen(state) if stays_frozen else state


def _accepted(state: CoordinatorState) -> dict[int, AgentSet]:
    """Whose gradients have counted, by the round of the gradient; so far back as a duplicate is told from news."""
    oldest = state.round + 1 - max(1, state.specification.max_staleness)
    known = {number: names for number, names in state.accepted.items() if number >= oldest}
    fresh = state.counted
    for agents, number in state.stale.items():
        fresh = fresh.remove(agents)
        if number >= oldest:
            known[number] = known.get(number, NOBODY).add(agents)
    known[state.round] = fresh
    return known


# The end ------------------------------------------------------------------------------------------------------


def finish(state: CoordinatorState, cause: FinishCause, message: str, now: float) -> Outcome:
    """Ends the run; everybody is told."""
    if state.phase in (RunPhase.FINISHED, RunPhase.DRAINING):
        return state, ()
    state = replace(
        state,
        phase=RunPhase.FINISHED,
        phase_since=now,
        finish_cause=cause,
        awaited=NOBODY,
        contributions=PersistentMap(),
        counted=NOBODY,
        stale={},
        computed=None,
        frozen=False,
        deserted_since=None,
    )
    told = Finish(state.stamp, cause, message, state.basis)
    return state, (Broadcast(told), Note("run-finished", state.round, (), message), EndRun(cause, message))
