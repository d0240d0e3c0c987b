"""The formats of files: what follows from the one list of them."""

import numpy as np
import pytest

from gpunn.data import Dataset, formats, is_table, load_dataset, table_chunks, table_fits
from gpunn.data.formats import FORMATS, Format, describe_formats
from gpunn.data.tables.csv_files import open_csv
from gpunn.errors import DataError


def read_lines(path, task):
    return Dataset(str(path), np.loadtxt(path, ndmin=2), np.zeros(2, np.int64))


LINES = Format("Lines", None, (".lines",), open_table=lambda path, _: open_csv(path, " "))
WHOLE = Format("a folder of tapes", read_lines, is_one=lambda path: path.startswith("tapes:"))


def refusal(data):
    with pytest.raises(DataError) as caught:
        load_dataset(data)
    return str(caught.value)


def test_the_list_for_help_texts():
    assert describe_formats() == (
        "digits (8 x 8 pictures that come with gpunn), mnist, fashion-mnist, or a path: CSV or "
        "Parquet, .npz, X.npy,y.npy, a folder of IDX files, or a folder with a sub-folder of "
        "pictures for each class"
    )


def test_what_is_of_no_format_is_refused_with_all_that_are():
    assert refusal("absent.xyz") == (
        "'absent.xyz' is neither a data set nor a path; expected digits, mnist, fashion-mnist, "
        "a .csv, .csv.gz, .tsv, .tsv.gz, .parquet or .npz file, X.npy,y.npy, a folder of IDX "
        "files, or a folder with a sub-folder of pictures for each class"
    )


def test_a_new_format_needs_one_record(tmp_path, monkeypatch):
    path = tmp_path / "t.lines"
    path.write_text("1 2 3\n4 5 6\n")
    assert not is_table(path)
    assert "a file of unknown kind" in refusal(str(path))
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, LINES))
    assert load_dataset(str(path)).inputs.tolist() == [[2, 3], [5, 6]]
    assert is_table(path)
    assert table_fits(path)
    assert [chunk.tolist() for chunk in table_chunks(path)] == [[[1, 2, 3], [4, 5, 6]]]
    assert ".tsv.gz, .parquet, .npz or .lines file, X.npy" in refusal("absent")
    assert "a path: CSV, Parquet or Lines, .npz" in describe_formats()


def test_a_format_that_no_end_of_a_name_tells(monkeypatch):
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS, WHOLE))
    with pytest.raises(FileNotFoundError, match=r"tapes:1\.csv not found"):
        load_dataset("tapes:1.csv")
    assert refusal("absent").endswith("of pictures for each class, or a folder of tapes")
    assert describe_formats().endswith("of pictures for each class, or a folder of tapes")


def test_a_folder_may_be_named_as_a_file_is(tmp_path):
    (tmp_path / "t.csv").mkdir()
    assert not is_table(tmp_path / "t.csv")
    assert "expected the file train-images-idx3" in refusal(str(tmp_path / "t.csv"))
    assert "no such file" in refusal(str(tmp_path / "X.npy") + ",y.csv")


def test_a_table_of_another_name_is_read_as_csv(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("1,2\n0,4\n")
    assert not is_table(path)
    assert table_fits(path)
    assert np.concatenate(list(table_chunks(path))).tolist() == [[1, 2], [0, 4]]
