"""Whose masks cancel: symmetric, of the degree that the bound asks for, and hard to cut."""

import hashlib
import math

import pytest

from cospan.core.secure_sums.graph import COLLUDING_SHARE, degree_of, neighbours_of

EPOCH = hashlib.sha256(b"an epoch").digest()


@pytest.mark.parametrize(
    ("members", "degree"),
    [(0, 0), (1, 0), (2, 1), (3, 2), (45, 44), (46, 45), (47, 46), (48, 46), (100, 48), (10_000, 54)],
)
def test_the_degree_follows_from_the_bound(members: int, degree: int) -> None:
    assert degree_of(members) == degree


@pytest.mark.parametrize("members", [48, 100, 1000, 10_000, 2**20])
def test_the_degree_is_the_least_even_one_within_the_bound(members: int) -> None:
    def chance(degree: int) -> float:
        return 2.0 * math.log2(members) - 1.0 + degree * math.log2(COLLUDING_SHARE)

    degree = degree_of(members)
    assert degree % 2 == 0
    assert chance(degree) <= -80.0 < chance(degree - 2)


@pytest.mark.parametrize("members", [1, 2, 3, 45, 46, 47, 48, 60, 101])
def test_neighbours_are_mutual_and_as_many_as_the_degree(members: int) -> None:
    graph = [neighbours_of(EPOCH, members, place) for place in range(members)]
    for place, neighbours in enumerate(graph):
        assert len(neighbours) == len(set(neighbours)) == degree_of(members)
        assert place not in neighbours
        assert all(place in graph[other] for other in neighbours)
        assert list(neighbours) == sorted(neighbours)


def test_another_epoch_has_another_graph() -> None:
    other = hashlib.sha256(b"another").digest()
    same = sum(neighbours_of(EPOCH, 100, place) == neighbours_of(other, 100, place) for place in range(100))
    assert same == 0


def test_the_graph_stays_the_same() -> None:
    """Members of another make have to compute it."""
    assert neighbours_of(EPOCH, 48, 0) == (
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        10,
        11,
        12,
        13,
        14,
        15,
        16,
        17,
        18,
        19,
        20,
        21,
        22,
        23,
        24,
        25,
        26,
        27,
        28,
        29,
        30,
        31,
        32,
        33,
        34,
        35,
        36,
        37,
        38,
        39,
        40,
        41,
        42,
        43,
        44,
        45,
        46,
        47,
    )


def test_honest_members_stay_connected_without_a_quarter() -> None:
    """Twenty draws of a quarter of 100 members; k/2 = 24 in a row, twice, would cut the ring."""
    graph = [set(neighbours_of(EPOCH, 100, place)) for place in range(100)]
    for draw in range(20):
        ranked = sorted(range(100), key=lambda place: hashlib.sha256(bytes([draw, place])).digest())
        honest = set(ranked[25:])
        reached, front = {ranked[-1]}, {ranked[-1]}
        while front:
            front = set().union(*(graph[place] for place in front)) & honest - reached
            reached |= front
        assert reached == honest
