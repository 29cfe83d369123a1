"""Masks cancel over all members and over nothing less; one vector is masked a round; what is sent is uniform."""

import hashlib
import math

import numpy as np
import pytest

from cospan.core.secure_sums.fixed_point import Words, added
from cospan.core.secure_sums.graph import degree_of
from cospan.core.secure_sums.membership import Member, Membership
from cospan.wire.errors import MembershipRefusedError
from cospan.wire.secure_sums.keys import KeyPair
from cospan.wire.secure_sums.masker import Masker, MaskUsedError

TOLD = hashlib.sha256(b"what the round was opened with").digest()
OTHER = hashlib.sha256(b"something else").digest()


def keys_of(count: int, seed: int = 0) -> list[KeyPair]:
    """Fixed keys, so that nothing here depends on the day."""
    return [KeyPair(hashlib.sha256(f"{seed} {number}".encode()).digest()) for number in range(count)]


def membership_of(keys: list[KeyPair], run_id: str = "run") -> Membership:
    return Membership.of(run_id, [Member(key.public_key, (f"site-{place}",)) for place, key in enumerate(keys)])


def maskers_of(count: int, seed: int = 0) -> list[Masker]:
    keys = keys_of(count, seed)
    membership = membership_of(keys)
    return [Masker(key, membership) for key in keys]


def vectors_of(count: int, length: int = 9) -> list[Words]:
    rng = np.random.default_rng(count)
    return [rng.integers(0, 2**64, length, dtype=np.uint64) for _ in range(count)]


@pytest.mark.parametrize("members", [2, 3, 46, 48, 200])
def test_masks_cancel_over_all_members_of_complete_and_sparse_epochs(members: int) -> None:
    maskers, vectors = maskers_of(members), vectors_of(members)
    for round_number in (0, 7) if members < 100 else (5,):
        masked = [each.mask(round_number, TOLD, vector) for each, vector in zip(maskers, vectors, strict=True)]
        assert np.array_equal(added(masked), added(vectors))
        assert not any(np.array_equal(a, b) for a, b in zip(masked, vectors, strict=True))
    assert {each.neighbours for each in maskers} == {degree_of(members)}


def test_masks_cancel_over_nothing_less() -> None:
    maskers, vectors = maskers_of(5), vectors_of(5)
    masked = [each.mask(3, TOLD, vector) for each, vector in zip(maskers, vectors, strict=True)]
    for missing in range(5):
        kept = [place for place in range(5) if place != missing]
        assert not (added([masked[place] for place in kept]) == added([vectors[place] for place in kept])).any()


@pytest.mark.parametrize("what", ["round", "announcement", "run", "members"])
def test_members_that_were_told_different_things_do_not_cancel(what: str) -> None:
    keys, vectors = keys_of(4), vectors_of(4)
    membership = membership_of(keys)
    odd = membership_of(keys, "another") if what == "run" else membership
    if what == "members":
        odd = membership_of([*keys, *keys_of(1, seed=9)])
    maskers = [Masker(key, odd if place == 0 else membership) for place, key in enumerate(keys)]
    masked = [
        each.mask(
            1 if what == "round" and place == 0 else 0,
            OTHER if what == "announcement" and place == 0 else TOLD,
            vectors[place],
        )
        for place, each in enumerate(maskers)
    ]
    assert not (added(masked) == added(vectors)).any()


def test_the_same_round_again_gives_the_same_bytes() -> None:
    masker, vector = maskers_of(3)[0], vectors_of(1)[0]
    first = masker.mask(4, TOLD, vector)
    again = masker.mask(4, TOLD, vector.copy())
    assert np.array_equal(first, again)
    again[:] = 0  # what a caller does to it changes nothing
    assert np.array_equal(masker.mask(4, TOLD, vector), first)


@pytest.mark.parametrize(
    ("round_number", "told", "change"), [(4, TOLD, 1), (4, OTHER, 0), (3, TOLD, 0), (0, OTHER, 1)]
)
def test_no_second_vector_is_masked(round_number: int, told: bytes, change: int) -> None:
    masker, vector = maskers_of(3)[0], vectors_of(1)[0]
    first = masker.mask(4, TOLD, vector)
    with pytest.raises(MaskUsedError, match="masked for round 4"):
        masker.mask(round_number, told, vector + np.uint64(change))
    assert np.array_equal(masker.mask(4, TOLD, vector), first)
    assert not np.array_equal(masker.mask(5, TOLD, vector), first)


def test_an_earlier_epoch_lets_no_second_vector_through() -> None:
    """Not the vector of this round in another epoch, and none of an earlier round back in the first one."""
    keys, vector = keys_of(4), vectors_of(1)[0]
    first, other = membership_of(keys), membership_of(keys[:3])
    Masker(keys[0], first).mask(1, TOLD, vector)
    sent = Masker(keys[0], other).mask(2, TOLD, vector)
    for again, round_number in ((first, 1), (first, 2), (other, 1)):
        with pytest.raises(MaskUsedError, match="masked for round 2"):
            Masker(keys[0], again).mask(round_number, TOLD, vector)
    assert np.array_equal(Masker(keys[0], other).mask(2, TOLD, vector), sent)
    assert len(Masker(keys[0], first).mask(3, TOLD, vector)) == len(vector)


def test_a_callers_vector_may_change_afterwards() -> None:
    masker, vector = maskers_of(3)[0], vectors_of(1)[0]
    kept, first = vector.copy(), masker.mask(0, TOLD, vector)
    vector += np.uint64(1)
    assert np.array_equal(masker.mask(0, TOLD, kept), first)


def test_a_process_that_is_no_member_has_no_masks() -> None:
    with pytest.raises(MembershipRefusedError, match="not among the members"):
        Masker(KeyPair(bytes([5] * 32)), membership_of(keys_of(3)))


def test_a_neighbour_of_low_order_is_refused() -> None:
    keys = keys_of(2)
    members = [Member(key.public_key, (f"site-{place}",)) for place, key in enumerate(keys)]
    with pytest.raises(MembershipRefusedError, match="low order"):
        Masker(keys[0], Membership.of("run", [*members, Member(bytes(32), ("site-9",))]))


def test_what_one_member_sends_is_uniform() -> None:
    """χ² of the bytes at each of the 8 places of a word, of 2,000 rounds of one vector: all zeros.

    Of 8 statistics with 255 degrees of freedom each exceeds 350 with a probability of 7e-5 if bytes are
    uniform. Keys are fixed, so this passes always or never.
    """
    masker, zeros = maskers_of(3)[0], np.zeros(61, np.uint64)
    sent = np.array([masker.mask(round_number, TOLD, zeros) for round_number in range(2_000)])
    places = sent.astype("<u8").view(np.uint8).reshape(-1, 8)
    expected = len(places) / 256
    for place in range(8):
        counts = np.bincount(places[:, place], minlength=256)
        assert ((counts - expected) ** 2 / expected).sum() < 350.0
    words = sent.astype(np.float64) / 2.0**64
    rounds_apart = np.corrcoef(words[:-1].ravel(), words[1:].ravel())[0, 1]
    assert abs(rounds_apart) < 4.0 / math.sqrt(words[1:].size)
    assert np.abs(np.corrcoef(words.T) - np.eye(61)).max() < 5.0 / math.sqrt(len(words))


def test_masks_stay_the_same() -> None:
    """Members of another make have to compute them."""
    masker = Masker(keys_of(3)[0], membership_of(keys_of(3)))
    assert [hex(word) for word in masker.mask(2, TOLD, np.zeros(2, np.uint64)).tolist()] == [
        "0x3d7aa84a6dcb3c72",
        "0x667d4e7fa605bfe4",
    ]
