"""Writes the chains of a workload as logs, with the mapping that reads them: a fleet to try logs with.

Learning from these logs gives the bits of learning from the environments.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float

from cospan.client.environment.rollout import source_of
from cospan.client.environment.workload_loader import make_site
from cospan.client.logs.tables.parquet_file import parquet_writer
from cospan.client.workload import FeatureMap, Site, Workload
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.files.safe_files import writing_whole

FORMATS = ("parquet", "csv")
MAPPING = "fleet.toml"
_AT_ONCE = 10_000
"""Steps that are taken before they are written."""


@dataclass(eq=False, slots=True)
class _Listener:
    """A feature map that keeps the observations that it is asked for."""

    features: FeatureMap
    kept: Any = None

    @property
    def dim(self) -> int:
        return self.features.dim

    @property
    def fingerprint(self) -> str:
        return self.features.fingerprint

    def __call__(self, observation: Any) -> Float[np.ndarray, " d"]:
        return self.features(observation)

    def batch(self, observations: Any) -> Float[np.ndarray, "n d"]:
        self.kept = observations
        return self.features.batch(observations)


def export_logs(
    workload: Workload, reference: str, folder: Path, *, agents: int, steps: int, seed: int, form: str = "parquet"
) -> list[Path]:
    """Writes a log for each site and a mapping, `fleet.toml`; the files written.

    Args:
        workload: whose chains are played.
        reference: its name.
        folder: that is new or empty.
        agents: sites 0 … agents − 1.
        steps: of each chain.
        seed: of the run whose chains they are.
        form: "parquet" or "csv".

    Raises:
        InvalidValueError: the folder is not empty, or observations are no numbers.
        RunFileError: a file cannot be written.
        WorkloadBehaviourError: the workload broke its contract.
    """
    if form not in FORMATS:
        raise InvalidValueError(f"format is {form!r}; it must be {' or '.join(FORMATS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidValueError(f"{folder} is not an empty folder; name one that is, or a new one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digits = len(str(agents - 1))
        written, names = [], [""]
        for index in range(agents):
            path = folder / f"site-{index:0{digits}}.{form}"
            site = make_site(workload, index, seed)
            if not isinstance(site, Site):
                raise InvalidValueError(f"the sites of {reference!r} have no environments to play")
            names = _names(site)
            _write(path, ["step", *names, "reward"], _played(site, index, seed, steps))
            written.append(path)
        written.append(folder / MAPPING)
        with writing_whole(written[-1], durable=False) as file:
            file.write(_mapping(workload, reference, names, form).encode())
    except OSError as failure:
        raise RunFileError(f"cannot write to {folder}: {failure.strerror}; name another folder") from failure
    return written


def _names(site: Site) -> list[str]:
    """Of the columns of the observation."""
    named = getattr(site.env.unwrapped, "observation_names", None)
    shape = site.env.observation_space.shape or ()
    if len(shape) > 1 or site.env.observation_space.dtype == np.dtype(object):
        raise InvalidValueError("a log has numbers in its columns, and these observations are none")
    size = shape[0] if shape else 1
    if isinstance(named, Sequence) and len(named) == size:
        return list(named)
    return [f"observation_{place}" for place in range(size)] if shape else ["state"]


def _played(site: Site, index: int, seed: int, steps: int) -> Iterator[Float[np.ndarray, "n c"]]:
    """Blocks of rows: number, observation, and the reward of the step that begins there, nan in the last row."""
    listener = _Listener(site.features)
    source = source_of(replace(site, features=listener), name=f"site-{index}", index=index, seed=seed)
    try:
        done = 0
        while done < steps:
            count = min(_AT_ONCE, steps - done)
            rewards = source.advance(count).rewards
            observations = np.asarray(listener.kept, dtype=np.float64).reshape(count + 1, -1)
            last = done + count == steps
            rows = count + last
            numbers = np.arange(done, done + rows, dtype=np.float64)
            values = np.append(rewards, np.nan)[:rows]
            yield np.column_stack([numbers, observations[:rows], values])
            done += count
    finally:
        source.close()


def _write(path: Path, names: Sequence[str], blocks: Iterator[Float[np.ndarray, "n c"]]) -> None:
    with writing_whole(path, durable=False) as file:
        if path.suffix == ".csv":
            _write_csv(file, names, blocks)
            return
        with parquet_writer(file, names) as write:
            for rows in blocks:
                write(rows)


def _write_csv(file: IO[bytes], names: Sequence[str], blocks: Iterator[Float[np.ndarray, "n c"]]) -> None:
    class Lines:
        def write(self, text: str) -> int:
            return file.write(text.encode())

    writer = csv.writer(Lines(), lineterminator="\n")
    writer.writerow(names)
    for rows in blocks:
        for row in rows.tolist():
            # repr gives every bit back; a number that is not known is an empty cell.
            writer.writerow([int(row[0]), *("" if cell != cell else repr(cell) for cell in row[1:])])  # noqa: PLR0124


def _mapping(workload: Workload, reference: str, names: Sequence[str], form: str) -> str:
    plain = re.sub(r'["\\\n]', "", reference)
    columns = ", ".join(f'"{name}"' for name in names)
    return f"""# Logs that `cospan export-logs {plain}` has written.
[log]
data = "*.{form}"
time = "step"
step = 1
observation = [{columns}]
reward = "reward"

[run]
rank = {workload.rank}
steps_per_round = {workload.steps_per_round}

[features]
map = "workload:{plain}"
"""
