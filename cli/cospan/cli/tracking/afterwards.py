"""`cospan export RUN --to …`: a run that is over or still running in a tracker."""

import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from cospan.cli.run_folder.layout import RunFolder
from cospan.cli.run_folder.progress_log import RoundRow, row_of
from cospan.cli.tracking.feeder import points_at_the_end
from cospan.cli.tracking.points import RunFacts
from cospan.cli.tracking.sink import Writer, check_installed, make_sink
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.group_file import group_agents
from cospan.client.files.result_file import load_result
from cospan.server.storage.reader import read_reports
from cospan.wire.errors import CospanError, InvalidValueError, RunFileError
from cospan.wire.files.safe_files import MAX_ROUNDS_BYTES, read_text
from cospan.wire.files.spec_file import load_spec

_WHOLE = ("round", "contributors")


def export_to(tracker: str, folder: RunFolder, output: Path | None) -> int:
    """Writes what a tracker lacks of a run; the exit code.

    Args:
        tracker: its name.
        folder: of the run.
        output: the folder of the event files; None for the one in the run folder. Not for MLflow.

    Raises:
        InvalidValueError: there is no such tracker, its package is not installed, or it takes no folder.
        RunFileError: the run cannot be read, or the tracker cannot be written.
    """
    check_installed(tracker)
    if output is not None and tracker != "tensorboard":
        raise InvalidValueError(f"--output is for event files; leave it out with --to {tracker}")
    if output is not None and output.exists() and not output.is_dir():
        raise RunFileError(f"--output {output} is a file; name a folder for the event files")
    rows = list(rows_of(folder))
    if not rows:
        raise RunFileError(f"{folder.path} holds no closed round, so there is nothing to export")
    document = folder.read_result() if folder.result.exists() else {"rounds": len(rows)}
    facts = RunFacts.of(folder.path.resolve().name, load_spec(folder.spec).as_dict())
    writer = Writer(make_sink(tracker, folder.path, facts, output))
    end = (folder.result if folder.result.exists() else folder.spec).stat().st_mtime
    try:
        writer.open()
        writer.write(points_at_the_end(rows, _results(folder), document, end))
        writer.sink.finish(document)
    except CospanError:
        raise
    except Exception as failure:  # of the tracker's library, whatever it raises
        raise RunFileError(f"cannot write to {tracker}: {failure}; what it has taken is kept") from failure
    finally:
        writer.sink.close()
    print(f"wrote {len(rows)} rounds of {folder.path} to {writer.sink.place}", file=sys.stderr)
    return 0


def rows_of(folder: RunFolder) -> Iterator[RoundRow]:
    """The lines of `rounds.csv`; where it is not there, the rounds of the stored run.

    Raises:
        RunFileError: the file is damaged, or there is neither.
    """
    if not folder.rounds.exists() and folder.store.exists():
        yield from map(row_of, read_reports(folder.store))
        return
    try:
        text = read_text(folder.rounds, MAX_ROUNDS_BYTES)
        for row in csv.DictReader(io.StringIO(text)):
            yield RoundRow(**{name: _number(name, row.get(name) or "") for name in _COLUMNS})  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError, csv.Error) as failure:
        raise RunFileError(f"{folder.rounds} is no list of rounds, or is damaged: {failure}") from failure


_COLUMNS = tuple(field.name for field in fields(RoundRow))


def _number(name: str, text: str) -> float | int | None:
    if name in _WHOLE:
        return int(text)
    return float(text) if text else None


def _results(folder: RunFolder) -> Iterator[AgentResult]:
    """The agents' files; those of a group from its one file, where agents have none."""
    for path in sorted(folder.agents.glob("*.npz")):
        if not path.name.startswith("group-"):
            yield load_result(path)
            continue
        members = group_agents(path)
        yield from (each for each in members if not folder.agent(each.text("agent_id")).exists())
