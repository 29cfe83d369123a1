"""Data frames as tables."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import numpy as np

from cospan.client.logs.tables.batch import BATCH_ROWS, Batch, Waiting, missing_columns


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """A data frame of pandas, polars or any library with `columns` and columns that have `to_numpy()`."""

    name: str
    frame: Any

    def columns(self) -> list[str]:
        """Those of the frame."""
        return [str(name) for name in self.frame.columns]

    def batches(self, columns: Sequence[str], wait: Waiting | None = None) -> Generator[Batch, None, None]:
        """See `Table`."""
        del wait
        missing_columns(columns, [str(name) for name in self.frame.columns], f"the frame {self.name!r}")
        values = {name: _plain(self.frame[name].to_numpy()) for name in columns}
        times = frozenset(name for name, each in values.items() if each.dtype.kind == "M")
        for name in times:
            values[name] = values[name].astype("datetime64[ns]").astype(np.int64)
        rows = len(next(iter(values.values())))
        for begin in range(0, rows, BATCH_ROWS):
            part = {name: each[begin : begin + BATCH_ROWS] for name, each in values.items()}
            yield Batch(part, begin + 1, f"the frame {self.name!r}", begin == 0, times)


def _plain(values: np.ndarray) -> np.ndarray:
    """Numbers as float64, times and text as they are; times with a zone, which pandas gives as objects, in UTC."""
    if values.dtype.kind in "fiub":
        return values.astype(np.float64)
    if values.dtype.kind == "O" and len(values) and hasattr(values[0], "tzinfo"):
        return np.array(
            [each.astimezone(UTC).replace(tzinfo=None) if each.tzinfo else each for each in values],
            "datetime64[ns]",
        )
    return values if values.dtype.kind == "M" else values.astype(object)
