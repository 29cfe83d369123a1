"""The mutants of secure sums, written by hand; they are played with the seeds that have secure sums."""

from simulator.mutants.mutant import Mutant

_SERVER, _CLIENT = "cospan.server.machine", "cospan.client.session"


def _server(module: str, old: str, new: str, what: str, why_not: str = "") -> Mutant:
    return Mutant(f"{_SERVER}.{module}", old, new, what, why_not, secure_sums=True)


def _client(module: str, old: str, new: str, what: str, why_not: str = "") -> Mutant:
    return Mutant(f"{_CLIENT}.{module}", old, new, what, why_not, secure_sums=True)


_MASKS = (
    _client("machine.secure_sums", "if number < state.masked_until:", "if False:", "masks a second vector"),
    _client(
        "machine.secure_sums", "masked_until=number + 1,", "masked_until=number,", "forgets what it has masked"
    ),
    _client(
        "machine.secure_sums",
        "if kept is not None and kept.epoch_id == state.epoch_id:",
        "if kept is not None and kept.epoch_id:",
        "sends a vector of another epoch",
    ),
    _client(
        "machine.secure_sums",
        "or state.epoch_id != state.agreed:",
        "or False:",
        "masks before the members are checked",
    ),
    _client(
        "machine.rounds",
        "elif upload.round < state.stamp.round and state.is_open and not _has_secure_sums(state):",
        "elif upload.round < state.stamp.round and state.is_open:",
        "sends a late upload without masks",
    ),
    _client(
        "machine.joining",
        "epoch_id=epoch_id_of(welcome.membership),",
        "",
        "keeps the epoch of before its stream broke",
    ),
    _client(
        "machine.joining",
        "if welcome.membership is not None and state.epoch_id != state.agreed:",
        "if False:",
        "does not check the members that a welcome names",
    ),
    _client(
        "masking",
        "if known is not None and isinstance(known.contribution, MaskedVector):",
        "if False:",
        "masks again what it has to send again",
    ),
    _client(
        "masking",
        "if self._masker is None or self._masker.epoch_id != membership.epoch_id:",
        "if self._masker is None:",
        "masks in its first epoch for ever",
    ),
    Mutant(
        "cospan.wire.secure_sums.masker",
        "if newest is not None and round_number <= newest.round:",
        "if False:",
        "its key masks a second vector",
        "the session machine never asks for one",
        secure_sums=True,
    ),
    Mutant(
        "cospan.wire.secure_sums.masker",
        'message, zeros = round_number.to_bytes(8, "little") + announcement,',
        "message, zeros = announcement,",
        "the masks of two rounds with one basis are the same",
        "the announcement has the number of the round as well",
        secure_sums=True,
    ),
)

_EPOCHS = (
    _server(
        "opening",
        "if len(epoch.membership.members) < state.specification.min_cohort:",
        "if False:",
        "opens a round of fewer than the smallest cohort",
    ),
    _server(
        "opening",
        "    return connected >= state.specification.min_cohort\n",
        "    return True\n",
        "does not wait for the smallest cohort",
        "a round of fewer is not opened: it says again and again that they are too few",
    ),
    _server(
        "opening",
        "return start(state, now) if replays else (state, announcement(state))",
        "return state, announcement(state)",
        "waits where those who cannot repeat a round would be enough",
    ),
    _server(
        "secure_sums.epochs",
        "before.of_agents is agents and before.offers is offers:",
        "before.of_agents is agents:",
        "names the members of before a restart",
    ),
    _server(
        "secure_sums.epochs",
        "untold = tokens - before.tokens if before is not None and is_same else tokens",
        "untold = tokens - before.tokens if before is not None else tokens",
        "does not tell members of a new epoch",
    ),
    _server(
        "secure_sums.epochs",
        "if token in offers and sum(len(member.agent_ids) for member in offers[token].members) == len(block)",
        "if token in offers",
        "counts a process in part",
    ),
    _server(
        "membership",
        "    if state.specification.secure_sums:\n        return False\n    current = state.open_round\n",
        "    current = state.open_round\n",
        "adds a member to an open round",
    ),
    _server(
        "membership",
        "offers=members.offers if offer is None else members.offers.remove(token),",
        "offers=members.offers,",
        "keeps the key of a session that has ended",
    ),
    _server(
        "membership",
        "membership=epoch.named_to(session.token, state.stamp) if epoch is not None and takes_part else None,",
        "membership=None,",
        "does not tell a process that comes back whom it masks with",
    ),
    _server(
        "snapshot",
        "    if saved.round and not saved.last_contributors:\n",
        "    if False:\n",
        "awaits no agent after a restart from a void round",
    ),
)

_SUMS = (
    _server(
        "closing",
        '    if len(current.awaited) + len(current.counted) == len(current.epoch.awaited):\n        return ""\n',
        '    if True:\n        return ""\n',
        "adds without a member that has departed",
    ),
    _server(
        "closing",
        "    if current.void_cause or current.epoch is None:\n",
        "    if current.epoch is None:\n",
        "waits for a member that has declined",
    ),
    _server(
        "closing",
        "move = BasisMove(state.basis, state.basis, state.history.step_memory",
        "move = BasisMove(state.basis, -state.basis, state.history.step_memory",
        "a void round moves the basis",
    ),
    _server(
        "closing",
        "        counted=EMPTY_SET,\n        contributions=PersistentMap(),\n",
        "",
        "a void round has contributors",
    ),
    _server(
        "closing",
        "    if event.void_cause:\n        return _void(state, event.void_cause, now)\n",
        "",
        "stores a round whose sum is none as one of its members",
    ),
    _server(
        "closing",
        "current.replaying and current.epoch is None and not",
        "current.replaying and not",
        "opens a replay again that has lost its members",
    ),
    _server(
        "counting",
        "return epoch is None or (isinstance(vector, MaskedVector) and vector.epoch_id == epoch.id)",
        "return epoch is None or isinstance(vector, MaskedVector)",
        "adds a vector of another epoch",
    ),
    _server(
        "counting",
        "if event.round != state.round or state.open_round.awaited.isdisjoint(session.agent_ids):",
        "if state.open_round.awaited.isdisjoint(session.agent_ids):",
        "a round is void for a process that declines an earlier one",
    ),
    Mutant(
        "cospan.server.runtime.basis_arithmetic",
        "    if problem:\n        raise InvalidMessageError(problem)\n",
        "",
        "adds masks that do not cancel",
        secure_sums=True,
    ),
)

OF_SECURE_SUMS = (*_MASKS, *_EPOCHS, *_SUMS)
