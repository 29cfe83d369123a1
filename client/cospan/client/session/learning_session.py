"""One session with a coordinator beside the thread that learns in it: the base of agents and groups."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from cospan.client.learning.learner_thread import LearnerThread
from cospan.client.session import machine as session
from cospan.client.session.driver import SessionDriver
from cospan.client.session.tasks import loop_runs_here
from cospan.wire import fork_guard
from cospan.wire.errors import CospanError, InvalidValueError, WorkloadBehaviourError

_ROUND_END_SECONDS = 2.0
"""How long an agent that stops in the middle of a round waits for its end, so that what it saves is whole."""


@dataclass(frozen=True, slots=True)
class AgentEnd:
    """How an agent's part in the run ended.

    Attributes:
        message: for people.
        rounds: how many it learnt.
        left: whether it left on request before the run was over.
    """

    message: str
    rounds: int
    left: bool = False


class LearningSession(ABC):
    """One session with a coordinator, and the thread that learns in it: the base of every agent and group."""

    _learns: ClassVar[str] = "learner"
    """What learns, in the message of its failure."""
    _driver: SessionDriver
    _worker: LearnerThread
    _loop: asyncio.AbstractEventLoop
    _outcome: asyncio.Future[AgentEnd]

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the agent or the group, for messages and files."""

    @property
    def _title(self) -> str:
        return f"agent {self.name}"

    def run(self) -> AgentEnd:
        """Takes part until the run is over, and blocks meanwhile.

        Raises:
            CospanError: it did not end in order; what was learnt can be saved all the same.
            InvalidValueError: an event loop runs in this thread, as in a notebook. It may serve the coordinator,
                and both would wait for each other; write `await agent.run_async()` there.
        """
        fork_guard.refuse_in_child()
        if loop_runs_here():
            raise InvalidValueError(
                f"{self._title} cannot block here, for an event loop runs in this thread, as in a notebook; "
                "write `await agent.run_async()` in place of run()"
            )
        return asyncio.run(self.run_async())

    async def run_async(self) -> AgentEnd:
        """Takes part until the run is over; see `run`."""
        fork_guard.begin()
        try:
            return await self._take_part()
        finally:
            fork_guard.end()

    async def _take_part(self) -> AgentEnd:
        self._worker, self._loop = LearnerThread(f"learner-{self.name}"), asyncio.get_running_loop()
        self._outcome = self._loop.create_future()
        try:
            self._driver.start()
            return await self._outcome
        finally:
            await self._end()

    async def _end(self) -> None:
        """Ends stream, tasks and learning."""
        self._worker.stop()
        await self._driver.close()
        await asyncio.to_thread(self._worker.join, _ROUND_END_SECONDS)

    def _fail(self, failure: Exception) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(failure)

    def _in_worker(self, job: Callable[[], session.Event | None]) -> None:
        """Runs a job in the learning thread; the event that it returns, if any, comes back to the loop."""

        def report() -> None:
            event: session.Event | None
            try:
                event = job()
            except CospanError as failure:
                event = session.LearningFailed(failure)
            except BaseException as failure:  # an environment or a source may also call sys.exit
                event = session.LearningFailed(self._unexpected(failure))
            if event is not None:
                self._post_from_thread(event)

        self._worker.submit(report)

    def _unexpected(self, failure: BaseException) -> CospanError:
        text = f"the {self._learns} of {self.name} failed: {type(failure).__name__}: {failure}"
        error = WorkloadBehaviourError(text)
        error.__cause__ = failure
        return error

    def _post_from_thread(self, event: session.Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._driver.post, event)
