"""Records a run while a coordinator serves it, and writes the coordinator's files of the run folder."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

from cospan.cli.output.coordinator_voice import Voice
from cospan.cli.output.log_lines import log_to_file, stop_logging
from cospan.cli.run_folder.layout import RunFolder
from cospan.cli.run_folder.progress_log import RoundsFile, row_of
from cospan.cli.run_folder.run_result import RunOutcome, outcome_of_state, result_document
from cospan.core.specification import RunSpecification
from cospan.server.coordinator import Coordinator
from cospan.server.machine.events import Note, ReportRound, Suspend
from cospan.server.machine.state import CoordinatorState
from cospan.server.storage.reader import read_reports
from cospan.wire.errors import RunFileError


class RunRecord:
    """The seconds of a run's rounds, how many were void, and the machine's state when it finished.

    It also passes these to a `Voice`.
    """

    def __init__(self, coordinator: Coordinator, voice: Voice) -> None:
        self.rounds_file: RoundsFile | None = None
        self.seconds = 0.0
        self.void_rounds = 0
        self._engine, self._voice, self._agent_stats = coordinator.engine, voice, coordinator.agent_stats
        self._end: tuple[CoordinatorState, str] | None = None
        self._engine.on_round.append(self._on_round)
        self._engine.on_note.append(self._on_note)

    def _on_round(self, command: ReportRound) -> None:
        self.seconds += command.report.seconds
        self.void_rounds += not command.report.contributors
        if self.rounds_file is not None:
            self.rounds_file.add(row_of(command.report))
        self._voice.round(command.report)

    def _on_note(self, note: Note) -> None:
        if note.kind == "run-finished":
            self._end = (self._engine.state, note.text)
        else:
            self._voice.note(note)

    @property
    def specification(self) -> RunSpecification:
        """Of the run; its fingerprint may be fixed by the first agent."""
        return self._engine.state.specification

    @contextlib.contextmanager
    def completing(self) -> Iterator[None]:
        """Writing of files that a resumed run writes again: it may fail if the run is suspended."""
        try:
            yield
        except RunFileError:
            if not isinstance(self._engine.end, Suspend):
                raise

    def add_stored(self, folder: RunFolder) -> None:
        """Adds the rounds to `rounds.csv` that became durable while the coordinator ended, once it has.

        Raises:
            RunFileError: the store cannot be read, or the file not written, and the run is over.
        """
        assert self.rounds_file is not None
        with self.completing():
            for report in read_reports(folder.store):
                if report.closed_round >= self.rounds_file.next_round:
                    self.rounds_file.add(row_of(report))
            self.rounds_file.flush()

    def outcome(self) -> RunOutcome | None:
        """How the run ended; None if it has not."""
        if self._end is None:
            return None
        state, message = self._end
        return outcome_of_state(
            state,
            message=message,
            seconds=self.seconds,
            bounded=self._agent_stats.bounded,
            void_rounds=self.void_rounds,
        )


@contextlib.asynccontextmanager
async def writing_folder(record: RunRecord, folder: RunFolder) -> AsyncIterator[None]:
    """Writes the run folder during the run, and completes it when the run is over."""
    handler = log_to_file(folder.log)
    folder.write_spec(record.specification)
    rows = [row_of(report) for report in read_reports(folder.store)]
    record.seconds = sum(row.seconds for row in rows)
    record.void_rounds = sum(not row.contributors for row in rows)
    record.rounds_file = RoundsFile(folder.rounds, rows)
    writer = asyncio.create_task(record.rounds_file.keep_writing())
    try:
        yield
        outcome = record.outcome()
        with record.completing():
            folder.write_spec(record.specification)
        if outcome is not None and outcome.basis is not None:
            folder.write_basis(outcome.basis, outcome.head_covariance, run_id=outcome.run_id, rounds=outcome.rounds)
            folder.write_result(result_document(outcome))
    finally:
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writer
        try:
            with record.completing():
                record.rounds_file.flush()
        finally:
            stop_logging(handler)
