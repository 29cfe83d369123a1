"""Arrays in the rows of a store, their seals, and what the basis step remembers.

A step memory may be large and change seldom, so it has a table of its own, with a row for each change: what holds
at B_t is the newest row up to t.
"""

import sqlite3
import zlib

import numpy as np
from jaxtyping import Float

_DROP_MEMORIES = """
DELETE FROM step_memory
WHERE round <= :pruned
    AND round >= coalesce((SELECT max(round) FROM step_memory WHERE round <= :before), 0)
    AND EXISTS (SELECT 1 FROM step_memory AS later WHERE later.round > step_memory.round)
    AND NOT EXISTS (
        SELECT 1 FROM bases WHERE bases.round >= step_memory.round
        AND bases.round < (SELECT min(round) FROM step_memory AS later WHERE later.round > step_memory.round)
    )
"""
"""Rows older than the newest one up to `before` were judged when the bases up to that round were dropped."""


class AlteredMemoryError(ValueError):
    """A step memory is not the one that was stored."""


def blob(values: Float[np.ndarray, "..."] | None) -> bytes | None:
    """Numbers as float64, little-endian, in C order."""
    return None if values is None else np.ascontiguousarray(values, dtype="<f8").tobytes()


def seal_of_arrays(*arrays: bytes | None) -> int:
    """The checksum of a row of arrays."""
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(array or b"", checksum)
    return checksum


def write_memory(cursor: sqlite3.Cursor, number: int, memory: Float[np.ndarray, " m"] | None) -> None:
    """Stores what the step remembers from B_t on, t = `number`, where it has changed."""
    numbers = blob(memory)
    cursor.execute("INSERT INTO step_memory VALUES (?, ?, ?)", (number, numbers, seal_of_arrays(numbers)))


def drop_memories(cursor: sqlite3.Cursor, before: int, pruned: int) -> None:
    """Drops the memories that no kept basis needs, after the bases above `before`, up to `pruned`, were dropped."""
    cursor.execute(_DROP_MEMORIES, {"before": before, "pruned": pruned})


def read_memory(connection: sqlite3.Connection, number: int) -> Float[np.ndarray, " m"] | None:
    """What the step remembers at B_t, t = `number`; None where it remembers nothing.

    Raises:
        AlteredMemoryError: its seal is wrong.
    """
    newest = "SELECT * FROM step_memory WHERE round <= ? ORDER BY round DESC LIMIT 1"
    row = connection.execute(newest, (number,)).fetchone()
    if row is None:
        return None
    check_memory(*row)
    return None if row[1] is None else np.frombuffer(row[1], dtype="<f8")


def check_memory(number: int, numbers: bytes | None, sealed: int) -> None:
    """Checks a row of step memories.

    Raises:
        AlteredMemoryError: its seal is wrong.
    """
    if seal_of_arrays(numbers) != sealed:
        raise AlteredMemoryError(f"the step memory after {number} rounds is not the one that was stored")
