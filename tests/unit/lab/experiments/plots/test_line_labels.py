"""Names at the ends of lines: none covers another, and every method has its own look in every picture."""

import itertools

import pytest

from cospan.experiments.methods.catalogue import JOINT, LSTD_ALONE, TD_ALONE, default_methods
from cospan.experiments.plots.line_labels import spread
from cospan.experiments.plots.method_style import JOINT_STYLE, LSTD_STYLE, TD_STYLE, styles_of
from cospan.experiments.plots.sites import MOST_LINES, SiteChange, sites_figure


@pytest.mark.parametrize(
    ("ends", "gap", "expected"),
    [
        ([0.5], 0.1, [0.5]),
        ([0.2, 0.8], 0.1, [0.2, 0.8]),
        ([0.5, 0.5], 0.1, [0.45, 0.55]),
        ([0.55, 0.45], 0.2, [0.6, 0.4]),
        ([1.0, 0.98], 0.1, [1.0, 0.9]),
    ],
)
def test_labels_move_no_further_than_they_must(ends: list[float], gap: float, expected: list[float]) -> None:
    assert spread(ends, gap) == pytest.approx(expected)


def test_labels_in_a_crowd_stay_in_order_and_apart() -> None:
    ends = [0.5, 0.51, 0.49, 0.9, 0.505]
    placed = spread(ends, 0.05)
    order = sorted(range(5), key=lambda index: ends[index])
    gaps = [placed[b] - placed[a] for a, b in itertools.pairwise(order)]
    assert min(gaps) >= 0.05 - 1e-12


def test_a_method_looks_the_same_in_every_picture() -> None:
    names = [method.name for method in default_methods()]
    styles = styles_of(names)
    assert (styles[JOINT], styles[LSTD_ALONE], styles[TD_ALONE]) == (JOINT_STYLE, LSTD_STYLE, TD_STYLE)
    assert len({style.colour for style in styles.values()}) == len({style.marker for style in styles.values()}) == 7
    assert styles_of(["something new", JOINT])[JOINT] == JOINT_STYLE
    assert styles_of(["something new", JOINT])["something new"].colour != JOINT_STYLE.colour
    many = styles_of([f"variant {number}" for number in range(20)])
    assert len(many) == 20


@pytest.mark.parametrize("count", [1, 25, MOST_LINES + 1])
def test_every_site_is_drawn_with_its_ratio(count: int) -> None:
    sites = [SiteChange(f"site {number}", 0.1, 0.01 * (number + 1)) for number in range(count)]
    (axes,) = sites_figure(sites, "LSTD alone", "title").axes
    better = sum(site.ratio < 1.0 for site in sites)
    assert f"{better} of {count} sites have a smaller error with the fleet than with LSTD alone" in axes.get_title(
        loc="left"
    )
    if count <= MOST_LINES:
        assert [label.get_text() for label in axes.get_yticklabels()] == [site.name for site in sites]
        texts = {text.get_text() for text in axes.texts}
        assert {"LSTD alone", "with the fleet", "0.10 ×"} <= texts
        assert ("! 2.50 ×" in texts) == (count == 25), "a sign as well as a colour"
