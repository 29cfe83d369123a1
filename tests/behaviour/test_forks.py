"""A process that is forked while Cospan runs in its parent: refused with a sentence, and its end does not hang."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, multiprocessing, os, sys, threading
from cospan.client import specify
from cospan.client.agent import Agent
from cospan.server.coordinator import Coordinator
from cospan.wire.errors import ForkedProcessError

specification = specify("queues", agents=2, rounds=0)
ready, shared = threading.Event(), {}

def serve():
    async def serving():
        async with Coordinator(specification) as coordinator:
            shared.update(coordinator=coordinator, loop=asyncio.get_running_loop())
            ready.set()
            await coordinator.wait()
    asyncio.run(serving())

def refused(use):
    try:
        use()
    except ForkedProcessError as refusal:
        assert "multiprocessing.get_context('spawn')" in str(refusal)
        return
    raise AssertionError("it was not refused")

def child():
    coordinator = shared["coordinator"]
    refused(coordinator.status)
    refused(coordinator.stop)
    refused(Coordinator(specification).run)
    refused(Agent("queues", index=0, coordinator=coordinator.address).run)
    refused(lambda: asyncio.run(Agent("queues", index=0, coordinator=coordinator.address).run_async()))

thread = threading.Thread(target=serve)
thread.start()
ready.wait()
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join(120.0)
plain = os.fork()
if not plain:
    sys.exit(7)  # with all that an interpreter does at its end
_, ended = os.waitpid(plain, 0)
coordinator = shared["coordinator"]
shared["loop"].call_soon_threadsafe(coordinator.stop)
thread.join(120.0)
after = multiprocessing.get_context("fork").Process(target=Coordinator(specification).status)
after.start()
after.join(120.0)
print(process.exitcode, os.waitstatus_to_exitcode(ended), after.exitcode)
"""


def test_a_forked_process_is_refused_and_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=tmp_path, check=False)
    assert done.stdout == "0 7 0\n", done.stderr
