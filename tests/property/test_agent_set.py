"""What the machine keeps its agents in, against a dict, a set and a counter that are changed in the same way."""

from collections import Counter

from hypothesis import example, given
from hypothesis import strategies as st

from cospan.server.machine.collections.agent_set import EMPTY_SET, AgentSet, Block
from cospan.server.machine.collections.participation_counts import ParticipationCounts
from cospan.server.machine.collections.persistent_map import PersistentMap
from cospan.server.machine.events import SameRound

KEYS = st.integers(0, 8).map(lambda number: 15 * number)  # few, so that keys go and come back
NAMES = [f"agent-{number}" for number in range(12)]


@st.composite
def partitions(draw: st.DrawFn) -> list[Block]:
    """Some of the names, in disjoint blocks."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    ends = sorted(draw(st.sets(st.integers(1, max(1, len(names))))) | {len(names)})
    blocks = [tuple(sorted(names[start:end])) for start, end in zip([0, *ends], ends, strict=False)]
    return [block for block in blocks if block]


@example(100, [("without", 15), ("having", 15), ("without", 30), ("having all", 30)])
@given(
    st.sampled_from([0, 10, 40, 100]),
    st.lists(st.tuples(st.sampled_from(["having", "having", "without", "having all"]), KEYS), max_size=25),
)
def test_a_persistent_map_is_what_a_dict_is_that_is_changed_in_the_same_way(
    length: int, changes: list[tuple[str, int]]
) -> None:
    book = dict.fromkeys(range(length), -1)
    mapping: PersistentMap[int, int] = PersistentMap(book)
    for number, (change, key) in enumerate(changes):
        before, was = mapping, dict(mapping)
        match change:
            case "having":
                mapping, book[key] = mapping.set(key, number), number
            case "having all":
                entries = {key: number, key // 2: number, key + 1: number}
                mapping = mapping.update(entries)
                book |= entries
            case "without":
                mapping = mapping.remove(key, key + 2)
                book.pop(key, None)
                book.pop(key + 2, None)
        assert list(mapping.items()) == list(book.items()), "the order is that of a dict"
        assert (list(mapping), list(mapping.values()), len(mapping)) == (list(book), list(book.values()), len(book))
        assert [mapping.get(key, "none") for key in range(124)] == [book.get(key, "none") for key in range(124)]
        assert [key in mapping for key in range(124)] == [key in book for key in range(124)]
        assert mapping == book == mapping
        assert mapping == PersistentMap(book)
        assert list(before.items()) == list(was.items()), "the older one stays as it is"


@given(partitions(), st.lists(st.sets(st.sampled_from(NAMES)), max_size=5))
def test_an_agent_set_is_the_set_of_its_names(blocks: list[Block], gone: list[set[str]]) -> None:
    agents, book = EMPTY_SET, set[str]()
    for block in blocks:
        assert not agents.has(block)
        agents, book = agents.add(block), book | set(block)
        assert agents.has(block)
    for names in [set[str](), *gone, *(set(block) for block in blocks)]:
        block = tuple(sorted(names))
        before, was = agents, set(book)
        assert (agents.covers(block), agents.isdisjoint(block)) == (names <= book, names.isdisjoint(book))
        assert agents.intersection(block) == names & book
        assert (agents - names, names - agents, agents & names, names | agents) == (
            *(book - names, names - book),
            *(book & names, names | book),
        )
        agents, book = agents.remove(block), book - names
        assert (len(agents), sorted(agents), agents.names) == (len(book), sorted(book), book)
        assert agents == book == agents
        assert agents == AgentSet.of_names(book), "whatever the blocks"
        assert hash(agents) == hash(frozenset(book))
        assert [name in agents for name in NAMES] == [name in book for name in NAMES]
        assert all(agents.has(block) for block in agents.blocks)
        assert before == was, "the older one stays as it is"


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3)), st.lists(partitions(), max_size=8))
def test_participation_counts_each_agent_whatever_its_company(
    stored: dict[str, int], rounds: list[list[Block]]
) -> None:
    """Also an agent that was counted in another process before, or before a restart."""
    newest = dict.fromkeys(stored, 5)
    counted, counts, last = ParticipationCounts(stored, newest), Counter(stored), dict(newest)
    for number, blocks in enumerate(rounds, start=6):
        names = [name for block in blocks for name in block]
        for _ in range(2):  # the second time all are known
            before, was, last_was = counted, dict(counts), dict(last)
            counted = counted.add(AgentSet(blocks), number)
            counts.update(names)
            last.update(dict.fromkeys(names, number))
            assert counted == counts
            assert counted.newest == last
            assert (before, before.newest) == (was, last_was), "the older one stays as it is"


def test_what_is_stored_of_one_round_is_a_mapping() -> None:
    contributors = SameRound(AgentSet([("a", "b"), ("c",)]), 4)
    assert contributors == {"a": 4, "b": 4, "c": 4}
    assert contributors.get("d") is None
