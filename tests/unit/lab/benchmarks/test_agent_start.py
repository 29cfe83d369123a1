"""The events of an agent that starts."""

import json

import pytest

from cospan.benchmarks.agent_start import learnt
from cospan.wire.errors import CospanError


def test_an_agent_that_fails_to_start_says_why() -> None:
    assert [learnt(json.dumps({"event": name})) for name in ("note", "progress")] == ["", "progress"]
    with pytest.raises(CospanError, match="the agent did not start: no room"):
        learnt(json.dumps({"event": "failed", "message": "no room"}))
