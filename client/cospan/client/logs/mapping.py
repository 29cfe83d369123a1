"""From columns to steps: which columns are the observation, the reward and the time. Read from a TOML file.

    [log]
    data = "stations/*.csv"            # relative to this file; --logs overrides it
    time = "stamp"
    step = "1h"
    reward = "-cost"

    [run]
    rank = 4
    steps_per_round = 24

    [features.hour]                    # the order of the sections is that of the observation
    from = "time:hour-of-day"
    kind = "cyclic"
    period = 24
    knots = 8
    [features.level]
    kind = "numeric"
    range = [0, 100]
    knots = 5
    [features.mode]
    kind = "categorical"
    values = ["heat", "cool", "off"]

    [products]
    pairs = [["hour", "level"]]

docs/your-logs.md describes every key.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cospan.client.logs.formula import Formula
from cospan.client.logs.table_features import ColumnFeatures, TableFeatures, cyclic_knots, even_knots
from cospan.client.workload import FeatureMap
from cospan.wire.errors import InvalidValueError
from cospan.wire.files.safe_files import MAX_TOML_BYTES, read_text
from cospan.wire.files.spec_file import toml_values

NANOSECONDS = {"ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
CLOCK = {"time:hour-of-day": 24.0, "time:day-of-week": 7.0, "time:day-of-year": 366.0}
"""Columns that are computed from the time, with their periods."""
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-")
"""Cells that stand for a value that is not known, unless the mapping names others."""
_LOG_KEYS = frozenset(
    {"data", "time", "time_format", "step", "tolerance", "reward", "reward_at", "chain", "observation", "missing"}
)
_RUN_KEYS = frozenset({"rank", "steps_per_round"})
_FEATURE_KEYS = frozenset({"from", "kind", "knots", "range", "period", "values"})
_ROW, _NEXT_ROW = "row", "next-row"


@dataclass(frozen=True, eq=False, slots=True)
class LogMapping:
    """How rows of a table become steps.

    Attributes:
        observation: the columns of the observation, in its order; some may be of `CLOCK`.
        reward: of the step from one row to the next.
        reward_at_next: whether that reward stands in the next row rather than in this one.
        time: the column with the time of a row; None where rows follow one another.
        time_format: of text, as for `datetime.strptime`; empty for ISO 8601.
        step: between rows, in nanoseconds, or in the unit of a numeric time; None to take it from the first rows.
        tolerance: how far an interval may be from the step, as a share of it.
        chain: a column; where its value changes, a new chain begins. None without one.
        categories: the texts of categorical columns; an observation holds their numbers.
        missing: cells that stand for an unknown value.
        features: φ of the observation.
        rank: r.
        steps_per_round: L; None for one that suits the data.
        data: files or folders of the sites, as the mapping's file says; empty where it does not.
        path: of the mapping's file, for messages.
    """

    observation: tuple[str, ...]
    reward: Formula
    features: FeatureMap
    reward_at_next: bool = False
    time: str | None = None
    time_format: str = ""
    step: float | None = None
    tolerance: float = 0.1
    chain: str | None = None
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: tuple[str, ...] = MISSING
    rank: int = 3
    steps_per_round: int | None = None
    data: str = ""
    path: str = "the mapping"

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that a table must have."""
        named = [*(name for name in self.observation if name not in CLOCK), *self.reward.columns]
        named += [name for name in (self.time, self.chain) if name is not None]
        return tuple(dict.fromkeys(named))

    @property
    def numbers(self) -> frozenset[str]:
        """The columns that hold numbers."""
        named = {*self.observation, *self.reward.columns} - set(CLOCK) - set(self.categories)
        return frozenset(named | (set(self.reward.columns) & set(self.categories)))


def load_mapping(path: Path | str) -> LogMapping:
    """The mapping of a file.

    Raises:
        InvalidValueError: it cannot be read, or is not a mapping; the text names the key.
    """
    try:
        values = toml_values(read_text(Path(path), MAX_TOML_BYTES))
    except (OSError, ValueError) as failure:
        why = failure.strerror if isinstance(failure, OSError) else failure
        raise InvalidValueError(
            f"the mapping {path} cannot be read: {why}; --mapping names a TOML file, see docs/your-logs.md"
        ) from failure
    return mapping_of(values, str(path))


def mapping_of(values: Mapping[str, Any], path: str = "the mapping") -> LogMapping:
    """The mapping of a TOML document's tables.

    Raises:
        InvalidValueError: a key is missing, unknown or of another type.
    """
    reading = _Reading(path)
    reading.known("", values, frozenset({"log", "run", "features", "products"}))
    log, run = reading.table(values, "log"), reading.table(values, "run")
    reading.known("log.", log, _LOG_KEYS)
    reading.known("run.", run, _RUN_KEYS)
    features, observation, categories = _features(reading, values)
    if "observation" in log:
        observation = tuple(reading.texts("log.observation", log["observation"]))
    if not observation:
        raise InvalidValueError(f"{path} has no [features.…] section; name the columns of the observation there")
    time = reading.text("log.time", log.get("time")) or None
    clocks = [name for name in observation if name in CLOCK]
    if clocks and time is None:
        raise InvalidValueError(f"{path} uses {clocks[0]} and names no time; set log.time to the column of stamps")
    reward = reading.text("log.reward", log.get("reward"))
    if not reward:
        raise InvalidValueError(f'{path} names no reward; set log.reward to a column or a formula, as "-cost"')
    at = reading.text("log.reward_at", log.get("reward_at", _ROW))
    if at not in (_ROW, _NEXT_ROW):
        raise InvalidValueError(f"log.reward_at is {at!r} in {path}; it must be {_ROW!r} or {_NEXT_ROW!r}")
    tolerance = reading.number("log.tolerance", log.get("tolerance", 0.1))
    if not 0.0 <= tolerance < 0.5:
        raise InvalidValueError(f"log.tolerance is {tolerance} in {path}; it must be a share of the step, 0 to 0.5")
    return LogMapping(
        observation=observation,
        reward=Formula.parsed(reward, f"{path}: reward"),
        features=features,
        reward_at_next=at == _NEXT_ROW,
        time=time,
        time_format=reading.text("log.time_format", log.get("time_format")),
        step=step_of(log["step"], f"log.step in {path}") if "step" in log else None,
        tolerance=tolerance,
        chain=reading.text("log.chain", log.get("chain")) or None,
        categories=categories,
        missing=tuple(reading.texts("log.missing", log["missing"])) if "missing" in log else MISSING,
        rank=reading.whole("run.rank", run.get("rank", 3), 1),
        steps_per_round=reading.whole("run.steps_per_round", run["steps_per_round"], 1)
        if "steps_per_round" in run
        else None,
        data=reading.text("log.data", log.get("data")),
        path=path,
    )


def step_of(value: object, what: str) -> float:
    """A time step: "15min", "1h", … in nanoseconds; or a number, in the unit of a numeric time.

    Raises:
        InvalidValueError: it is neither.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0.0 < value < 1e18:
        return float(value)
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|min|h|d)\s*", value) if isinstance(value, str) else None
    if match is None or not float(match[1]):
        raise InvalidValueError(
            f'{what} is {value!r}; it must be a duration, as "15min", "1h" or "1d", or a number'
        )
    return float(match[1]) * NANOSECONDS[match[2]]


def is_number(text: str) -> bool:
    """Whether `float` reads a text."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def toml_text(text: str) -> str:
    """A text as TOML has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def toml_key(name: str) -> str:
    """A name as a key of TOML."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_text(name)


class _Reading:
    """Reads values of a document; errors name the key and the file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def fail(self, key: str, value: object, must: str) -> InvalidValueError:
        return InvalidValueError(f"{key} is {value!r} in {self._path}; it must be {must}")

    def known(self, prefix: str, values: Mapping[str, Any], allowed: frozenset[str]) -> None:
        for key in values:
            if key not in allowed:
                near = difflib.get_close_matches(key, allowed, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise InvalidValueError(
                    f"{self._path} has {prefix}{key}, which is no key of a mapping; {hint}allowed are "
                    f"{', '.join(sorted(allowed))}"
                )

    def table(self, values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        found = values.get(key, {})
        if not isinstance(found, Mapping):
            raise self.fail(key, found, f"a table, [{key}]")
        return found

    def text(self, key: str, value: object) -> str:
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.fail(key, value, "text")
        return value

    def texts(self, key: str, value: object) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.fail(key, value, "a list of texts")
        return value

    def number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, value, "a number")
        return float(value)

    def whole(self, key: str, value: object, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.fail(key, value, f"a whole number, {least} or more")
        return value

    def numbers(self, key: str, value: object) -> list[float]:
        if not isinstance(value, list):
            raise self.fail(key, value, "a list of numbers")
        return [self.number(key, each) for each in value]


def _features(
    reading: _Reading, values: Mapping[str, Any]
) -> tuple[FeatureMap, tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The map of the section, the columns of its coordinates, and the categories of some of them."""
    section = reading.table(values, "features")
    named = reading.text("features.map", section.get("map")) if isinstance(section.get("map"), str) else ""
    if named:
        return _named_map(reading, named, section), (), {}
    columns, sources, categories = [], [], {}
    for name, entry in section.items():
        if not isinstance(entry, Mapping):
            raise reading.fail(f"features.{name}", entry, "a table with a kind")
        reading.known(f"features.{name}.", entry, _FEATURE_KEYS)
        source = reading.text(f"features.{name}.from", entry.get("from")) or name
        if source.startswith("time:") and source not in CLOCK:
            raise reading.fail(f"features.{name}.from", source, f"a column, or one of {', '.join(CLOCK)}")
        if entry.get("kind") == "categorical":
            texts = reading.texts(f"features.{name}.values", entry.get("values"))
            categories[source] = tuple(texts)
        try:
            columns.append(_column(reading, name, source, entry))
        except ValueError as failure:
            raise InvalidValueError(f"{failure}, in {reading._path}; correct the section") from failure
        sources.append(source)
    products = reading.table(values, "products")
    reading.known("products.", products, frozenset({"pairs"}))
    pairs = products.get("pairs", [])
    if not isinstance(pairs, list):
        raise reading.fail("products.pairs", pairs, 'a list of lists of columns, as [["hour", "level"]]')
    sets = tuple(tuple(reading.texts("products.pairs", pair)) for pair in pairs)
    if not columns:
        raise InvalidValueError(
            f"{reading._path} has no [features.…] section; describe the columns of the observation there, or let "
            "`cospan features suggest` write the sections"
        )
    try:
        return TableFeatures(tuple(columns), sets), tuple(sources), categories
    except ValueError as failure:
        raise InvalidValueError(f"{failure}, in {reading._path}; correct the section") from failure


def _named_map(reading: _Reading, named: str, section: Mapping[str, Any]) -> FeatureMap:
    """A map of a module, by its name as package.module:name; or that of a workload, as workload:queues."""
    from cospan.client.environment.ownership import close_site
    from cospan.client.environment.workload_loader import load_attribute, load_workload, make_site

    if len(section) > 1:
        raise reading.fail("features.map", named, "alone in its section; leave out the others, or the map")
    if named.startswith("workload:"):
        site = make_site(load_workload(named.removeprefix("workload:")), 0, 0)
        close_site(site)
        return site.features
    found = load_attribute(named, "the feature map")
    if not isinstance(found, FeatureMap):
        raise reading.fail("features.map", named, "a feature map, as cospan.client.workload.FeatureMap says")
    return found


def _column(reading: _Reading, name: str, source: str, entry: Mapping[str, Any]) -> ColumnFeatures:
    key, kind = f"features.{name}", reading.text(f"features.{name}.kind", entry.get("kind"))
    if kind == "categorical":
        texts = reading.texts(f"{key}.values", entry.get("values"))
        return ColumnFeatures(name, kind, tuple(float(place) for place in range(len(texts))))
    given = entry.get("knots", 5 if kind == "numeric" else 8)
    if kind == "cyclic":
        period = reading.number(f"{key}.period", entry.get("period", CLOCK.get(source)))
        count = given if isinstance(given, list) else reading.whole(f"{key}.knots", given, 3)
        knots = (
            tuple(reading.numbers(f"{key}.knots", count))
            if isinstance(count, list)
            else cyclic_knots(period, count)
        )
        return ColumnFeatures(name, kind, knots, period)
    if kind != "numeric":
        raise reading.fail(f"{key}.kind", kind, "cyclic, numeric or categorical")
    if isinstance(given, list):
        return ColumnFeatures(name, kind, tuple(reading.numbers(f"{key}.knots", given)))
    bounds = reading.numbers(f"{key}.range", entry.get("range"))
    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise reading.fail(f"{key}.range", bounds, "two numbers, the smaller first")
    return ColumnFeatures(name, kind, even_knots(bounds[0], bounds[1], reading.whole(f"{key}.knots", given, 2)))
