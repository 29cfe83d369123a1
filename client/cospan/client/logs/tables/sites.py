"""The tables of sites: a file or a folder of files for each, found by name, folder or pattern."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cospan.client.logs.tables.batch import Batch, Table, TableError, Waiting
from cospan.client.logs.tables.csv_file import CsvFile
from cospan.client.logs.tables.parquet_file import ParquetFile
from cospan.wire.errors import InvalidValueError

_SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True, eq=False, slots=True)
class Folder:
    """The files of one site, in the order of their names."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def columns(self) -> list[str]:
        """Those of its first file."""
        return file_of(next(iter(files_in(self.path)))).columns()

    def batches(self, columns: Sequence[str], wait: Waiting | None = None) -> Generator[Batch, None, None]:
        """See `Table`; while it may grow, the newest file is followed until a newer one appears."""
        done: set[Path] = set()
        while True:
            files = [path for path in files_in(self.path) if path not in done]
            if not files:
                if wait is not None and wait():
                    continue
                break
            for place, path in enumerate(files):
                done.add(path)
                newest = wait is not None and place == len(files) - 1
                yield from file_of(path).batches(columns, self._until_newer(wait, done) if newest else None)
        if not done:
            raise TableError(f"{self.path} has no CSV or Parquet file; name a folder with the files of one site")

    def _until_newer(self, wait: Waiting | None, done: set[Path]) -> Waiting:
        def waits() -> bool:
            return not any(path not in done for path in files_in(self.path)) and wait is not None and wait()

        return waits


def file_of(path: Path) -> Table:
    """The table of a file, by its suffix.

    Raises:
        InvalidValueError: it is neither CSV nor Parquet.
    """
    match path.suffix.lower():
        case ".csv":
            return CsvFile(path)
        case ".parquet":
            return ParquetFile(path)
    raise InvalidValueError(f"{path} is neither a .csv nor a .parquet file; convert it, or name another")


def files_in(folder: Path) -> list[Path]:
    """The CSV and Parquet files of a folder, by name."""
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file()]
    except OSError as failure:
        raise TableError(f"{folder} cannot be read: {failure.strerror}; name another folder") from failure
    return sorted(path for path in found if not path.name.startswith("."))


def tables_of(data: str, base: Path | None = None) -> list[Table]:
    """The tables of the sites, in the order of their names: what a folder holds, or a pattern finds.

    Args:
        data: a file, a folder, a pattern as stations/*.csv, or minari:DATASET.
        base: the folder that a relative path starts from; None for the working folder.

    Raises:
        InvalidValueError: there is nothing.
    """
    if data.startswith("minari:"):
        from cospan.client.logs.tables.minari_table import MinariTable

        return [MinariTable(data.removeprefix("minari:"))]
    path = Path(data) if base is None else base / data
    if path.is_file():
        return [file_of(path)]
    if path.is_dir():
        folders = sorted(each for each in path.iterdir() if each.is_dir() and files_in(each))
        found: list[Table] = [file_of(each) for each in files_in(path)]
        found += [Folder(each) for each in folders]
    elif any(letter in path.name for letter in "*?["):
        matching = [each for each in path.parent.glob(path.name) if not each.name.startswith(".")]
        found = [Folder(each) if each.is_dir() else file_of(each) for each in matching]
    else:
        raise InvalidValueError(f"there is no file or folder {path}; name the logs, as --logs stations/")
    if not found:
        raise InvalidValueError(f"{path} has no CSV or Parquet file; name the folder of the logs")
    return sorted(found, key=lambda table: table.name)


def table_of(data: str) -> Table:
    """The table of one site: a file, or a folder of its files.

    Raises:
        InvalidValueError: there is none.
    """
    path = Path(data)
    return Folder(path) if path.is_dir() else tables_of(data)[0]
