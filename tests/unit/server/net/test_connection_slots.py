"""Who has a place at a listener that is full."""

from cospan.server.net.connection_slots import SlotHolder, admission


def test_a_newcomer_takes_the_place_of_who_has_waited_longest() -> None:
    guests = [SlotHolder("a", since=3.0), SlotHolder("a", since=1.0), SlotHolder("a", since=0.0, waiting=False)]
    assert admission(guests, "a", most=4, most_of_peer=4).leaves is None
    found = admission(guests, "a", most=3, most_of_peer=3)
    assert (found.admitted, found.leaves) == (True, guests[1])


def test_who_is_answered_keeps_its_place() -> None:
    guests = [SlotHolder("a", since=0.0, waiting=False) for _ in range(3)]
    assert not admission(guests, "b", most=3, most_of_peer=3).admitted


def test_a_host_that_takes_many_places_loses_its_own_first() -> None:
    patient, *crowd = [
        SlotHolder("b", since=0.0),
        *(SlotHolder("a", since=float(moment)) for moment in range(5, 8)),
    ]
    assert admission([patient, *crowd], "a", most=4, most_of_peer=4).leaves is crowd[0]
    assert admission([patient, *crowd], "c", most=4, most_of_peer=4).leaves is crowd[0]
    assert admission([patient, *crowd], "a", most=9, most_of_peer=3).leaves is crowd[0], "it has its share"
