"""An MLflow run, on the tracking server or in the store that MLflow itself is set to."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from cospan.cli.run_folder.layout import MLFLOW_RUN, write_text
from cospan.cli.tracking.points import Point, RunFacts
from cospan.wire.errors import RunFileError
from cospan.wire.files.safe_files import read_text

_MOST_METRICS, _MOST_PARAMS = 1000, 100
"""Of one call, as MLflow bounds them."""
_LONGEST_PARAM = 500
_MAX_BYTES = 1 << 16
_ANSWER_SECONDS = 5.0
_STATUS = {"rounds-reached": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED"}
_TRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""MLflow's own tries last many minutes; a sink is opened again anyway."""


class MLflowSink:
    """One MLflow run, which a resumed run continues; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say where."""

    name = "mlflow"

    def __init__(self, folder: Path, facts: RunFacts) -> None:
        """Prepares; no server is asked.

        Args:
            folder: of the run; it keeps the id of the MLflow run.
            facts: of the run.
        """
        for variable, value in _TRIES.items():
            os.environ.setdefault(variable, value)
        self._folder, self._facts = folder, facts
        self._client: Any = None
        self._run_id = ""

    @property
    def place(self) -> str:
        """See `Sink`."""
        return f"MLflow run {self._run_id} at {mlflow.get_tracking_uri()}"

    def open(self) -> Mapping[str, int]:
        """See `Sink`.

        Raises:
            RunFileError: the server does not answer.
        """
        uri = mlflow.get_tracking_uri()
        _check_reachable(uri)
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        known = self._known_run(uri)
        if known is None:
            self._begin(uri)
            return {}
        self._run_id = known.info.run_id
        self._client.update_run(self._run_id, status="RUNNING")
        return {
            name: max(metric.step for metric in self._client.get_metric_history(self._run_id, name))
            for name in known.data.metrics
        }

    def _known_run(self, uri: str) -> Any:
        """The run that this run folder has had in this store; None if there is none."""
        try:
            document = json.loads(read_text(self._folder / MLFLOW_RUN, _MAX_BYTES))
            if document["tracking_uri"] != uri:
                return None
            return self._client.get_run(str(document["run_id"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        except MlflowException as failure:
            if failure.error_code == "RESOURCE_DOES_NOT_EXIST":  # it was deleted
                return None
            raise

    def _begin(self, uri: str) -> None:
        client, facts = self._client, self._facts
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or facts.workload or "cospan"
        experiment = client.get_experiment_by_name(name)
        experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
        run = client.create_run(experiment_id, run_name=facts.name, tags={"cospan.run": facts.name})
        self._run_id = run.info.run_id
        document = {"tracking_uri": uri, "experiment": name, "run_id": self._run_id}
        write_text(self._folder / MLFLOW_RUN, json.dumps(document, indent=2) + "\n")
        params = [Param(name, str(value)[:_LONGEST_PARAM]) for name, value in facts.constants.items()]
        for begin in range(0, len(params), _MOST_PARAMS):
            client.log_batch(self._run_id, params=params[begin : begin + _MOST_PARAMS])

    def write(self, points: Sequence[Point]) -> None:
        """See `Sink`."""
        metrics = [
            Metric(name, value, int(point.time * 1000.0), point.step)
            for point in points
            for name, value in point.values.items()
        ]
        for begin in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=metrics[begin : begin + _MOST_METRICS])

    def finish(self, document: Mapping[str, Any]) -> None:
        """See `Sink`."""
        cause = str(document.get("finish_cause", ""))
        tags = [
            RunTag("cospan.finish_cause", cause),
            RunTag("cospan.basis_sha256", str(document.get("basis_sha256"))),
        ]
        self._client.log_batch(self._run_id, tags=tags)
        result = self._folder / "result.json"
        if result.exists():
            self._client.log_artifact(self._run_id, str(result))
        self._client.set_terminated(self._run_id, status=_STATUS.get(cause, "FAILED"))

    def close(self) -> None:
        """See `Sink`."""
        self._client = None


def _check_reachable(uri: str) -> None:
    """Raises RunFileError if a server does not take connections: MLflow would try for minutes."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), _ANSWER_SECONDS).close()
    except OSError as failure:
        raise RunFileError(
            f"the MLflow server at {uri} cannot be reached: {failure}; set MLFLOW_TRACKING_URI, or start it"
        ) from failure
