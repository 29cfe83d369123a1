"""One thread that learns, so that heartbeats go on while an environment takes its time."""

import queue
import threading
from collections.abc import Callable
from typing import Any


class LearnerThread:
    """Runs jobs one after another in a single daemon thread.

    A daemon, and not an executor: an environment that hangs must not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._last_begun, self._last_done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Any]) -> None:
        """Runs `job` after those submitted before it. A job reports its own outcome."""
        self._jobs.put(job)

    def submit_last(self, job: Callable[[], Any]) -> None:
        """The same, for a job that `wait_for_last` waits for."""
        self._jobs.put(self._last_begun.set)
        self._jobs.put(job)
        self._jobs.put(self._last_done.set)

    def wait_for_last(self, seconds: float) -> None:
        """Waits for the job of `submit_last`, for at most this time; not at all if those before it are not over."""
        if self._last_begun.is_set():
            self._last_done.wait(seconds)

    def stop(self) -> None:
        """Ends the thread after the jobs submitted so far; does not wait for it."""
        self._jobs.put(None)

    def join(self, seconds: float) -> None:
        """After `stop`: waits for the jobs submitted so far, for at most this time."""
        self._thread.join(seconds)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def sum_up_seconds(agents: int) -> float:
    """How long, at most, these agents take for the errors and tests that their file holds at the end."""
    return 20.0 + 0.02 * agents
