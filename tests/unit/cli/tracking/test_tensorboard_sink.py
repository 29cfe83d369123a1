"""Event files as TensorBoard itself reads them, after kills, damage and restarts."""

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cospan.cli.tracking.points import Point, RunFacts
from cospan.cli.tracking.sink import Writer
from cospan.cli.tracking.tensorboard_sink import TensorBoardSink, events_of
from cospan.wire.errors import RunFileError

FACTS = RunFacts("run", "tanks", {"agents": 3, "method.rank": 2, "cause": "a | b"})
RESULT = {
    "rounds": 3,
    "finish_cause": "rounds-reached",
    "message": "all rounds are done",
    "per_agent": [{"id": f"site-{index}", "label": "a|b", "mean_reward": 0.5} for index in range(120)],
}


def points(*steps: int) -> list[Point]:
    return [Point(step, 100.0 + step, {"round/seconds": 0.5 * step, "error/value": 1.0}) for step in steps]


def written(folder: Path, *steps: int) -> Writer:
    writer = Writer(TensorBoardSink(folder, FACTS))
    writer.open()
    writer.write(points(*steps))
    return writer


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def steps_of(folder: Path, series: str = "round/seconds") -> list[int]:
    return [event.step for event in read(folder).Scalars(series)]


def text_of(folder: Path, tag: str) -> list[str]:
    return [event.tensor_proto.string_val[0].decode() for event in read(folder).Tensors(tag)]


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    writer = written(tmp_path, 0, 1, 2)
    writer.sink.finish(RESULT)
    writer.sink.close()
    scalars = read(tmp_path).Scalars("round/seconds")
    assert [(event.step, event.wall_time, event.value) for event in scalars] == [
        (0, 100.0, 0.0),
        (1, 101.0, 0.5),
        (2, 102.0, 1.0),
    ]
    assert steps_of(tmp_path, "error/value") == [0, 1, 2]
    (constants,) = text_of(tmp_path, "run/specification")
    assert "| method.rank | 2 |" in constants
    assert r"| cause | a \| b |" in constants
    (result,) = text_of(tmp_path, "run/result")
    assert "| finish_cause | rounds-reached |" in result
    assert r"| site-99 | a\|b | 0.5 | - |" in result
    assert "site-100" not in result
    assert "… and 20 more in result.json" in result


def test_a_resumed_run_adds_what_is_lacking(tmp_path: Path) -> None:
    written(tmp_path, 0, 1, 2).sink.close()  # killed: not finished
    writer = written(tmp_path, 0, 1, 2, 3, 4)
    writer.sink.finish(RESULT)
    writer.sink.finish(RESULT)
    writer.sink.close()
    assert steps_of(tmp_path) == [0, 1, 2, 3, 4]
    assert len(text_of(tmp_path, "run/specification")) == 1
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    again = written(tmp_path, 0, 1, 2, 3, 4)
    again.sink.finish({**RESULT, "rounds": 3})
    again.sink.close()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2, "a file without anything new is not left"


@pytest.mark.parametrize("cut", [1, 3, 20])
def test_a_record_that_was_cut_off_is_written_again_whole(cut: int, tmp_path: Path) -> None:
    written(tmp_path, 0, 1, 2).sink.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    written(tmp_path, 0, 1, 2, 3).sink.close()
    assert steps_of(tmp_path) == steps_of(tmp_path, "error/value") == [0, 1, 2, 3]


def test_damage_is_the_end_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "events"
    for content in (
        b"",
        b"short",
        b"\xff" * 40,
        (4).to_bytes(8, "little") + b"crc_" + b"\xff\xff\xff\xff" + b"crc_",
    ):
        path.write_bytes(content)
        assert list(events_of(path)) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(RunFileError, match=r"cannot write event files in .*tensorboard: File exists"):
        TensorBoardSink(tmp_path, FACTS).open()


def test_a_full_disk_is_an_error_and_leaves_no_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = TensorBoardSink(tmp_path, FACTS)
    sink.open()

    class Full:
        name = sink._file.name if sink._file is not None else ""

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    whole: Any = Full()
    assert sink._file is not None
    sink._file.close()
    sink._file = whole
    monkeypatch.setattr(sink, "_add", lambda event: None)
    with pytest.raises(RunFileError, match=r"cannot write event files in .*: No space left on device"):
        sink.write(points(0))
    sink.close()
    assert list((tmp_path / "tensorboard").iterdir()) == []
