"""Which gradients a coordinator has to count, and which it must not: judged from all that has ever counted."""

from collections.abc import Mapping, Sequence

from cospan.core.run_fields import Participation
from cospan.server.machine import events
from cospan.server.machine.state import CoordinatorState
from cospan.wire.errors import InvalidMessageError, OutOfTurnError, RemoteError
from cospan.wire.messages import Disposition, GradientUpload, MaskedVector, Receipt, RunPhase

_OPEN = (RunPhase.COLLECTING, RunPhase.CLOSING)


class Counting:
    """Remembers every gradient of every closed round, where the machine remembers the newest rounds only."""

    def __init__(self) -> None:
        self._closed: dict[tuple[str, int], int] = {}

    def restarted(self, stored: Mapping[tuple[str, int], int]) -> None:
        """A process begins with what is stored."""
        self._closed = dict(stored)

    def closed(self, record: events.RoundRecord) -> None:
        """A round is closed."""
        for agent, of in record.contributors.items():
            self._closed[agent, of] = record.closed_round

    def stepped(
        self,
        before: CoordinatorState,
        event: events.Event,
        state: CoordinatorState,
        commands: Sequence[events.Command],
    ) -> None:
        """Holds a step with one gradient, or several, against what counts."""
        match event:
            case events.GradientArrived(token=token, upload=upload):
                session = before.members.sessions.get(token)
                assert session is not None, "a gradient without a session changes nothing"
                # With secure sums it may be of a round that was void, after which too few were there.
                is_old = before.specification.secure_sums and upload.round < before.round
                assert before.phase is not RunPhase.WAITING or is_old, "a gradient is taken before a round is open"
                agents = upload.agent_ids or session.agent_ids
                receipts = [
                    command.message.disposition
                    for command in commands
                    if isinstance(command, events.Send) and isinstance(command.message, Receipt)
                ]
                self._check_gradient(before, token, upload, agents, receipts)
                self._check_kept(before, state, agents)
                assert receipts or _is_held(state, before, upload), "a gradient counts, or has a receipt"
            case events.GradientsArrived(uploads=uploads):
                for token, upload in uploads.items():
                    agents = before.members.sessions[token].agent_ids
                    self._check_gradient(before, token, upload, agents, [])
            case _:
                pass

    def _check_kept(self, before: CoordinatorState, state: CoordinatorState, agents: Sequence[str]) -> None:
        """What has counted in the open round stays, but for older gradients of the same agents."""
        current = before.open_round
        if state.round == before.round and state.phase in _OPEN and current.replaying == state.open_round.replaying:
            replaced = {agent for block in current.stale if not set(block).isdisjoint(agents) for agent in block}
            lost = set(current.counted) - set(state.open_round.counted)
            assert lost <= replaced, "a gradient that counted is lost"

    def _check_gradient(
        self,
        before: CoordinatorState,
        token: str,
        upload: GradientUpload,
        agents: Sequence[str],
        receipts: list[Disposition],
    ) -> None:
        number = upload.round
        if before.phase is RunPhase.DRAINING:
            return
        has_counted = [
            (agent, number) in self._closed or _number_in_open_round(before, agent) == number for agent in agents
        ]
        if not receipts:
            assert not any(has_counted), "a gradient counts that has counted before"
            assert self._may_count(before, token, upload, agents), "a gradient counts that must not"
        elif receipts == [Disposition.DUPLICATE]:
            assert all(has_counted), "a gradient is called a duplicate that has never counted"
        else:
            may_count = self._may_count(before, token, upload, agents)
            assert any(has_counted) or not may_count, "a gradient is lost that counts"
            recent = before.round - number <= max(1, before.specification.max_staleness)
            known = recent and before.phase in _OPEN and not before.open_round.replaying
            rounds = [self._closed.get((agent, number), before.round) for agent in agents]
            assert not (known and max(rounds) < before.round), "a duplicate is called late"

    def _may_count(
        self, before: CoordinatorState, token: str, upload: GradientUpload, agents: Sequence[str]
    ) -> bool:
        current, spec, number = before.open_round, before.specification, upload.round
        if before.phase is not RunPhase.COLLECTING or number > before.round:
            return False
        if spec.secure_sums and not _is_of_member(before, token, upload):
            return False
        if current.replaying and not set(agents) <= before.durability.replay_agents:
            return number == before.round and not current.awaited.isdisjoint(agents)  # it ends the replay
        held = [of for agent in agents if (of := _number_in_open_round(before, agent)) is not None]
        if number == before.round:
            return number not in held  # a newer gradient takes the place of an older one
        quorum = spec.participation is Participation.QUORUM
        return quorum and before.round - number <= spec.max_staleness and not held and not current.replaying


def check_refused_gradient(state: CoordinatorState, token: str, upload: GradientUpload, error: RemoteError) -> None:
    """Holds the refusal of a gradient against what is wrong with it: sent by any other, it is late."""
    session = state.members.sessions.get(token)
    if session is None or not isinstance(error, InvalidMessageError | OutOfTurnError):
        return
    agents = upload.agent_ids or session.agent_ids
    current, spec = state.open_round, state.specification
    is_open = state.phase is RunPhase.COLLECTING and upload.round == state.round
    in_part = spec.secure_sums and agents != session.agent_ids and is_open
    waits = state.phase is RunPhase.WAITING and not (spec.secure_sums and upload.round < state.round)
    wrong = (
        not set(agents) <= set(session.agent_ids)
        or upload.contribution.weight != len(agents)
        or (in_part and not current.awaited.has(agents) and not current.counted.has(agents))
        or (not spec.secure_sums and not current.counted.isdisjoint(agents))
        or upload.round > state.round
        or waits
    )
    assert wrong, f"a gradient is refused that is late: {error}"


def _number_in_open_round(state: CoordinatorState, agent: str) -> int | None:
    """The round of the gradient with which an agent counts in the open round; None if it does not."""
    if agent not in state.open_round.counted:
        return None
    stale = (number for agents, number in state.open_round.stale.items() if agent in agents)
    return next(stale, state.round)


def _is_of_member(before: CoordinatorState, token: str, upload: GradientUpload) -> bool:
    """Whether a vector is masked in the epoch of the open round, by a member of it."""
    epoch, vector = before.open_round.epoch, upload.contribution
    assert epoch is not None
    return isinstance(vector, MaskedVector) and vector.epoch_id == epoch.id and token in epoch.tokens


def _is_held(state: CoordinatorState, before: CoordinatorState, upload: GradientUpload) -> bool:
    """Whether the open round holds this gradient; also where the step has closed the round, or was not to count."""
    if before.phase is RunPhase.DRAINING or state.round != before.round:
        return True
    return any(each is upload.contribution for each in state.open_round.contributions.values())
