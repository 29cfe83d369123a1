"""Where the coordinator is: fixed, in a file, or from a function."""

from collections.abc import Callable
from pathlib import Path

import pytest
from runs import run

from cospan.client.session import coordinator_address
from cospan.client.session.coordinator_address import CoordinatorAddress
from cospan.wire.errors import CoordinatorUnavailableError, InvalidValueError


def test_a_fixed_address() -> None:
    where = CoordinatorAddress("[::1]:5")
    assert str(where.fixed) == run(where.now()) == "[::1]:5"


def test_a_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "address"
    where = CoordinatorAddress(f"@{file}")
    assert where.fixed is None
    with pytest.raises(CoordinatorUnavailableError, match=r"names the coordinator, cannot be read: No"):
        run(where.now())
    file.write_text("n4:15051\n")
    assert run(where.now()) == "n4:15051"
    file.write_text("\ufeff n5:15052 \nand a second line")
    assert run(where.now()) == "n5:15052"


@pytest.mark.parametrize("content", [b"", b"\n", b"n4", b"n4:15", b"\xff\xfe", b"n4:1\0", b"x" * 5000])
def test_a_file_that_is_just_being_written_is_asked_again(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "address"
    file.write_bytes(content)
    where = CoordinatorAddress(f"@{file}")
    if content == b"n4:15":
        assert run(where.now()) == "n4:15", "write it whole: beside it, and then rename it"
        return
    with pytest.raises(CoordinatorUnavailableError, match=f"^the file {file}, which names the coordinator,"):
        run(where.now())


def test_a_function_is_asked_each_time() -> None:
    answers = iter(("n1:1", "n2:2"))
    where = CoordinatorAddress(lambda: next(answers))
    assert [run(where.now()), run(where.now())] == ["n1:1", "n2:2"]
    with pytest.raises(CoordinatorUnavailableError, match=r"^the function .* failed: StopIteration"):
        run(where.now())


def raising(failure: Exception) -> Callable[[], str]:
    def ask() -> str:
        raise failure

    return ask


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (raising(ConnectionError("no actor")), "cannot be read: no actor"),
        (raising(KeyError("address")), "failed: KeyError: 'address'"),
        (lambda: "nowhere", "has no address: its address is 'nowhere'; it must be HOST:PORT"),
    ],
)
def test_a_function_that_has_no_address_yet(ask: Callable[[], str], says: str) -> None:
    with pytest.raises(CoordinatorUnavailableError) as failure:
        run(CoordinatorAddress(ask).now())
    assert says in str(failure.value)


def test_a_function_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(coordinator_address, "_ANSWER_SECONDS", 0.05)
    release = threading.Event()

    def hang() -> str:
        release.wait(20)
        return "n1:1"

    async def asked() -> None:
        with pytest.raises(CoordinatorUnavailableError, match="did not answer for"):
            await CoordinatorAddress(hang).now()
        release.set()

    run(asked())


def test_an_at_sign_alone_is_no_file() -> None:
    with pytest.raises(InvalidValueError, match="@ is followed by the name of a file"):
        CoordinatorAddress("@")
