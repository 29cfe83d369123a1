"""Arrays in npz files: written whole or not at all; read without pickle, in bounded time and memory.

A file may come from others, so nothing that it says of itself is believed: see docs/adr/0018-files-of-others.md.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from cospan.wire.errors import RunFileError
from cospan.wire.files.safe_files import NotAFileError, reading, writing_whole

MAX_BYTES = 4 << 30
"""Of all arrays that are read from a file, unless the reader knows how large they must be."""
_MAX_DIRECTORY = 16 << 20
"""Bytes of the list of members: some 200,000 of them. It is read at once, and takes ten times as much memory."""
_MAX_RATIO = 100
"""Bytes that a byte of a compressed member may become. Cospan itself does not compress."""
_MAX_HEADER = 10_000
"""Bytes of an array's header, which has about 120. numpy's own bound; it reads the header first."""
_MAX_DIMENSIONS = 8
_MAX_EMPTY = 1 << 20
"""Length along any axis of an array without elements: it takes no memory, but to loop over it takes time."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others unpack whole blocks, whatever their size, before the first byte can be had."""
_ENCRYPTED = 0x1
_READ_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False, slots=True)
class Pieces:
    """A large array in pieces along its first axis: they are joined in the file alone, and never in memory.

    Attributes:
        shape: of the whole.
        dtype: of all pieces.
        made: give the pieces, in order; called once for each time that the array is written.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    made: tuple[Callable[[], np.ndarray], ...]

    @classmethod
    def of(cls, pieces: "Sequence[np.ndarray | Pieces]") -> "Pieces":
        """Of arrays, or of arrays in pieces, whose shapes differ along the first axis alone."""
        made: list[Callable[[], np.ndarray]] = []
        for piece in pieces:
            made += piece.made if isinstance(piece, Pieces) else [partial(_itself, piece)]
        first, length = pieces[0], sum(piece.shape[0] for piece in pieces)
        return cls((length, *first.shape[1:]), first.dtype, tuple(made))

    @classmethod
    def stacked(cls, arrays: Sequence[np.ndarray], axis: int) -> "Pieces":
        """Of one piece: equal arrays side by side along a new axis, which is not the first."""
        first = arrays[0]
        place = axis % (first.ndim + 1)
        shape = (*first.shape[:place], len(arrays), *first.shape[place:])
        return cls(shape, first.dtype, (lambda: np.stack(arrays, axis=place),))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole array."""
        del copy
        whole = np.concatenate([make() for make in self.made])
        return whole if dtype is None else whole.astype(dtype)


def _itself(piece: np.ndarray) -> np.ndarray:
    return piece


def save_npz(path: Path, *, durable: bool = True, **values: Any) -> None:
    """Writes arrays to `path` through a temporary file beside it, with the permissions that the umask leaves.

    Args:
        path: of the file.
        durable: whether to wait for the disk; not for a file that can be made again from another one.
        values: the arrays, by name; those in `Pieces` are written piece by piece.

    Raises:
        RunFileError: the folder is missing or cannot be written to.
    """
    try:
        with writing_whole(path, durable=durable) as file, zipfile.ZipFile(file, "w") as archive:
            for name, value in values.items():
                _write(archive, name, value if isinstance(value, Pieces) else np.asarray(value))
    except OSError as failure:
        raise RunFileError(f"cannot write {path}: {failure.strerror}") from failure


def _write(archive: zipfile.ZipFile, name: str, value: np.ndarray | Pieces) -> None:
    """Adds an array as `numpy.savez` does."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        if isinstance(value, np.ndarray):
            np.lib.format.write_array(member, value, allow_pickle=False)
            return
        header = {"descr": np.lib.format.dtype_to_descr(value.dtype), "fortran_order": False, "shape": value.shape}
        np.lib.format.write_array_header_1_0(member, header)
        for make in value.made:
            piece = np.ascontiguousarray(make(), dtype=value.dtype)
            if piece.size:
                member.write(piece.data)


def load_npz(
    path: Path,
    what: str,
    *,
    names: Collection[str] | None = None,
    most_bytes: int = MAX_BYTES,
    row: int | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of an npz file, by name.

    Args:
        path: of the file.
        what: it should be, for error messages.
        names: which arrays are read, where they are there; all if omitted.
        most_bytes: of all arrays that are read.
        row: of each array only this row is read, its number along the first axis; whole arrays if omitted.

    Raises:
        RunFileError: it is missing, damaged, or no regular file; its arrays are too large; it holds objects, or two
            arrays of one name; or an array is not as large as its shape says, or has no such row.
    """
    try:
        with reading(path, None) as file:
            if not zipfile.is_zipfile(file):
                raise RunFileError(f"{path} cannot be read as {what}: it is no npz file, or one cut short")
            with zipfile.ZipFile(cast("Any", _Bounded(file))) as archive:
                return _arrays(archive, names, most_bytes, row)
    except RunFileError:
        raise
    except FileNotFoundError as failure:
        raise RunFileError(f"there is no file {path}; it should be {what}") from failure
    except NotAFileError as failure:
        raise RunFileError(f"{path} cannot be read as {what}: {failure.strerror}") from failure
    except Exception as failure:  # numpy and zipfile raise a dozen kinds for a damaged file
        words = " ".join(str(failure).split())[:300] or type(failure).__name__
        raise RunFileError(f"{path} cannot be read as {what}: {words}") from failure


class _Bounded(io.RawIOBase):
    """A file of which no more is read at once than the list of members may have: zipfile reads that at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_DIRECTORY:
            raise ValueError(f"its list of arrays has {size} bytes, and at most {_MAX_DIRECTORY} are read")
        return self._file.read(size if size >= 0 else _MAX_DIRECTORY)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _arrays(
    archive: zipfile.ZipFile, names: Collection[str] | None, most_bytes: int, row: int | None
) -> dict[str, np.ndarray]:
    """The arrays of an archive. Raises ValueError where one is not what it says."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in members:
            raise ValueError(f"it holds two arrays {name[:80]!r}")
        members[name] = member
    wanted = {name: member for name, member in members.items() if names is None or name in names}
    size = sum(member.file_size for member in wanted.values())
    if row is None and size > most_bytes:
        raise ValueError(f"its arrays have {size} bytes, and at most {most_bytes} are read")
    found: dict[str, np.ndarray] = {}
    for name, member in wanted.items():
        found[name] = _array(archive, name[:80], member, row, most_bytes)
        most_bytes -= found[name].nbytes
    return found


def _array(
    archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo, row: int | None, most_bytes: int
) -> np.ndarray:
    if member.compress_type not in _METHODS or member.flag_bits & _ENCRYPTED:
        raise ValueError(f"array {name!r} is encrypted, or compressed in a way that is not read")
    if member.file_size > _MAX_RATIO * (member.compress_size + _MAX_HEADER):
        raise ValueError(
            f"array {name!r} unpacks from {member.compress_size} bytes to {member.file_size}, which is more than "
            f"{_MAX_RATIO} times as many"
        )
    with archive.open(member) as file:
        shape, fortran_order, dtype, header = _header(cast("zipfile.ZipExtFile", file), name)
        size = _size_of(shape, dtype, name)
        if member.file_size != header + size:
            raise ValueError(
                f"array {name!r} of shape {shape} takes {size} bytes, and there are {member.file_size - header}"
            )
        if row is not None:
            if fortran_order:
                raise ValueError(f"array {name!r} is in Fortran's order, in which rows lie scattered")
            shape, size = _to_row(cast("zipfile.ZipExtFile", file), row, (shape, size), name)
            if size > most_bytes:
                raise ValueError(f"a row of array {name!r} has {size} bytes, and at most {most_bytes} are read")
        content = bytearray()
        while len(content) < size:
            part = file.read(min(_READ_AT_ONCE, size - len(content)))
            if not part:
                raise ValueError(f"array {name!r} is cut short")
            content += part
        if row is None:
            file.read(1)  # the check sum is compared at the end of the member
    if not content:
        return np.zeros(shape, dtype)
    found: np.ndarray = np.ndarray(shape, dtype, buffer=content, order="F" if fortran_order else "C")
    return found


def _to_row(
    file: zipfile.ZipExtFile, row: int, whole: tuple[tuple[int, ...], int], name: str
) -> tuple[tuple[int, ...], int]:
    """Skips to a row of an array in C order, whose header has been read; the row's shape and bytes."""
    shape, size = whole
    if not shape or not 0 <= row < shape[0]:
        raise ValueError(f"array {name!r} of shape {shape} has no row {row}")
    of_row = size // shape[0]
    file.seek(row * of_row, io.SEEK_CUR)
    return shape[1:], of_row


def _header(file: zipfile.ZipExtFile, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran's order, type, and the number of bytes before the data."""
    start = file.read(8)
    version = tuple(start[6:8])
    if start[:6] != np.lib.format.MAGIC_PREFIX or version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name!r} is no array")
    short = version == (1, 0)
    field = "<H" if short else "<I"
    read = np.lib.format.read_array_header_1_0 if short else np.lib.format.read_array_header_2_0
    length = file.read(struct.calcsize(field))
    (count,) = struct.unpack(field, length)
    if count > _MAX_HEADER:
        raise ValueError(f"the header of array {name!r} has {count} bytes, and at most {_MAX_HEADER} are read")
    shape, fortran_order, dtype = read(io.BytesIO(length + file.read(count)))
    if dtype.hasobject:
        raise ValueError(f"array {name!r} holds objects, which are never loaded")
    return shape, fortran_order, dtype, len(start) + len(length) + count


def _size_of(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> int:
    """Bytes of an array, in Python's numbers, which do not overflow."""
    if len(shape) > _MAX_DIMENSIONS or any(length < 0 for length in shape):
        raise ValueError(f"array {name!r} has the shape {shape[: _MAX_DIMENSIONS + 1]}")
    elements = math.prod(shape)
    if (elements and not dtype.itemsize) or (not elements and max(shape) > _MAX_EMPTY):
        raise ValueError(f"array {name!r} has the shape {shape}, and no content")
    return elements * dtype.itemsize
