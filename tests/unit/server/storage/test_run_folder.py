"""The stored run of a folder: a new one, one that is resumed, and what is refused."""

from pathlib import Path

import pytest
from runs import specification
from stored import round_of

from cospan.server import Coordinator
from cospan.server.storage.lock import STORE
from cospan.server.storage.reader import read_state
from cospan.server.storage.run_folder import store_of
from cospan.wire.errors import InvalidValueError, RunFileError
from cospan.wire.messages import FinishCause


def test_a_run_is_made_once_and_resumed_then(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    store = store_of(folder, specification())
    run_id = store.saved.run_id
    store.write([round_of(0)])
    store.close()
    resumed = store_of(folder, specification())
    assert (resumed.saved.run_id, read_state(folder / STORE).rounds) == (run_id, 1)
    with pytest.raises(RunFileError, match="serves the run in"):
        store_of(folder, specification())
    resumed.close()


def test_another_run_and_one_that_is_over_are_refused_unchanged(tmp_path: Path) -> None:
    store = store_of(tmp_path, specification())
    store.close()
    before = (tmp_path / STORE).read_bytes()
    with pytest.raises(InvalidValueError, match=r"has rank = 2, and 3 is asked for: ask for the same"):
        store_of(tmp_path, specification(rank=3))
    assert (tmp_path / STORE).read_bytes() == before
    store = store_of(tmp_path, specification())
    store.write_end(FinishCause.STOPPED, "the plant is shut down", 0)
    store.close()
    with pytest.raises(InvalidValueError, match=r"over \(the plant is shut down\); name another"):
        store_of(tmp_path, specification())


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunFileError, match=r"is not empty and holds no run \(thesis.tex is in it\); name another"):
        store_of(tmp_path, specification())
    with pytest.raises(RunFileError, match=r"cannot make the run folder .*: (File exists|Not a directory); name"):
        store_of(tmp_path / "thesis.tex", specification())
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_nothing_is_written_for_a_coordinator_that_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(InvalidValueError, match="which other machines can reach"):
        Coordinator(specification(), host="0.0.0.0", run_folder=folder)
    store = store_of(tmp_path / "other", specification())
    with pytest.raises(InvalidValueError, match="run_folder and store both say"):
        Coordinator(specification(), run_folder=folder, store=store)
    store.close()
    assert not folder.exists()
