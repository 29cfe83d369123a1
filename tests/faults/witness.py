"""An agent process that says all that it hears and sends.

    python witness.py WORKLOAD INDEX HOST:PORT FOLDER PROGRESS_TIMEOUT

It is what `cospan agent` is, with a transport that writes one JSON line for each message to standard output: a
message that was heard before the agent knows of it, and one that is sent before it leaves. A pipe keeps what was
written whatever happens to the process, so nothing that counted anywhere is missing from it.
"""

import asyncio
import base64
import json
import os
import signal
import sys
from pathlib import Path

from cospan.cli.processes.this_process import prepare_environment

prepare_environment(())

from cospan.client.agent import Agent, AgentEnd, ClientSettings  # noqa: E402
from cospan.client.session.transport import AgentStream, GrpcTransport  # noqa: E402
from cospan.core.specification import RunSpecification  # noqa: E402
from cospan.wire.codec.messages import encode_agent_message  # noqa: E402
from cospan.wire.errors import CospanError  # noqa: E402
from cospan.wire.messages import (  # noqa: E402
    AgentMessage,
    BasisUpdate,
    CoordinatorMessage,
    Finish,
    GradientUpload,
    Stamp,
    Welcome,
)

CHECKPOINT_SECONDS = 0.2


def say(kind: str, **values: object) -> None:
    """One line, in one write: a kill leaves whole lines."""
    os.write(1, (json.dumps({"kind": kind, **values}) + "\n").encode())


class WitnessStream:
    """A stream that is listened to."""

    def __init__(self, stream: AgentStream) -> None:
        self._stream = stream

    async def send(self, message: AgentMessage) -> None:
        if isinstance(message, GradientUpload):
            encoded = encode_agent_message(message).SerializeToString()
            say("sent", message=base64.b64encode(encoded).decode(), process=os.getpid())
        await self._stream.send(message)

    async def receive(self) -> CoordinatorMessage:
        message = await self._stream.receive()
        if isinstance(message, Welcome | BasisUpdate | Finish):
            stamp = message.stamp
            say(
                "told",
                message=type(message).__name__,
                run=stamp.run_id,
                incarnation=stamp.incarnation,
                round=stamp.round,
                durable=stamp.durable_round,
                basis=base64.b64encode(message.basis.tobytes()).decode(),
            )
        return message

    async def ask(self, seconds: float) -> Stamp:
        return await self._stream.ask(seconds)

    async def close(self) -> None:
        await self._stream.close()


class WitnessTransport:
    """A transport whose streams are listened to."""

    def __init__(self, address: str) -> None:
        self._transport = GrpcTransport(address)
        self.is_near = self._transport.is_near

    async def describe(self) -> RunSpecification:
        return await self._transport.describe()

    async def open(self, specification: RunSpecification) -> AgentStream:
        return WitnessStream(await self._transport.open(specification))


async def take_part(workload: str, index: int, address: str, folder: Path, progress_timeout: float) -> AgentEnd:
    """As `cospan agent` does."""
    agent = Agent(
        workload,
        index=index,
        transport=WitnessTransport(address),
        settings=ClientSettings(
            progress_timeout_seconds=progress_timeout,
            state_file=folder,
            checkpoint_seconds=CHECKPOINT_SECONDS,
            with_baseline=False,
        ),
    )
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: agent.stop("it was stopped by SIGTERM", returning=True))
    return await agent.run_async()


def main() -> int:
    """Takes part in a run; the exit code."""
    workload, index, address, folder, progress_timeout = sys.argv[1:]
    try:
        end = asyncio.run(take_part(workload, int(index), address, Path(folder), float(progress_timeout)))
    except CospanError as failure:
        say("failed", reason=failure.reason, message=str(failure))
        return 1
    say("ended", rounds=end.rounds, message=end.message)
    return 0


if __name__ == "__main__":
    sys.exit(main())
