"""What every part of the coordinator's machine gives back, and how it finds a session."""

from typing import TypeAlias

from cospan.server.machine.events import Command
from cospan.server.machine.sessions import Session
from cospan.server.machine.state import CoordinatorState
from cospan.wire.errors import SessionUnknownError

Outcome: TypeAlias = tuple[CoordinatorState, tuple[Command, ...]]


def session_of(state: CoordinatorState, token: str) -> Session:
    """The session of a token.

    Raises:
        SessionUnknownError: there is none, as after it was given up.
    """
    session = state.sessions.get(token)
    if session is None:
        raise SessionUnknownError(f"the session is not one of run {state.run_id} any more; join anew")
    return session
