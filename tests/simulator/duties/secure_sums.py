"""What secure sums owe to agents: no mask hides two vectors, and no sum is over fewer than the smallest cohort.

Epochs are made here from the joins alone. What was masked and summed is remembered through all restarts, lost
stores and older copies of the store, for the coordinator that asks for a second vector may not know of the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cospan.core.secure_sums.membership import Member, Membership
from cospan.server.machine import events
from cospan.server.machine.state import CoordinatorState
from cospan.wire.messages import BasisUpdate, MaskedVector, RunPhase, SumMembers, Welcome
from simulator.parties.masks import epoch_id_of


class _Masked(NamedTuple):
    """The one vector of a key and a round."""

    epoch_id: bytes
    basis: bytes
    words: bytes


def _order(command: events.Command) -> int:
    """Who is gone first, then what has closed: a round that runs ahead of the disk is announced before."""
    kinds = (events.DropMember, events.StoreRound)
    return next((place for place, kind in enumerate(kinds) if isinstance(command, kind)), len(kinds))


class SecureSums:
    """The book of all masks and sums of a simulated run."""

    def __init__(self) -> None:
        self.sums = 0
        self.voids = 0
        self.has_copies = False
        """Whether a coordinator has begun from an older copy of its store: rounds that were durable open again."""
        self._masked: dict[tuple[bytes, int], _Masked] = {}
        self._newest: dict[bytes, int] = {}
        self._owners: dict[bytes, tuple[bytes, int]] = {}
        """Words of a vector → the key that has masked it, and its round."""
        self._partial: dict[bytes, list[MaskedVector]] = {}
        """Words of a sum that a relay has sent → the vectors that it has added."""
        self._lies: set[bytes] = set()
        self._summed: dict[tuple[bytes, int], frozenset[bytes]] = {}
        """Key and round → the keys of the sum that its vector is part of."""
        self.restarted()

    def restarted(self) -> None:
        """A coordinator process begins: it knows no keys."""
        self.offers: dict[str, tuple[Member, ...]] = {}
        """Token → what its process has offered to this coordinator."""
        self._told: dict[str, bytes] = {}
        self._open: Membership | None = None
        self._tokens: frozenset[str] = frozenset()
        self._succeeds: str | None = None
        self._excuse = ""

    # Agents --------------------------------------------------------------------------------------------------

    def masked(self, key: bytes, number: int, basis: bytes, vector: MaskedVector) -> None:
        """A process sends a masked vector."""
        words = vector.words.tobytes()
        sent = _Masked(vector.epoch_id, basis, words)
        assert self._masked.setdefault((key, number), sent) == sent, "a process masks two vectors for a round"
        assert self._owners.setdefault(words, (key, number)) == (key, number), "two uploads have one vector"
        self._newest[key] = max(number, self._newest.get(key, number))

    def added(self, total: MaskedVector, vectors: Sequence[MaskedVector]) -> None:
        """A relay sends the sum of these vectors."""
        words = np.add.reduce([vector.words for vector in vectors], dtype=np.uint64)
        assert np.array_equal(total.words, words), "a relay's sum is another than that of its vectors"
        if len(vectors) > 1:
            self._partial[total.words.tobytes()] = list(vectors)

    def lied(self, vector: MaskedVector) -> None:
        """A process sends a vector that it must not send."""
        self._lies.add(vector.words.tobytes())

    def declined(self, key: bytes, number: int, epoch_id: bytes, basis: bytes) -> None:
        """A process sends no vector for a round."""
        assert self._newest.get(key, -1) >= number, "a process declines a round, and has masked none since"
        known = self._masked.get((key, number))
        can = known is not None and known[:2] == (epoch_id, basis)
        assert self.has_copies or not can, "a process declines a round that it has masked a vector for"

    # The coordinator -----------------------------------------------------------------------------------------

    def stepped(
        self,
        before: CoordinatorState,
        event: events.Event,
        state: CoordinatorState,
        commands: Sequence[events.Command],
        *,
        is_over: bool,
    ) -> None:
        """Holds a step of a coordinator against what has been masked and told; `is_over`: the round's time."""
        if not state.specification.secure_sums:
            return
        if is_over:  # the successor of a session that has joined late is awaited no longer than that one
            self._excuse = self._excuse or "the time of the round is over"
        self._note_event(before, event, state)
        for command in sorted(commands, key=_order):
            match command:
                case events.DropMember(token=token):
                    self._note_end(before, token)
                case events.Send(token=token, message=Welcome() as welcome):
                    self._tell(token, welcome.membership)
                case events.Send(token=token, message=SumMembers() as named):
                    self._tell(token, named)
                case events.Broadcast(message=BasisUpdate() as update):
                    self._check_opened(state, update)
                case events.ComputeBasis():
                    self._check_sum(state, command)
                case events.StoreRound(record=record):
                    self._check_closed(record)
                case _:
                    pass
        waits = state.phase is RunPhase.COLLECTING and state.round == before.round and not state.at_inflight_limit
        assert not (waits and self._excuse), "a round stays open that can have no sum"

    def _note_event(self, before: CoordinatorState, event: events.Event, state: CoordinatorState) -> None:
        match event:
            case events.JoinRequested(join=join, stream=stream):
                token = next(each.token for each in state.members.sessions.values() if each.stream == stream)
                named = (Member(each.public_key, each.agent_ids or join.agent_ids) for each in join.sum_members)
                self._succeeds = self._successor(before, state, tuple(named), token)
            case events.DeclineArrived(token=token, round=number):
                session = before.members.sessions[token]
                awaited = not before.open_round.awaited.isdisjoint(session.agent_ids)
                if number == before.round and awaited:
                    self._excuse = self._excuse or "a member has declined"
            case _:
                pass

    def _successor(
        self, before: CoordinatorState, state: CoordinatorState, members: tuple[Member, ...], token: str
    ) -> str | None:
        """Notes what a session offers; the token of the one whose place it takes in the open round, if it does."""
        ended = before.members.sessions.keys() - state.members.sessions.keys()  # by this join, and not before
        displaced = [former for former in self._tokens if former in ended]
        one = displaced[0] if len(displaced) == 1 else None
        takes_place = one is not None and set(self.offers.get(one, ())) <= set(members)
        self.offers[token] = members
        if one is None or not takes_place:
            return None
        self._tokens = self._tokens - {one} | {token}
        return one

    def _note_end(self, before: CoordinatorState, token: str) -> None:
        """A session has ended."""
        if token == self._succeeds:
            self._succeeds = None
            self._told.pop(token, None)
            self.offers.pop(token, None)
            return
        self.offers.pop(token, None)
        self._told.pop(token, None)
        session = before.members.sessions.get(token)
        if session is not None and not before.open_round.awaited.isdisjoint(session.agent_ids):
            self._excuse = self._excuse or "a member has departed before its vector came"

    def _tell(self, token: str, named: SumMembers | None) -> None:
        self._told[token] = epoch_id_of(named)

    def _check_opened(self, state: CoordinatorState, update: BasisUpdate) -> None:
        awaited, sessions = state.open_round.awaited, state.members.sessions
        tokens = frozenset(token for token, each in sessions.items() if awaited.has(each.agent_ids))
        members = [member for token in tokens for member in self.offers[token]]
        membership = Membership.of(update.stamp.run_id, members)
        assert len(members) >= state.specification.min_cohort, "a round opens with fewer than the smallest cohort"
        assert membership.epoch_id == update.epoch_id, "a round opens in another epoch than that of its members"
        assert all(self._told.get(token) == update.epoch_id for token in tokens), "a member is not told the others"
        self._open, self._tokens, self._excuse = membership, tokens, ""

    def _check_sum(self, state: CoordinatorState, command: events.ComputeBasis) -> None:
        assert self._open is not None
        number, basis = command.round, command.basis.tobytes()
        owners: list[bytes] = []
        lies = 0
        for vector in self._vectors_of(command):
            words = vector.words.tobytes()
            if words in self._lies:
                lies += 1
                continue
            key, of = self._owners[words]
            assert of == number, "a sum has a vector of another round"
            assert self._masked[key, of][:2] == (self._open.epoch_id, basis), "a vector was masked for another sum"
            owners.append(key)
        assert len(owners) + lies >= state.specification.min_cohort, "a sum is over fewer than the smallest cohort"
        assert len(set(owners)) == len(owners), "a sum has a vector twice"
        keys = frozenset(member.public_key for member in self._open.members)
        complete = keys.issuperset(owners) and len(owners) + lies == len(keys)
        assert complete, "a sum is not over all members of its epoch"
        if lies:
            self._excuse = "a member has sent what it must not send"
            return
        for key in keys:
            assert self._summed.setdefault((key, number), keys) == keys, "a vector is part of two sums"
        self.sums += 1

    def _vectors_of(self, command: events.ComputeBasis) -> Iterator[MaskedVector]:
        """What processes have masked, also below relays."""
        for each in command.contributions:
            assert isinstance(each, MaskedVector), "a sum has an upload without masks"
            yield from self._partial.get(each.words.tobytes(), [each])

    def _check_closed(self, record: events.RoundRecord) -> None:
        if record.contributors:
            assert self._open is not None
            members = {agent for member in self._open.members for agent in member.agent_ids}
            assert set(record.contributors) == members, "a round closes with a step, and without a member"
            return
        self.voids += 1
        assert self._excuse, "a round is void, and all its members have sent"


def cohort(state: CoordinatorState, offers: Mapping[str, tuple[Member, ...]], connected: frozenset[str]) -> int:
    """How many members there are whose agents are connected."""
    sessions = state.members.sessions
    there = (token for token, each in sessions.items() if connected.issuperset(each.agent_ids))
    return sum(len(offers.get(token, ())) for token in there)
