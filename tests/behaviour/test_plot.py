"""`cospan plot` of a real run."""

import json
from pathlib import Path

import numpy as np
import pytest
from behaviour.command import in_this_process

from cospan.cli.values import plot
from cospan.cli.values.value_plot import Axis, Surface, line_figure
from cospan.client.value_function import ValueFunction
from cospan.client.workloads.queues import workload


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three queues; the same as a group that has not ended; and with a preset that keeps no moments."""
    folder = tmp_path_factory.mktemp("runs")
    kinds = {"single": (), "group": ("--processes", "1"), "full": ("--preset", "full-history")}
    for name, more in kinds.items():
        arguments = ("--agents", "3", "--rounds", "20", "--in-process", "--quiet", "--output", str(folder / name))
        assert in_this_process("run", "queues", *arguments, *more) == 0
    for path in (folder / "group" / "agents").glob("site-*.npz"):
        path.unlink()
    return folder


@pytest.mark.parametrize(("kind", "suffix"), [("single", "png"), ("single", "svg"), ("group", "png")])
def test_a_value_function_is_drawn(
    kind: str, suffix: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Surface] = []
    figure = plot.line_figure
    monkeypatch.setattr(
        plot, "line_figure", lambda axis, surfaces, *rest: drawn.extend(surfaces) or figure(axis, surfaces, *rest)
    )
    output = tmp_path / f"value.{suffix}"
    arguments = ("--site", "1", "--site", "site-2", "--over", "state", "--output", str(output))
    assert in_this_process("plot", str(run / kind), *arguments) == 0
    assert output.read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    assert [surface.label.split("\n")[0] for surface in drawn] == ["site-1", "site-2"]
    value = ValueFunction.load(run / "single" / "agents" / "site-1.npz")
    reference = workload.make_site(1, 0).reference
    assert reference is not None
    assert drawn[0].truth is not None
    assert np.ptp(drawn[0].values) <= np.ptp(value.values(range(value.features.dim))) + 1e-12
    assert (drawn[0].values == 0.0).any(), "the typical state is on the grid"
    low, high = drawn[0].low, drawn[0].high
    assert low is not None
    assert high is not None
    assert ((low + high) / 2.0).tolist() == pytest.approx(drawn[0].values.tolist(), abs=1e-9)
    assert (low[drawn[0].values != 0.0] < high[drawn[0].values != 0.0]).all()


def test_wide_bands_leave_the_lines_to_be_read() -> None:
    """At a state that was never visited a band is a hundred times as wide as the line is high."""
    axis = Axis("state", np.arange(3.0), np.arange(3.0))
    lines, wide = np.array([0.0, 1.0, 2.0]), np.array([0.1, 0.2, 300.0])
    figure = line_figure(axis, [Surface("a", lines, lines - wide, lines + wide)], "t", "", 0.9)
    (axes,) = figure.axes
    assert axes.get_ylim() == pytest.approx((-2.3, 4.3))
    assert "bands: 90% intervals, in part beyond the picture" in axes.texts[0].get_text()
    figure = line_figure(axis, [Surface("a", lines, lines - 0.1, lines + 0.1)], "t", "", 0.9)
    assert figure.axes[0].get_ylim() == pytest.approx((-0.21, 2.21))
    assert "beyond" not in figure.axes[0].texts[0].get_text()


def test_a_preset_without_intervals_of_values_says_so(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why = "site-1 has no intervals of values: only preset practical keeps what intervals of values are made of"
    full = str(run / "full")
    assert in_this_process("plot", full, "--site", "1", "--site", "2", "--over", "state") == 0
    said = capsys.readouterr().err
    assert f"the picture lacks intervals: {why}" in said
    assert "(and so at 1 more)" in said
    asked = ("value", full, "--site", "1", "--at", "state=5", "--than", "state=4")
    assert in_this_process(*asked) == 0
    out = capsys.readouterr().out
    assert "; how sure that is, is not known" in out
    assert why in out
    assert in_this_process(*asked, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["interval"] is None
    assert told["interval_unknown"].startswith(why)


def test_the_picture_is_in_the_run_folder_and_is_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("plot", str(run / "single"), "--site", "0", "--over", "0")
    assert in_this_process(*arguments) == 0
    assert (run / "single" / "value-site-0-state.png").exists()
    capsys.readouterr()
    assert in_this_process(*arguments) == 1
    assert "exists; name another file, or give --force to overwrite it" in capsys.readouterr().err
    assert in_this_process(*arguments, "--force") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--site", "0"), 2, "name one or two coordinates: state (or 0) from 0 to"),
        (("--site", "0", "--over", "hour"), 2, "there is no coordinate 'hour' in --over"),
        (("--site", "7", "--over", "0"), 1, "has no agent 'site-7'; it has site-0, site-1, site-2"),
        (("--site", "pump", "--over", "0"), 2, "--site is 'pump'; it must be an index"),
        (("--site", "0", "--over", "0", "--output", "x.bmp"), 2, "must end in .png, .svg, .pdf"),
        (("--over", "0"), 2, "Missing option '--site'"),
    ],
)
def test_a_wrong_use_gets_one_sentence(
    arguments: tuple[str, ...], code: int, says: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_this_process("plot", str(run / "single"), *arguments) == code
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1


def test_two_coordinates_are_drawn_as_a_map(tmp_path: Path) -> None:
    run = str(tmp_path / "grids")
    arguments = ("--agents", "3", "--rounds", "5", "--in-process", "--quiet", "--output", run)
    assert in_this_process("run", "microgrids", *arguments) == 0
    wanted = ("--over", "hour,charge", "--at", "outlook=0.5", "--output", str(tmp_path / "map.png"))
    assert in_this_process("plot", run, "--site", "1", *wanted) == 0
    assert (tmp_path / "map.png").stat().st_size > 10_000
    assert in_this_process("plot", run, "--site", "1", "--site", "2", *wanted, "--force") == 2


# What one state is worth more than another ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["single", "group"])
def test_one_more_customer_is_told_in_words_and_numbers(
    kind: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("--site", "1", "--at", "state=5", "--than", "0=4")
    assert in_this_process("value", str(run / kind), *asked, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    value = ValueFunction.load(run / "single" / "agents" / "site-1.npz")
    assert told["difference"] == pytest.approx(value.value(5) - value.value(4))
    # The group's weights differ by the rounding of sums.
    assert told["interval"] == pytest.approx(value.interval(5, 4), abs=1e-6)
    assert told["interval_unknown"] is None
    assert told["steps"] == value.steps
    assert (told["site"], told["at"], told["than"]) == ("site-1", {"state": 5.0}, {"state": 4.0})
    assert in_this_process("value", str(run / kind), *asked) == 0
    low, high = told["interval"]
    assert capsys.readouterr().out.splitlines()[0] == (
        f"site-1 ({value.label}): state = 5 is worth {told['difference']:.4g} more than state = 4; "
        f"90% interval {low:.4g} to {high:.4g}"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--at and --than name the states to compare, as state=1; an observation has state (or 0) from 0"),
        (("--at", "state=5"), "--at and --than name the states to compare"),
        (("--at", "5", "--than", "4"), "'5' in --at must be name=number"),
        (("--at", "hour=5", "--than", "hour=4"), "there is no coordinate 'hour' in --at"),
    ],
)
def test_a_state_that_is_not_told_right_gets_one_sentence(
    arguments: tuple[str, ...], says: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_this_process("value", str(run / "single"), "--site", "0", *arguments) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1
