"""Minari datasets as tables: each episode is a chain, and its rows are its observations.

Columns: `observation_0` … of vectors (`observation` of numbers), `reward` of the step from a row to the next, and
`episode`. Actions are not needed: the policy that made the dataset is the one that is evaluated.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cospan.client.logs.tables.batch import Batch, TableError, Waiting, missing_columns
from cospan.wire.errors import InvalidValueError


@dataclass(frozen=True, eq=False, slots=True)
class MinariTable:
    """A dataset that is on this machine, by its id. It needs minari (`cospan[minari]`)."""

    dataset_id: str

    @property
    def name(self) -> str:
        """The last part of the id."""
        return self.dataset_id.rpartition("/")[2]

    def columns(self) -> list[str]:
        """See the module."""
        values = np.asarray(next(_episodes(self.dataset_id)).observations)
        vector = [f"observation_{place}" for place in range(values.shape[-1])]
        return [*(vector if values.ndim == 2 else ["observation"]), "reward", "episode"]

    def batches(self, columns: Sequence[str], wait: Waiting | None = None) -> Generator[Batch, None, None]:
        """See `Table`; an episode is a batch, and the dataset does not grow.

        Raises:
            InvalidValueError: minari is not installed.
            TableError: there is no such dataset, or its observations are no vectors.
        """
        del wait
        what, first = f"minari:{self.dataset_id}", 1
        for number, episode in enumerate(_episodes(self.dataset_id)):
            values = np.asarray(episode.observations)
            if values.dtype.kind not in "fiub" or values.ndim > 2:
                raise TableError(f"{what} has observations that are no vectors of numbers; flatten them")
            rows = values.reshape(len(values), -1).astype(np.float64)
            named = (
                [f"observation_{place}" for place in range(rows.shape[1])] if values.ndim == 2 else ["observation"]
            )
            there = dict(zip(named, rows.T, strict=True))
            there["reward"] = np.append(np.asarray(episode.rewards, dtype=np.float64), np.nan)[: len(rows)]
            there["episode"] = np.full(len(rows), float(number))
            missing_columns(columns, list(there), what)
            yield Batch({name: there[name] for name in columns}, first, what, number == 0)
            first += len(rows)


def _episodes(dataset_id: str) -> Iterator[Any]:
    try:
        import minari
    except ImportError as failure:
        raise InvalidValueError(f"minari:{dataset_id} needs minari; pip install '.[minari]'") from failure
    try:
        dataset = minari.load_dataset(dataset_id)
    except (OSError, ValueError, KeyError, ImportError) as failure:
        raise TableError(
            f"the dataset minari:{dataset_id} cannot be read: {failure}; `minari list local` shows what there is"
        ) from failure
    yield from dataset.iterate_episodes()
