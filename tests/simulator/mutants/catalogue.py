"""The mutants: a guard of a machine each, with a condition dropped, a bound off by one, or a reset left out."""

from collections.abc import Iterator

from simulator.mutants.generated import places
from simulator.mutants.mutant import Mutant, path_of
from simulator.mutants.secure_sums import OF_SECURE_SUMS
from simulator.mutants.unseen import reason_unseen

_SERVER, _CLIENT = "cospan.server.machine", "cospan.client.session.machine"


def _server(module: str, old: str, new: str, what: str, why_not: str = "") -> Mutant:
    return Mutant(f"{_SERVER}.{module}", old, new, what, why_not)


def _client(module: str, old: str, new: str, what: str, why_not: str = "") -> Mutant:
    return Mutant(f"{_CLIENT}.{module}", old, new, what, why_not)


_CLOSING = (
    _server("closing", "sorted(contributions, key=itemgetter(0))", "contributions", "sums in order of arrival"),
    _server(
        "closing",
        "state.specification.participation is not Participation.ALL or state.specification.is_private",
        "state.specification.is_private",
        "quorum rounds run ahead of the disk",
    ),
    _server(
        "closing",
        "current.counted != state.history.last_contributors or ",
        "",
        "runs ahead with other contributors than are stored",
    ),
    _server("closing", "not current.departed and ", "", "runs ahead where a contributor has departed"),
    _server(
        "closing",
        "return all(are_connected(state, agents) for agents in current.counted.blocks)",
        "return True",
        "runs ahead where a contributor is lost",
    ),
    _server(
        "closing",
        "if state.phase is not RunPhase.COLLECTING or state.at_inflight_limit:",
        "if state.phase is not RunPhase.COLLECTING:",
        "runs further ahead than the limit",
    ),
    _server(
        "closing",
        "    if not current.contributions:\n        return state, ()\n",
        "",
        "closes rounds without a gradient",
    ),
    _server(
        "closing",
        "if record.closed_round == state.durability.durable_round:",
        "if True:",
        "stored rounds in any order",
        "the queue reports rounds in order",
    ),
    _server(
        "closing",
        "durable_round=record.closed_round + 1",
        "durable_round=record.closed_round + 2",
        "calls the next round durable too",
    ),
    _server(
        "closing",
        "durable_round=state.durability.durable_round)\n    return state, (*announcement",
        "durable_round=state.round + 1)\n    return state, (*announcement",
        "a round ahead is called durable",
    ),
    _server("closing", "closed + 1 < durability.replay_until and", "", "replays rounds that were not announced"),
    _server("closing", "accepted[state.round] = fresh", "pass", "forgets who has counted"),
    _server("closing", "if number >= oldest}", "}", "remembers for ever who has counted"),
    _server(
        "closing",
        "abandoned = current.replaying and current.epoch is None and not",
        "abandoned = False and not",
        "waits for ever in a replay that has lost all agents",
    ),
    _server(
        "closing", "start(state, now) if abandoned and state.members.sessions else ", "", "never abandons a replay"
    ),
)

_COUNTING = (
    _server("counting", "        return Disposition.DUPLICATE\n", "        pass\n", "duplicates count"),
    _server(
        "counting",
        "if agents is not session.agent_ids and not set(agents) <= set(session.agent_ids):",
        "if False:",
        "gradients of agents that the process does not host count",
    ),
    _server(
        "counting",
        "    if upload.contribution.weight != len(agents):",
        "    if False:",
        "a gradient may count for many",
    ),
    _server("counting", "or upload.round > state.round:", "or False:", "gradients of future rounds count"),
    _server(
        "counting",
        "state.phase is not RunPhase.COLLECTING or left_out",
        "left_out",
        "gradients count in closing rounds",
    ),
    _server(
        "counting",
        "state.phase is not RunPhase.COLLECTING or left_out",
        "state.phase is not RunPhase.COLLECTING",
        "other agents count in a replay",
    ),
    _server(
        "counting",
        "state.round - round_number > spec.max_staleness",
        "state.round - round_number > spec.max_staleness + 1",
        "gradients count that are one round too old",
    ),
    _server(
        "counting",
        "accepted.isdisjoint(agents) and state.open_round.counted.isdisjoint(agents)",
        "state.open_round.counted.isdisjoint(agents)",
        "stale gradients count again",
    ),
    _server(
        "counting",
        "not warming_up and accepted.isdisjoint(agents) and state.open_round.counted.isdisjoint(agents)",
        "not warming_up and accepted.isdisjoint(agents)",
        "a stale gradient counts beside a fresh one",
    ),
    _server(
        "counting",
        "awaited = awaited.add((name,)) if name in state.members.hosts else awaited",
        "awaited = awaited",
        "an evicted stale gradient is not awaited again",
        "the newer gradient of the same agents follows at once",
    ),
    _server(
        "counting",
        "        and upload.round == state.round\n        and _is_whole",
        "        and _is_whole",
        "old gradients are batched",
    ),
    _server(
        "counting",
        "        and state.open_round.awaited.has(session.agent_ids)\n",
        "",
        "gradients are batched twice",
    ),
)

_MEMBERS = (
    _server(
        "membership",
        "awaited=state.open_round.awaited.remove(session.agent_ids)",
        "awaited=state.open_round.awaited",
        "departed agents are awaited",
    ),
    _server(
        "membership",
        "hosts=members.hosts.remove(*session.agent_ids)",
        "hosts=members.hosts",
        "departed agents have a host",
    ),
    _server(
        "membership",
        "and allowed and current.counted.isdisjoint(agents)",
        "and allowed",
        "a process joins a round in which its agent has counted",
    ),
    _server(
        "membership",
        "state.phase is RunPhase.COLLECTING and allowed and",
        "state.phase is RunPhase.COLLECTING and",
        "agents join a replay",
    ),
    _server(
        "membership",
        "stream=event.stream,\n        phase=AgentPhase.CONNECTED,\n        last_seen=now,\n        reconnects",
        "phase=AgentPhase.CONNECTED,\n        last_seen=now,\n        reconnects",
        "a resumed session keeps its old stream",
    ),
    _server(
        "membership",
        "state.round + (1 if past else 0)",
        "state.round",
        "an agent that has counted is asked again",
        "it is a duplicate then, and costs a message",
    ),
    _server(
        "membership",
        "known = join.resumption.last_round if join.resumption else newest",
        "known = 0",
        "forgets which rounds were announced before a restart",
    ),
    _server("dispatch", "session.stream != event.stream", "False", "the end of an old stream ends the new one"),
    _server(
        "dispatch",
        "phase=AgentPhase.LOST, last_seen=now",
        "phase=AgentPhase.LOST",
        "a lost session times out early",
        "early is within its time-out",
    ),
)

_TIME = (
    _server(
        "opening",
        "repeats and bool(agents) and agents <= connected_agents(state)",
        "False",
        "rounds are not replayed",
    ),
    _server("opening", "agents <= connected_agents(state)", "True", "replays without all contributors"),
    _server(
        "opening",
        "min(state.durability.last_announced_round + 1, state.round + state.config.max_inflight_rounds)",
        "state.round",
        "replays one round only",
    ),
    _server(
        "opening", "awaited=current.awaited.remove(others)", "awaited=current.awaited", "a replay awaits others"
    ),
    _server(
        "opening",
        "back >= required_gradients(state.specification, len(agents)) or",
        "back >= 1 or",
        "resumes before the contributors are back",
    ),
    _server("opening", "(late and bool(connected_agents(state)))", "False", "waits for contributors that are gone"),
    _server("timeouts", "if now >= session.last_seen + silence:", "if False:", "silent sessions are never dropped"),
    _server(
        "timeouts",
        "least if first < least else _AFTER_THE_FIRST * min(first, most)",
        "1e9",
        "a round waits for ever for one agent",
    ),
    _server(
        "closing",
        "if deadline is None or now < deadline:",
        "if deadline is None:",
        "a quorum waits for no deadline",
    ),
    _server(
        "snapshot",
        "replay_agents=_replay_agents(saved)",
        "replay_agents=frozenset()",
        "a restart forgets the replay",
    ),
    _server(
        "snapshot",
        "accepted={number: AgentSet.of_names(names) for number, names in saved.accepted.items()}",
        "accepted={}",
        "a restart forgets what has counted",
    ),
)

_SESSION = (
    _client(
        "rounds",
        "[-most_kept(state) :]",
        "",
        "keeps more gradients than its bound",
        "the bound is 66 here, and no agent is as far ahead of the disk",
    ),
    _client(
        "rounds",
        "kept = (*_kept_beside(state, upload), KeptGradient(upload, *state.learning_at))[-most_kept(state) :]",
        "kept = state.kept",
        "keeps no gradient",
    ),
    _client(
        "state",
        "            and (self.basis is basis or np.array_equal(self.basis, basis))\n",
        "",
        "sends a kept gradient of another basis",
    ),
    _client(
        "rounds",
        "if state.learning is not None and not passes_on_early(state):\n        return state, ()\n    number",
        "number",
        "learns two rounds at once",
    ),
    _client(
        "rounds",
        "elif upload.round < state.stamp.round and state.is_open and not _has_secure_sums(state):",
        "elif False:",
        "sends no late gradient",
        "late gradients only help",
    ),
    _client(
        "joining",
        "if each.upload.round >= welcome.stamp.durable_round)",
        "if each.upload.round > welcome.stamp.durable_round)",
        "drops the gradient of the open round at a welcome",
    ),
    _client(
        "joining",
        "is_open=welcome.started and welcome.stamp.round >= welcome.first_round",
        "is_open=welcome.started",
        "learns a round again that has counted",
        "it is kept, and sent as a duplicate",
    ),
    _client("joining", "is_open=welcome.started and", "is_open=", "sends before the fleet is back"),
    _client("reconnecting", "state.evolve(token=None)", "state", "resumes a session that is gone"),
    _client(
        "reconnecting",
        "state.stamp is None or message.stamp.incarnation >= state.stamp.incarnation",
        "True",
        "follows an older coordinator",
        "one coordinator runs at a time here",
    ),
    _client(
        "reconnecting",
        "if now - state.last_sent < session_timeout / _HEARTBEATS_PER_TIMEOUT:",
        "if True:",
        "no heartbeats",
    ),
    _client(
        "dispatch",
        "drained_at = now if state.drained_at is None else state.drained_at",
        "return state, ()",
        "ignores a drain",
        "it asks again a little earlier",
    ),
    _client(
        "idle_check",
        "return silence.asked_at is None and now >= silence.ask_at",
        "return False",
        "never asks a silent coordinator",
        "keepalive ends dead streams first",
    ),
)

GUARDED = (
    *(f"{_SERVER}.{name}" for name in ("closing", "counting", "dispatch", "membership", "opening", "quorum")),
    *(f"{_SERVER}.{name}" for name in ("snapshot", "timeouts")),
    *(f"{_CLIENT}.{name}" for name in ("dispatch", "idle_check", "joining", "reconnecting", "rounds", "state")),
    "cospan.relay.machine",
)
"""The modules of which every guard is a mutant."""


def _generated() -> Iterator[Mutant]:
    for module in GUARDED:
        for place in places(path_of(module).read_text(encoding="utf-8")):
            what = f"{module.removeprefix('cospan.')}: {place.key}"
            yield Mutant(module, "", "", what, reason_unseen(what), place.key)


MUTANTS = (*_CLOSING, *_COUNTING, *_MEMBERS, *_TIME, *_SESSION, *OF_SECURE_SUMS, *_generated())
