"""Closing rounds: when a round is complete, its result, its storage, and the end of the run."""

from collections.abc import Mapping
from operator import itemgetter

from cospan.core.aggregation.basis_update import BasisMove, Contribution
from cospan.core.run_fields import Participation
from cospan.server.machine import events
from cospan.server.machine.collections.agent_set import EMPTY_SET, AgentSet
from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.server.machine.opening import (
    announcement,
    are_connected,
    begin_round,
    fleet_is_ready,
    is_connected,
    restrict_to_replay,
    start,
    with_epoch,
)
from cospan.server.machine.quorum import deadline_seconds, required_gradients, update_pace
from cospan.server.machine.state import OVER, CoordinatorState, History, OpenRound, Outcome
from cospan.wire.messages import Drain, Finish, FinishCause, MaskedVector, RunPhase, Stamp


def quorum_deadline(state: CoordinatorState) -> float | None:
    """When a round that has its quorum closes without the awaited agents; None if it does not."""
    current = state.open_round
    full = state.specification.participation is Participation.ALL
    if full or current.replaying or not current.awaited or state.at_inflight_limit:
        return None
    # Not `quorum_seconds`: also a departure may make a quorum of the agents that have been counted.
    agents = len(current.awaited) + len(current.counted)
    if len(current.counted) < required_gradients(state.specification, agents):
        return None
    return state.phase_since + deadline_seconds(state.specification, state.history.quorum_pace)


def close_if_complete(state: CoordinatorState, now: float) -> Outcome:
    """Closes the open round if it awaits nothing, or its quorum's deadline has passed."""
    current = state.open_round
    if state.phase is not RunPhase.COLLECTING or state.at_inflight_limit:
        return state, ()
    if cause := _void_cause(current):
        return _void(state, cause, now)
    if not current.contributions:
        return state, ()
    absent, former = current.awaited, state.history.absent
    if absent:
        deadline = quorum_deadline(state)
        if deadline is None or now < deadline:
            return state, ()
    memory = state.history.step_memory
    command = events.ComputeBasis(
        state.round, state.basis, _sorted_contributions(state), memory, state.head_covariance
    )
    if not absent and not former:
        return state.evolve(phase=RunPhase.CLOSING), (command,)
    commands: tuple[events.Command, ...] = (command,)
    if absent - former:
        text = "the round closed without it; it had its quorum, and its deadline was over"
        commands += (events.Note("agent-absent", state.round, tuple(sorted(absent - former)), text),)
    current, history = current.evolve(awaited=EMPTY_SET), state.history.evolve(absent=absent)
    return state.evolve(phase=RunPhase.CLOSING, open_round=current, history=history), commands


def _void_cause(current: OpenRound) -> str:
    """Why a round can have no sum; empty where it may still have one."""
    if current.void_cause or current.epoch is None:
        return current.void_cause
    if len(current.awaited) + len(current.counted) == len(current.epoch.awaited):
        return ""
    return "a member of the epoch has departed before its vector came"


def _void(state: CoordinatorState, cause: str, now: float) -> Outcome:
    """Closes a round of secure sums without contributors; the basis, and all that belongs to it, do not change."""
    move = BasisMove(state.basis, state.basis, state.history.step_memory, head_covariance=state.head_covariance)
    current = state.open_round.evolve(
        awaited=EMPTY_SET,
        counted=EMPTY_SET,
        contributions=PersistentMap(),
        pending_basis=move,
        void_cause=cause,
    )
    state = state.evolve(phase=RunPhase.CLOSING, open_round=current)
    note = events.Note("round-void", state.round, current.departed, cause)
    return state, (events.StoreRound(_round_record(state, move, now)), note)


def reevaluate(state: CoordinatorState, now: float) -> Outcome:
    """After agents have departed: closes the round if it is complete without them.

    A replay that has lost all of its agents is abandoned: the round opens again for every agent that is present.
    """
    current = state.open_round
    abandoned = current.replaying and current.epoch is None and not current.awaited and not current.contributions
    return start(state, now) if abandoned and state.members.sessions else close_if_complete(state, now)


def _sorted_contributions(state: CoordinatorState) -> tuple[Contribution | MaskedVector, ...]:
    """In the order of agent ids, so that the sum does not depend on the order of arrival."""
    contributions = state.open_round.contributions.items()
    return tuple(contribution for _, contribution in sorted(contributions, key=itemgetter(0)))


# The result -----------------------------------------------------------------------------------------------------


def on_basis_computed(state: CoordinatorState, event: events.BasisComputed, now: float) -> Outcome:
    """Stores the round, and announces the next one at once if a restart would give the same bits."""
    if event.round != state.round or state.open_round.pending_basis is not None:
        return state, ()
    if event.void_cause:
        return _void(state, event.void_cause, now)
    noted = _note_left_out(state, event)
    state, more = _update_outliers(state, event.move)
    noted += more
    early = _may_announce_early(state)
    store = events.StoreRound(_round_record(state, event.move, now), announced=early)
    if not early:
        return state.evolve(open_round=state.open_round.evolve(pending_basis=event.move)), (store, *noted)
    state = _advance(state, event.move, now, durable_round=state.durability.durable_round)
    return state, (*announcement(state), store, *noted)


def on_basis_failed(state: CoordinatorState, event: events.BasisFailed, now: float) -> Outcome:
    """Ends the run: without a basis no round follows."""
    return finish(state, FinishCause.FAILED, event.message, now) if event.round == state.round else (state, ())


def _note_left_out(state: CoordinatorState, event: events.BasisComputed) -> tuple[events.Command, ...]:
    """Notes the agents whose gradients were left out of the result."""
    if not event.left_out:
        return ()
    ordered = sorted(state.open_round.counted.blocks)
    agents = tuple(agent for place in event.left_out for agent in ordered[place])
    return (
        events.Note("gradients-left-out", state.round, agents, f"the arithmetic fails with them: {event.problem}"),
    )


def _update_outliers(state: CoordinatorState, move: BasisMove) -> Outcome:
    """Records whose gradients are outliers in the closing round, and notes the new ones."""
    history = state.history
    if not move.outliers:
        return (state.evolve(history=history.evolve(outliers=EMPTY_SET)) if history.outliers else state), ()
    ordered = sorted(state.open_round.counted.blocks)
    found = AgentSet(ordered[index] for index in move.outliers)
    noted: tuple[events.Command, ...] = ()
    if found - history.outliers:
        text = "its gradient is far from those of the others, and hardly counts"
        noted = (events.Note("agent-outlier", state.round, tuple(sorted(found - history.outliers)), text),)
    counts = history.outlier_rounds.add(found, state.round)
    return state.evolve(history=history.evolve(outliers=found, outlier_rounds=counts)), noted


def _may_announce_early(state: CoordinatorState) -> bool:
    """Whether a restart would close this round with the same contributors, from what is stored already.

    Never with a quorum: it exists for agents that fail, and one that fails together with the coordinator cannot
    send its gradient again, so the repeated round would give another basis than was announced. Never with
    differential privacy: then a restart repeats one round at most, and each one that is repeated may cost a vector
    more.
    """
    current = state.open_round
    if state.specification.participation is not Participation.ALL or state.specification.is_private:
        return False
    last = state.round + 1 == state.specification.rounds
    if current.counted != state.history.last_contributors or current.stale or last:
        return False
    if not current.departed and all(map(is_connected, state.members.sessions.values())):
        return True  # every session is connected, and every counted agent is present
    return all(are_connected(state, agents) for agents in current.counted.blocks)


def _round_record(state: CoordinatorState, move: BasisMove, now: float) -> events.RoundRecord:
    """What is stored of the closing round."""
    after, current, config = state.round + 1, state.open_round, state.config
    absent, outliers = state.history.absent, state.history.outliers
    contributors: Mapping[str, int] = events.SameRound(current.counted, state.round)
    if current.stale:
        stale = ((name, number) for agents, number in current.stale.items() for name in agents)
        contributors = {**contributors, **dict(stale)}
    return events.RoundRecord(
        stamp=Stamp(config.run_id, config.incarnation, after, after),
        contributors=contributors,
        weight=sum(contribution.weight for contribution in current.contributions.values()),
        move=move,
        closed=now,
        seconds=now - state.phase_since,
        departed_agent_ids=current.departed,
        absent_agent_ids=tuple(sorted(absent)) if absent else (),
        outlier_agent_ids=tuple(sorted(outliers)) if outliers else (),
        finished=after == state.specification.rounds,
    )


# Storage, and the next round --------------------------------------------------------------------------------------


def on_rounds_stored(state: CoordinatorState, event: events.RoundsStored, now: float) -> Outcome:
    """Reports the rounds that have become durable, announces the one that waited for it, and closes the next."""
    commands: tuple[events.Command, ...] = ()
    for record in event.records:
        if record.closed_round == state.durability.durable_round:
            state, more = _on_round_stored(state, record, now)
            commands += more
    # The agents of a replay may have departed while the round before it closed.
    state, more = reevaluate(state, now)
    return state, commands + more


def _on_round_stored(state: CoordinatorState, record: events.RoundRecord, now: float) -> Outcome:
    report = events.ReportRound(record.report, record.closed)
    if record.closed_round < state.round:  # announced before
        return state.evolve(durability=state.durability.evolve(durable_round=record.closed_round + 1)), (report,)
    move = state.open_round.pending_basis
    if move is None:
        return state, ()  # the run ended meanwhile; the round is not announced any more
    state = _advance(state, move, now, durable_round=state.round + 1)
    if has_all_rounds(state):
        state, commands = finish_all_rounds(state, now)
        return state, (report, *commands)
    return state, (*announcement(state), report)


def _advance(state: CoordinatorState, move: BasisMove, now: float, *, durable_round: int) -> CoordinatorState:
    """The state in which the next round is open."""
    closed, current, durability = state.round, state.open_round, state.durability
    replays = (
        current.replaying and closed + 1 < durability.replay_until and current.counted == durability.replay_agents
    )
    if durable_round != durability.durable_round or (durability.replay_agents and not replays):
        agents = durability.replay_agents if replays else frozenset()
        durability = durability.evolve(durable_round=durable_round, replay_agents=agents)
    state = state.evolve(
        basis=move.basis,
        head_covariance=move.head_covariance,
        round=closed + 1,
        history=_update_history(state, move),
        durability=durability,
    )
    before = current.epoch
    opened = begin_round(state, now)
    if replays:
        repeated = with_epoch(restrict_to_replay(opened), before)
        if repeated.phase is not RunPhase.WAITING:
            return repeated
        # Too few for a sum, as where an agent has joined the relay of the others; maybe enough with those.
        opened = opened.evolve(durability=repeated.durability)
    return with_epoch(opened, before)


def _update_history(state: CoordinatorState, move: BasisMove) -> History:
    """The history with the closing round."""
    history, current = state.history, state.open_round
    pace = history.quorum_pace
    if current.quorum_seconds is not None and state.specification.deadline_seconds == 0.0:
        pace = update_pace(pace, current.quorum_seconds)
    return history.evolve(
        accepted=_update_accepted(state),
        last_contributors=current.counted,
        step_memory=move.step_memory,
        quorum_pace=pace,
        rounds_counted=history.rounds_counted.add(current.counted, state.round),
        absent_rounds=history.absent_rounds.add(history.absent, state.round),
    )


def _update_accepted(state: CoordinatorState) -> dict[int, AgentSet]:
    """Agents counted, by the round of their gradient, as far back as duplicates have to be recognized."""
    oldest = state.round + 1 - max(1, state.specification.max_staleness)
    accepted = {number: names for number, names in state.history.accepted.items() if number >= oldest}
    fresh = state.open_round.counted
    for agents, number in state.open_round.stale.items():
        fresh = fresh.remove(agents)
        if number >= oldest:
            accepted[number] = accepted.get(number, EMPTY_SET).add(agents)
    accepted[state.round] = fresh
    return accepted


# A run that waits for its agents ----------------------------------------------------------------------------------


def start_if_ready(state: CoordinatorState, now: float) -> Outcome:
    """Starts or resumes the run if it waits for agents, and enough of them are connected."""
    if state.phase is not RunPhase.WAITING or not fleet_is_ready(state, now):
        return state, ()
    return finish_all_rounds(state, now) if has_all_rounds(state) else start(state, now)


def has_all_rounds(state: CoordinatorState) -> bool:
    """Whether no round is left to open.

    A coordinator that is killed between the write of the last round and that of the end of its run is resumed so.
    """
    return 0 < state.specification.rounds <= state.round


# The end --------------------------------------------------------------------------------------------------------


def finish(state: CoordinatorState, cause: FinishCause, message: str, now: float) -> Outcome:
    """Ends the run, and tells every agent; no effect if it is over or draining."""
    if state.phase in OVER:
        return state, ()
    end = events.EndRun(cause, message)
    state = _end(state, RunPhase.FINISHED, end, OpenRound(), now)
    broadcast = events.Broadcast(Finish(state.stamp, cause, message, state.basis, state.head_covariance))
    return state, (broadcast, events.Note("run-finished", state.round, (), message), end)


def finish_all_rounds(state: CoordinatorState, now: float) -> Outcome:
    """Ends the run after its last round."""
    return finish(state, FinishCause.ROUNDS_REACHED, f"all {state.round} rounds are done", now)


def suspend(state: CoordinatorState, end: events.Suspend, resume_after_seconds: float, now: float) -> Outcome:
    """Stops this process so that the run can be resumed: agents keep unstored gradients, and come back."""
    if state.phase in OVER:
        return state, ()
    current = state.open_round.evolve(awaited=EMPTY_SET, pending_basis=None, replaying=False)
    state = _end(state, RunPhase.DRAINING, end, current, now)
    broadcast = events.Broadcast(Drain(state.stamp, resume_after_seconds))
    return state, (broadcast, events.Note("run-suspended", state.round, (), end.message), end)


def _end(
    state: CoordinatorState, phase: RunPhase, end: events.EndRun | events.Suspend, open_round: OpenRound, now: float
) -> CoordinatorState:
    members = state.members.evolve(deserted_since=None)
    return state.evolve(phase=phase, phase_since=now, end=end, open_round=open_round, members=members)
