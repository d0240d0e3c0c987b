"""Files larger than the memory on the command line: mapped, or read in chunks."""

import csv
import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from functools import partial

import numpy as np
import pytest

from gpunn import Network, cli
from gpunn.cli import train_data
from gpunn.data import (
    files,
    load_dataset,
    read_csv,
    read_parquet,
    table_chunks,
    table_fits,
)
from gpunn.data.formats import open_table
from gpunn.data.scaling import Scaling
from gpunn.data.tables import csv_blocks, csv_dialect, csv_files, long_table
from gpunn.data.tables.long_table import Prepared, TablePart, go_through
from gpunn.data.tables.prepared import PreparedTable, label_first
from gpunn.errors import DataError
from gpunn.training import loaders


@pytest.fixture
def little_memory(monkeypatch):
    """A machine that has room for 3000 bytes."""
    monkeypatch.setattr(files, "TOO_LITTLE_TO_ASK", 1000)
    monkeypatch.setattr(files, "free_memory", lambda: 3000)
    monkeypatch.setattr(long_table, "free_memory", lambda: 3000)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(csv_files, "CHUNK_VALUES", 100)
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(csv_dialect, "HEAD_BYTES", 1000)


def known_of(path, test_fraction, seed):
    return go_through(open_table(path), test_fraction, seed)


def numbers(n=400, n_features=4, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, n_features)).round(3)
    return np.column_stack([3 + 2 * (X[:, 0] > 0), X])


def write_csv(path, table, header="label,a,b,c,d\n"):
    text = "\n".join(",".join(f"{value:g}" for value in row) for row in table)
    data = (header + text + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_parquet(path, table, **options):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    names = ["label", *(f"f{k}" for k in range(table.shape[1] - 1))]
    columns = [pyarrow.array(table[:, 0].astype("i4")), *map(pyarrow.array, table.T[1:])]
    parquet.write_table(pyarrow.table(columns, names), path, **options)
    return path


# With small pages, which a machine has room for that has hardly any.
SMALL_PAGES = {"data_page_size": 100, "write_batch_size": 8, "use_dictionary": False}
WRITERS = {
    "t.csv": write_csv,
    "t.csv.gz": write_csv,
    "t.parquet": partial(write_parquet, **SMALL_PAGES),
}


@pytest.fixture(params=WRITERS)
def table(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return WRITERS[request.param](tmp_path / request.param, numbers())


# Reading.


def test_a_table_in_chunks_is_the_table(table, monkeypatch):
    whole = np.concatenate(list(table_chunks(table)))
    np.testing.assert_array_equal(whole, numbers())
    monkeypatch.setattr(csv_blocks, "BLOCK_BYTES", 150)
    monkeypatch.setattr("gpunn.data.tables.parquet_files.CHUNK_VALUES", 37)
    parts = list(table_chunks(table))
    assert len(parts) > 40
    assert max(map(len, parts)) <= 10
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_parquet_file_is_a_data_set_as_a_csv_file_is(tmp_path):
    table = numbers()
    one = read_csv(write_csv(tmp_path / "t.csv", table))
    other = load_dataset(str(write_parquet(tmp_path / "t.parquet", table, row_group_size=70)))
    np.testing.assert_array_equal(one.inputs, other.inputs)
    np.testing.assert_array_equal(one.labels, other.labels)
    table[:, 1:] = np.arange(1600).reshape(400, 4) % 256
    pixels = read_parquet(write_parquet(tmp_path / "p.parquet", table))
    assert (pixels.inputs.dtype, pixels.image_shape) == (np.uint8, (2, 2))


def test_a_parquet_file_is_read_through_a_buffer(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "t.parquet", numbers(), data_page_size=500, write_batch_size=9)
    monkeypatch.setattr("gpunn.data.tables.parquet_files.BUFFER", 100)
    np.testing.assert_array_equal(np.concatenate(list(table_chunks(path))), numbers())


def bad_parquet(tmp_path, change):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"label": [0, 1, 0], "a": [1.0, 2.0, 3.0], **change(pyarrow)}
    parquet.write_table(pyarrow.table(columns), tmp_path / "bad.parquet")
    return tmp_path / "bad.parquet"


BAD = {
    "missing": (lambda _: {"a": [1.0, None, 2.0]}, "column 'a', row 1 (counted from 0): is miss"),
    "NaN": (lambda _: {"a": [1.0, 2.0, float("nan")]}, "column 'a', row 2 (counted from 0): is"),
    "infinity": (lambda _: {"a": [1.0, 2.0, float("inf")]}, "row 2 (counted from 0): holds inf"),
    "fraction": (lambda _: {"label": [0, 0.5, 1]}, "row 1 (counted from 0): the label 0.5 is not"),
    "dates": (
        lambda pa: {"a": pa.array([1, 2, 3], pa.date32())},
        "column 'a' is of type date32[day]; expected",
    ),
    "lists": (
        lambda _: {"a": [[1], [2], [3]]},
        "column 'a' is of type list<element: int64>; expected",
    ),
    "a long name": (lambda _: {10**5 * "x": [[1], [2], [3]]}, "column 'xxxxxxx"),
    "a long name of numbers": (
        lambda _: {10**5 * "x": [1, None, 2]},
        "xxx..., row 1 (counted from 0): is missing",
    ),
    "no rows": (lambda pa: {"label": pa.array([], "i4"), "a": pa.array([], "f4")}, "no rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_parquet_file_is_said(tmp_path, name, monkeypatch):
    change, message = BAD[name]
    path = bad_parquet(tmp_path, change)
    for n_values in (2, 1000):
        monkeypatch.setattr("gpunn.data.tables.parquet_files.CHUNK_VALUES", n_values)
        with pytest.raises(DataError) as error:
            read_parquet(path)
        assert message in str(error.value)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < len(str(path)) + 250


def test_a_damaged_parquet_file_is_refused(tmp_path):
    path = write_parquet(tmp_path / "t.parquet", numbers(50))
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    n_refused = 0
    for k in range(300):
        damaged = bytearray(data)
        if k % 3:
            damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        else:
            del damaged[rng.integers(len(data)) :]
        path.write_bytes(damaged)
        try:
            read_parquet(path)
        except DataError as error:
            n_refused += str(path) in str(error)
    assert n_refused > 100
    path.write_bytes(b"")
    with pytest.raises(DataError, match="not a Parquet file"):
        read_parquet(path)
    with pytest.raises(DataError, match="no such file"):
        read_parquet(tmp_path / "absent.parquet")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2", "line 301: 2 fields; expected 5"),
        ("1,2,3,4,x", "line 301, column 'd': 'x' is not a number"),
        ("1,2,3,inf,4", "line 301, column 'c': "),
        ("0.5,1,2,3,4", "line 301, column 'label': the label 0.5 is not a whole number"),
    ],
)
def test_a_bad_line_is_named_whichever_chunk_it_is_in(tmp_path, small_chunks, line, message):
    lines = ["label,a,b,c,d", *(["1,2,3,4,5"] * 299), line, "1,2,3,4,5"]
    # All lines of a chunk may be as bad as its first.
    for text in (lines, [*lines[:301], *[line] * 60]):
        path = tmp_path / "t.csv"
        path.write_text("\n".join(text))
        for read in (read_csv, lambda path: list(table_chunks(path))):
            with pytest.raises(DataError) as error:
                read(path)
            assert message in str(error.value)


def test_the_size_of_a_csv_file_is_guessed_well_enough(tmp_path):
    table = numbers(60_000)
    # Of compressed bytes it is known how many were read ahead, up to 128 KiB of some 500.
    for name, tolerance in (("t.csv", 0.01), ("t.csv.gz", 0.4)):
        guess = open_table(write_csv(tmp_path / name, table)).n_bytes()
        assert 1 / (1 + tolerance) < guess / (8 * table.size) < 1 + tolerance, name


# Going through and dividing.


def test_what_is_known_of_a_long_table(table, small_chunks):
    known, data = known_of(table, 0.25, 1), numbers()
    train, test = (
        np.concatenate([np.column_stack([y, X]) for X, y in part])
        for part in (known.train, known.test)
    )
    assert (len(train), len(test)) == (known.n_train, known.n_test)
    assert known.n_train == known.train.count(400)
    # Each row is held out with a chance of a quarter: 5 standard deviations.
    assert abs(known.n_test - 100) < 5 * np.sqrt(400 * 0.25 * 0.75)
    everything = {tuple(row) for row in np.concatenate([train, test])}
    assert everything == {tuple(row) for row in data}
    np.testing.assert_array_equal(known.inputs.low, train[:, 1:].min(0))
    np.testing.assert_array_equal(known.inputs.high, train[:, 1:].max(0))
    np.testing.assert_allclose(known.inputs.mean, train[:, 1:].mean(0), rtol=1e-12)
    np.testing.assert_allclose(known.inputs.deviation, train[:, 1:].std(0), rtol=1e-12)
    assert known.classes.tolist() == [3, 5]
    assert (known.value_range, known.image_shape) == (None, None)
    assert known.fingerprint == known_of(table, 0.25, 2).fingerprint
    rest, kept_back = known.train.split(0.5)
    assert rest.count(400) + kept_back.count(400) == known.n_train


def test_pixels_of_a_long_table_are_known(tmp_path):
    data = np.column_stack([np.arange(500) % 2, np.arange(2000).reshape(500, 4) % 256])
    known = known_of(write_csv(tmp_path / "t.csv", data), 0.2, 0)
    assert (known.value_range, known.image_shape) == ((0.0, 255.0), (2, 2))


def test_a_long_table_is_known_by_its_numbers(tmp_path):
    table = numbers()
    prints = [known_of(write_csv(tmp_path / "t.csv", table), 0.2, 0).fingerprint]
    prints.append(known_of(write_csv(tmp_path / "t.csv.gz", table), 0.2, 0).fingerprint)
    table[399, 4] += 1
    prints.append(known_of(write_csv(tmp_path / "t.csv", table), 0.2, 0).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_too_short_a_table_cannot_be_divided(tmp_path):
    with pytest.raises(DataError, match="1 rows are too few"):
        known_of(write_csv(tmp_path / "t.csv", numbers(1)), 0.2, 0)


def test_memory_stays_flat_however_long_the_file(tmp_path, small_chunks):
    """Four times the rows take no more memory, but for a hundredth."""
    peaks = []
    for n_rows in (5_000, 20_000):
        path = write_csv(tmp_path / "t.csv", numbers(n_rows))
        file, preparation = open_table(path), label_first(4)
        layout = preparation.layout_of(file, with_targets=True)
        table = PreparedTable(file, layout, preparation, "classification", None, None)
        part = Prepared(TablePart(table, 0), Scaling(), np.array([3, 5]), np.dtype("f4"))
        list(table_chunks(path)).clear()
        tracemalloc.start()
        known_of(path, 0.2, 0)
        assert sum(len(y) for _, y in part) == n_rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.01 * peaks[0] + 4096


# The command line.


def run(*arguments):
    return cli.main([*map(str, arguments), "--device", "cpu"])


def train(data, out, *options):
    return run("train", data, "--hidden", 8, "--epochs", 30, "--out", out, "--lr", 0.02, *options)


def test_a_table_that_does_not_fit_is_learnt_in_chunks(table, little_memory, capsys, small_chunks):
    assert not table_fits(table)
    assert train(table, "m", "--val-fraction", 0.2, "--json") == 0
    output = capsys.readouterr()
    result = json.loads(output.out)
    assert "samples: they stay on the disk, because its numbers take" in output.err
    assert f"each epoch shuffles {2**28 // (4 * 4 + 16):,} rows at a time" in output.err
    assert result["test_accuracy"] > 0.9
    assert 200 < result["train_samples"] < 300
    for command in (["evaluate", "m", table], ["predict", "m", table, "--out", "p.csv"]):
        assert run(*command, "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    # What was held out is chosen again; every row is answered.
    assert json.loads(lines[0])["accuracy"] == result["test_accuracy"]
    assert 40 < json.loads(lines[0])["samples"] < 120
    assert json.loads(lines[1])["samples"] == 400
    with open("p.csv") as file:
        said = [int(row[0]) for row in csv.reader(file) if row[0] != "prediction"]
    assert said == json.loads(lines[1])["predictions"]
    assert np.mean(np.array(said) == numbers()[:, 0]) > 0.9


def test_a_training_in_chunks_goes_on(table, little_memory, capsys, small_chunks, monkeypatch):
    monkeypatch.setattr(long_table, "BUFFER_BYTES", 50 * (4 * 4 + 16))
    options = ("--checkpoint-every", "3 steps", "--batch-size", 20)
    assert train(table, "a", "--checkpoint", "A", *options) == 0
    for newest in sorted(os.listdir("A"))[-2:]:
        os.remove(f"A/{newest}")
    assert train(table, "b", "--checkpoint", "A", "--resume", *options) == 0
    assert "continuing from" in capsys.readouterr().out
    networks = [Network.load(name, "cpu").parameters() for name in "ab"]
    for name, value in networks[0].items():
        np.testing.assert_array_equal(networks[1][name], value)
    assert train(table, "c", "--checkpoint", "A", "--resume", "--seed", 1, *options) == 2
    assert "made for another training" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["npy", "idx"])
def test_mapped_files_train_the_very_network_that_arrays_do(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (300, 4, 5)).astype(np.uint8), np.arange(300) % 3
    X[y == 1, 0] = 255
    np.save("X.npy", X)
    np.save("y.npy", y)
    os.mkdir("folder")
    for name, array in (("images-idx3", X), ("labels-idx1", y.astype(np.uint8))):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (tmp_path / "folder" / f"train-{name}-ubyte").write_bytes(header + array.tobytes())
    data = "X.npy,y.npy" if kind == "npy" else "folder"
    models = []
    # In memory; in memory, but not scaled; on the disk.
    for n_free, why in ((10**9, None), (10**8, "a test says so"), (3000, "a test says so")):
        monkeypatch.setattr(files, "TOO_LITTLE_TO_ASK", 1000)
        monkeypatch.setattr(files, "free_memory", lambda n_free=n_free: n_free)
        monkeypatch.setattr(train_data, "why_no_room", lambda n_bytes, why=why: why)
        monkeypatch.setattr(loaders, "why_too_large", lambda *_, why=why: why)
        assert train(data, f"{n_free}", "--val-fraction", 0.1) == 0
        assert run("evaluate", f"{n_free}", data, "--json") == 0
        assert run("predict", f"{n_free}", data, "--out", f"{n_free}.csv") == 0
        output = capsys.readouterr().out
        assert ("the shuffle is exact" in output) == (n_free == 3000)
        assert ("because a test says so" in output) == (why is not None)
        models.append(Network.load(f"{n_free}", "cpu"))
    for other in models[1:]:
        assert models[0].scaling == other.scaling
        for name, value in models[0].parameters().items():
            np.testing.assert_array_equal(other.parameters()[name], value)
    assert (tmp_path / f"{10**9}.csv").read_text() == (tmp_path / "3000.csv").read_text()


def test_a_recipe_of_so_many_samples_is_refused_in_chunks(table, little_memory, capsys):
    assert run("train", table, "--recipe", "nielsen") == 2
    assert "the recipe trains on 50,000 samples" in capsys.readouterr().err


LIMITED = """
import resource, sys
import numpy as np
from gpunn import Network, Scaling, fit
from gpunn.host_memory import MemoryInfo
from gpunn.backends.numpy_backend import NumpyBackend

def data_bytes():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData"))

def train(X, y):
    network = Network([X.shape[1], 4, 2], device="cpu")
    rows = Scaling.to_range(0, 255).rows(X, "float32")
    return fit(network, rows, y, epochs=1, batch_size=64, learning_rate=0.1)

X = np.load(sys.argv[1], mmap_mode="r")
y = np.zeros(len(X), np.uint8)
train(np.array(X[:128]), y[:128])
room = X.nbytes // 4
limit = data_bytes() + room
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.array(X)
except MemoryError:
    pass
else:
    sys.exit("there was room for a copy")
NumpyBackend.memory_info = lambda self: MemoryInfo(room // 2, room)
assert "have room" not in train(X, y).streamed
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for limits and sizes")
def test_a_mapped_file_four_times_as_large_as_the_memory_is_learnt(tmp_path):
    with open(tmp_path / "X.npy", "wb") as file:
        shape = (12_000, 2**14)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + shape[0] * shape[1])  # holes, which take no place
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "X.npy")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
