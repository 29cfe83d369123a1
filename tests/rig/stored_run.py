"""What is stored of a run on a machine of the rig, as its volume shows it."""

import json
from pathlib import Path
from typing import Any

from rig.machines import until

from cospan.server.storage.lock import STORE
from cospan.server.storage.reader import StoredState, read_reports, read_state

_BOUND = 240.0


class StoredRun:
    """The newest run of a folder of runs.

    Args:
        runs: the folder, which may not exist yet.
    """

    def __init__(self, runs: Path) -> None:
        self._folder = runs / "latest"

    @property
    def state(self) -> StoredState:
        """Its summary."""
        return read_state(self._folder / STORE)

    @property
    def rounds(self) -> int:
        """How many are stored."""
        return self.state.rounds if (self._folder / STORE).exists() else 0

    def wait_for_more(self, count: int) -> float:
        """Waits for this number of further rounds; returns for how long, in seconds."""
        reached = self.rounds
        return until(lambda: self.rounds >= reached + count, f"there are {count} rounds after {reached}", _BOUND)

    @property
    def is_over(self) -> bool:
        """Whether it is, and its result is written: a coordinator that is drained writes one, too."""
        if not (self._folder / "result.json").exists() or self.state.finish_cause is None:
            return False
        return bool(self.result()["rounds"] == self.state.rounds)

    def result(self) -> dict[str, Any]:
        """`result.json`."""
        document: dict[str, Any] = json.loads((self._folder / "result.json").read_text())
        return document

    def closed(self) -> list[int]:
        """The rounds that are stored, in their order."""
        return [report.closed_round for report in read_reports(self._folder / STORE)]
