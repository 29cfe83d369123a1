"""The epoch that members make, and in which of them a member takes part."""

import pytest

from cospan.core.secure_sums.membership import Member, Membership

A, B, C, D = (Member(bytes([number] * 32), (f"site-{number}",)) for number in (1, 2, 3, 4))


def test_the_epoch_follows_from_the_members_in_any_order() -> None:
    assert Membership.of("run", [C, A, B]) == Membership.of("run", [A, B, C])
    assert Membership.of("run", [C, A, B]).epoch_id == Membership.of("run", [A, B, C]).epoch_id
    assert Membership.of("run", [C, A, B]).members == (A, B, C)


def test_every_difference_makes_another_epoch() -> None:
    memberships = [
        Membership.of("run", [A, B, C]),
        Membership.of("run2", [A, B, C]),
        Membership.of("run", [A, B]),
        Membership.of("run", [A, B, D]),
        Membership.of("run", [A, B, Member(C.public_key, ("site-4",))]),
        Membership.of("run", [A, B, Member(C.public_key, ("site-3", "site-4"))]),
        Membership.of("run", [A, B, Member(C.public_key, ("site-3site-4",))]),
        Membership.of("run", [Member(A.public_key, ("site-2",)), Member(B.public_key, ("site-1",)), C]),
    ]
    assert len({membership.epoch_id for membership in memberships}) == len(memberships)


def test_the_epoch_id_stays_the_same() -> None:
    """Members of another make have to compute it."""
    assert (
        Membership.of("run", [A, B, Member(C.public_key, ("a", "bc"))]).epoch_id.hex()
        == "9f04b4a28cd1c8c6b405b0cf154a7abb88a34ecb87c4366788cbfcd9fee57ca2"
    )


def test_members_have_places_and_agents() -> None:
    membership = Membership.of("run", [B, Member(C.public_key, ("x", "y")), A])
    assert [membership.place_of(member.public_key) for member in (A, B, C, D)] == [0, 1, 2, None]
    assert membership.agents == 4


def test_a_member_takes_part_in_a_sound_epoch() -> None:
    for own in (A, B, C):
        assert Membership.of("run", [A, B, C]).problem_for(own, 3) == ""


@pytest.mark.parametrize(
    ("members", "own", "min_cohort", "text"),
    [
        ((A, B), A, 3, "2 members; with fewer than min_cohort, 3"),
        ((A, B, C), A, 4, "fewer than min_cohort, 4"),
        ((A, B, C), D, 3, "is not among the members"),
        ((A, B, C), Member(A.public_key, ("site-9",)), 3, "is not among the members"),
        ((A, B, C), Member(D.public_key, A.agent_ids), 3, "is not among the members"),
        ((B, A, C), A, 3, "not in the order"),
        ((A, A, B), A, 3, "not in the order"),
        ((A, Member(A.public_key, ("site-9",)), B), A, 3, "two members have one key"),
        ((A, B, Member(C.public_key, ("site-1",))), A, 3, "named twice"),
        ((A, B, Member(C.public_key, ("x", "x"))), A, 3, "named twice"),
        ((A, B, Member(C.public_key, ())), A, 3, "has no agents"),
        ((A, B, Member(C.public_key[:31], ("x",))), A, 3, "not 32 bytes"),
    ],
)
def test_what_cannot_be_an_epoch_is_refused(
    members: tuple[Member, ...], own: Member, min_cohort: int, text: str
) -> None:
    assert text in Membership("run", members).problem_for(own, min_cohort)
