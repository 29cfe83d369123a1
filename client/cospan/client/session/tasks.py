"""Event loops: whether one runs here, and ending tasks in bounded time, whatever they do with a cancellation.

grpc.aio takes a cancellation of a read for itself where it comes before the first metadata: the task that was
cancelled reads on. Waiting for such a task with `asyncio.gather` has no end.
"""

import asyncio
import logging
from collections.abc import Collection, Coroutine
from typing import Any

log = logging.getLogger(__name__)

_ATTEMPTS = 3
_ATTEMPT_SECONDS = 0.5


async def end_tasks(tasks: Collection["asyncio.Task[Any]"]) -> None:
    """Cancels tasks and waits for their end; up to three times, for half a second each.

    Their results and failures are dropped. A task that is still there then is left behind, and the log says so.
    """
    pending = {task for task in tasks if not task.done()}
    for _ in range(_ATTEMPTS):
        if not pending:
            break
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_ATTEMPT_SECONDS)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it as never retrieved
    for task in pending:
        log.warning("a task does not end when it is cancelled, and is left behind: %r", task)


async def within(seconds: float, job: Coroutine[Any, Any, object]) -> bool:
    """Runs a job for at most `seconds`, then leaves it behind; whether it has ended.

    Raises:
        Exception: what the job raises.
    """
    task = asyncio.ensure_future(job)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        task.add_done_callback(_looked_at)
        return False
    task.result()
    return True


def _looked_at(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()


def loop_runs_here() -> bool:
    """Whether an event loop runs in this thread: a call that blocks would stop all that it serves."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
