"""Tables: what a CSV or Parquet file says, whichever way it is written and whoever reads it."""

import csv
import gzip
import json
import random
import warnings

import numpy as np
import pytest

from gpunn.data import Preparation, load_dataset, read_csv, read_parquet, table_inputs
from gpunn.data.formats import open_table
from gpunn.data.tables import csv_blocks, csv_files
from gpunn.data.tables.csv_dialect import delimiter_of
from gpunn.data.tables.preparation import Column
from gpunn.errors import DataError, GpunnError, ModelFileError, ParameterError

IRIS = """sepal,petal,species
5.1,1.4,setosa
4.9,1.5,setosa
6.3,6.0,virginica
6.1,5.9,virginica
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def fails(function, *arguments, **options):
    with pytest.raises(DataError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def no_chunks(path, dialect, kinds):
    return 0
    yield


def only_numpy(path, dialect, kinds):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_blocks, "_with_arrow", lambda *_: None)
        return (yield from csv_blocks.plain_chunks(path, dialect, kinds))


READERS = {"as installed": csv_blocks.plain_chunks, "NumPy": only_numpy, "Python's csv": no_chunks}


@pytest.fixture(params=READERS)
def reader(request, monkeypatch):
    """Each of the ways in which a CSV file may be read; all follow the same rules."""
    monkeypatch.setattr(csv_files, "plain_chunks", READERS[request.param])


# What is found out.


def test_words_as_labels_are_classes_in_sorted_order(write, reader):
    came = read_csv(write(IRIS), target="species")
    assert came.inputs.tolist() == [[5.1, 1.4], [4.9, 1.5], [6.3, 6.0], [6.1, 5.9]]
    assert came.labels.tolist() == [0, 0, 1, 1]
    assert came.class_names == ("setosa", "virginica")
    assert came.task == "classification"
    assert came.preparation.feature_names == ["sepal", "petal"]
    assert came.notes == ("to learn: column 'species', as 2 classes (classification)",)


@pytest.mark.parametrize("target", ["species", "3", 3, "-1", -1, ["species"]])
def test_a_column_is_named_or_counted_from_either_end(write, target):
    assert read_csv(write(IRIS), target=target).class_names == ("setosa", "virginica")


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_what_stands_between_fields_is_found_out(write, reader, delimiter):
    text = "label,a,b\n0,1.5,2\n1,3,4\n".replace(",", delimiter)
    assert read_csv(write(text)).inputs.tolist() == [[1.5, 2], [3, 4]]


def test_what_stands_between_fields_may_be_told(write, reader):
    path = write("0:1,5:2\n1:2,5:3\n")
    came = read_csv(path, delimiter=":", ignore="2")
    assert came.inputs.tolist() == [[2], [3]]
    assert delimiter_of("tab") == "\t"
    for wrong in ("", ",,", '"', "a", "1", "\n"):
        with pytest.raises(ParameterError, match="a delimiter is one character"):
            delimiter_of(wrong)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_fields_in_quotes(write, reader, newline):
    text = '"label","size, in cm","note"\n"0","5.1","red"\n"1","6.25","a ""blue"" one"\n'
    came = read_csv(write(text.replace("\n", newline)))
    assert came.inputs.tolist() == [[5.1, 0, 1], [6.25, 1, 0]]
    assert came.preparation.feature_names == ["size, in cm", 'note=a "blue" one', "note=red"]


def test_a_field_may_go_on_in_the_next_line(write, reader):
    came = read_csv(write('y,text\n0,"two\nlines"\n1,one\n0,one\n'))
    assert came.preparation.columns[0].words == ("one", "two\nlines")
    assert came.inputs.tolist() == [[0, 1], [1, 0], [1, 0]]


def test_a_table_of_words_alone_has_a_header_unless_its_words_come_again(write, reader):
    data = "p,x,s\ne,x,y\np,b,s\ne,x,s\n"
    assert read_csv(write(data)).labels.tolist() == [1, 0, 1, 0]
    came = read_csv(write("class,cap,gill\n" + data))
    assert (came.labels.tolist(), came.class_names) == ([1, 0, 1, 0], ("e", "p"))


def test_labels_below_zero_are_classes(write, reader):
    came = read_csv(write("label,a\n-1,2\n1,3\n-1,4\n"))
    assert (came.labels.tolist(), came.class_names) == ([0, 1, 0], (-1, 1))


def test_spaces_around_words_do_not_count(write, reader):
    came = read_csv(write("label, a\n0, red\n1,red \n0,red\n"))
    assert came.preparation.columns == (Column("a", 1, ("red",)),)


def test_the_task_is_found_from_what_is_to_be_learnt(write, reader):
    many = "\n".join(f"{k},{k % 7}" for k in random.Random(0).sample(range(1000), 150))
    few = "\n".join(f"{k % 9},{k}" for k in range(150))
    assert read_csv(write("y,a\n" + many)).task == "regression"
    assert read_csv(write("y,a\n" + few)).task == "classification"
    assert read_csv(write("y,a\n" + few), task="regression").labels.shape == (150, 1)
    assert read_csv(write("y,a\n" + many), task="classification").n_classes > 900
    came = read_csv(write("a,y\n1,0.5\n2,0.25\n"), target="y")
    assert (came.task, came.labels.tolist()) == ("regression", [[0.5], [0.25]])


def test_several_columns_are_numbers_to_predict(write, reader):
    came = read_csv(write("a,b,c\n1,2,3\n4,5,6\n"), target=["c", "a"])
    assert came.labels.tolist() == [[3, 1], [6, 4]]
    assert came.inputs.tolist() == [[2], [5]]
    with pytest.raises(ParameterError, match="only be learnt as numbers"):
        read_csv(write("a,b,c\n1,2,3\n"), target=["c", "a"], task="classification")


def test_columns_are_left_out(write, reader):
    came = read_csv(write("id,y,a,b\nx1,0,1,2\nx2,1,3,4\n"), target="y", ignore=["id", -1])
    assert came.inputs.tolist() == [[1], [3]]
    assert came.preparation.n_columns == 4


# What is missing.

HOLES = "y,a,b\n0,1,red\n1,,blue\n0,3,\n1,NA,red\n"


@pytest.mark.parametrize(
    ("rule", "inputs", "labels"),
    [
        ("mean", [[1, 0, 1], [2, 1, 0], [3, 0, 0], [2, 0, 1]], [0, 1, 0, 1]),
        ("zero", [[1, 0, 1], [0, 1, 0], [3, 0, 0], [0, 0, 1]], [0, 1, 0, 1]),
        ("drop", [[1, 1]], [0]),
    ],
)
def test_what_is_missing_is_filled_or_dropped(write, reader, rule, inputs, labels):
    came = read_csv(write(HOLES), missing=rule)
    assert came.inputs.tolist() == inputs
    assert came.labels.tolist() == labels
    assert (
        came.notes[-1]
        == {
            "mean": "missing: 3 fields of column 'a', column 'b'; a number became the mean of its "
            "column, a word none of the known ones",
            "zero": "missing: 3 fields of column 'a', column 'b'; a number became 0, a word none "
            "of the known ones",
            "drop": "missing: 3 rows with missing fields left out",
        }[rule]
    )


def test_what_is_missing_is_refused_by_place_unless_a_rule_is_given(write, reader):
    assert fails(read_csv, write(HOLES)).endswith(
        "line 3, column 'a': is missing; fill it in, or choose --missing mean, zero or drop"
    )
    text = "y,a\n0,1\n,2\n1,3\n"
    assert "line 3, column 'y': is missing; what is" in fails(read_csv, write(text), missing="mean")
    assert read_csv(write(text), missing="drop").labels.tolist() == [0, 1]
    for missing in ("drop", "mean"):
        said = fails(read_csv, write("y,a,b\n0,,1\n1,NA,2\n"), missing=missing)
        assert "column 'a' is empty in all rows; leave it out with --ignore a" in said
    text = "y,a,b\n0,,1\n1,2,\n"
    assert "in each of its 2 rows" in fails(read_csv, write(text), missing="drop")


def test_namibia_is_a_word(write, reader):
    came = read_csv(write("y,land\n0,NA\n1,DE\n0,NA\n"))
    assert came.preparation.columns[0].words == ("DE", "NA")


# What is refused.


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (IRIS, {}, "line 2, column 'sepal': the label 5.1 is not a whole number; name what is to "),
        (IRIS, {}, "such as --target species, or learn column 'sepal' with --task regression"),
        (IRIS, {"target": "specie"}, "'sepal', 'petal', 'species' (do you mean 'species'?)"),
        (IRIS, {"target": "4"}, "expected a column from 1 to 3, or from -1 to -3"),
        (IRIS, {"target": 0}, "expected a column from 1 to 3"),
        (IRIS, {"target": "sepal", "ignore": "sepal"}, "sepal is named twice"),
        (
            IRIS,
            {"target": "species", "task": "regression"},
            "column 'species' holds words, which are classes; --task regression",
        ),
        (
            IRIS,
            {"target": "sepal", "task": "classification"},
            "the label 5.1 is not a whole number",
        ),
        (IRIS, {"target": "species", "ignore": [1, 2]}, "at least one input"),
        ("1,2\n3,4\n", {"target": "a"}, "the file has no header, so give its number"),
        ("a,y\n1,2\n2,2\n3,7\n", {}, "column 'a', the first one, may not be what is to be learnt"),
        ("a,b,a\n1,2,3\n", {}, "2 columns are called 'a'"),
        ("y,a\n0,1\n1,x\n0,3\n", {}, "line 3, column 'a': 'x' is not a number"),
        ("y,a\n0,1\n1,2,3\n", {}, "line 3: 3 fields; expected 2, as in the lines above"),
        ('y,a\n0,"red\n1,blue\n', {}, "line 2: unexpected end of data; is a quote missing"),
        ('y,a\n0,"red"x\n', {}, "line 2: ',' expected after '\"'; is a quote missing"),
        (b"y,a\n0,na\xefve\n1,b\n", {}, "line 2, column 'a': holds bytes that are not UTF-8"),
        (
            "y,a\n0,1\n".encode("utf-16"),
            {},
            "is written in UTF-16, or is no text; save it as UTF-8",
        ),
        ("y,a\n0,1\n1e30,2\n", {"task": "classification"}, "the label 1e+30 is not a whole number"),
        ("y,a\n", {}, "no line of data"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(write, reader, text, options, message):
    path = write(text)
    said = fails(read_csv, path, **options)
    assert said.startswith(str(path))
    assert message in said


def test_a_first_column_that_counts_the_rows_is_not_learnt(write, reader):
    text = "id,a\n" + "".join(f"{k},{k % 3}\n" for k in range(1, 40))
    said = fails(read_csv, write(text))
    assert "column 'id', the first one, only counts the rows; name what is to be learnt" in said
    assert read_csv(write(text), task="regression").labels.shape == (39, 1)


def test_inputs_that_only_count_the_rows_are_said(write, reader):
    rows = "".join(f"{k},{k % 2},{k % 5}\n" for k in range(7, 47))
    came = read_csv(write("id,y,a\n" + rows), target="y")
    assert came.notes[-1] == (
        "inputs: column 'id' only counts the rows, which helps with no new ones; leave it out with "
        "--ignore id"
    )
    few = "".join(f"{k},{k % 2},{k % 5}\n" for k in range(7, 17))
    assert len(read_csv(write("id,y,a\n" + few), target="y").notes) == 1


def test_a_first_column_of_names_is_not_learnt(write, reader):
    names = "".join(f"n{k},{k % 7},x\n" for k in range(30))
    said = fails(read_csv, write("name,a,b\n" + names))
    assert "column 'name', the first one, holds 30 different words in 30 rows; name what" in said


def test_a_column_of_distinct_words_is_refused_by_name(write, reader):
    rows = "".join(f"{k % 2},{k},name {k}\n" for k in range(30))
    path = write("y,a,name\n" + rows)
    assert "column 'name' holds 30 different words in 30 rows" in fails(read_csv, path)
    assert read_csv(path, ignore="name").inputs.shape == (30, 1)


def test_options_of_tables_are_for_tables():
    for options in ({"target": "x"}, {"ignore": [1]}, {"missing": "mean"}, {"delimiter": ";"}):
        with pytest.raises(ParameterError, match="digits is no table"):
            load_dataset("digits", **options)
    with pytest.raises(ParameterError, match="digits has classes to learn, and no numbers"):
        load_dataset("digits", task="regression")
    with pytest.raises(ParameterError, match="missing must be one of mean, zero, drop, got 'most'"):
        load_dataset("t.csv", missing="most")


def test_numbers_to_predict_in_arrays(tmp_path):
    X, y = np.eye(4), np.array([0.5, 1.5, 2.5, 3.5])
    np.savez(tmp_path / "a.npz", X=X, y=y)
    with pytest.raises(DataError, match="other numbers are learnt with --task regression"):
        load_dataset(str(tmp_path / "a.npz"))
    came = load_dataset(str(tmp_path / "a.npz"), task="regression")
    assert came.labels.tolist() == [[0.5], [1.5], [2.5], [3.5]]
    parts = came.split(0.25, seed=0)
    assert sorted([*parts.labels[:, 0], *parts.test_labels[:, 0]]) == y.tolist()
    assert (parts.inputs[:, :] @ y == parts.labels[:, 0]).all()
    np.savez(tmp_path / "a.npz", X=X, y=[1, 2, np.nan, 3])
    with pytest.raises(DataError, match="y holds nan in row 2"):
        load_dataset(str(tmp_path / "a.npz"), task="regression")


# As other programs write tables.


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a;y\r\n0,5;1\r\n1,5;0\r\n", {"target": "y"}, "column 'a' holds numbers with commas or"),
        ("a;y\n1;0,5\n2;1,5\n", {"target": "y"}, "write them with a decimal point"),
        ('p,y\n"$1,234.50",1\n"$900",0\n', {"target": "y"}, "or leave it out with --ignore p"),
        ("p,y\n7%,1\n12%,0\n", {"target": "y"}, "column 'p' holds numbers with commas or signs"),
        (
            "# by hand\na,y\n1,0\n2,1\n",
            {"target": "y"},
            "line 1: 1 field, but 2 in the lines below",
        ),
        (
            "0,1,2,3\n5,6,7,0\n8,9,1,1\n",
            {"target": 4},
            "line 1: counts the columns, as pandas",
        ),
        ("a b\n1 0\n2 1\n", {"target": "b"}, "say with --delimiter what is"),
        (b"gr\xf6\xdfe,y\n1,0\n2,1\n", {"target": "y"}, "line 1: holds bytes that are not UTF-8"),
        (b"PAR1\x15\x04", {}, "is no CSV file, but a Parquet file; give it a name that ends in"),
        (b"PK\x03\x04\x14", {}, "is no CSV file, but a zip archive or an Excel workbook"),
        ("a,y,z\nx,1,2\ny,2,3\n", {"target": ["y", "a"]}, "column 'a' holds words, which are"),
        ("y,a\n0,1e308\n1,-1e308\n9007199254740993,0\n", {"task": "classification"}, "line 4"),
    ],
)
def test_what_other_programs_write_is_refused_by_name(write, reader, text, options, message):
    assert message in fails(read_csv, write(text), **options)


def test_a_delimiter_is_what_leaves_numbers(write, reader):
    for text in ("0,x|y|z\n1,x|z|z\n0,x|y|z\n", "2;1.5\n0;2.5\n1;3.5\n"):
        came = read_csv(write(text))
        assert came.preparation.n_columns == 2
        assert ("fields: divided by ;" in came.notes) == (";" in text)
    assert "header: none, so the first line is a sample, too" in came.notes


def test_lines_of_empty_fields_are_blank(write, reader):
    text = "a;b;y\r\n1;2;0\r\n;;\r\n3;4;1\r\n;;\r\n"
    for missing in (None, "mean"):
        came = read_csv(write(text), target="y", missing=missing)
        assert came.inputs.tolist() == [[1, 2], [3, 4]]


def test_the_names_of_rows_are_left_out(write, reader):
    for name in ("", "Unnamed: 0"):
        came = read_csv(write(f"{name},a,y\n7,1,0\n3,2,1\n5,3,0\n"), target="y")
        assert came.inputs.tolist() == [[1], [2], [3]]
        assert any(note.startswith("left out: column ") for note in came.notes)
    assert read_csv(write(",a\n7,1\n3,2\n"), target=1).inputs.tolist() == [[1], [2]]


def test_codes_keep_their_zeros(write, reader):
    came = read_csv(write("label,a\n01,1\n001,2\n1,3\n"))
    assert came.class_names == ("001", "01", "1")


def test_words_of_a_table_without_a_header_are_no_header(write, reader):
    record = read_csv(write("a,x,p\nb,y,q\na,y,p\nb,x,q\n"), target=-1).preparation
    assert not record.may_have_header
    came = table_inputs(write("a,x\nb,y\n"), record)
    assert came.tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]
    numbers = read_csv(write("0,1\n1,2\n0,5\n")).preparation
    assert table_inputs(write("y,a\n0,1\n"), numbers).tolist() == [[1]]
    assert read_csv(write("?,x,1\n5,y,0\n6,x,1\n"), target=3, missing="drop").labels.shape == (2,)


def test_columns_may_be_named_in_any_way(write):
    path = write(IRIS)
    for target in (np.int64(3), "species", np.array(["species"]), ("species",)):
        assert read_csv(path, target=target, ignore=None).class_names == ("setosa", "virginica")
    assert load_dataset(path, target="species").n_features == 2
    with pytest.raises(ParameterError, match="a delimiter is one character"):
        read_csv(path, target="species", delimiter="comma")


def test_spellings_of_nan_are_the_same_to_all(write, reader):
    for spelling in ("+nan", "nan(1)", "Nan", "-NaN"):
        assert "is not a number" in fails(read_csv, write(f"y,a\n0,1\n1,{spelling}\n0,2\n"))
    assert "is missing" in fails(read_csv, write("y,a\n0,1\n1,-nan\n0,2\n"))
    text = "y,a\n\ufeff0,1\n1,2\n0,5\n"
    assert "is not a number" in fails(read_csv, write(text))
    said = fails(read_csv, write("y,a\n0,inf\n1,-inf\n0,2\n"))
    assert "line 2, column 'a': holds inf, which is not finite" in said


# One set of rules, whoever reads.


def made_table(rng):
    """Return the text of a table, and what its fields are."""
    delimiter = rng.choice(",;\t|")
    kinds = [rng.choice("nnw") for _ in range(rng.randint(1, 5))]
    words = ["red", "blue", "new york", 'a"b', "x,y;z", "ünï", "NA"]

    def field(kind):
        if kind == "n":
            return rng.choice(["%.3g", "%g", "%.12f", "%e"]) % rng.uniform(-1e3, 1e3)
        return rng.choice(words)

    rows = [[str(rng.randint(0, 4)), *map(field, kinds)] for _ in range(rng.randint(4, 40))]
    header = ["label", *(f"c{k}" for k in range(len(kinds)))]

    def quoted(text):
        if rng.random() < 0.1 or any(c in text for c in ',;\t|"'):
            return '"' + text.replace('"', '""') + '"'
        return text

    newline = rng.choice(["\n", "\r\n"])
    text = newline.join(delimiter.join(map(quoted, row)) for row in [header, *rows])
    return text + rng.choice(["", newline]), kinds, rows


@pytest.mark.parametrize("block", [60, 2**22])
def test_random_tables_are_read_right(tmp_path, monkeypatch, reader, block):
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", block)
    rng = random.Random(block)
    for _ in range(60):
        text, kinds, rows = made_table(rng)
        path = tmp_path / "t.csv"
        path.write_bytes(rng.choice([bytes, gzip.compress])(text.encode()))
        came = read_csv(path, target="label", task="classification")
        columns = []
        for k, kind in enumerate(kinds, 1):
            fields = [row[k] for row in rows]
            if kind == "n":
                columns.append(list(map(float, fields)))
            else:
                columns += [[float(f == word) for f in fields] for word in sorted(set(fields))]
        np.testing.assert_array_equal(came.inputs, np.transpose(columns))
        assert came.labels.tolist() == [int(row[0]) for row in rows]


def mutated(data, rng):
    """Return a file with a few bytes changed, taken out or put in."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        place = rng.randrange(len(data) + 1)
        if rng.random() < 0.4 and place < len(data):
            data[place] = rng.choice(b',;"\n\r\t |0123456789.eE+-nNaA\xff\x00')
        elif rng.random() < 0.5:
            del data[place : place + rng.randint(1, 5)]
        else:
            data[place:place] = rng.choice([b'"', b"\n", b",", b'""', b"1,2\n", b"\xc3", b"nan"])
    return bytes(data)


def outcome(path, options):
    try:
        came = read_csv(path, **options)
    except GpunnError as error:
        return "refused" if str(path) in str(error) and "\n" not in str(error) else str(error)
    return (
        came.inputs.tolist(), came.labels.tolist(), came.class_names, came.notes, came.preparation
    )  # fmt: skip


OPTIONS = ({}, {"missing": "mean"}, {"missing": "drop"}, {"task": "regression"}, {"target": -1})


def test_damaged_tables_are_refused_or_read_alike_by_all(tmp_path, monkeypatch):
    rng, n_read = random.Random(5), 0
    path = tmp_path / "t.csv"
    for _ in range(300):
        monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", rng.choice([40, 200, 2**22]))
        path.write_bytes(mutated(made_table(rng)[0].encode(), rng))
        options = rng.choice(OPTIONS)
        found = []
        for read in READERS.values():
            monkeypatch.setattr(csv_files, "plain_chunks", read)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found.append(outcome(path, options))
        assert found[0] == found[1] == found[2]
        assert not isinstance(found[0], str) or found[0] == "refused"
        n_read += found[0] != "refused"
    assert n_read > 40


def test_a_parquet_file_is_read_as_the_csv_file(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "size": [1.5, None, 3.0, 2.0],
        "colour": pyarrow.array(["red", None, "blue", "red"]).dictionary_encode(),
        "small": pyarrow.array([1, 2, 3, 4], "i2"),
        "species": ["b", "a", "b", "a"],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    text = "size,colour,small,species\n1.5,red,1,b\n,,2,a\n3,blue,3,b\n2,red,4,a\n"
    (tmp_path / "t.csv").write_text(text)
    for missing in ("mean", "zero", "drop"):
        one = read_csv(tmp_path / "t.csv", target="species", missing=missing)
        other = read_parquet(tmp_path / "t.parquet", target="species", missing=missing)
        assert one.inputs.tolist() == other.inputs.tolist()
        assert one.labels.tolist() == other.labels.tolist()
        assert one.preparation == other.preparation
        assert one.notes == other.notes


# The record.


def test_the_record_goes_through_a_dict(write):
    record = read_csv(write(HOLES), missing="mean").preparation
    assert Preparation.from_dict(json.loads(json.dumps(record.to_dict()))) == record


@pytest.mark.parametrize(
    "change",
    [
        {"columns": []},
        {"columns": None},
        {"columns": [{"name": "a", "position": 9, "words": None, "fill": None}]},
        {"columns": [{"name": 3, "position": 1, "words": None, "fill": None}]},
        {"columns": [{"name": "a", "position": True, "words": None, "fill": None}]},
        {"columns": [{"name": "a", "position": 1, "words": "ab", "fill": None}]},
        {"columns": [{"name": "a", "position": 1, "words": ["a", "a"], "fill": None}]},
        {"columns": [{"name": "a", "position": 1, "words": [], "fill": None}]},
        {"columns": [{"name": "a", "position": 1, "words": None, "fill": "x"}]},
        {"columns": [{"name": "a", "position": 1, "words": None, "fill": float("nan")}]},
        {"targets": [{"name": "a", "position": 1, "words": None, "fill": None}] * 2},
        {"n_columns": "3"},
        {"missing": "most"},
    ],
)
def test_a_damaged_record_is_refused(write, change):
    values = read_csv(write(HOLES), missing="mean").preparation.to_dict()
    with pytest.raises(ModelFileError, match=r"^preparation: "):
        Preparation.from_dict({**values, **change})
    for wrong in (None, [], {}, "x"):
        with pytest.raises(ModelFileError, match=r"^preparation: "):
            Preparation.from_dict(wrong)


def test_columns_of_another_file_are_found_by_name_else_by_place(write):
    record = read_csv(write("y,a,b\n0,1,red\n1,2,blue\n")).preparation
    other = open_table(write("b,more,a\nred,9,1\n", "other.csv"))
    assert record.layout_of(other, with_targets=False).inputs == (2, 0)
    assert not record.has_targets(other)
    said = fails(record.layout_of, other, with_targets=True)
    assert "lacks column 'y'; expected the columns that the model was trained on" in said
    assert "found column 'more' instead" in said
    bare = open_table(write("1,red\n2,blue\n", "bare.csv"))
    assert record.layout_of(bare, with_targets=False).inputs == (0, 1)
    wide = open_table(write("1,2,3,4\n", "wide.csv"))
    assert "has 4 columns; expected 3" in fails(record.layout_of, wide, with_targets=False)


def test_what_python_writes_python_reads(tmp_path, reader):
    with open(tmp_path / "t.csv", "w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([["y", "a"], ["0", "1.5"], ["1", 'say "x"'], ["0", "1.5"], ["1", "-2"]])
    assert "line 3, column 'a': 'say \"x\"' is not a number" in fails(read_csv, tmp_path / "t.csv")
