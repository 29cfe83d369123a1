"""Who may see the dashboard: tokens, cookies, names of the host."""

from pathlib import Path

import pytest

from cospan.dashboard import auth
from cospan.dashboard.auth import DashboardAuth, read_token
from cospan.wire.errors import InvalidValueError

TOKEN = "0123456789abcdef"


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
    with pytest.raises(InvalidValueError, match="cannot read the token"):
        read_token(tmp_path / "none")


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("/fleet/", "/"),
        ("/fleet/events", "/events"),
        ("/events", "/events"),
        ("/fleet", None),
        ("/fleets", "/fleets"),
    ],
)
def test_a_path_is_the_same_with_and_without_the_proxys(path: str, below: str | None) -> None:
    assert DashboardAuth(frozenset(), root="/fleet").path_below_root(path) == below
    assert DashboardAuth(frozenset()).path_below_root(path) == path
