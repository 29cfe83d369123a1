"""Guards of the machines that can be removed: the search then has to find what they are for."""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from types import CodeType, FunctionType

from model.parties import Settings

_SMALL = Settings(agents=2, faults=1)
_SERVER, _CLIENT = "cospan.server.machine", "cospan.client.session.machine"


@dataclass(frozen=True, slots=True)
class Guard:
    """A guard, as text of a module's source.

    Attributes:
        module: its full name.
        old: text that is in its source once.
        new: what stands there without the guard.
        what: what the machine does without it.
        settings: of a search that finds that.
    """

    module: str
    old: str
    new: str
    what: str
    settings: Settings = _SMALL


GUARDS = (
    Guard(
        f"{_SERVER}.closing",
        "return 0 < state.specification.rounds <= state.round",
        "return 0 < state.specification.rounds == state.round and state.phase is RunPhase.CLOSING",
        "a run that was killed before its end opens another round",
    ),
    Guard(
        f"{_SERVER}.closing",
        "return all(are_connected(state, agents) for agents in current.counted.blocks)",
        "return True",
        "a round runs ahead of the disk although a contributor is lost",
    ),
    Guard(
        f"{_SERVER}.closing",
        "current.counted != state.history.last_contributors or ",
        "",
        "a round runs ahead of the disk with other contributors than are stored",
    ),
    Guard(
        f"{_SERVER}.closing",
        "durable_round=record.closed_round + 1)), (report,)",
        "durable_round=state.round)), (report,)",
        "a round is called durable that is not stored",
        Settings(agents=1, rounds=5, faults=0),
    ),
    Guard(
        f"{_SERVER}.dispatch",
        "if session is None or session.stream != event.stream:",
        "if session is None:",
        "the end of an old stream ends a session that has a newer one",
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
        "        state = replace(state, token=None)\n",
        "",
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
