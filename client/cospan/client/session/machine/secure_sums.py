"""What a process sends of a round with secure sums: one vector, in one epoch, or nothing.

Masks hide a vector only while it is the single one that was masked for its round. Two vectors of one round under
the same masks would show their difference, and so would sums of one round in two epochs: the second without a
member shows that member's vector. So for each round at most one upload is masked, in one epoch; that one may be
sent again, to the same bytes. Where the coordinator asks for anything else, as after a restart without some
members, the process declines: the round is void, and the next one opens.

With differential privacy each vector is counted in the process' file before it is sent, so that a process that is
killed in between has counted one too many, and never one too few. One that was counted and not sent stands for the
next.

A relay passes rounds on (`SessionState.passes_on`), and sends sums of vectors that its agents have masked. They
hold the rule for themselves; the relay keeps to it as well, for of one round its agents have one vector each.
"""

from dataclasses import replace

from cospan.client.session.machine.events import Agree, Agreed, Count, Transmit, TransmitMasked
from cospan.client.session.machine.state import KeptGradient, Outcome, Phase, SessionState, failed
from cospan.core.secure_sums.membership import Membership
from cospan.wire.errors import OutOfTurnError
from cospan.wire.messages import MaskedVector, RoundDeclined, SumMembers


def epoch_id_of(members: SumMembers | None) -> bytes:
    """The id of the epoch that these members make; empty without them."""
    return b"" if members is None else Membership(members.stamp.run_id, members.members).epoch_id


def on_members(state: SessionState, members: SumMembers) -> Outcome:
    """Has the members of the rounds that follow checked."""
    if state.specification is None or not state.specification.secure_sums:
        return failed(state, OutOfTurnError("the coordinator named members, and this run has no secure sums"))
    return state, (Agree(members),)


def with_agreed(state: SessionState, event: Agreed) -> SessionState:
    """The state after the members of an epoch were found in order."""
    return state.evolve(agreed=event.epoch_id)


def with_counted(state: SessionState) -> SessionState:
    """The state after a vector was counted."""
    return state.evolve(counting=False, counted=True)


def on_unsummed(state: SessionState, number: int, now: float) -> Outcome:
    """Declines a round of which no sum can come, where the coordinator may still wait for it."""
    if state.learning != number:
        return state, ()
    state = state.evolve(learning=None, learning_at=None)
    awaited = state.phase is Phase.ACTIVE and state.is_open and bool(state.epoch_id)
    if not awaited or state.stamp is None or state.stamp.round != number:
        return state, ()
    return state.evolve(last_sent=now), (Transmit(RoundDeclined(number)),)


def with_kept(state: SessionState, kept: tuple[KeptGradient, ...]) -> SessionState:
    """The state with what is kept, the newest of which may have come masked, from below a relay."""
    newest = kept[-1].upload
    vector = newest.contribution
    if isinstance(vector, MaskedVector):
        kept = (*kept[:-1], replace(kept[-1], epoch_id=vector.epoch_id))
        return state.evolve(kept=kept, masked_until=max(state.masked_until, newest.round + 1))
    return state.evolve(kept=kept)


def passes_on_early(state: SessionState) -> bool:
    """Whether a round is passed on before the one before has a gradient; see `SessionState.passes_on`."""
    return state.passes_on and state.specification is not None and state.specification.secure_sums


def masked_turn(state: SessionState, kept: KeptGradient | None, now: float) -> Outcome | None:
    """What is sent for the open round; None where it is to be learnt.

    Args:
        state: with an open round.
        kept: the gradient of that round at its basis, where it was computed.
        now: the time, in seconds.
    """
    assert state.stamp is not None
    number = state.stamp.round
    if state.phase is not Phase.ACTIVE or not state.epoch_id or state.epoch_id != state.agreed:
        return state, ()  # not a member, or its members are just being checked
    if kept is not None and kept.epoch_id == state.epoch_id:
        return state.evolve(last_sent=now), (_masked(kept),)
    if number < state.masked_until:
        return state.evolve(last_sent=now), (Transmit(RoundDeclined(number)),)
    if kept is None:
        return None
    assert not kept.epoch_id, "what was masked is of a round below masked_until"
    if state.specification is not None and state.specification.is_private and not state.counted:
        return state.evolve(counting=True), (() if state.counting else (Count(),))
    masked = replace(kept, epoch_id=state.epoch_id)
    after = tuple(masked if each is kept else each for each in state.kept)
    sent = state.evolve(last_sent=now, kept=after, masked_until=number + 1, counted=False)
    return sent, (_masked(masked),)


def _masked(kept: KeptGradient) -> TransmitMasked:
    return TransmitMasked(kept.upload, kept.epoch_id, kept.basis, kept.head_covariance)
