"""Sessions of the agent's machine that tests of several of its modules begin with."""

from runs import AgentDriver

from cospan.client.session import machine as session
from cospan.wire import errors
from cospan.wire import messages as m


def broke(error: errors.CospanError | None = None, jitter: float = 0.0) -> session.StreamBroke:
    return session.StreamBroke(error or errors.CoordinatorUnavailableError("the connection was refused"), jitter)


def active(**changes: object) -> AgentDriver:
    """Welcomed, and learning round 0."""
    agent = AgentDriver()
    agent.activate(**changes)
    return agent


def sent() -> AgentDriver:
    """It has sent the gradient of round 0."""
    agent = active()
    agent.learn()
    return agent


def reconnect(agent: AgentDriver, welcome: m.Welcome) -> list[str]:
    """The stream breaks, and comes back with this welcome; what the welcome leads to."""
    agent.step(broke())
    agent.step(session.Connected())
    return agent.receive(welcome)
