"""Secure sums through a relay with joins, deaths and restarts at every step, of every process."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relayed_world import RelayedWorld

DOINGS = ("connect", "receive", "send", "learn", "lose_stream")
EVENTS = (
    *(*DOINGS, *DOINGS),
    *("compute", "store", "kill", "kill_below", "kill_relay", "restart", "tick", "work", "work"),
)
BELOW, DIRECT = (("a",), ("b", "c")), (("d",), ("e",))


def world() -> RelayedWorld:
    return RelayedWorld(BELOW, *DIRECT)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 4)), max_size=80))
def test_whatever_happens_one_vector_is_masked_for_a_round_and_every_sum_is_right(
    history: list[tuple[str, int]],
) -> None:
    run = world()
    run.heal()
    for what, place in history:
        if what in DOINGS:
            everybody = (*run.below, *run.processes)
            getattr(everybody[place], what)()
        elif what == "kill":
            run.kill(place % len(DIRECT))
        elif what == "kill_below":
            run.kill_below(place % len(BELOW))
        elif what == "tick":
            run.tick(1.5 * place)
        elif what == "work":
            run.all_at_work()
        else:
            getattr(run, what)()
    run.heal()


def settled() -> RelayedWorld:
    run = world()
    run.heal()
    run.voids = 0
    return run


def test_a_process_that_dies_below_and_is_started_again_voids_one_round() -> None:
    run = settled()
    run.kill_below(0)
    run.heal()
    assert run.voids == 1


def test_a_relay_that_is_started_again_voids_no_round() -> None:
    """All its members come back with the same keys, so what they have masked still counts."""
    run = settled()
    run.kill_relay()
    run.heal()
    assert run.voids == 0


@pytest.mark.parametrize("times", [1, 3])
def test_a_stream_of_the_relay_that_breaks_voids_no_round(times: int) -> None:
    run = settled()
    for _ in range(times):
        run.relay.lose_stream()
        run.heal()
    assert run.voids == 0
