"""TensorBoard's event files, which many other tools read as well."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from cospan.cli.run_folder.layout import EVENTS, TENSORBOARD
from cospan.cli.tracking.points import Point, RunFacts
from cospan.wire.errors import RunFileError

_VERSION = "brain.Event:2"
_CONSTANTS, _RESULT = "run/specification", "run/result"
_MOST_AGENTS = 100
"""Agents in the table of the result."""
_LARGEST = 1 << 26
"""Bytes of a record; a longer one is damage."""
_HEADER = 12
"""Bytes before a record: its length (8, little-endian) and a checksum (4); a checksum of 4 follows it."""


class TensorBoardSink:
    """A folder of event files; a resumed run adds a file."""

    name = "tensorboard"

    def __init__(self, folder: Path, facts: RunFacts, *, own: bool = False) -> None:
        """Prepares; nothing is written.

        Args:
            folder: of the run; or of the event files, where they have one of their
            own: folder.
            facts: of the run.
        """
        self.folder = folder if own else folder / TENSORBOARD
        self._facts = facts
        self._file: BinaryIO | None = None
        self._records: Any = None
        self._last: dict[str, int] = {}
        self._stored = False

    @property
    def place(self) -> str:
        """See `Sink`."""
        return str(self.folder)

    def open(self) -> Mapping[str, int]:
        """See `Sink`.

        Raises:
            RunFileError: the folder cannot be written.
        """
        self.close()
        last: dict[str, int] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self.folder.glob(EVENTS)):
                for event in events_of(path):
                    for value in event.summary.value:
                        last[value.tag] = max(last.get(value.tag, -1), int(event.step))
            name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}.cospan"
            self._file, self._stored = (self.folder / name).open("xb"), False
        except OSError as failure:
            raise RunFileError(f"cannot write event files in {self.folder}: {failure.strerror}") from failure
        self._records = RecordWriter(self._file)
        self._add(Event(wall_time=time.time(), file_version=_VERSION))
        if _CONSTANTS not in last:
            self._add(
                Event(wall_time=time.time(), step=0, summary=text_pb(_CONSTANTS, _table(self._facts.constants)))
            )
        self._last = last
        return last

    def write(self, points: Sequence[Point]) -> None:
        """See `Sink`; all numbers of a step are one record, so a killed process leaves all or none of them.

        Raises:
            RunFileError: the file cannot be written, as when the disk is full.
        """
        for point in points:
            values = [Summary.Value(tag=name, simple_value=number) for name, number in point.values.items()]
            self._add(Event(wall_time=point.time, step=point.step, summary=Summary(value=values)))
        self._flush()

    def finish(self, document: Mapping[str, Any]) -> None:
        """See `Sink`."""
        step = max(0, int(document.get("rounds", 0)) - 1)
        if self._last.get(_RESULT, -1) >= step:
            return
        agents = list(document.get("per_agent") or ())
        text = _table({name: document.get(name) for name in ("finish_cause", "message", "rounds", "basis_sha256")})
        if agents:
            text += "\n\n" + _agents_table(agents)
        self._add(Event(wall_time=time.time(), step=step, summary=text_pb(_RESULT, text)))
        self._flush()

    def close(self) -> None:
        """See `Sink`; a file in which nothing could be stored is removed."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._file.close()
        if not self._stored:
            with contextlib.suppress(OSError):
                Path(self._file.name).unlink()
        self._file = None

    def _add(self, event: Event) -> None:
        try:
            self._records.write(event.SerializeToString())
        except OSError as failure:
            raise RunFileError(f"cannot write event files in {self.folder}: {failure.strerror}") from failure

    def _flush(self) -> None:
        assert self._file is not None
        try:
            self._file.flush()
            self._stored = True
        except OSError as failure:
            raise RunFileError(f"cannot write event files in {self.folder}: {failure.strerror}") from failure


def events_of(path: Path) -> Iterator[Event]:
    """The events of a file up to its end, or to where it was cut off or damaged."""
    with path.open("rb") as file:
        while True:
            head = file.read(_HEADER)
            size = int.from_bytes(head[:8], "little")
            if len(head) < _HEADER or size > _LARGEST:
                return
            body = file.read(size + 4)
            if len(body) < size + 4:
                return
            try:
                yield Event.FromString(body[:size])
            except DecodeError:
                return


def _table(values: Mapping[str, Any]) -> str:
    """A table in Markdown."""
    rows = [f"| {name} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join(["| name | value |", "|---|---|", *rows])


def _agents_table(agents: Sequence[Mapping[str, Any]]) -> str:
    columns = ("id", "label", "mean_reward", "gain", "value_error", "ratio", "shared_weight")
    rows = ["| " + " | ".join(_cell(agent.get(name)) for name in columns) + " |" for agent in agents[:_MOST_AGENTS]]
    more = [f"\n… and {len(agents) - _MOST_AGENTS:,} more in result.json"] if len(agents) > _MOST_AGENTS else []
    return "\n".join(["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|", *rows, *more])


def _cell(value: Any) -> str:
    text = "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
