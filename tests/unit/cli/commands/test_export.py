"""`cospan export`: a basis as a file of its own."""

from pathlib import Path

import numpy as np
import pytest
from runs import R, specification
from stored import NAME, RUN_ID, basis_after, contents, stored_run
from unit.cli.commands.test_runs import in_process
from unit.cli.run_folder.test_stored_run import go_on
from values import same

from cospan.cli.commands.export import export_basis, find_basis
from cospan.cli.run_folder.layout import RunFolder, make_run_folder
from cospan.core.specification import RunSpecification, basis_digest
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import load_npz
from cospan.wire.files.spec_file import from_toml


def exported(path: Path) -> tuple[np.ndarray, int, RunSpecification]:
    """What is in an exported file, checked against its own sums."""
    values = load_npz(path, "a basis")
    text = from_toml(str(values["specification"]), name="the specification")
    assert str(values["format"]) == "cospan-basis-1"
    assert str(values["basis_sha256"]) == basis_digest(values["basis"])
    assert str(values["specification_digest"]) == text.digest()
    assert str(values["run_id"]) in (RUN_ID, "of no store")
    return values["basis"], int(values["round"]), text


def test_the_last_basis_and_those_that_were_kept_can_be_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    stored_run(tmp_path / "run", 12, checkpoint_interval=4)
    before = contents(tmp_path / "run")
    spec = specification(rounds=0)
    for asked, round_number, basis in (
        (None, 12, basis_after(12)),
        (4, 4, basis_after(4)),
        (0, 0, spec.initial_basis()),
    ):
        output = tmp_path / f"{asked}.npz"
        assert export_basis(tmp_path / "run", output, round_number=asked) == 0
        found = exported(output)
        assert same(found[0], basis)
        assert found[1:] == (round_number, spec)
        assert f"after {round_number} rounds, sha256 {basis_digest(basis)}" in capsys.readouterr().err
    with pytest.raises(
        RunFileError, match="has not kept the basis after 7 rounds; it keeps those of 0, 4, 8, 10-12"
    ):
        export_basis(tmp_path / "run", tmp_path / "7.npz", round_number=7)
    assert contents(tmp_path / "run") == before
    assert not (tmp_path / "7.npz").exists()


def test_an_export_is_read_as_the_basis_of_a_run_folder_is(tmp_path: Path) -> None:
    other = make_run_folder(tmp_path / "other", workload="tests")
    export_basis(go_on(tmp_path / "run"), other.basis)
    assert same(other.read_basis(), basis_after(3))


def test_the_basis_of_a_run_without_a_store_can_be_exported(tmp_path: Path) -> None:
    run = in_process(tmp_path / "run")
    for asked, number in ((None, 5), (5, 5), (0, 0)):
        export_basis(run, tmp_path / "b.npz", round_number=asked, force=True)
        assert exported(tmp_path / "b.npz")[1] == number
    with pytest.raises(RunFileError, match="has not kept the basis after 3 rounds; it keeps those of 0, 5"):
        export_basis(run, tmp_path / "c.npz", round_number=3)


def test_the_head_covariance_is_exported_with_its_basis(tmp_path: Path) -> None:
    made = RunFolder(in_process(tmp_path / "run"))
    assert find_basis(made, 5).head_covariance is None, "its method has none"
    made.write_basis(basis_after(5), np.eye(R), run_id="of no store", rounds=5)
    export_basis(made.path, tmp_path / "b.npz")
    assert same(load_npz(tmp_path / "b.npz", "a basis")["head_covariance"], np.eye(R))
    made.write_basis(basis_after(5), np.eye(R + 1), run_id="of no store", rounds=5)
    with pytest.raises(RunFileError, match=r"the head covariance in .* has shape"):
        find_basis(made, None)


def test_nothing_is_written_over_unless_that_is_said(tmp_path: Path) -> None:
    run, output = go_on(tmp_path / "run"), tmp_path / "b.npz"
    output.write_bytes(b"mine")
    with pytest.raises(RunFileError, match=r"b.npz exists; name another file, or give --force to overwrite it"):
        export_basis(run, output)
    assert output.read_bytes() == b"mine"
    export_basis(run, output, force=True)
    assert exported(output)[1] == 3
    with pytest.raises(RunFileError, match="is a folder; name a file in it"):
        export_basis(run, tmp_path, force=True)
    with pytest.raises(RunFileError, match="is the stored run itself"):
        export_basis(run, run / NAME, force=True)
    with pytest.raises(RunFileError, match=r"cannot write .*nowhere/b.npz: No such file or directory"):
        export_basis(run, tmp_path / "nowhere" / "b.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.npz", "run"]


def test_what_is_no_run_cannot_be_exported(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for run, says in (
        (tmp_path / "empty", "empty holds no run; name the folder of one, see `cospan runs`"),
        (tmp_path / "file", "file is a file; name"),
        (tmp_path / "nothing", "there is no folder"),
    ):
        with pytest.raises(RunFileError, match=says):
            export_basis(run, tmp_path / "b.npz")
    for name in "abcde":
        go_on(tmp_path / name)
    with pytest.raises(RunFileError, match="is a folder of runs; name one of them: c, d, e and 2 more"):
        export_basis(tmp_path, tmp_path / "b.npz")
    (tmp_path / "a" / NAME).write_bytes(b"garbage" * 1000)
    with pytest.raises(RunFileError, match="cannot be read as a stored run"):
        export_basis(tmp_path / "a", tmp_path / "b.npz")
    assert not (tmp_path / "b.npz").exists()
