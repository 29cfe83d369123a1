"""Guards of the machines that can be removed: the search then has to find what they are for."""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from types import CodeType, FunctionType

from model.parties import Settings

_SMALL = Settings(agents=2, faults=1)
_QUORUM = Settings(agents=2, quorum=1, faults=1)
_RELAY = Settings(agents=2, relayed=2, rounds=2, faults=1)
_SERVER, _CLIENT = "cospan.server.machine", "cospan.client.session.machine"
_RELAYING = "cospan.relay.machine"


@dataclass(frozen=True, slots=True)
class Guard:
    """A guard, as text of a module's source.

    Attributes:
        module: its full name.
        old: text that is in its source once.
        new: what stands there without the guard.
        what: what the machine does without it.
        settings: of a search that finds that.
        is_quick: whether it does so in a second or two.
    """

    module: str
    old: str
    new: str
    what: str
    settings: Settings = _SMALL
    is_quick: bool = False


GUARDS = (
    Guard(
        f"{_SERVER}.closing",
        "return 0 < state.specification.rounds <= state.round",
        "return 0 < state.specification.rounds == state.round and state.phase is RunPhase.CLOSING",
        "a run that was killed before its end opens another round",
        is_quick=True,
    ),
    Guard(
        f"{_SERVER}.closing",
        "return all(are_connected(state, agents) for agents in current.counted.blocks)",
        "return True",
        "a round runs ahead of the disk although a contributor is lost",
        is_quick=True,
    ),
    Guard(
        f"{_SERVER}.closing",
        "current.counted != state.history.last_contributors or ",
        "",
        "a round runs ahead of the disk with other contributors than are stored",
        is_quick=True,
    ),
    Guard(
        f"{_SERVER}.closing",
        "durable_round=record.closed_round + 1)), (report,)",
        "durable_round=state.round)), (report,)",
        "a round is called durable that is not stored",
        Settings(agents=1, rounds=5, faults=0),
        is_quick=True,
    ),
    Guard(
        f"{_SERVER}.dispatch",
        "if session is None or session.stream != event.stream:",
        "if session is None:",
        "the end of an old stream ends a session that has a newer one",
        is_quick=True,
    ),
    Guard(
        f"{_CLIENT}.rounds",
        "if each.is_of(state.stamp.round, state.basis, state.head_covariance):",
        "if each.upload.round == state.stamp.round:",
        "a gradient is sent that was computed at another basis",
        Settings(agents=2, faults=2, cuts=0, agent_stops=0),
    ),
    Guard(
        f"{_CLIENT}.joining",
        "is_open=welcome.started and welcome.stamp.round >= welcome.first_round,",
        "is_open=True,",
        "an agent learns while the coordinator waits for the fleet",
    ),
    Guard(
        f"{_CLIENT}.reconnecting",
        "state.token is not None, state.evolve(token=None)",
        "state.token is not None, state",
        "a session that is gone is resumed again and again",
    ),
    Guard(
        f"{_SERVER}.opening",
        "awaited=current.awaited.remove(others)",
        "awaited=current.awaited",
        "others take part in a round that is repeated",
        Settings(faults=2, cuts=0, agent_stops=0),
    ),
    Guard(
        f"{_SERVER}.opening",
        "state.durability.last_announced_round + 1,",
        "state.durability.last_announced_round,",
        "a round that only a late agent was told of is not repeated",
        Settings(agents=2, rounds=4, faults=2, cuts=0, agent_stops=0),
    ),
    Guard(
        f"{_SERVER}.closing",
        "    if state.specification.participation is not Participation.ALL or state.specification.is_private:\n"
        "        return False\n",
        "",
        "a round is announced before it is stored although it needs a quorum alone",
        _QUORUM,
        is_quick=True,
    ),
    Guard(
        f"{_SERVER}.closing",
        "    if len(current.counted) < required_gradients(state.specification, agents):\n        return None\n",
        "",
        "a round closes at its deadline without its quorum",
        Settings(rounds=2, quorum=2, faults=0),
        is_quick=True,
    ),
    Guard(
        f"{_SERVER}.counting",
        "    if state.round - round_number > spec.max_staleness or state.open_round.replaying:\n"
        "        return False\n",
        "",
        "a gradient counts however old it is",
        _QUORUM,
        is_quick=True,
    ),
    Guard(
        f"{_SERVER}.counting",
        "        state = _evict_stale(state, upload.round, agents)\n",
        "",
        "a newer gradient counts beside the older one of its agent",
        Settings(agents=2, quorum=1, max_staleness=1, faults=0),
        is_quick=True,
    ),
    Guard(
        _RELAYING,
        "    if state.fleet.phase is RunPhase.WAITING or event.upload.round > state.fleet.round:\n",
        "    if event.upload.round > state.fleet.round:\n",
        "a relay refuses a gradient of a round that it has not opened again",
        _RELAY,
        is_quick=True,
    ),
    Guard(
        _RELAYING,
        "hosted = {*fleet.members.hosts, *fleet.open_round.counted}",
        "hosted = {*fleet.members.hosts}",
        "a relay joins without an agent that is in its sum",
        _RELAY,
        is_quick=True,
    ),
    Guard(
        _RELAYING,
        "hosted.intersection(state.names) if fleet.phase is RunPhase.CLOSING else hosted",
        "hosted",
        "a relay joins with others while its sum is on its way",
        _RELAY,
    ),
    Guard(
        f"{_CLIENT}.joining",
        "    if state.passes_on and begins:  #",
        "    if False:  #",
        "a relay keeps its sum of a first round that may be over more agents",
        _RELAY,
    ),
    Guard(
        f"{_CLIENT}.reconnecting",
        "given_up, state = state.token is not None,",
        "given_up, state = True,",
        "a relay whose join was overtaken waits for a sum that waits for that join",
        _RELAY,
    ),
    Guard(
        f"{_CLIENT}.rounds",
        "    if not state.passes_on or state.stamp is None or passes_on_early(state):\n",
        "    if True:\n",
        "a relay answers a round that opens again with a sum over fewer agents than take part",
        Settings(agents=2, relayed=2, coordinator_stops=1, relay_stops=1, agent_stops=0, cuts=0, timeouts=0),
    ),
)


@contextlib.contextmanager
def removed(guard: Guard) -> Iterator[None]:
    """Without the guard: the functions of its module have the changed code.

    Raises:
        ValueError: its text is not in the source once; the list has to follow the code.
    """
    module = import_module(guard.module)
    source = inspect.getsource(module)
    if source.count(guard.old) != 1:
        raise ValueError(f"{guard.module} has {source.count(guard.old)} times {guard.old!r}, and not once")
    compiled = compile(
        source.replace(guard.old, guard.new), module.__file__ or guard.module, "exec", dont_inherit=True
    )
    changed = {each.co_name: each for each in compiled.co_consts if isinstance(each, CodeType)}
    functions = [each for each in vars(module).values() if isinstance(each, FunctionType)]
    kept = {each: each.__code__ for each in functions if each.__module__ == guard.module}
    try:
        for function in kept:
            function.__code__ = changed[function.__name__]
        yield
    finally:
        for function, code in kept.items():
            function.__code__ = code
