"""Counting gradients: which one counts in the open round, and the receipts of the others."""

from cospan.core.aggregation.basis_update import Contribution
from cospan.core.run_fields import Participation
from cospan.server.machine.closing import close_if_complete
from cospan.server.machine.collections.agent_set import EMPTY_SET, AgentSet, Block
from cospan.server.machine.events import DeclineArrived, GradientArrived, GradientsArrived, Send
from cospan.server.machine.opening import start
from cospan.server.machine.quorum import required_gradients
from cospan.server.machine.sessions import Session
from cospan.server.machine.state import CoordinatorState, History, Outcome
from cospan.wire.errors import InvalidMessageError, OutOfTurnError
from cospan.wire.messages import Disposition, GradientUpload, MaskedVector, Receipt, RunPhase


def on_gradient(state: CoordinatorState, event: GradientArrived, now: float) -> Outcome:
    """Counts a gradient, or sends a receipt that says why it does not count.

    Raises:
        RemoteError: the session must not send it now; nothing has changed.
    """
    session, upload = state.session(event.token), event.upload
    agents = _summed_agents(session, upload)
    _check_gradient(state, session, upload, agents)
    if upload.round == state.round and _cannot_repeat(state, agents):
        state, opened = start(state.evolve(durability=state.durability.evolve(replay_agents=frozenset())), now)
        state, more = on_gradient(state, event, now)
        return state, opened + more
    session = session.heard(now)
    # No agent of an awaited block has counted, and all of them take part: single agents need no look-up.
    fresh = upload.round == state.round and state.open_round.awaited.has(agents)
    if not fresh or not _is_of_epoch(state, upload):
        disposition = _disposition(state, upload.round, agents)
        if disposition is not None:
            receipt = Receipt(state.stamp, upload.round, disposition)
            return state.with_session(session), (Send(event.token, receipt),)
        state = _evict_stale(state, upload.round, agents)
    current, members = state.open_round, state.members
    counted, awaited = current.counted.add(agents), current.awaited.remove(agents)
    first_seconds, history = _first_gradient(state, now)
    state = state.evolve(
        members=members.evolve(sessions=members.sessions.set(event.token, session)),
        open_round=current.evolve(
            awaited=awaited,
            contributions=current.contributions.set(agents[0], upload.contribution),
            counted=counted if awaited else _in_fixed_order(counted, members.present),
            stale={**current.stale, agents: upload.round} if upload.round < state.round else current.stale,
            quorum_seconds=_quorum_seconds(state, len(counted), now),
            first_gradient_seconds=first_seconds,
        ),
        history=history,
    )
    return close_if_complete(state, now)


def on_decline(state: CoordinatorState, event: DeclineArrived, now: float) -> Outcome:
    """Makes the open round void where it waits for a vector of this process; one that is counted stays so.

    Raises:
        SessionUnknownError: its session does not exist.
    """
    session = state.session(event.token)
    state = state.with_session(session.heard(now))
    if event.round != state.round or state.open_round.awaited.isdisjoint(session.agent_ids):
        return state, ()
    cause = "a member has sent a vector for this round before, in another epoch or at another basis"
    return close_if_complete(state.evolve(open_round=state.open_round.evolve(void_cause=cause)), now)


def ignore_decline(state: CoordinatorState, event: DeclineArrived, now: float) -> Outcome:
    """No round waits for it.

    Raises:
        SessionUnknownError: its session does not exist.
    """
    return state.with_session(state.session(event.token).heard(now)), ()


def ignore_gradient(state: CoordinatorState, event: GradientArrived, now: float) -> Outcome:
    """Leaves a gradient to the next coordinator process: its agent keeps it, and sends it again.

    Raises:
        SessionUnknownError: its session does not exist.
    """
    state.session(event.token)
    return state, ()


def is_batchable(state: CoordinatorState, token: str, upload: GradientUpload) -> bool:
    """Whether a gradient may be part of `GradientsArrived`.

    It is one of the open round, over all agents of its session, which are awaited; and participation is full, so
    that only the last awaited gradient can close the round.
    """
    session = state.members.sessions.get(token)
    return (
        session is not None
        and state.phase is RunPhase.COLLECTING
        and state.specification.participation is Participation.ALL
        and upload.round == state.round
        and _is_whole(session, upload)
        and state.open_round.awaited.has(session.agent_ids)
        and _is_of_epoch(state, upload)
    )


def on_gradients(state: CoordinatorState, event: GradientsArrived, now: float) -> Outcome:
    """Counts several gradients with one change of the state; the result is that of `on_gradient` for each in turn.

    Raises:
        ValueError: one of them is not batchable, or there is none; nothing has changed.
    """
    members, current = state.members, state.open_round
    if not event.uploads or state.specification.participation is not Participation.ALL:
        raise ValueError("a batch needs a gradient, and a run of full participation")
    sessions, blocks = members.sessions, list[Block]()
    summed, heard = dict[str, Contribution | MaskedVector](), dict[str, Session]()
    awaits_all = current.awaited is members.present  # as in nearly every case; then no block needs a look-up
    for token, upload in event.uploads.items():
        session = sessions.get(token)
        if (
            session is None
            or upload.round != state.round
            or not _is_whole(session, upload)
            or not (awaits_all or current.awaited.has(session.agent_ids))
            or not _is_of_epoch(state, upload)
        ):
            raise ValueError(f"a gradient of round {upload.round} cannot be counted in a batch")
        blocks.append(session.agent_ids)
        summed[session.agent_ids[0]] = upload.contribution
        after = session.heard(now)
        if after is not session:
            heard[token] = after
    complete = not current.contributions and len(blocks) == current.awaited.block_count
    counted = current.awaited if complete else current.counted.add_all(blocks)
    awaited = EMPTY_SET if complete else current.awaited.remove_blocks(blocks)
    first_seconds, history = _first_gradient(state, now)
    state = state.evolve(
        members=members.evolve(sessions=sessions.update(heard)) if heard else members,
        open_round=current.evolve(
            awaited=awaited,
            contributions=current.contributions.update(summed),
            counted=counted if awaited else _in_fixed_order(counted, members.present),
            first_gradient_seconds=first_seconds,
        ),
        history=history,
    )
    return close_if_complete(state, now)


def refuse_gradients(state: CoordinatorState, event: GradientsArrived, now: float) -> Outcome:
    """Raises ValueError: no gradient is batchable in this phase."""
    raise ValueError(f"GradientsArrived came in phase {state.phase.value}; the shell hands over single gradients")


def _in_fixed_order(counted: AgentSet, present: AgentSet) -> AgentSet:
    """The set of a complete round, in an order that does not depend on the order of arrival.

    If every process is counted as a whole it is `present` itself: the same object from round to round, which is
    free to compare.
    """
    if counted is present:
        return present
    if counted.block_count == present.block_count and all(map(counted.has, present.blocks)):
        return present
    return AgentSet(sorted(counted.blocks))


def _is_whole(session: Session, upload: GradientUpload) -> bool:
    """Whether an upload sums over all agents of its session, each once."""
    agents = session.agent_ids
    return (not upload.agent_ids or upload.agent_ids == agents) and upload.contribution.weight == len(agents)


def _summed_agents(session: Session, upload: GradientUpload) -> Block:
    """The agents that an upload sums over; if they are all of its session's, the session's own tuple."""
    if not upload.agent_ids or upload.agent_ids == session.agent_ids:
        return session.agent_ids
    return upload.agent_ids


def _is_of_epoch(state: CoordinatorState, upload: GradientUpload) -> bool:
    """Whether an upload is what this round adds: with secure sums a vector masked in its epoch."""
    vector, epoch = upload.contribution, state.open_round.epoch
    return epoch is None or (isinstance(vector, MaskedVector) and vector.epoch_id == epoch.id)


def _check_gradient(state: CoordinatorState, session: Session, upload: GradientUpload, agents: Block) -> None:
    if agents is not session.agent_ids and not set(agents) <= set(session.agent_ids):
        foreign = sorted(set(agents) - set(session.agent_ids))[0]
        raise InvalidMessageError(f"gradient.agent_ids names {foreign!r}, which this process does not host")
    if upload.contribution.weight != len(agents):
        raise InvalidMessageError(
            f"gradient.weight is {upload.contribution.weight:g}; the sum is over {len(agents)} agents"
        )
    if state.specification.secure_sums and not _is_of_members(state, session, upload, agents):
        raise InvalidMessageError("gradient.agent_ids must be all agents of the process; this run has secure sums")
    if state.phase is RunPhase.WAITING and state.specification.secure_sums and upload.round < state.round:
        return  # of a round that was void; a smaller fleet than the smallest cohort is waited for
    if state.phase is RunPhase.WAITING or upload.round > state.round:
        raise OutOfTurnError(
            f"a gradient of round {upload.round} came while round {state.round} is "
            f"{'not open yet' if state.phase is RunPhase.WAITING else 'open'}; wait for its basis"
        )


def _is_of_members(state: CoordinatorState, session: Session, upload: GradientUpload, agents: Block) -> bool:
    """Whether a vector is over all members that a session has in the open round; agents may have joined it since.

    One of an earlier epoch may be over those of that epoch, as for a round that is over, void, or open again
    after a restart; it counts nowhere.
    """
    current = state.open_round
    if agents is session.agent_ids or upload.round != state.round or state.phase is not RunPhase.COLLECTING:
        return True
    if not _is_of_epoch(state, upload):
        return True
    return current.awaited.has(agents) or current.counted.has(agents)


def _cannot_repeat(state: CoordinatorState, agents: Block) -> bool:
    """Whether a process has summed over agents of a replay and others, as a relay with a new agent does.

    It has no other sum of this round, so the replay could not end. The round opens again, for every agent.
    """
    current = state.open_round
    mixed = current.replaying and not state.durability.replay_agents.issuperset(agents)
    return mixed and not current.awaited.isdisjoint(agents)


def _disposition(state: CoordinatorState, round_number: int, agents: Block) -> Disposition | None:
    """Why a gradient does not count; None if it does."""
    if _has_counted(state, round_number, agents):
        return Disposition.DUPLICATE
    left_out = state.open_round.replaying and not state.durability.replay_agents.issuperset(agents)
    if state.phase is not RunPhase.COLLECTING or left_out:
        return Disposition.LATE
    if state.specification.secure_sums:
        return Disposition.LATE  # the open round does not await it
    fresh = round_number == state.round
    return None if fresh or _accepts_stale(state, round_number, agents) else Disposition.LATE


def _has_counted(state: CoordinatorState, round_number: int, agents: Block) -> bool:
    """Whether the gradients of all these agents of that round have been counted."""
    if round_number != state.round:
        return state.history.accepted.get(round_number, EMPTY_SET).covers(agents)
    current = state.open_round
    counted_stale = any(not set(agents).isdisjoint(stale) for stale in current.stale)
    return current.counted.covers(agents) and not counted_stale


def _accepts_stale(state: CoordinatorState, round_number: int, agents: Block) -> bool:
    """Whether a gradient of an earlier round counts for its agents until a newer one arrives."""
    spec = state.specification
    if state.round - round_number > spec.max_staleness or state.open_round.replaying:
        return False
    # In a warm-up the payload has another meaning in every round.
    warming_up = spec.method.warms_up_in(round_number) or spec.method.warms_up_in(state.round)
    accepted = state.history.accepted.get(round_number, EMPTY_SET)
    return not warming_up and accepted.isdisjoint(agents) and state.open_round.counted.isdisjoint(agents)


def _evict_stale(state: CoordinatorState, round_number: int, agents: Block) -> CoordinatorState:
    """The state without the stale contributions that a newer gradient of these agents replaces.

    Raises:
        InvalidMessageError: some of the agents are counted in a contribution that is not replaced.
    """
    for stale in state.open_round.stale:
        if not set(stale).isdisjoint(agents):
            state = _remove_stale(state, stale)
    overlap = state.open_round.counted.intersection(agents)
    if overlap:
        raise InvalidMessageError(
            f"the gradient of round {round_number} sums over {sorted(overlap)[0]!r}, whose gradient has counted"
        )
    return state


def _remove_stale(state: CoordinatorState, agents: Block) -> CoordinatorState:
    """The state without a stale contribution; those of its agents that are present are awaited again."""
    current = state.open_round
    awaited = current.awaited
    for name in agents:
        awaited = awaited.add((name,)) if name in state.members.hosts else awaited
    return state.evolve(
        open_round=current.evolve(
            awaited=awaited,
            contributions=current.contributions.remove(agents[0]),
            counted=current.counted.remove(agents),
            stale={key: number for key, number in current.stale.items() if key != agents},
        )
    )


def _quorum_seconds(state: CoordinatorState, counted: int, now: float) -> float | None:
    """How long the round took to its quorum, once `counted` agents reach it."""
    current = state.open_round
    if current.quorum_seconds is not None or state.specification.participation is Participation.ALL:
        return current.quorum_seconds
    agents = len(current.awaited) + len(current.counted)
    reached = counted >= required_gradients(state.specification, agents)
    return now - state.phase_since if reached else None


def _first_gradient(state: CoordinatorState, now: float) -> tuple[float, History]:
    """After a counted gradient: how long the round's first one took, and the history with the longest such time."""
    if state.open_round.contributions:
        return state.open_round.first_gradient_seconds, state.history
    seconds = now - state.phase_since
    if seconds <= state.history.slowest_first_gradient_seconds:
        return seconds, state.history
    return seconds, state.history.evolve(slowest_first_gradient_seconds=seconds)
