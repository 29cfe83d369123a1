"""Output for people: what cannot be written is dropped without an error."""

import io
import os
import sys
from pathlib import Path

import pytest

from cospan.wire.console import dropping_stream, say


class Broken(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("stream", [Broken(), None, (closed := io.StringIO())])
def test_a_line_that_cannot_be_written_is_dropped(
    stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed.close()
    for name, error in (("stderr", True), ("stdout", False)):
        monkeypatch.setattr(sys, name, stream)
        say("without a reader", error=error)


def test_a_line_goes_where_it_is_to_go(capsys: pytest.CaptureFixture[str]) -> None:
    say("one")
    say("two", error=False, end="!")
    assert capsys.readouterr() == ("two!", "one\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_drops_what_is_printed() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    stream = dropping_stream(descriptor)
    print("x" * 100_000, file=stream, flush=True)
    stream.close()
    os.close(descriptor)


def test_a_reader_that_has_gone_or_is_behind_is_not_waited_for() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    stream = dropping_stream(write)
    print("x" * 1_000_000, file=stream, flush=True)  # more than the pipe takes
    os.close(read)
    print("more", file=stream, flush=True)
    stream.close()
    os.close(write)
