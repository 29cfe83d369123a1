"""`cospan value`: what one state is worth at a site, or how much more than another, and how sure that is."""

import json as json_text
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cospan.cli.commands.export import folder_of
from cospan.cli.values.coordinates import Coordinate, coordinates_of, fixed, listing, table_of
from cospan.cli.values.learnt import LearntSite, learnt_site, workload_of
from cospan.cli.values.plot import intervals
from cospan.cli.values.visited import ranges_of, typical, visited
from cospan.client.environment.ownership import close_site
from cospan.wire.console import say
from cospan.wire.errors import InvalidValueError
from cospan.wire.files.spec_file import load_spec


@dataclass(frozen=True, slots=True)
class ValueOptions:
    """Options of `cospan value`.

    Attributes:
        site: name or index.
        at: numbers of the state, as "hour=7,charge=0.6"; the others are those of a typical visited one.
        than: numbers of the state it is compared with, which differ from it.
        workload: of the run, where it is not built in.
        steps: of the simulated stretch that shows where the site goes.
        coverage: of the interval.
        json: whether JSON is printed.
    """

    site: str
    at: str
    than: str
    workload: str | None
    steps: int
    coverage: float
    json: bool


def tell_value(run: Path, options: ValueOptions) -> int:
    """Prints the difference of two values, with its interval where it is known; the exit code.

    Raises:
        CospanError: there is no such run, site or coordinate.
    """
    folder = folder_of(run)
    spec = load_spec(folder.spec)
    found = learnt_site(folder, options.site, workload_of(options.workload, spec), spec)
    try:
        document = _document(found, spec.seed, options)
    finally:
        close_site(found.site)
    if options.json:
        print(json_text.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    for line in _lines(document, options.coverage):
        say(line, error=False)
    return 0


def _document(found: LearntSite, seed: int, options: ValueOptions) -> dict[str, Any]:
    """The numbers of the answer."""
    coordinates = coordinates_of(found.site.env)
    met = visited(found.site, options.steps, index=found.index, seed=seed)
    numbers = table_of(coordinates, met)
    here, there = fixed(coordinates, options.at), fixed(coordinates, options.than)
    if not here or not there:
        known = listing(coordinates, ranges_of([each.name for each in coordinates], numbers))
        raise InvalidValueError(
            f"--at and --than name the states to compare, as {coordinates[0].name}=1; an observation has {known}"
        )
    base = _changed(met[typical(numbers)], here)
    other = _changed(base, there)
    value = found.value
    ends, unknown = intervals(value, [base], other, options.coverage)
    return {
        "site": value.agent_id,
        "label": value.label,
        "at": _named(coordinates, base),
        "than": _named(list(there), other),
        "difference": value.value(base) - value.value(other),
        "interval": None if ends is None else [float(end) for end in ends[0]],
        "interval_unknown": unknown or None,
        "coverage": options.coverage,
        "mean_reward": value.gain,
        "steps": value.steps or None,
    }


def _changed(observation: Any, numbers: dict[Coordinate, float]) -> Any:
    for coordinate, number in numbers.items():
        observation = coordinate.changed(observation, number)
    return observation


def _named(coordinates: list[Coordinate], observation: Any) -> dict[str, float]:
    return {each.name: each.of(observation) for each in coordinates}


def _lines(document: dict[str, Any], coverage: float) -> list[str]:
    """The answer in words."""
    ends = document["interval"]
    unsure = (
        "how sure that is, is not known"
        if ends is None
        else f"{coverage:.0%} interval {ends[0]:.4g} to {ends[1]:.4g}"
    )
    label = f" ({document['label']})" if document["label"] else ""
    changed = _words(document["than"])
    started = _words({name: document["at"][name] for name in document["than"]})
    rest = _words({name: number for name, number in document["at"].items() if name not in document["than"]})
    return [
        f"{document['site']}{label}: {started} is worth {document['difference']:.4g} more than {changed}; {unsure}",
        *([f"at {rest}"] if rest else []),
        *([document["interval_unknown"]] if document["interval_unknown"] else []),
        f"in units of the reward, whose mean is {document['mean_reward']:.4g} a step",
    ]


def _words(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name} = {number:.4g}" for name, number in numbers.items())
