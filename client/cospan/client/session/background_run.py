"""An agent that takes part in a thread of its own, beside a program that is no event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from cospan.wire import fork_guard

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0


T = TypeVar("T")


class BackgroundRun(Generic[T]):
    """Runs an agent from its making until `end`."""

    def __init__(self, run: Callable[[], Coroutine[Any, Any, T]], stop: Callable[[str], None], name: str) -> None:
        """Starts it.

        Args:
            run: takes part, until the run is over or `stop` was called.
            stop: asks it to leave, with the cause; called on its event loop.
            name: of the thread.
        """
        fork_guard.refuse_in_child()
        self._run, self._stop = run, stop
        self._begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outcome: T | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()
        self._begun.wait(_START_SECONDS)

    def _main(self) -> None:
        try:
            self._outcome = asyncio.run(self._took_part())
        except BaseException as failure:  # raised in the program's thread, by `end`
            self._failure = failure
        finally:
            self._begun.set()

    async def _took_part(self) -> T:
        self._loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._run())
        await asyncio.sleep(0)  # its driver has started, so it can be asked to stop
        self._begun.set()
        return await task

    def wait(self, seconds: float | None = None) -> T | None:
        """Waits for the end of the run; None where it has not come in time. Raises what ended the agent."""
        self._thread.join(seconds)
        if self._failure is not None:
            raise self._failure
        return self._outcome

    def end(self, *, raising: bool) -> None:
        """Leaves the run where it is not over, and waits for its end, at most half a minute.

        Args:
            raising: whether a failure of the agent is raised.
        """
        if self._loop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(self._stop, "its program has finished with it")
        self._thread.join(_STOP_SECONDS)
        if raising and self._failure is not None:
            raise self._failure
