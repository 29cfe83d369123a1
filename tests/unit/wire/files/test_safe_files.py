"""Run folders that others have filled: every command that reads one says what is wrong, and does not wait."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runs import specification
from stored import stored_run

from cospan.cli.commands.export import find_basis
from cospan.cli.commands.report import report_frame
from cospan.cli.commands.runs import describe
from cospan.cli.output.log_lines import log_to_file, stop_logging
from cospan.cli.run_folder.layout import RunFolder, write_text
from cospan.cli.run_folder.stored_rounds import read_rounds
from cospan.client.files.agent_result import AgentResult
from cospan.client.files.group_file import _loaded_chains
from cospan.client.files.result_file import FORMAT, load_result
from cospan.client.files.state_file import ONE_AGENT, StateFile
from cospan.dashboard.auth import read_token
from cospan.wire.errors import CospanError, RunFileError
from cospan.wire.files.npz import save_npz
from cospan.wire.security.tls import TlsFiles, check_usable

MISPLACED: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "it is a pipe, not a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
    "folder": (Path.mkdir, "it is a folder, not a file"),
}
KINDS = pytest.mark.parametrize("kind", MISPLACED)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run without a store, as one that was played in process."""
    found = RunFolder(tmp_path)
    found.agents.mkdir()
    found.write_spec(specification(rounds=3))
    found.write_basis(np.eye(6, 2), run_id="run", rounds=3)
    found.write_result({"run_id": "run", "finish_cause": "stopped", "rounds": 3, "agents": 2, "message": "m"})
    return found


def misplace(path: Path, kind: str) -> str:
    """Puts something else in the place of a file; the words of the error that names it."""
    path.unlink(missing_ok=True)
    put, text = MISPLACED[kind]
    put(path)
    return text


@KINDS
def test_the_list_of_runs_names_what_is_no_file(folder: RunFolder, kind: str) -> None:
    assert describe(folder.path).state == "stopped"
    for path in (folder.result, folder.spec):
        text = misplace(path, kind)
        line = describe(folder.path)
        assert line.state == "unreadable"
        assert text in str(line.note)


@KINDS
def test_bases_results_and_rounds_that_are_no_files(folder: RunFolder, kind: str) -> None:
    assert find_basis(folder, None).round == 3
    report_frame(folder)
    text = misplace(folder.rounds, kind)
    with pytest.raises(RunFileError, match=text):
        list(read_rounds(folder))
    folder.rounds.rmdir() if kind == "folder" else folder.rounds.unlink()
    text = misplace(folder.result, kind)
    with pytest.raises(RunFileError, match=text):
        report_frame(folder)
    text = misplace(folder.basis, kind)
    with pytest.raises(RunFileError, match=text):
        find_basis(folder, None)


def test_rounds_in_one_endless_line(folder: RunFolder) -> None:
    folder.rounds.write_text("round,seconds," + "x" * 100_000)
    with pytest.raises(RunFileError, match="a line has 1000 characters or more"):
        list(read_rounds(folder))
    os.truncate(folder.rounds, 1 << 40)  # it takes no room on the disk
    with pytest.raises(RunFileError, match="it has 1099511627776 bytes, and at most"):
        list(read_rounds(folder))


def test_a_result_that_is_nested_without_end(folder: RunFolder) -> None:
    folder.result.write_text("[" * 1_000_000)
    assert describe(folder.path).state == "unreadable"
    with pytest.raises(RunFileError, match="cannot read"):
        report_frame(folder)


def test_a_report_reads_of_an_agents_file_what_it_shows(folder: RunFolder) -> None:
    """Two thousand files with states of gigabytes each do not become terabytes of memory."""
    path = folder.agent("site-0")
    shown = {"agent_id": "site-0", "head": np.zeros(2), "reward_moments": np.zeros(4)}
    save_npz(path, format=FORMAT, curve_mean_squared_td_error=np.zeros(0), **shown)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("head_system.npy", b"never looked at")
    assert [row[0] for row in report_frame(folder)["agents"]] == ["site-0"]
    with pytest.raises(RunFileError, match="'head_system' is no array"):
        load_result(path)


@KINDS
def test_a_log_is_appended_to_a_file_alone(folder: RunFolder, kind: str) -> None:
    misplace(folder.log, kind)
    with pytest.raises(RunFileError, match=r"cannot write .*log\.jsonl: "):
        log_to_file(folder.log)


def test_a_log_does_not_follow_a_link(folder: RunFolder, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")
    folder.log.symlink_to(mine)
    with pytest.raises(RunFileError, match="it is a link"):
        log_to_file(folder.log)
    assert mine.read_text() == "precious"
    folder.log.unlink()
    stop_logging(log_to_file(folder.log))
    assert folder.log.read_bytes() == b""


class Learner:
    """As much of one as a state file that is not read needs."""

    name, names, rounds, last_round, specification = "site-0", ("site-0",), 0, None, specification()


@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_neither_renamed_nor_replaced(folder: RunFolder, linked: bool) -> None:
    """An agent with --output /dev/null, and the rights to do so, renamed it."""
    path = folder.agent("site-0")
    os.mkfifo(path)
    named = path
    if linked:
        named = folder.path / "link"
        named.symlink_to(path)
    with pytest.raises(RunFileError, match=r"site-0\.npz cannot be used: it is a pipe, not a file; name another"):
        StateFile(named, Learner(), ONE_AGENT, run_id="run").take_up()  # type: ignore[type-var]
    with pytest.raises(RunFileError, match=r"cannot write .*site-0\.npz: it is a pipe, not a file"):
        save_npz(path, head=np.zeros(2))
    with pytest.raises(RunFileError, match=r"cannot write .*site-0\.npz: it is a pipe, not a file"):
        write_text(path, "text")
    assert path.is_fifo()
    assert list(folder.agents.iterdir()) == [path]


@KINDS
def test_tokens_and_keys_that_are_no_files(tmp_path: Path, kind: str) -> None:
    text = misplace(tmp_path / "file", kind)
    path = tmp_path / "file"
    for read in (lambda: read_token(path), lambda: check_usable(TlsFiles(path, path, path), 0.0)):
        with pytest.raises(CospanError, match=text):
            read()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"array": 7}', '{"tuple": 3}', "{}"])
def test_chains_of_a_group_that_cannot_be_unpacked_are_left_out(text: str) -> None:
    assert _loaded_chains(AgentResult({"chain_state": np.array(text)}), 2) == [None, None]


def test_a_stored_run_is_still_read(tmp_path: Path) -> None:
    stored_run(tmp_path, 3)
    assert describe(tmp_path).state == "resumable"
    assert len(list(read_rounds(RunFolder(tmp_path)))) == 3
