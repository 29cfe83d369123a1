"""An MLflow run in a store of files, read back by MLflow; `make mlflow-test` installs what it needs."""

import json
from pathlib import Path
from typing import Any

import pytest

from cospan.cli.tracking.points import Point, RunFacts
from cospan.cli.tracking.sink import Writer
from cospan.wire.errors import RunFileError

mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: make mlflow-test", exc_type=ImportError)

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow's own

FACTS = RunFacts("run", "tanks", {f"constant_{number}": number for number in range(150)} | {"long": "x" * 900})
RESULT = {"rounds": 3, "finish_cause": "rounds-reached", "basis_sha256": "abc"}


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"file://{tmp_path}/store"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    mlflow.set_tracking_uri(uri)
    return uri


def points(*steps: int) -> list[Point]:
    return [Point(step, 100.0 + step, {"round/seconds": 0.5 * step, "error/value": 1.0}) for step in steps]


def written(folder: Path, *steps: int) -> Writer:
    from cospan.cli.tracking.mlflow_sink import MLflowSink

    writer = Writer(MLflowSink(folder, FACTS))
    writer.open()
    writer.write(points(*steps))
    return writer


def run_of(folder: Path) -> Any:
    document = json.loads((folder / ".mlflow.json").read_text())
    return mlflow.MlflowClient().get_run(document["run_id"])


def steps_of(folder: Path, series: str = "round/seconds") -> list[int]:
    history = mlflow.MlflowClient().get_metric_history(run_of(folder).info.run_id, series)
    return [metric.step for metric in history]


def test_mlflow_reads_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    writer = written(tmp_path, *range(700))
    writer.sink.finish(RESULT)
    writer.sink.close()
    run = run_of(tmp_path)
    assert steps_of(tmp_path) == list(range(700))
    assert run.data.metrics["round/seconds"] == 0.5 * 699
    assert run.data.params["constant_149"] == "149"
    assert len(run.data.params["long"]) == 500
    assert run.data.tags["cospan.basis_sha256"] == "abc"
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert mlflow.MlflowClient().get_experiment(run.info.experiment_id).name == "tanks"
    assert [each.path for each in mlflow.MlflowClient().list_artifacts(run.info.run_id)] == ["result.json"]


def test_a_resumed_run_continues_its_mlflow_run(tmp_path: Path) -> None:
    written(tmp_path, 0, 1, 2)  # killed
    first = run_of(tmp_path).info.run_id
    writer = written(tmp_path, 0, 1, 2, 3, 4)
    assert run_of(tmp_path).info.status == "RUNNING"
    writer.sink.finish({**RESULT, "finish_cause": "no-agents"})
    assert run_of(tmp_path).info.run_id == first
    assert steps_of(tmp_path) == steps_of(tmp_path, "error/value") == [0, 1, 2, 3, 4]
    assert run_of(tmp_path).info.status == "FAILED"


def test_a_batch_of_which_a_part_was_taken_is_completed(tmp_path: Path) -> None:
    written(tmp_path, 0, 1)
    client, run = mlflow.MlflowClient(), run_of(tmp_path).info.run_id
    client.log_metric(run, "round/seconds", 1.0, timestamp=1, step=2)
    written(tmp_path, 0, 1, 2)
    assert steps_of(tmp_path) == steps_of(tmp_path, "error/value") == [0, 1, 2]


@pytest.mark.parametrize("damage", ["garbage", '{"run_id": 7}', "deleted", "elsewhere"])
def test_a_run_that_is_gone_is_begun_again(damage: str, tmp_path: Path) -> None:
    written(tmp_path, 0, 1)
    first = run_of(tmp_path).info.run_id
    mark = tmp_path / ".mlflow.json"
    if damage == "deleted":
        mark.write_text(mark.read_text().replace(first, "0" * 32))
    elif damage == "elsewhere":
        mlflow.set_tracking_uri(f"file://{tmp_path}/other")
    else:
        mark.write_text(damage)
    written(tmp_path, 0, 1)
    assert run_of(tmp_path).info.run_id != first
    assert steps_of(tmp_path) == [0, 1]


def test_a_server_that_does_not_answer_is_an_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr("socket.create_connection", refused)
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    with pytest.raises(RunFileError, match=r"the MLflow server at .* cannot be reached"):
        written(tmp_path, 0)
    assert not (tmp_path / ".mlflow.json").exists()
