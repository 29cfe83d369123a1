"""What a process holds: memory and open files."""

import asyncio
import os
from pathlib import Path

_COUNTS, _COUNT_SECONDS = 10, 0.05


def resident_mib(pid: int) -> float:
    """Its resident memory, in MiB."""
    fields = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").split("VmRSS:")[1].split()
    return int(fields[0]) / 1024.0


async def open_files(pid: int) -> int:
    """The least of some counts in a row: an observer's connection, or a file being written, is not meant."""
    counts = []
    for _ in range(_COUNTS):
        await asyncio.sleep(_COUNT_SECONDS)
        counts.append(len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208
    return min(counts)
