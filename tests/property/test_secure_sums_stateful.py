"""Secure sums with joins, deaths and restarts at every step: no mask is used twice, every sum is right."""

from hypothesis import given, settings
from hypothesis import strategies as st
from secure_world import World

DOINGS = ("connect", "receive", "send", "learn", "lose_stream")
EVENTS = (*DOINGS, *DOINGS, "compute", "store", "kill", "restart", "tick", "work", "work")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 3)), max_size=80))
def test_whatever_happens_one_vector_is_masked_for_a_round_and_every_sum_is_right(
    history: list[tuple[str, int]],
) -> None:
    world = World(("a",), ("b",), ("c",), ("d", "e"))
    world.heal()
    for what, place in history:
        if what in DOINGS:
            getattr(world.processes[place], what)()
        elif what == "kill":
            world.kill(place)
        elif what == "tick":
            world.tick(1.5 * place)
        elif what == "work":
            world.all_at_work()
        else:
            getattr(world, what)()
    world.heal()
