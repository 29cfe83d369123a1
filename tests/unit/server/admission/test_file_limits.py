"""How the descriptors of a process are shared among its listeners."""

import pytest

from cospan.server.admission.file_limits import Shares, shares
from cospan.server.admission.peer_limits import most_connections


@pytest.mark.parametrize("files", [135, 256, 600, 1024, 20_000])
@pytest.mark.parametrize("agents", [1, 8, 5000])
def test_all_connections_together_leave_room_for_other_files(files: int, agents: int) -> None:
    found = shares(files, agents)
    assert found.grpc + found.dashboard + found.small + 128 <= files
    assert min(found.grpc, found.dashboard, found.small) >= 1


def test_without_a_limit_everyone_has_what_is_wanted() -> None:
    assert shares(None, 8) == shares(1_000_000, 8) == Shares(most_connections(8), 128, 32)
