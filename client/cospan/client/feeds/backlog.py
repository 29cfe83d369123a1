"""The steps that were accepted and not yet given up: a SQLite database, in a file or in memory.

What is committed is durable (synchronous=FULL): a step that its sender was told to be accepted outlives the process
and the machine. A step stays until a file of what was learnt includes it, because a restarted agent learns the
rounds since that file again. One process alone has the file open.
"""

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from cospan.client.feeds.errors import BacklogError

FORMAT = "1"
REMEMBERED = 1000
"""Steps that are kept behind those that a file includes, to tell a repeated step from one that contradicts it."""
_APPLICATION = 0x436F7370
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE steps (
  sequence INTEGER PRIMARY KEY, at, observation BLOB NOT NULL, reward REAL, known INTEGER NOT NULL,
  follows INTEGER NOT NULL
);
"""


@dataclass(frozen=True, eq=False, slots=True)
class StoredStep:
    """A step of the backlog.

    Attributes:
        sequence: its number.
        at: its time: int nanoseconds, a float, or None.
        observation: k numbers.
        reward: None while it may still come; nan where it is not known and will not come.
        follows: whether it is the successor of the step stored before it.
    """

    sequence: int
    at: int | float | None
    observation: Float[np.ndarray, " k"]
    reward: float | None
    follows: bool


class Backlog:
    """Steps by their numbers, which only grow. Not thread-safe: its owner locks."""

    def __init__(self, path: Path | None, *, owner: str, form: str) -> None:
        """Opens the backlog, or makes it.

        Args:
            path: of the file; None to keep the steps in memory.
            owner: the agent's name.
            form: what an observation is, in words.

        Raises:
            BacklogError: the file cannot be used, or is of another agent or form.
        """
        self.path = path
        self._where = "the backlog in memory" if path is None else str(path)
        with self._reporting("opened"):
            self._database = sqlite3.connect(
                ":memory:" if path is None else path, timeout=0.5, isolation_level=None, check_same_thread=False
            )
        try:
            with self._reporting("opened"):
                self._open(owner, form)
        except BaseException:
            self._database.close()
            raise

    def _open(self, owner: str, form: str) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode=EXCLUSIVE")
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        with self.changing():
            if run("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    run(statement)
                run(f"PRAGMA application_id={_APPLICATION}")
                facts = {"format": FORMAT, "id": secrets.token_hex(16), "owner": owner, "form": form}
                self._database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            elif run("PRAGMA application_id").fetchone()[0] != _APPLICATION or self.fact("format") != FORMAT:
                raise BacklogError(f"{self._where} is no backlog of this version of Cospan; name another --output")
        if self.fact("owner") != owner:
            raise BacklogError(
                f"{self._where} holds the steps of {self.fact('owner')}; name another --output for {owner}"
            )
        if self.fact("form") != form:
            raise BacklogError(
                f"{self._where} holds observations of {self.fact('form')}, and those of {owner} are of {form}; "
                "undo that change, or move the file away to begin with none"
            )

    @contextmanager
    def _reporting(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as failure:
            if getattr(failure, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                why = "another process uses it; end that one first, for an agent has one process"
            else:
                why = f"{failure}; make room, or name another --output"
            raise BacklogError(f"{self._where} cannot be {what}: {why}") from failure

    @contextmanager
    def changing(self) -> Iterator[None]:
        """A transaction: what is written within is durable at its end, or not written at all.

        Raises:
            BacklogError: it cannot be written.
        """
        with self._reporting("written"):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Closes the file; can be called again."""
        self._database.close()

    @property
    def id(self) -> str:
        """A text that no other backlog has."""
        return str(self.fact("id"))

    def fact(self, name: str, default: int | str = "") -> int | str:
        """What is noted under a name."""
        found = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return default if found is None else found[0]

    def note(self, name: str, value: int | str) -> None:
        """Notes something; within `changing`."""
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    # Steps -------------------------------------------------------------------------------------------------------

    def add(self, step: StoredStep) -> None:
        """Adds a step behind the newest; within `changing`."""
        self._database.execute(
            "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?)",
            (step.sequence, step.at, step.observation.tobytes(), *_reward(step.reward), step.follows),
        )

    def set_reward(self, sequence: int, reward: float) -> None:
        """The reward of a step that had none; within `changing`."""
        self._database.execute(
            "UPDATE steps SET reward = ?, known = ? WHERE sequence = ?", (*_reward(reward), sequence)
        )

    def step(self, sequence: int) -> StoredStep | None:
        """A step; None where it is not held."""
        return next(self._found("WHERE sequence = ?", sequence), None)

    def newest(self) -> StoredStep | None:
        """The newest step."""
        return next(self._found("ORDER BY sequence DESC LIMIT 1"), None)

    def oldest(self) -> int | None:
        """The number of the oldest step that is held."""
        found = self._database.execute("SELECT min(sequence) FROM steps").fetchone()[0]
        return None if found is None else int(found)

    def read(self, first: int, most: int) -> list[StoredStep]:
        """At most `most` steps from number `first` on, in order.

        Raises:
            BacklogError: the file cannot be read.
        """
        with self._reporting("read"):
            return list(self._found("WHERE sequence >= ? ORDER BY sequence LIMIT ?", first, most))

    def count_after(self, sequence: int) -> int:
        """How many steps have greater numbers."""
        found = self._database.execute("SELECT count(*) FROM steps WHERE sequence > ?", (sequence,)).fetchone()
        return int(found[0])

    def forget_before(self, sequence: int) -> None:
        """Removes the steps with smaller numbers, but for the newest that are remembered; within `changing`."""
        newest = self._database.execute("SELECT max(sequence) FROM steps").fetchone()[0]
        if newest is not None:
            self._database.execute("DELETE FROM steps WHERE sequence < ?", (min(sequence, newest - REMEMBERED),))

    def _found(self, where: str, *values: int) -> Iterator[StoredStep]:
        for sequence, at, observation, reward, known, follows in self._database.execute(
            f"SELECT sequence, at, observation, reward, known, follows FROM steps {where}", values
        ):
            found = float("nan") if reward is None and known else reward
            yield StoredStep(sequence, at, np.frombuffer(observation, np.float64), found, bool(follows))


def _reward(reward: float | None) -> tuple[float | None, bool]:
    """SQLite stores nan as NULL; whether a reward is known to be unknown stands beside it."""
    return reward, reward is not None
