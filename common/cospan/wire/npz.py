"""Arrays in npz files: written whole or not at all, read without pickle."""

import contextlib
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cospan.wire.errors import RunFileError


def save_npz(path: Path, *, durable: bool = True, **values: Any) -> None:
    """Writes arrays to `path` by way of a temporary file beside it.

    Args:
        path: of the file.
        durable: whether to wait for the disk; not for a file that can be made again from another one.
        values: the arrays, by name.

    Raises:
        RunFileError: the folder is missing or cannot be written to.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as failure:
        raise RunFileError(f"cannot write {path}: {failure.strerror}") from failure
    try:
        with os.fdopen(descriptor, "wb") as file:
            arrays: dict[str, Any] = {name: np.asarray(value) for name, value in values.items()}
            np.savez(file, **arrays)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as failure:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        if isinstance(failure, OSError):
            raise RunFileError(f"cannot write {path}: {failure.strerror}") from failure
        raise


def load_npz(path: Path, what: str) -> dict[str, np.ndarray]:
    """The arrays of an npz file, by name.

    Raises:
        RunFileError: it is missing, damaged, or holds objects.
    """
    try:
        # numpy leaves a file open that it has opened itself and cannot read
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):  # else numpy would speak of pickles, and advise to load them
                raise RunFileError(f"{path} cannot be read as {what}: it is no npz file, or one cut short")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except RunFileError:
        raise
    except FileNotFoundError as failure:
        raise RunFileError(f"there is no file {path}; it should be {what}") from failure
    except Exception as failure:  # numpy and zipfile raise a dozen kinds for a damaged file
        raise RunFileError(f"{path} cannot be read as {what}: {failure}") from failure
