"""Pictures of experiments that vary one setting: all that was measured is in them, or said to be beyond."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cospan.experiments.experiment import Plan, load
from cospan.experiments.kinds import sweep
from cospan.experiments.plots.method_style import styles_of
from cospan.experiments.runner import WHOLE_FLEET, Point

D, R, L, AGENTS = 6, 2, 5, 3


def points(plan: Plan, errors: dict[str, float]) -> list[Point]:
    return [
        Point(str(setting), method, seed, WHOLE_FLEET, 1, L, 0, error * (1.0 + 0.1 * seed))
        for setting in plan.settings
        for method, error in errors.items()
        for seed in (1, 2)
    ]


def drawn(name: str, errors: dict[str, float]) -> Axes:
    plan, _ = load(name)
    figure = Figure()
    sweep.draw(figure, plan, points(plan, errors))
    return figure.axes[0]


def joined(axes: Axes) -> list[str]:
    """The methods whose points a line joins."""
    names = [str(line.get_label()) for line in axes.get_lines() if line.get_linestyle() != "None"]
    return [name for name in names if not name.startswith("_")]


def colours(axes: Axes, row: int) -> set[object]:
    return {line.get_color() for line in axes.get_lines() if np.asarray(line.get_ydata())[0] == row}


def test_settings_without_an_order_are_not_joined() -> None:
    methods = {"mean": 0.1, "trimmed": 0.2, "LSTD alone": 0.3}
    assert joined(drawn("adversaries", methods)) == []
    assert joined(drawn("rank", {"joint": 0.1, "LSTD alone": 0.2})) == ["joint", "LSTD alone"]


def test_with_one_setting_a_variant_has_the_colour_of_the_method_above_it() -> None:
    axes = drawn("ablation", {"full-history": 0.01, "… with λ = 0.7": 0.02, "LSTD alone": 0.03})
    styles = styles_of(["full-history", "LSTD alone"])
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "full-history",
        "… with λ = 0.7",
        "LSTD alone",
    ]
    assert colours(axes, 0) == colours(axes, 1) == {styles["full-history"].colour}
    assert colours(axes, 2) == {styles["LSTD alone"].colour}


@pytest.mark.parametrize("error", [1e65, float("inf")])
def test_an_error_beyond_the_axis_is_written(error: float) -> None:
    axes = drawn("ablation", {"Algorithm 1": 0.01, "… without QR": error})
    said = [text.get_text() for text in axes.texts]
    assert len(said) == 1
    assert said[0].endswith(" →")
    assert said[0].startswith(("1.15e+65", "diverged"))
    assert axes.get_xlim()[1] < 1.0
