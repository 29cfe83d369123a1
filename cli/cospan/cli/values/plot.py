"""`cospan plot`: a picture of what sites have learnt, over one or two coordinates of an observation."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from cospan.cli.commands.export import check_output, folder_of
from cospan.cli.values.coordinates import Coordinate, chosen, coordinates_of, fixed, listing, table_of
from cospan.cli.values.learnt import LearntSite, learnt_site, workload_of
from cospan.cli.values.value_plot import Axis, Surface, line_figure, map_figure
from cospan.cli.values.visited import grid_of, ranges_of, typical, visited
from cospan.client.environment.ownership import close_site
from cospan.client.value_function import ValueFunction
from cospan.client.workload import Site
from cospan.core.specification import RunSpecification
from cospan.experiments.plots.axes import import_matplotlib, save
from cospan.wire.console import say
from cospan.wire.errors import IntervalUnknownError, InvalidValueError, RunFileError
from cospan.wire.files.spec_file import load_spec
from cospan.wire.text import listed

FORMATS = (".png", ".svg", ".pdf")
_MOST_SITES = 8
_MOST_COORDINATES = 2


@dataclass(frozen=True, slots=True)
class PlotOptions:
    """Options of `cospan plot`.

    Attributes:
        sites: names or indices.
        over: one or two coordinates, comma-separated; empty to be told which there are.
        at: numbers of coordinates that are held, as "charge=0.5"; the others are those of the typical observation.
        workload: of the run, where it is not built in.
        steps: of the simulated stretch that shows where the site goes.
        coverage: of the intervals.
        output: the file; None for one in the run folder.
        force: whether an existing file is overwritten.
    """

    sites: tuple[str, ...]
    over: str
    at: str
    workload: str | None
    steps: int
    coverage: float
    output: Path | None
    force: bool


@dataclass(frozen=True, eq=False, slots=True)
class _Scene:
    """What all sites are drawn over.

    Attributes:
        over: the coordinates.
        axes: the same with their values.
        base: the observation whose other numbers are held.
        grid: the observations of the picture, the last coordinate the fastest.
        held: the held numbers in words.
    """

    over: list[Coordinate]
    axes: list[Axis]
    base: Any
    grid: list[Any]
    held: str


def plot_value(run: Path, chosen_options: PlotOptions) -> int:
    """Draws the picture; the exit code.

    Raises:
        CospanError: there is no such run, site or coordinate, or the file exists.
    """
    options, folder = chosen_options, folder_of(run)
    spec = load_spec(folder.spec)
    if len(options.sites) > _MOST_SITES:
        raise InvalidValueError(f"--site names {len(options.sites)} sites; a picture has {_MOST_SITES} at most")
    _check_suffix(options.output)
    workload = workload_of(options.workload, spec)
    with ExitStack() as opened:
        sites = [_opened(opened, learnt_site(folder, word, workload, spec)) for word in options.sites]
        scene = _scene(sites[0].site, sites[0].index, spec.seed, options)
        if len(scene.axes) == _MOST_COORDINATES and len(sites) > 1:
            raise InvalidValueError(
                "a map over two coordinates is of one site; give --site once, or one coordinate"
            )
        output = options.output or folder.path / _file_name([f"site-{each.index}" for each in sites], scene.over)
        check_output(output, force=options.force)
        surfaces = [_surface(each.value, each.site, scene, options.coverage) for each in sites]
        unknown = [each.unknown for each in surfaces if each.unknown]
    _draw(output, spec, scene, surfaces, options.coverage)
    if unknown:
        more = f" (and so at {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        say(f"cospan: the picture lacks intervals: {unknown[0]}{more}")
    print(f"wrote {output}", file=sys.stderr)
    return 0


def _opened(stack: ExitStack, found: LearntSite) -> LearntSite:
    """A site that is closed at the end of the stack."""
    stack.callback(close_site, found.site)
    return found


def _check_suffix(output: Path | None) -> None:
    if output is not None and output.suffix not in FORMATS:
        raise InvalidValueError(f"--output is {output}; its name must end in {', '.join(FORMATS)}")


def _file_name(names: Sequence[str], over: Sequence[Coordinate]) -> str:
    words = ["value", *names, *(each.name for each in over)]
    return "-".join("".join(c if c.isalnum() or c in "-_." else "_" for c in word) for word in words) + ".png"


# What is drawn --------------------------------------------------------------------------------------------------


def _scene(site: Site, index: int, seed: int, options: PlotOptions) -> _Scene:
    """Where the site goes, the typical observation, and the observations to draw."""
    coordinates = coordinates_of(site.env)
    met = visited(site, options.steps, index=index, seed=seed)
    numbers = table_of(coordinates, met)
    names = [each.name for each in coordinates]
    over = chosen(coordinates, options.over, "--over")
    if not 1 <= len(over) <= _MOST_COORDINATES:
        there = listing(coordinates, ranges_of(names, numbers))
        raise InvalidValueError(f"--over is {options.over!r}; name one or two coordinates: {there}")
    given = fixed(coordinates, options.at)
    base = met[typical(numbers)]
    for coordinate, value in given.items():
        base = coordinate.changed(base, value)
    axes = []
    for coordinate in over:
        column = numbers[:, names.index(coordinate.name)]
        axes.append(Axis(coordinate.name, grid_of(column, is_whole=coordinate.is_whole), column))
    grid = [base]
    for coordinate, axis in zip(over, axes, strict=True):
        grid = [coordinate.changed(observation, float(value)) for observation in grid for value in axis.grid]
    return _Scene(over, axes, base, grid, _held(coordinates, over, base))


def _held(coordinates: Sequence[Coordinate], over: Sequence[Coordinate], base: Any) -> str:
    """The numbers that stay, in words."""
    still = [each for each in coordinates if each not in over]
    words = [f"{each.name} = {each.of(base):.3g}" for each in still]
    return f"at {listed(words, 4)}" if words else ""


def _surface(value: ValueFunction, site: Site, scene: _Scene, coverage: float) -> Surface:
    """What a site has learnt over the grid, less the value at the base."""
    shape = [len(axis.grid) for axis in scene.axes]
    learnt = (value.values(scene.grid) - value.value(scene.base)).reshape(shape)
    truth = None
    if site.reference is not None:
        rows = site.features.batch([*scene.grid, scene.base]) @ site.reference.weights
        truth = (rows[:-1] - rows[-1]).reshape(shape)
    ends, unknown = intervals(value, scene.grid, scene.base, coverage)
    low, high = (None, None) if ends is None else (ends[:, 0].reshape(shape), ends[:, 1].reshape(shape))
    name = value.agent_id or "this site"
    return Surface(f"{name}" + (f"\n{value.label}" if value.label else ""), learnt, low, high, truth, unknown)


class Intervals(NamedTuple):
    """Intervals of differences of values.

    Attributes:
        ends: lower and upper ends, shape (n, 2); None where what was learnt does not tell them.
        unknown: why, as a sentence; else empty.
    """

    ends: Float[np.ndarray, "n 2"] | None
    unknown: str = ""


def intervals(value: ValueFunction, grid: Sequence[Any], base: Any, coverage: float) -> Intervals:
    """Those of V(s) − V(base) at each observation."""
    try:
        return Intervals(value.intervals(grid, [base], coverage=coverage))
    except IntervalUnknownError as failure:
        return Intervals(None, str(failure))


def _draw(
    output: Path, spec: RunSpecification, scene: _Scene, surfaces: Sequence[Surface], coverage: float
) -> None:
    try:
        import_matplotlib()
    except ImportError as failure:
        raise RunFileError("matplotlib is not installed; pip install 'cospan[plot]'") from failure
    title = f"{spec.workload}: value over {' and '.join(axis.name for axis in scene.axes)}"
    if len(surfaces) == 1:
        title += f", {surfaces[0].label.replace(chr(10), ', ')}"
    if len(scene.axes) == 1:
        figure = line_figure(scene.axes[0], surfaces, title, scene.held, coverage)
    else:
        figure = map_figure(scene.axes, surfaces[0], title, scene.held, coverage)
    save(figure, output)
