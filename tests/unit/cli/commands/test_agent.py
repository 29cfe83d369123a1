"""`cospan agent`: its name and its site."""

import pytest

from cospan.cli.commands.agent import identity
from cospan.wire.errors import InvalidValueError


@pytest.mark.parametrize(
    ("agent_id", "index", "name", "site"),
    [
        ("7", None, "site-7", 7),
        ("site-7", None, "site-7", 7),
        (None, 7, "site-7", 7),
        ("pump-a", 3, "pump-a", 3),
        ("pump3b12", None, "pump3b12", 12),
        ("7", 2, "site-7", 2),
    ],
)
def test_an_agents_name_and_its_site_follow_from_each_other(
    agent_id: str | None, index: int | None, name: str, site: int
) -> None:
    assert identity(agent_id, index) == (name, site)


def test_an_agent_without_a_site() -> None:
    assert identity(None, None) == (None, None), "the coordinator gives it one"
    with pytest.raises(InvalidValueError, match="'pump-a' does not end in a number"):
        identity("pump-a", None)
