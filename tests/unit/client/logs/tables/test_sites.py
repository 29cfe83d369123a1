"""Tables: CSV, Parquet and frames give the same rows; what cannot be read is named with file, row and remedy."""

from pathlib import Path

import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest

from cospan.client.logs.mapping import LogMapping, mapping_of
from cospan.client.logs.rows import RowReader
from cospan.client.logs.tables.batch import Table, TableError
from cospan.client.logs.tables.csv_file import CsvFile
from cospan.client.logs.tables.frame import Frame
from cospan.client.logs.tables.parquet_file import ParquetFile
from cospan.client.logs.tables.sites import Folder, tables_of
from cospan.wire.errors import InvalidValueError

MAPPING = mapping_of(
    {
        "log": {"time": "at", "step": "1h", "reward": "-cost"},
        "features": {
            "x": {"kind": "numeric", "range": [0, 9]},
            "mode": {"kind": "categorical", "values": ["a", "b"]},
            "on": {"kind": "numeric", "range": [0, 1], "knots": 2},
        },
    }
)


def frame() -> pandas.DataFrame:
    return pandas.DataFrame(
        {
            "at": pandas.date_range("2023-01-01", periods=6, freq="h"),
            "x": [0.0, 1.0, np.nan, 3.0, 4.0, 5.0],
            "mode": ["a", "b", "a", "a", "b", "c"],
            "on": [True, False, True, True, False, True],
            "cost": [1, 2, 3, 4, 5, 6],
        }
    )


def rows_of(table: Table, mapping: LogMapping = MAPPING) -> list[list[float]]:
    reader = RowReader(mapping, table)
    return [
        [*row, float(follows), reward]
        for rows in reader
        for row, follows, reward in zip(
            rows.observations.tolist(), rows.follows, rows.arrivals.tolist(), strict=True
        )
    ]


EXPECTED = [
    [0.0, 0.0, 1.0, 0.0, 0.0],
    [1.0, 1.0, 0.0, 1.0, -1.0],
    [3.0, 0.0, 1.0, 0.0, 0.0],
    [4.0, 1.0, 0.0, 1.0, -4.0],
]


def test_all_kinds_of_tables_give_the_same_rows(tmp_path: Path) -> None:
    data = frame()
    plain = data.assign(on=data["on"].astype(int))
    plain.to_csv(tmp_path / "site.csv", index=False)
    plain.to_csv(tmp_path / "semicolon.csv", index=False, sep=";")
    data.to_parquet(tmp_path / "site.parquet", index=False)
    dictionary = data.assign(mode=data["mode"].astype("category"), cost=data["cost"].astype("int16"))
    dictionary.to_parquet(tmp_path / "dictionary.parquet", index=False)
    tables: list[Table] = [
        CsvFile(tmp_path / "site.csv"),
        CsvFile(tmp_path / "semicolon.csv"),
        ParquetFile(tmp_path / "site.parquet"),
        ParquetFile(tmp_path / "dictionary.parquet"),
        Frame("site", data),
        Frame("site", data.assign(at=data["at"].dt.tz_localize("Europe/Berlin"))),
        Frame("site", polars.from_pandas(data)),
    ]
    for table in tables:
        assert rows_of(table) == EXPECTED, table


def test_a_byte_order_mark_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "site.csv"
    text = frame().assign(on=1).to_csv(index=False)
    path.write_text("\ufeff" + text.replace("\n", "\n\n").rstrip("\n"), encoding="utf-8")
    assert len(rows_of(CsvFile(path))) == len(EXPECTED)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is empty"),
        (b"at,x\n", r"has no column 'mode', 'on', 'cost'"),
        (b"at,X,mode,on,Cost\n", r"'x' \(is it 'X'\?\), 'cost' \(is it 'Cost'\?\)"),
        (b"at,x,x,mode,on,cost\n", "two columns 'x'"),
        (b"at,x,mode,on,cost\n2023,1,a,1,1\n2024,1,a,1\n", "has 4 cells in row 2, and its header 5"),
        (b"at,x,mode,on,cost\n2023,\xff,a,1,1\n", "not UTF-8"),
        (b"at,x,mode,on,cost\n2023,\0,a,1,1\n", "zero byte"),
        (b'at,x,mode,on,cost\n2023,"' + b"y" * 200_000 + b'",a,1,1\n', "no CSV at row 1"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "site.csv"
    path.write_bytes(text)
    with pytest.raises(TableError, match=words) as caught:
        rows_of(CsvFile(path))
    assert str(path) in str(caught.value)


def test_a_damaged_parquet_file_is_named_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "site.parquet"
    table = pyarrow.Table.from_pandas(pandas.concat([frame()] * 2000), preserve_index=False)
    pyarrow.parquet.write_table(table, path, row_group_size=6000, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 4, 3 * len(content) // 4, 97):
        content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"cannot be read from row \d+ on.*write it again"):
        rows_of(ParquetFile(path))
    path.write_bytes(b"no table at all")
    with pytest.raises(TableError, match="write it again"):
        rows_of(ParquetFile(path))


def test_a_parquet_file_whose_columns_are_no_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.parquet"
    frame().assign(x=[[1.0]] * 6).to_parquet(path, index=False)
    with pytest.raises(TableError, match="'x' of type list"):
        rows_of(ParquetFile(path))
    frame().assign(x=["1", "2", "off", "4", "5", "6"]).to_parquet(path, index=False)
    reader = RowReader(MAPPING, ParquetFile(path))
    list(reader)
    assert reader.counts.first["text"].value == "off"


def test_the_sites_of_a_folder_are_its_files_and_folders_by_name(tmp_path: Path) -> None:
    for name in ("b.csv", "a.parquet", "c/1.csv", "c/2.csv", "notes.txt", ".hidden.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("at,x\n", encoding="utf-8")
    found = tables_of(str(tmp_path))
    assert [table.name for table in found] == ["a", "b", "c"]
    assert isinstance(found[2], Folder)
    assert [table.name for table in tables_of(str(tmp_path / "*.csv"))] == ["b"]
    with pytest.raises(InvalidValueError, match="there is no file or folder"):
        tables_of(str(tmp_path / "nothing"))
    with pytest.raises(InvalidValueError, match=r"has no CSV or Parquet file"):
        tables_of(str(tmp_path / "*.json"))
