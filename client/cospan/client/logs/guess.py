"""A mapping guessed from tables themselves: which column is the time, which the reward, and features of the others.

It is where a mapping begins, as TOML with what was seen beside each guess; `suggest` judges features by what they
predict. Names that the user gives are taken as they are.
"""

import contextlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from cospan.client.logs.formula import Formula
from cospan.client.logs.mapping import CLOCK, MISSING, NANOSECONDS, is_number, toml_key, toml_text
from cospan.client.logs.table_features import even_knots, quantile_knots
from cospan.client.logs.tables.batch import Batch, Table, missing_columns
from cospan.wire.errors import InvalidValueError

_BATCHES = 12
"""Batches of each table that are looked at: 200,000 rows."""
_MOST_COLUMNS, _MANY_COLUMNS = 40, 8
_MOST_CATEGORIES = 20
_STAMPS = 200
_FORMATS = ("", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y", "%d/%m/%Y")
_TIMES = re.compile(r"(^|_)(time|stamp|timestamp|date|datetime|ts|step|index)(_|$)", re.IGNORECASE)
_GOOD = re.compile(r"(^|_)(reward|return|profit|revenue|income|utility|score)(s?)(_|$)", re.IGNORECASE)
_BAD = re.compile(r"(^|_)(cost|costs|penalty|loss|price|expense|consumption|discomfort)(_|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GivenNames:
    """What the user says of the columns; None where it is to be guessed.

    Attributes:
        observation: columns, and those that are computed from the time, in the order of the observation.
        reward: a column or a formula.
        time: the column of stamps.
        step: between rows, as a mapping has it.
    """

    observation: tuple[str, ...] | None = None
    reward: str | None = None
    time: str | None = None
    step: str | None = None


def guessed_mapping(tables: Sequence[Table], given: GivenNames, *, data: str, remarks: bool = True) -> str:
    """The TOML of a mapping of these tables.

    Args:
        tables: of all sites; all must have the columns.
        given: what the user says.
        data: `log.data`.
        remarks: whether it says what was seen, and asks what only the user knows.

    Raises:
        InvalidValueError: no column can be the reward, or there is nothing to observe; the text names the remedy.
        TableError: a table cannot be read, or lacks a column.
    """
    names = tables[0].columns()
    for table in tables[1:]:
        missing_columns(names, table.columns(), table.name, "give all sites the same columns")
    seen = _Seen.of(tables, names)
    time, form = _time(seen, given)
    reward = given.reward or _reward(seen, time)
    of_reward = Formula.parsed(reward, "reward").columns
    missing_columns(of_reward, names, "the log", "name another with --reward")
    columns = _observed(seen, given, {*of_reward, time}, time)
    if not columns:
        raise InvalidValueError(
            f"{tables[0].name} has no column that changes beside reward and time; name those of the observation "
            "with --observation"
        )
    note = _Remarks(asked=remarks)
    lines = ["[log]", f"data = {toml_text(data)}"]
    if time is None:
        lines += note("no column holds times, so rows are taken to follow one another; else name it: time = …")
    else:
        lines += [f"time = {toml_text(time)}{note.beside(f'the first is {seen.first(time)}')}"]
        lines += [f"time_format = {toml_text(form)}"] if form else []
    if given.step is not None:
        lines.append(f"step = {given.step if is_number(given.step) else toml_text(given.step)}")
    elif time is not None:
        lines += note('between rows, as step = "1h"; without it that of the first rows')
    lines.append(f"reward = {toml_text(reward)}{note.beside('what is to be large in the long run')}")
    lines += note(
        "Is the reward of the step that begins in its row? Where it is of the one that ends there:",
        'reward_at = "next-row"',
    )
    lines += ["", "[run]", f"rank = {max(1, min(3, sum(column.size for column in columns) - 1))}", ""]
    lines += note(
        "What the policy looks at, and what decides the rewards to come. Leave out what follows from the others.",
        "The features must suit all sites: widen knots where another site goes further.",
        *(f"Left out: {why}" for why in seen.left_out),
    )
    for column in columns:
        lines += [*column.lines(note), ""]
    lines += note("Finer features and products of columns: cospan features suggest --log …", 'pairs = [["a", "b"]]')
    return "\n".join(lines).rstrip() + "\n"


class _Remarks:
    """Comments, where they are asked for."""

    def __init__(self, *, asked: bool) -> None:
        self._asked = asked

    def __call__(self, *texts: str) -> list[str]:
        return [f"# {text}" for text in texts] if self._asked else []

    def beside(self, text: str) -> str:
        return f"  # {text}" if self._asked and text else ""


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the observation, as its section of the mapping says."""

    name: str
    kind: str
    seen: str
    knots: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return (len(self.texts) or len(self.knots) or 8) - 1

    def lines(self, note: _Remarks) -> Iterator[str]:
        yield f"[features.{toml_key(self.name.removeprefix('time:'))}]{note.beside(self.seen)}"
        if self.name in CLOCK:
            yield f"from = {toml_text(self.name)}"
        yield f'kind = "{self.kind}"'
        if self.texts:
            yield f"values = [{', '.join(map(toml_text, self.texts))}]"
        elif self.knots:
            yield f"knots = [{', '.join(f'{knot:g}' for knot in self.knots)}]"


@dataclass(frozen=True, eq=False, slots=True)
class _Seen:
    """The first rows of all tables, by column: float64, int64 nanoseconds of `times`, or texts."""

    names: tuple[str, ...]
    columns: dict[str, np.ndarray]
    times: frozenset[str]
    left_out: list[str]

    @classmethod
    def of(cls, tables: Sequence[Table], names: Sequence[str]) -> "_Seen":
        parts: list[Batch] = []
        for table in tables:
            with contextlib.closing(table.batches(names)) as batches:
                parts += itertools.islice(batches, _BATCHES)
        if not parts:
            raise InvalidValueError(f"{tables[0].name} has no rows; give a log with some")
        columns = {name: np.concatenate([each.columns[name].astype(object) for each in parts]) for name in names}
        times = frozenset.intersection(*(each.times for each in parts))
        plain = {name: _as_numbers(values) if name not in times else values for name, values in columns.items()}
        return cls(tuple(names), plain, times, [])

    def is_number(self, name: str) -> bool:
        return self.columns[name].dtype.kind == "f"

    def first(self, name: str) -> str:
        value = self.columns[name][0]
        return str(np.datetime64(int(value), "ns"))[:19] if name in self.times else str(value).strip()

    def stamps(self, name: str) -> list[str]:
        texts = (cell.strip() for cell in self.columns[name] if isinstance(cell, str))
        return list(itertools.islice((text for text in texts if text not in MISSING), _STAMPS))


def _as_numbers(values: np.ndarray) -> np.ndarray:
    """Numbers, nan where a cell is none, if most cells with something in them are; else texts."""
    found = np.full(len(values), np.nan)
    wrong = there = 0
    for row, cell in enumerate(values):
        if cell is None or (isinstance(cell, str) and cell.strip() in MISSING):
            continue
        there += 1
        try:
            found[row] = float(cell)
        except (TypeError, ValueError):
            wrong += 1
    return found if there and wrong <= there / 2 else values


def _time(seen: _Seen, given: GivenNames) -> tuple[str | None, str]:
    """The column of times and the format of its texts; None where there is none."""
    if given.time is not None:
        missing_columns([given.time], seen.names, "the log", "name another with --time")
        texts = given.time not in seen.times and not seen.is_number(given.time)
        form = _format(seen.stamps(given.time)) if texts else ""
        if form is None:
            raise InvalidValueError(
                f"{given.time!r} begins with {seen.first(given.time)!r}, which is no time that is known; set "
                "log.time_format in a mapping"
            )
        return given.time, form
    for name in seen.names:
        if name in seen.times:
            return name, ""
        if not seen.is_number(name) and (form := _format(seen.stamps(name))) is not None:
            return name, form
    for name in seen.names:
        if _TIMES.search(name) and seen.is_number(name) and (np.diff(seen.columns[name][:_STAMPS]) > 0).all():
            return name, ""
    return None, ""


def _format(stamps: Sequence[str]) -> str | None:
    """The first format in which all stamps are times that do not go back; None where there is none."""
    for form in _FORMATS if stamps else ():
        try:
            found = [datetime.strptime(each, form) if form else datetime.fromisoformat(each) for each in stamps]
            if all(later >= earlier for earlier, later in itertools.pairwise(found)):
                return form
        except (ValueError, TypeError):
            continue
    return None


def _reward(seen: _Seen, time: str | None) -> str:
    """The column that is called one; a cost with a minus."""
    numbers = [name for name in seen.names if name != time and seen.is_number(name)]
    for pattern, sign in ((_GOOD, ""), (_BAD, "-")):
        for name in numbers:
            if pattern.search(re.sub(r"[^A-Za-z0-9]+", "_", name)):
                quoted = name if name.isidentifier() else f"'{name}'"
                return f"{sign}{quoted}"
    raise InvalidValueError(
        f"no column of the log is called a reward or a cost; say what is to be large with --reward, as --reward="
        f"-{numbers[0] if numbers else 'cost'}: a column, or a formula of columns ({', '.join(seen.names[:20])})"
    )


def _observed(seen: _Seen, given: GivenNames, used: set[str | None], time: str | None) -> list[_Column]:
    asked = given.observation
    if asked is not None:
        missing_columns(
            [name for name in asked if name not in CLOCK], seen.names, "the log", "name others with --observation"
        )
    names = [name for name in seen.names if name not in used] if asked is None else list(asked)
    if asked is None and len(names) > _MOST_COLUMNS:
        raise InvalidValueError(
            f"the log has {len(names)} columns beside reward and time; name those that decide what comes with "
            "--observation, as --observation level,outlook"
        )
    if asked is None and time is not None:
        names = [*_clocks(seen, time), *names]
    knots = 5 if len(names) <= _MANY_COLUMNS else 3
    found = []
    for name in names:
        column, why = _described(seen, name, knots)
        if column is not None:
            found.append(column)
        elif asked is not None:
            raise InvalidValueError(f"{why}; leave it out of --observation")
        else:
            seen.left_out.append(why)
    return found


def _described(seen: _Seen, name: str, knots: int) -> tuple[_Column | None, str]:
    """A column's section; or None, and why it is left out."""
    if name in CLOCK:
        return _Column(name, "cyclic", "from the time"), ""
    values = seen.columns[name]
    if name in seen.times or (not seen.is_number(name) and _format(seen.stamps(name)) is not None):
        return None, f"{name} holds times"
    if not seen.is_number(name):
        texts = sorted({cell.strip() for cell in values if isinstance(cell, str)} - set(MISSING))
        if not 2 <= len(texts) <= _MOST_CATEGORIES:
            return None, f"{name} has {len(texts)} different texts, and a category has 2 to {_MOST_CATEGORIES}"
        return _Column(name, "categorical", f"{len(texts)} texts", texts=tuple(texts)), ""
    known = values[np.isfinite(values)]
    if not len(known) or known.min() == known.max():
        return None, f"{name} never changes"
    at = quantile_knots(known, knots)
    low, high = float(known.min()), float(known.max())
    if len(at) < min(3, len(np.unique(known))):  # most values are equal
        at = tuple(sorted({float(f"{value:.3g}") for value in even_knots(low, high, knots)}))
    if len(at) < 2:
        at = (low, high)
    return _Column(name, "numeric", f"{low:g} to {high:g}", knots=at), ""


def _clocks(seen: _Seen, time: str) -> list[str]:
    """Hour and day where the times are stamps, and the rows span enough of them."""
    if time in seen.times:
        stamps = np.sort(seen.columns[time].astype(np.int64))
        span = float(stamps[-1] - stamps[0])
        step = float(np.median(np.diff(stamps)))
    elif seen.is_number(time):
        return []
    else:
        texts = seen.stamps(time)
        form = _format(texts) or ""
        parsed = [datetime.strptime(each, form) if form else datetime.fromisoformat(each) for each in texts]
        steps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(parsed)]
        step = float(np.median(steps)) * NANOSECONDS["s"] if steps else np.inf
        span = step * len(seen.columns[time])
    hour = ["time:hour-of-day"] if step <= 6 * NANOSECONDS["h"] and span > 2 * NANOSECONDS["d"] else []
    return [*hour, *(["time:day-of-week"] if step <= NANOSECONDS["d"] and span > 28 * NANOSECONDS["d"] else [])]
