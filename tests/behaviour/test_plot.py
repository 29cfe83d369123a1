"""`cospan plot` of a real run."""

import json
from pathlib import Path

import numpy as np
import pytest
from behaviour.command import in_this_process

from cospan.cli.values import plot
from cospan.cli.values.value_plot import Surface
from cospan.client.value_function import ValueFunction
from cospan.client.workloads.queues import workload


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three queues, and the same as a group."""
    folder = tmp_path_factory.mktemp("runs")
    for name, more in (("single", ()), ("group", ("--processes", "1"))):
        arguments = ("--agents", "3", "--rounds", "20", "--in-process", "--quiet", "--output", str(folder / name))
        assert in_this_process("run", "queues", *arguments, *more) == 0
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


def test_one_more_customer_is_told_in_words_and_numbers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--site", "1", "--at", "state=5", "--than", "0=4")
    assert in_this_process("value", str(run / "single"), *asked, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    value = ValueFunction.load(run / "single" / "agents" / "site-1.npz")
    assert told["difference"] == pytest.approx(value.value(5) - value.value(4))
    assert (told["site"], told["at"], told["than"]) == ("site-1", {"state": 5.0}, {"state": 4.0})
    assert in_this_process("value", str(run / "single"), *asked) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(
        f"site-1 ({value.label}): state = 5 is worth {told['difference']:.4g} more than state = 4"
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
