"""Secure sums with joins, deaths and restarts at every step: no mask is used twice, every sum is right.

With differential privacy no vector is sent that its agent's file has not counted.
"""

from hypothesis import given, settings
from hypothesis import strategies as st
from private_runs import PROMISE
from secure_world import World

from cospan.core.method import practical

DOINGS = ("connect", "receive", "send", "learn", "lose_stream")
MANY = {"rounds": 10_000, "dp_vectors": 10_000, "dp_noise_multiplier": 70.0}
"""A budget that lasts."""
EVENTS = (*DOINGS, *DOINGS, "compute", "store", "kill", "restart", "tick", "work", "work")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 3)), max_size=80))
def test_whatever_happens_one_vector_is_masked_for_a_round_and_every_sum_is_right(
    history: list[tuple[str, int]],
) -> None:
    play(World(("a",), ("b",), ("c",), ("d", "e")), history)


@settings(max_examples=20, deadline=None)  # every vector draws noise by integers
@given(st.lists(st.tuples(st.sampled_from((*EVENTS, "count", "count")), st.integers(0, 3)), max_size=80))
def test_with_differential_privacy_each_vector_is_counted_before_it_is_sent(history: list[tuple[str, int]]) -> None:
    play(World(("a",), ("b",), ("c",), ("d",), method=practical(3), **(PROMISE | MANY)), history)


def play(world: World, history: list[tuple[str, int]]) -> None:
    world.heal()
    for what, place in history:
        if what in DOINGS or what == "count":
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
