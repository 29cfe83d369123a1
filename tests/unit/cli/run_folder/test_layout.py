"""The run folder: its name, its files, and that nothing half-written is left."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from cospan.cli.run_folder import layout
from cospan.cli.run_folder.layout import check_free, make_run_folder, write_text
from cospan.core.method import practical
from cospan.core.specification import RunSpecification
from cospan.wire.errors import RunFileError
from cospan.wire.files.spec_file import load_spec

SPEC = RunSpecification("toy", 3, 2, 4, 5, 6, practical(20))


def test_names_are_unique_and_free_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [make_run_folder(None, workload="my.module:a/../b") for _ in range(3)]
    assert len({folder.path for folder in folders}) == 3
    for folder in folders:
        assert folder.path.parent == layout.RUNS
        assert folder.path.name.split("-", 1)[1].startswith("my.module-a-..-b")
        assert len(folder.path.name.split("-")[0]) == len("20261123T041500Z")


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "new" / "run", workload="toy")
    basis = np.linalg.qr(np.arange(6.0).reshape(3, 2) + 1.0)[0]
    folder.write_spec(SPEC)
    folder.write_basis(basis, np.diag([2.0, 1.0]), run_id="abc", rounds=5)
    folder.write_result({"workload": "tÿ", "value_error": None})
    assert load_spec(folder.spec) == SPEC
    assert np.array_equal(folder.read_basis(), basis)
    with np.load(folder.basis) as values:
        assert np.array_equal(values["head_covariance"], np.diag([2.0, 1.0]))
    assert json.loads(folder.result.read_text(encoding="utf-8")) == {"workload": "tÿ", "value_error": None}
    assert sorted(path.name for path in folder.path.iterdir()) == [
        ".run.lock",
        "basis.npz",
        "result.json",
        "spec.toml",
    ]


def test_a_result_never_holds_nan(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", workload="toy")
    folder.write_result({"value_error": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        folder.write_result({"value_error": math.nan})
    assert json.loads(folder.result.read_text(encoding="utf-8")) == {"value_error": 1.0}


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "empty")
    check_free(tmp_path / "nothing")
    make_run_folder(tmp_path / "empty", workload="toy")
    (tmp_path / "file").write_text("")
    for taken, says in ((tmp_path, "is not empty"), (tmp_path / "file", "is a file")):
        with pytest.raises(RunFileError, match=says):
            make_run_folder(taken, workload="toy")
    with pytest.raises(RunFileError, match="file is a file"):
        make_run_folder(tmp_path / "file" / "run", workload="toy")


def test_a_run_that_could_not_begin_leaves_nothing(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "runs" / "run", workload="toy")
    folder.write_spec(SPEC)
    folder.agents.mkdir()
    folder.agent("site-0").write_bytes(b"x")
    folder.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    folder = make_run_folder(tmp_path / "mine", workload="toy")
    folder.write_spec(SPEC)
    folder.discard()
    assert (tmp_path / "mine").is_dir()
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_damaged_basis_is_named(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", workload="toy")
    np.savez(folder.basis, format="something else", basis=np.eye(2))
    with pytest.raises(RunFileError, match="is not the basis of a run"):
        folder.read_basis()


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunFileError, match="cannot write"):
        write_text(tmp_path / "taken", "text")
    with pytest.raises(RunFileError, match="cannot write"):
        write_text(tmp_path / "nowhere" / "file", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
