"""The part of a relay's own session in secure sums."""

from typing import Any, cast

import pytest
from runs import specification

from cospan.client.session.machine import SessionState
from cospan.core.secure_sums.membership import Member
from cospan.relay.vectors import VectorsBelow
from cospan.server.machine.secure_sums.epochs import Offer
from cospan.wire.errors import MembershipRefusedError
from cospan.wire.messages import Stamp, SumMembers

MEMBERS = tuple(Member(bytes([number]) * 32, (f"agent-{number}",)) for number in range(6))


class State:
    """What of a session's state it looks at."""

    specification = specification(agents=4, secure_sums=True, min_cohort=3)


def agreed(offered: tuple[Member, ...], named: tuple[Member, ...]) -> Any:
    vectors = VectorsBelow()
    vectors.offer = Offer(offered)
    vectors.agree(SumMembers(Stamp("run-1", 1, 7, 7), named), cast(SessionState, State()))
    return vectors.epoch


def test_who_has_joined_since_an_epoch_was_formed_is_no_member_of_it_yet() -> None:
    """Whatever the order of the keys."""
    assert agreed(MEMBERS[:3], MEMBERS[1:5]).own == 2
    assert agreed(MEMBERS[2:5], MEMBERS[:4]).own == 2


def test_an_epoch_without_a_member_below_is_refused() -> None:
    with pytest.raises(MembershipRefusedError, match="is not among the members"):
        agreed(MEMBERS[:2], MEMBERS[2:])
