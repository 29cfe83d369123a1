"""`cospan agent`: its name and its site."""

import pytest

from cospan.cli.commands.agent import AgentSettings, identity, say_unanswered
from cospan.client import Agent
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


def settings(coordinator: str) -> AgentSettings:
    return AgentSettings(
        coordinator=coordinator,
        progress_timeout_seconds=600.0,
        baseline=None,
        index=None,
        ids=None,
        shard=None,
        agents=None,
        checkpoint_seconds=5.0,
        share_td_error=False,
        min_steps_per_round=1,
        require_secure_sums=False,
        max_epsilon=None,
        memory_gib=4.0,
        tls=None,
    )


def test_a_coordinator_that_does_not_answer_is_named_before_it_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    agent = Agent("queues", index=7)
    for waits in (False, True):
        monkeypatch.setattr(Agent, "is_unanswered", waits)
        say_unanswered(agent, settings("@address"), None)
    said = "".join(capfd.readouterr())
    assert said == (
        "site-7: the coordinator at @address has not answered yet; it is asked again for up to 600 s "
        "(--progress-timeout-seconds)\n"
    )
