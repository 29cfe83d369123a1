"""A TCP proxy that stands in the path: python proxy.py PORT TARGET_HOST:PORT DELAY_SECONDS BYTES_PER_SECOND.

Bytes leave DELAY_SECONDS after they came, in both directions, and from the target to the client not faster than
BYTES_PER_SECOND (0 for no limit).
"""

import asyncio
import sys
import time

PORT, TARGET = int(sys.argv[1]), sys.argv[2].rsplit(":", 1)
DELAY, RATE = float(sys.argv[3]), float(sys.argv[4])


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float) -> None:
    """Carries one direction; what is on its way waits in a queue with the time at which it is due."""
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1000)

    async def take() -> None:
        while data := await reader.read(1024 if rate else 65536):
            await queue.put((time.monotonic() + DELAY, data))
        await queue.put((0.0, b""))

    taking = asyncio.create_task(take())
    try:
        while True:
            due, data = await queue.get()
            if not data:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(data)
            await writer.drain()
            if rate:
                await asyncio.sleep(len(data) / rate)
    except OSError:
        pass
    finally:
        taking.cancel()
        writer.close()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    there, here = await asyncio.open_connection(TARGET[0], int(TARGET[1]))
    await asyncio.gather(carry(reader, here, 0.0), carry(there, writer, RATE))


async def main() -> None:
    """Serves for ever."""
    server = await asyncio.start_server(serve, "0.0.0.0", PORT)
    async with server:
        await server.serve_forever()


asyncio.run(main())
