"""`cospan export`: a basis of a stored run as an npz file with its specification."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cospan.cli.commands.runs import is_run, run_folders
from cospan.cli.run_folder.layout import BASIS_FORMAT, RunFolder
from cospan.core.specification import RunSpecification, basis_digest
from cospan.server.storage.reader import read_basis
from cospan.wire.errors import RunFileError
from cospan.wire.files.npz import load_npz, save_npz
from cospan.wire.files.spec_file import load_spec, to_toml
from cospan.wire.text import listed


@dataclass(frozen=True, eq=False, slots=True)
class ExportedBasis:
    """A basis with its origin.

    Attributes:
        run_id: of the run.
        specification: of the run.
        round: t, the number of rounds that led to it.
        basis: B_t, shape (d, r).
        head_covariance: W_t, shape (r, r); None where the method has none, or the folder lacks it.
    """

    run_id: str
    specification: RunSpecification
    round: int
    basis: Float[np.ndarray, "d r"]
    head_covariance: Float[np.ndarray, "r r"] | None = None


def export_basis(run: Path, output: Path, *, round_number: int | None = None, force: bool = False) -> int:
    """Writes a basis of a run, by default the last; the exit code.

    Raises:
        RunFileError: there is no such run or basis, or the file exists.
    """
    folder = folder_of(run)
    check_output(output, force=force, store=folder.store)
    found = find_basis(folder, round_number)
    digest = basis_digest(found.basis)
    more: dict[str, Any] = {} if found.head_covariance is None else {"head_covariance": found.head_covariance}
    save_npz(
        output,
        format=BASIS_FORMAT,
        run_id=found.run_id,
        round=found.round,
        basis=found.basis,
        basis_sha256=digest,
        specification=to_toml(found.specification),
        specification_digest=found.specification.digest(),
        feature_fingerprint=found.specification.feature_fingerprint,
        **more,
    )
    print(
        f"wrote {output}: the basis of run {found.run_id} after {found.round} rounds, sha256 {digest}",
        file=sys.stderr,
    )
    return 0


def find_basis(folder: RunFolder, round_number: int | None) -> ExportedBasis:
    """A basis that a run has kept.

    Raises:
        RunFileError: there is none, or it is damaged.
    """
    if folder.store.exists():
        kept = read_basis(folder.store, round_number)
        return ExportedBasis(
            kept.state.run_id, kept.state.specification, kept.round, kept.basis, kept.head_covariance
        )
    specification = load_spec(folder.spec)
    basis = folder.read_basis()
    values = load_npz(folder.basis, "the basis of a run")
    run_id, last = str(values["run_id"]), int(values["round"])
    if round_number == 0:
        return ExportedBasis(run_id, specification, 0, specification.initial_basis())
    if round_number not in (None, last):
        raise RunFileError(
            f"{folder.path} has not kept the basis after {round_number} rounds; it keeps those of 0, {last}"
        )
    covariance = values.get("head_covariance")
    if covariance is not None and covariance.shape != (basis.shape[1],) * 2:
        raise RunFileError(
            f"the head covariance in {folder.basis} has shape {covariance.shape}, and the basis {basis.shape}; "
            "restore the file, or remove it and use the stored run"
        )
    return ExportedBasis(run_id, specification, last, basis, covariance)


def folder_of(run: Path) -> RunFolder:
    """The folder of one run.

    Raises:
        RunFileError: it holds no run, or several.
    """
    if is_run(run):
        return RunFolder(run)
    names = [path.name for path in run_folders(run)]
    if not names:
        raise RunFileError(f"{run} holds no run; name the folder of one, see `cospan runs`")
    raise RunFileError(f"{run} is a folder of runs; name one of them: {listed([*names[-3:], *names[:-3]], 3)}")


def check_output(output: Path, *, force: bool, store: Path | None = None) -> None:
    """Raises RunFileError if `output` is a folder or the store, or exists without `force`."""
    if output.is_dir():
        raise RunFileError(f"--output {output} is a folder; name a file in it")
    if store is not None and output.exists() and output.resolve() == store.resolve():
        raise RunFileError(f"--output {output} is the stored run itself; name another file")
    if output.exists() and not force:
        raise RunFileError(f"--output {output} exists; name another file, or give --force to overwrite it")
