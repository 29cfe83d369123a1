"""What a process does with a round: it sends the gradient that it has kept, or learns."""

from cospan.client.session.machine.events import Command, Connect, Learn, Transmit
from cospan.client.session.machine.reconnecting import progressed
from cospan.client.session.machine.secure_sums import masked_turn, passes_on_early, with_kept
from cospan.client.session.machine.state import KeptGradient, Outcome, Phase, SessionState, most_kept
from cospan.client.session.run_checks import turn_between
from cospan.core.aggregation.basis_update import head_covariance_problem
from cospan.wire.errors import OutOfTurnError
from cospan.wire.messages import BasisUpdate, Finish, GradientUpload


def on_basis(state: SessionState, message: BasisUpdate, now: float) -> Outcome:
    """A round opens. This is the message of every round."""
    stamp = message.stamp
    kept = tuple(each for each in state.kept if each.upload.round >= stamp.durable_round)
    if state.stamp is not None and stamp.durable_round > state.stamp.durable_round:
        state = progressed(state, now)
    state = state.evolve(
        stamp=stamp,
        last_announced_round=max(state.last_announced_round, stamp.round),
        basis=message.basis,
        head_covariance=message.head_covariance,
        epoch_id=message.epoch_id,
        is_open=True,
        kept=kept,
    )
    return take_part(state, now)


def take_part(state: SessionState, now: float) -> Outcome:
    """Sends the gradient of the open round where it is kept; else begins to learn, unless the learner is busy."""
    if not state.is_open or state.stamp is None or state.basis is None:
        return state, ()
    kept = _kept_for_open(state)
    assert state.specification is not None
    if state.specification.secure_sums:
        turn_of_sum = masked_turn(state, kept, now)
        if turn_of_sum is not None:
            return turn_of_sum
    elif kept is not None:
        return state.evolve(last_sent=now), (Transmit(kept.upload),)
    if state.learning is not None and not passes_on_early(state):
        return state, ()
    number, basis = state.stamp.round, state.basis
    turn = state.learnt_at and turn_between(state.specification, *state.learnt_at, state.stamp)
    at = basis, state.head_covariance
    state = state.evolve(learning=number, learning_at=at, learnt_at=(state.stamp, basis))
    return state, (Learn(number, basis, turn, state.head_covariance),)


def _kept_for_open(state: SessionState) -> KeptGradient | None:
    """The gradient of the stamp's round that was computed at its basis, bit for bit; None without one."""
    if state.stamp is not None and state.basis is not None:
        for each in state.kept:
            if each.is_of(state.stamp.round, state.basis, state.head_covariance):
                return each
    return None


def on_gradient(state: SessionState, upload: GradientUpload, now: float) -> Outcome:
    """Keeps a gradient, and sends it where the round may still take it.

    Raises:
        OutOfTurnError: the learner was not asked for this round.
    """
    if state.learning_at is None or state.learning != upload.round:
        raise OutOfTurnError(f"a gradient of round {upload.round} is ready, which was not asked for")
    kept = (*_kept_beside(state, upload), KeptGradient(upload, *state.learning_at))[-most_kept(state) :]
    state = with_kept(state.evolve(learning=None, learning_at=None), kept)
    if state.phase is Phase.LAGGING:
        # The time for its own round was no wait for the coordinator.
        lost_since = state.lost_since + (now - state.lagging_since)
        return state.evolve(phase=Phase.OFFLINE, lost_since=lost_since), (Connect(0.0),)
    if state.phase is not Phase.ACTIVE or state.stamp is None:
        return state, ()
    late: tuple[Command, ...] = ()
    if upload.round > state.stamp.round:
        # The coordinator went back. What the open round needs was sent when it was opened, if it was kept.
        if _kept_for_open(state) is not None:
            return state, ()
    elif upload.round < state.stamp.round and state.is_open and not _has_secure_sums(state):
        # It may still count under a policy that allows stale gradients; the coordinator decides.
        # If it is not durable yet, a coordinator that goes back asks for it again, and it must not be learnt twice.
        is_of_use = upload.round >= state.stamp.durable_round and not state.passes_on
        state, late = state.evolve(kept=kept if is_of_use else kept[:-1], last_sent=now), (Transmit(upload),)
    state, commands = take_part(state, now)
    return state, (*late, *commands)


def _kept_beside(state: SessionState, upload: GradientUpload) -> tuple[KeptGradient, ...]:
    """What is kept beside a new gradient: not the sums of rounds to come that lack some of its agents.

    A relay has such sums where its coordinator went back, and more agents have joined it since. In place of its
    agents, one would answer the round when that opens again, and the others would never be asked. The open round
    has been answered, so its sum stays.
    """
    if not state.passes_on or state.stamp is None or passes_on_early(state):
        return state.kept
    agents, number = _summed(state, upload), max(upload.round, state.stamp.round)
    return tuple(
        each for each in state.kept if each.upload.round <= number or agents <= _summed(state, each.upload)
    )


def _summed(state: SessionState, upload: GradientUpload) -> frozenset[str]:
    """The agents that an upload sums over; one without names is over all that have joined."""
    joined = () if state.join is None else state.join.agent_ids
    return frozenset(upload.agent_ids or joined)


def _has_secure_sums(state: SessionState) -> bool:
    return state.specification is not None and state.specification.secure_sums


def announcement_problem(state: SessionState, message: BasisUpdate | Finish) -> str:
    """What is wrong with a basis or what comes with it; empty where they suit the run.

    Those of a welcome are checked by its codec.
    """
    spec = state.specification
    if spec is None:
        return ""
    rows, columns = message.basis.shape
    if (rows, columns) == (spec.feature_dim, spec.rank):
        problem = head_covariance_problem(message.head_covariance, spec.method, spec.rank)
        return problem and f"the coordinator's {type(message).__name__}: {problem}; is it of another version?"
    return (
        f"the coordinator sent a basis of {rows} × {columns}, and this run has {spec.feature_dim} × {spec.rank}; "
        "is it of another version?"
    )
