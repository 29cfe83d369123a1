"""What the dashboard and the report are made of: series, spectrum, frames, who is let in, and the one file."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cospan.dashboard import auth
from cospan.dashboard.auth import DashboardAuth, read_token
from cospan.dashboard.broadcaster import Broadcaster, event
from cospan.dashboard.page_files import MODULES, page_file
from cospan.dashboard.payloads import changed_rows, heat_map
from cospan.dashboard.rank_spectrum import spectrum_of
from cospan.dashboard.report_page import report_page
from cospan.dashboard.series import Round, RoundSeries, percentile
from cospan.server.net.host_header import host_part
from cospan.wire.errors import InvalidValueError

TOKEN = "0123456789abcdef"


def rounds(count: int, seconds: float = 0.5) -> Iterator[Round]:
    for number in range(count):
        yield Round(number, seconds, 3, 1.0 / (number + 1))


# The series ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 8, 9, 100, 1000])
def test_a_series_shows_the_whole_run_in_few_points(count: int) -> None:
    series = RoundSeries(most=8)
    for closed in rounds(count):
        series.add(closed)
    assert len(series.points) <= 8
    assert sum(point.rounds for point in series.points) == count
    assert series.points[-1].last == count - 1
    assert [point.last for point in series.points] == sorted(point.last for point in series.points)
    mean = sum(point.movement * point.rounds for point in series.points) / count
    assert mean == pytest.approx(np.mean([closed.movement for closed in rounds(count)]))


def test_what_is_learnt_later_is_shown_where_it_belongs() -> None:
    series = RoundSeries(most=4)
    for closed in rounds(7):
        series.add(closed)
    series.learn(0.25, [(0, 0.5), (6, 0.125), (99, 1.0)])
    assert [point.subspace_error for point in series.points] == [0.5, None, None, 0.125]
    assert series.points[-1].value_error == 0.25
    assert series.points[0].value_error is None


def test_older_points_keep_the_worst_of_what_they_stand_for() -> None:
    series = RoundSeries(most=2)
    for number, (seconds, contributors) in enumerate([(1.0, 3), (9.0, 1), (1.0, 3), (1.0, 3)]):
        series.add(Round(number, seconds, contributors, 0.5))
    assert (series.points[0].p99, series.points[0].contributors) == (9.0, 1)


def test_percentiles_are_values_that_occurred() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.99) == 4.0
    assert percentile([7.0], 0.5) == 7.0


# The spectrum ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [((1.0, 1.0, 1.0), "full"), ((1.0, 0.4, 0.1), "fits"), ((1.0, 0.5, 1e-5), "idle"), ((2.0,), "fits")],
)
def test_the_spectrum_says_what_the_heads_tell_of_the_rank(sizes: tuple[float, ...], verdict: str) -> None:
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(len(sizes), len(sizes))))[0]
    spectrum = spectrum_of(turn @ np.diag(sizes) @ turn.T, agents=4)
    assert spectrum is not None
    assert spectrum.verdict == verdict
    assert spectrum.shares == pytest.approx(np.array(sizes) / sum(sizes))
    assert sum(spectrum.shares) == pytest.approx(1.0)


def test_heads_that_are_zero_have_no_spectrum() -> None:
    assert spectrum_of(np.zeros((3, 3)), agents=4) is None


# Frames ----------------------------------------------------------------------------------------------------------


def test_a_large_basis_is_shown_by_its_largest_entries() -> None:
    basis = np.zeros((1000, 70))
    basis[999, 69], basis[0, 0] = -0.5, 0.25
    shown = heat_map(basis)
    cells = np.array(shown["cells"])
    assert cells.shape[0] <= 160
    assert cells.shape[1] <= 64
    assert (cells[0, 0], cells[-1, -1]) == (0.25, -0.5)
    assert np.count_nonzero(cells) == 2


def test_only_rows_that_have_changed_are_sent() -> None:
    assert changed_rows([["a", 1], ["b", 2]], {"a": ["a", 1], "b": ["b", 1]}) == [["b", 2]]


def test_an_event_is_one_line_of_json() -> None:
    kind, data, *rest = event("frame", {"text": "two\nlines"}).decode().split("\n")
    assert (kind, rest) == ("event: frame", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == {"text": "two\nlines"}


async def _left_behind() -> list[bytes]:
    audience = Broadcaster()
    slow = audience.follow(b"whole")
    seen = [await anext(slow)]
    for number in range(50):
        audience.publish(b"%d" % number)
    assert len(audience) == 0, "who does not read is not kept"
    seen += [message async for message in slow]
    return seen


def test_a_browser_that_does_not_read_is_left_behind() -> None:
    import asyncio

    assert asyncio.run(_left_behind()) == [b"whole"]


# Who is let in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("127.0.0.1:8080", "127.0.0.1"),
        ("LocalHost", "localhost"),
        ("[::1]:80", "::1"),
        ("a.example:1", "a.example"),
    ],
)
def test_a_host_header_is_read_as_browsers_write_it(header: str, name: str) -> None:
    assert host_part(header) == name


def test_a_request_by_another_name_is_none_of_ours() -> None:
    door = DashboardAuth(frozenset({"127.0.0.1", "localhost"}))
    assert door.knows_host("127.0.0.1:8080")
    for header in (None, "", "evil.example", "127.0.0.1.evil.example:8080", "localhost.evil.example"):
        assert not door.knows_host(header)


def test_a_token_or_the_cookie_for_it_is_needed() -> None:
    door = DashboardAuth(frozenset(), TOKEN)
    assert door.admits(f"Bearer {TOKEN}", None)
    assert door.admits(None, door.pass_for_browser())
    for authorization, cookie in (
        (None, None),
        ("Bearer x", None),
        (f"Basic {TOKEN}", None),
        (None, TOKEN),
        ("", "é"),
    ):
        assert not door.admits(authorization, cookie)
    assert not door.admits(None, DashboardAuth(frozenset(), TOKEN).pass_for_browser()), "of another process"


def test_after_many_wrong_tokens_none_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(auth.time, "monotonic", lambda: now)
    door = DashboardAuth(frozenset(), TOKEN)
    assert not any(door.is_token(f"wrong {number}") for number in range(20))
    assert not door.is_token(TOKEN)
    assert door.admits(None, door.pass_for_browser()), "who is in stays in"
    now += 11.0
    assert door.is_token(TOKEN)


@pytest.mark.parametrize("text", ["", "short", "with a space in it 123", "x" * 513, "ümlaut-0123456789"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidValueError, match="holds no token"):
        read_token(path)


def test_a_token_is_what_stands_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n", encoding="utf-8")
    assert read_token(path) == TOKEN
    with pytest.raises(InvalidValueError, match="cannot read the dashboard's token"):
        read_token(tmp_path / "none")


# The one file ----------------------------------------------------------------------------------------------------


def test_the_report_holds_all_that_it_needs_and_its_policy_allows_nothing_else() -> None:
    page = report_page({"run": {"message": "</script><script>alert(1)</script>"}})
    assert "</script><script>alert" not in page
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    for kind, text in (
        ("style", re.findall(r"<style>(.*?)</style>", page, re.DOTALL)),
        ("script", re.findall(r"<script>(.*?)</script>", page, re.DOTALL)),
    ):
        (content,) = text
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy[1]
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["run"]["message"] == "</script><script>alert(1)</script>"


def test_every_module_comes_after_those_that_it_imports() -> None:
    seen: set[str] = set()
    for name in MODULES:
        content = page_file(name)
        assert content is not None
        imported = re.findall(r'from "\./(\w+\.js)"', content.decode())
        assert set(imported) <= seen, name
        seen.add(name)


def test_the_page_names_nobody_else() -> None:
    for name in ("index.html", "login.html", "style.css", *MODULES):
        content = (page_file(name) or b"").decode().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in content, name
        assert not re.search(r"\bstyle=|\bon\w+=\"", content), f"{name} has what the policy forbids"
    assert page_file("../dashboard.py") is None
