"""Reading data sets: good files, and every way in which a file can be bad."""

import gzip
import hashlib
import io
import os
import random
import struct
import threading
import tracemalloc
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gpunn.data import (
    Dataset,
    files,
    known,
    load_dataset,
    load_digits,
    matrices,
    numpy_files,
    read_csv,
    read_idx,
    read_idx_folder,
    read_npy_pair,
    read_npz,
)
from gpunn.data.numpy_files import read_npy
from gpunn.data.tables import csv_files
from gpunn.errors import DataError, ParameterError

STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx_bytes(array):
    """Write an array in the IDX format, straight from the format's description."""
    array = np.asarray(array)
    header = struct.pack(">BBBB", 0, 0, CODES[array.dtype.str[1:]], array.ndim)
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return header + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def images_and_labels(n, seed=0, n_classes=10):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 4, 3), np.uint8)
    return images, (np.arange(n) % n_classes).astype(np.uint8)


def write_idx_folder(folder, *, compress=True, n_classes=10, stems=STEMS):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = [*images_and_labels(20, 0, n_classes), *images_and_labels(12, 1, n_classes)]
    for stem, array in zip(STEMS, arrays, strict=True):
        if stem in stems:
            name, content = f"{stem}-ubyte", idx_bytes(array)
            if compress:
                name, content = f"{name}.gz", gzip.compress(content, mtime=0)
            (folder / name).write_bytes(content)
    return arrays


def fails(function, *arguments):
    """Return the message of the `DataError` that must come, and must be one line."""
    with pytest.raises(DataError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


@pytest.fixture(autouse=True)
def no_data_of_the_machine(monkeypatch):
    monkeypatch.delenv("GPUNN_DATA_DIR", raising=False)


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# --- Dataset.split ---------------------------------------------------------------------------


def plain_dataset(labels):
    labels = np.asarray(labels, np.int64)
    return Dataset("plain", np.arange(len(labels))[:, None], labels)


def test_split_holds_out_the_same_part_of_each_class():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    parts = plain_dataset(labels).split(0.2, seed=1)
    np.testing.assert_array_equal(np.bincount(parts.test_labels), [20, 10, 2])
    np.testing.assert_array_equal(np.bincount(parts.labels), [80, 40, 8])
    together = np.concatenate([parts.inputs, parts.test_inputs])[:, 0]
    np.testing.assert_array_equal(np.sort(together), np.arange(160))
    np.testing.assert_array_equal(parts.labels, labels[parts.inputs[:, 0]])
    np.testing.assert_array_equal(parts.test_labels, labels[parts.test_inputs[:, 0]])


def test_split_shuffles_both_parts_and_repeats_itself():
    whole = load_digits()
    first, again, other = whole.split(0.25, 3), whole.split(0.25, 3), whole.split(0.25, 4)
    for name in ("inputs", "labels", "test_inputs", "test_labels"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.inputs, other.inputs)
    assert np.any(np.diff(first.labels) < 0)
    assert np.any(np.diff(first.test_labels) < 0)
    assert abs(len(first.test_labels) - 1797 / 4) <= 5
    assert (first.value_range, first.image_shape) == ((0, 16), (8, 8))
    assert first.inputs.dtype == np.uint8


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_split_keeps_every_class_of_two_in_both_parts(fraction):
    parts = plain_dataset([0, 0, 5, 5, 5, 9]).split(fraction, seed=0)
    assert set(parts.labels) == {0, 5, 9}
    assert set(parts.test_labels) == {0, 5}


def test_split_leaves_a_data_set_with_a_test_part_alone():
    parts = plain_dataset([0, 0, 1, 1]).split(0.5, seed=0)
    assert parts.split(0.1, seed=9) is parts


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_split_refuses_impossible_fractions(fraction):
    with pytest.raises(ParameterError, match="between 0 and 1"):
        plain_dataset([0, 0]).split(fraction, seed=0)


def test_split_refuses_to_hold_out_nothing():
    assert "no class has two samples" in fails(plain_dataset([0, 1, 2]).split, 0.5, 0)


def test_n_classes_counts_the_test_part_too():
    assert plain_dataset([0, 4]).n_classes == 5
    whole = Dataset("x", np.zeros((1, 2)), np.array([1]), np.zeros((1, 2)), np.array([6]))
    assert (whole.n_classes, whole.n_features) == (7, 2)


# --- digits ----------------------------------------------------------------------------------


def test_digits_come_with_the_package():
    digits = load_dataset("digits")
    assert digits.inputs.shape == (1797, 64)
    assert digits.inputs.dtype == np.uint8
    assert digits.labels.dtype == np.int64
    assert (digits.inputs.min(), digits.inputs.max()) == (0, 16)
    assert (digits.n_classes, digits.value_range, digits.image_shape) == (10, (0, 16), (8, 8))
    assert digits.test_inputs is None
    assert "CC BY 4.0" in digits.description


def test_digits_equal_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    inputs, labels = datasets.load_digits(return_X_y=True)
    digits = load_digits()
    np.testing.assert_array_equal(digits.inputs, inputs)
    np.testing.assert_array_equal(digits.labels, labels)


# --- IDX -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", list(CODES))
@pytest.mark.parametrize("compress", [gzip.compress, bytes])
def test_idx_of_all_types(write, dtype, compress):
    array = np.arange(-3, 21).astype(dtype).reshape(2, 3, 4)
    came = read_idx(write("any.name", compress(idx_bytes(array))))
    np.testing.assert_array_equal(came, array)
    assert came.dtype == np.dtype(dtype)
    assert came.flags.writeable


@pytest.mark.parametrize("compress", [True, False])
def test_idx_folder(tmp_path, compress):
    images, labels, test_images, test_labels = write_idx_folder(tmp_path / "d", compress=compress)
    came = load_dataset(str(tmp_path / "d"))
    np.testing.assert_array_equal(came.inputs, images.reshape(20, 12))
    np.testing.assert_array_equal(came.labels, labels)
    np.testing.assert_array_equal(came.test_inputs, test_images.reshape(12, 12))
    np.testing.assert_array_equal(came.test_labels, test_labels)
    assert came.inputs.dtype == np.uint8
    assert came.labels.dtype == came.test_labels.dtype == np.int64
    assert (came.value_range, came.image_shape, came.name) == ((0, 255), (4, 3), "d")


def test_idx_folder_with_the_training_pair_alone(tmp_path):
    write_idx_folder(tmp_path, stems=STEMS[:2])
    assert read_idx_folder(tmp_path).test_inputs is None


@pytest.mark.parametrize("missing", range(4))
def test_idx_folder_names_the_file_that_is_missing(tmp_path, missing):
    write_idx_folder(tmp_path, stems=[s for s in STEMS if s != STEMS[missing]])
    assert f"expected the file {STEMS[missing]}-ubyte.gz" in fails(read_idx_folder, tmp_path)


def test_idx_folder_with_counts_that_differ(tmp_path):
    write_idx_folder(tmp_path)
    labels = idx_bytes(np.zeros(19, np.uint8))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    message = fails(read_idx_folder, tmp_path)
    assert "train-images-idx3-ubyte.gz has 20 samples" in message
    assert "train-labels-idx1-ubyte.gz has 19" in message


def test_idx_folder_with_test_images_of_another_size(tmp_path):
    write_idx_folder(tmp_path)
    images = idx_bytes(np.zeros((12, 4, 4), np.uint8))
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    assert "has 12 features" in fails(read_idx_folder, tmp_path)


def test_idx_folder_with_images_in_the_place_of_labels(tmp_path):
    write_idx_folder(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(images.read_bytes())
    assert "must have shape (samples,)" in fails(read_idx_folder, tmp_path)


IDX = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got nothing"),
        (b"\0\0\x08", "not an IDX file"),
        (b"PK\x03\x04" + IDX, "got 50 4b 03 04"),
        (b"\0\0\x0a" + IDX[3:], "not an IDX file"),
        (b"\0\0\x08\0", "not an IDX file"),
        (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"\1", "not an IDX file"),
        (IDX[:10], "cut short within its header"),
        (IDX[:-1], "declares 24 bytes of data, more than"),
        (IDX + b"\0", "there are more"),
        (idx_bytes(np.zeros((0, 2, 2), np.uint8)), "declares no values: 0 x 2 x 2"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "more than a file of this size can hold"),
        (gzip.compress(IDX[:-1], mtime=0), "only 23 came"),
        (gzip.compress(IDX + b"\0", mtime=0), "there are more"),
        (
            gzip.compress(b"\0\0\x0e\x04" + b"\xff" * 16, mtime=0),
            "more than a file of this size can hold",
        ),
        (gzip.compress(IDX, mtime=0)[:-9], "gzip data damaged or cut short"),
        (gzip.compress(IDX, mtime=0)[:-8] + bytes(8), "gzip data damaged or cut short"),
        (gzip.compress(IDX, mtime=0) + b"more", "gzip data damaged or cut short"),
    ],
)
def test_bad_idx_files(write, content, message):
    path = write("bad-ubyte.gz", content)
    came = fails(read_idx, path)
    assert came.startswith(str(path))
    # A plain file that lacks a byte is caught by its size, before anything is read.
    assert message in came or (content == IDX[:-1] and "only 23 came" in came)


def test_a_header_that_lies_costs_no_memory(write):
    path = write("bomb", gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 60000, 4000, 4000)))
    tracemalloc.start()
    fails(read_idx, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_missing_files_folders_and_strange_paths(tmp_path):
    for read in (read_idx, read_csv, read_npz, read_npy):
        assert "no such file" in fails(read, tmp_path / "absent")
        assert "is a folder" in fails(read, tmp_path)
        assert "no such file" in fails(read, "a\0b")
        assert "no such file" in fails(read, "a" * 5000)
    assert "expected the file train-images" in fails(read_idx_folder, tmp_path / "absent")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_files_that_may_not_be_read(write):
    for name in ("a.csv", "a.npz", "a.npy"):
        path = write(name, "1,2\n")
        path.chmod(0)
        read = {".csv": read_csv, ".npz": read_npz, ".npy": read_npy}[path.suffix]
        assert "cannot be read" in fails(read, path)


# --- CSV -------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [gzip.compress, bytes])
@pytest.mark.parametrize("header", ["", "label,1x1,1x2,2x1,2x2\n", "\n\nlabel,a,b,c,d\n\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_of_pixels(write, compress, header, newline):
    text = f"{header}5,0,255,3,4\n\n0,9,8,7,6"
    path = write("a.csv.gz", compress(b"\xef\xbb\xbf" + text.replace("\n", newline).encode()))
    came = load_dataset(str(path))
    np.testing.assert_array_equal(came.inputs, [[0, 255, 3, 4], [9, 8, 7, 6]])
    np.testing.assert_array_equal(came.labels, [5, 0])
    assert (came.inputs.dtype, came.labels.dtype) == (np.uint8, np.int64)
    assert (came.value_range, came.image_shape) == ((0, 255), (2, 2))
    assert came.inputs.flags.c_contiguous


def test_csv_of_measurements(write):
    came = read_csv(write("iris.csv", "species,a,b\n0, 1.5 ,-2e3\n1,0,255\n"))
    np.testing.assert_array_equal(came.inputs, [[1.5, -2000.0], [0, 255]])
    assert came.inputs.dtype == np.float64
    assert (came.value_range, came.image_shape, came.name) == (None, None, "iris.csv")


@pytest.mark.parametrize("row", ["0,255,7", "0,255,1.5,1", "1,255,1,1", "0,254,1,1", "0,256,1,1"])
def test_csv_is_an_image_only_if_bytes_and_square(write, row):
    came = read_csv(write("a.csv", f"0,{row}\n"))
    assert came.image_shape is None
    assert (came.value_range == (0, 255)) == (row == "0,255,7")


def test_csv_of_one_sample_and_one_feature(write):
    assert read_csv(write("a.csv", "3,0.5")).inputs.shape == (1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": no line of data"),
        ("\n \n", ": no line of data"),
        ("label,a,b\n", ": no line of data"),
        ("1\n2\n", ": one field in a line"),
        ("1:2:3\n1:2:3\n", ": one field in a line"),
        ("1,2,3\n\n1,2\n", ", line 3: 2 fields; expected 3"),
        ("x,y,z\n1,2,3\n1,2,3,4\n", ", line 3: 4 fields; expected 3"),
        ("1,2,3\n1,cat,3\n", ", line 2, field 2: 'cat' is not a number"),
        ("1,2,3\n1,,3\n", ", line 2, field 2: is missing; fill it in, or choose --missing mean"),
        ("1,2,3,\n1,2,3,\n", ", line 1, field 4: is missing"),
        ("label,1,2\n0,1,2\n", ", line 1, field 1: 'label' is not a number"),
        ("1,2\n1," + "x" * 1000, f", line 2, field 2: '{'x' * 27}...' is not a number"),
        ("1,2\n1,nan\n", ", line 2, field 2: is missing"),
        ("1,2\n1,-Inf\n", ", line 2, field 2: holds -inf, which is not finite"),
        ("1,2\n1,1e999\n", ", line 2, field 2: holds inf, which is not finite"),
        ("1,2\nnan,1\n", ", line 2, field 1: is missing; what is to be learnt must be there"),
        ("0.5,2\n", ", line 1, field 1: the label 0.5 is not a whole number"),
        (b"1,2\n1,\xff\xfe\n", ", line 2, field 2:"),
        (b"1,2\n1,\0\n", ", line 2, field 2:"),
        ("1,2\n1,1_0\n", ", line 2, field 2: '1_0' is not a number"),
        ("1,2\n#1,2\n", ", line 2, field 1: '#1'"),
        (gzip.compress(b"1,2\n" * 9, mtime=0)[:-9], ": gzip data damaged or cut short"),
    ],
)
def test_bad_csv_files(write, text, message):
    path = write("bad.csv", text)
    assert fails(load_dataset, str(path)).startswith(f"{path}{message}")


def test_csv_of_the_size_of_mnist_in_small_is_fast_and_exact(write):
    table = np.random.default_rng(0).integers(0, 10, (2000, 785))
    table[0, 1] = 255
    text = "\n".join(",".join(map(str, row)) for row in table.tolist())
    came = read_csv(write("a.csv", text))
    np.testing.assert_array_equal(came.inputs, table[:, 1:])
    assert came.image_shape == (28, 28)


# --- .npz and .npy ---------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [("x_train", "y_train"), ("X", "y"), ("inputs", "labels")])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_all_names(tmp_path, keys, save):
    images, labels = images_and_labels(6)
    save(tmp_path / "a.npz", **dict(zip(keys, (images, labels), strict=True)))
    came = load_dataset(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(came.inputs, images.reshape(6, 12))
    np.testing.assert_array_equal(came.labels, labels)
    assert (came.inputs.dtype, came.labels.dtype) == (np.uint8, np.int64)
    assert (came.image_shape, came.test_inputs) == ((4, 3), None)


def test_npz_as_keras_has_mnist(tmp_path):
    images, labels = images_and_labels(30)
    images[0, 0, :2] = (0, 255)
    arrays = {"x_train": images[:20], "y_train": labels[:20], "x_test": images[20:]}
    np.savez(tmp_path / "mnist.npz", **arrays, y_test=labels[20:])
    came = read_npz(tmp_path / "mnist.npz")
    np.testing.assert_array_equal(came.test_inputs, images[20:].reshape(10, 12))
    np.testing.assert_array_equal(came.test_labels, labels[20:])
    assert came.value_range == (0, 255)


@pytest.mark.parametrize("dtype", ["bool", "int16", ">i4", "float16", "<f4", ">f8"])
def test_inputs_keep_their_type_in_the_machines_byte_order(tmp_path, dtype):
    inputs = np.asfortranarray(np.arange(6).reshape(3, 2).astype(dtype))
    np.savez(tmp_path / "a.npz", X=inputs, y=[0, 1, 2])
    came = read_npz(tmp_path / "a.npz").inputs
    np.testing.assert_array_equal(came, inputs)
    assert came.dtype == np.dtype(dtype).newbyteorder("=")
    assert came.dtype.isnative
    assert came.flags.c_contiguous


@pytest.mark.parametrize(
    ("shape", "image_shape"),
    [((2, 9), None), ((2, 4, 5), (4, 5)), ((2, 4, 5, 1), (4, 5)), ((2, 4, 5, 3), None)],
)
def test_inputs_of_more_dimensions_become_rows(tmp_path, shape, image_shape):
    inputs = np.linspace(0, 1, int(np.prod(shape))).reshape(shape)
    np.savez(tmp_path / "a.npz", X=inputs, y=[0, 1])
    came = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(came.inputs, inputs.reshape(2, -1))
    assert came.image_shape == image_shape


@pytest.mark.parametrize(
    "labels", [[0, 3], [0.0, 3.0], [[0], [3]], np.array([0, 3], ">u2"), np.array([0, 3], "uint64")]
)
def test_labels_of_several_forms(tmp_path, labels):
    np.save(tmp_path / "X.npy", np.zeros((2, 2)))
    np.save(tmp_path / "y.npy", labels)
    came = load_dataset(f"{tmp_path / 'X.npy'},{tmp_path / 'y.npy'}")
    np.testing.assert_array_equal(came.labels, [0, 3])
    assert came.labels.dtype == np.int64


ZEROS = np.zeros((2, 3))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": ZEROS, "b": [0, 1]}, "found 'a', 'b'"),
        ({}, "found nothing"),
        (
            {"X": ZEROS},
            "expected arrays named x_train and y_train, or X and y, or inputs and labels",
        ),
        ({"x_train": ZEROS, "y_train": [0, 1], "x_test": ZEROS}, "has x_test only"),
        ({"X": ZEROS, "y": np.array([0, None])}, "holds Python objects, which are never loaded"),
        ({"X": ZEROS, "y": [0, 1, 2]}, "X has 2 samples but y has 3"),
        ({"X": ZEROS, "y": [0, -1]}, "y must hold whole numbers from 0 to 65535, got -1 in row 1"),
        ({"X": ZEROS, "y": [0, 0.5]}, "got 0.5 in row 1"),
        ({"X": ZEROS, "y": [np.nan, 0]}, "got nan in row 0"),
        ({"X": ZEROS, "y": [0, 10**9]}, "got 1000000000 in row 1"),
        ({"X": ZEROS, "y": np.array([0, 2**64 - 1], "uint64")}, "got 18446744073709551615"),
        ({"X": ZEROS, "y": ["cat", "dog"]}, "y must hold whole numbers, got the type <U3"),
        ({"X": ZEROS, "y": np.eye(2)}, "one-hot rows into numbers with argmax(axis=1)"),
        ({"X": ZEROS, "y": np.zeros((2, 1, 1))}, "y must have shape (samples,), got (2, 1, 1)"),
        ({"X": ZEROS, "y": 1}, "y must have shape (samples,), got ()"),
        ({"X": ZEROS[0], "y": [0, 1]}, "X must have shape (samples, features)"),
        ({"X": ZEROS[:0], "y": []}, "none of them 0, got (0, 3)"),
        ({"X": ZEROS[:, :0], "y": [0, 1]}, "none of them 0, got (2, 0)"),
        ({"X": ZEROS + 1j, "y": [0, 1]}, "X must hold numbers, got the type complex128"),
        ({"X": ZEROS.astype("M8[s]"), "y": [0, 1]}, "X must hold numbers"),
        ({"X": [["a"], ["b"]], "y": [0, 1]}, "X must hold numbers"),
        ({"X": [[0, 1], [0, np.nan]], "y": [0, 1]}, "X holds nan in row 1, column 1"),
        ({"X": [[-np.inf, 1], [0, 1]], "y": [0, 1]}, "X holds -inf in row 0, column 0"),
    ],
)
def test_bad_arrays_in_an_npz(tmp_path, arrays, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    came = fails(read_npz, path)
    assert came.startswith(str(path))
    assert message in came


def test_npz_whose_member_is_no_array(tmp_path):
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("X", b"text")
        archive.writestr("y", b"text")
    assert "X is not a NumPy array" in fails(read_npz, path)


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\1\0", b"PK\x03\x04", b"\x80\4K\1."])
def test_files_that_are_no_npz_or_npy(write, content):
    path = write("bad.npz", content)
    assert f"{path}: not an .npz file" in fails(read_npz, path)
    assert f"{path}: not an .npy file" in fails(read_npy, path)


def test_a_zip_that_is_said_to_span_disks_is_refused(tmp_path):
    path = tmp_path / "z.npz"
    np.savez(path, X=ZEROS, y=[0, 1])
    # The locator of a large zip's directory, 20 bytes before the end of 22: disk 0 of 2.
    locator = b"PK\6\7" + struct.pack("<LQL", 0, 0, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-22] + locator + whole[-22:])
    assert "span multiple disks" in fails(read_npz, path)


def test_npy_pairs_that_are_bad(tmp_path):
    np.save(tmp_path / "X.npy", ZEROS)
    np.save(tmp_path / "objects.npy", np.array([0, None]), allow_pickle=True)
    np.save(tmp_path / "y.npy", [0, 1, 2])
    np.savez(tmp_path / "z.npz", X=ZEROS)
    x, y = tmp_path / "X.npy", tmp_path / "y.npy"
    assert f"{x} has 2 samples but {y} has 3" in fails(read_npy_pair, x, y)
    assert fails(read_npy_pair, x, x).startswith(f"{x} has shape (2, 3); expected one class number")
    assert "never loaded" in fails(read_npy_pair, x, tmp_path / "objects.npy")
    assert "not an .npy file" in fails(read_npy_pair, tmp_path / "z.npz", y)
    assert "no such file" in fails(load_dataset, f"{x},{tmp_path / 'absent.npy'}")
    assert "a file of unknown kind" in fails(load_dataset, str(x))


def test_what_memory_cannot_hold_is_mapped_or_refused_before_it_is_read(
    write, tmp_path, monkeypatch
):
    monkeypatch.setattr(files, "TOO_LITTLE_TO_ASK", 1000)
    monkeypatch.setattr(files, "free_memory", lambda: 3000)
    X, y = np.zeros((300, 10), np.uint8), np.zeros(300, np.uint8)
    np.savez_compressed(tmp_path / "X.npz", X=X, y=y)
    np.save(tmp_path / "X.npy", X)
    csv = write("t.csv", "\n".join(["1,2,3"] * 1000).encode())
    idx = write("t.idx", idx_bytes(X))
    for read, path in (
        (read_npz, tmp_path / "X.npz"),
        (read_csv, csv),
        (read_idx, write("t.idx.gz", gzip.compress(idx_bytes(X)))),
    ):
        message = fails(read, path)
        assert "than this machine has memory for" in message
        assert str(path) in message
    for read, path in ((read_npy, tmp_path / "X.npy"), (read_idx, idx)):
        array = read(path)
        assert isinstance(array, np.memmap)
        np.testing.assert_array_equal(array, X)
    for size in (-1, 1):
        data = idx_bytes(X) + b"x" if size > 0 else idx_bytes(X)[:size]
        assert "the header declares" in fails(read_idx, write("t.idx", data))


def test_checks_of_mapped_inputs_need_no_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(matrices, "BLOCK_VALUES", 20)
    monkeypatch.setattr(files, "TOO_LITTLE_TO_ASK", 1000)
    monkeypatch.setattr(files, "free_memory", lambda: 3000)
    X = np.zeros((100, 2, 3), ">f4")
    X[7] = 255
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", np.arange(100) % 3)
    dataset = read_npy_pair(tmp_path / "X.npy", tmp_path / "y.npy")
    assert dataset.stays_on_disk
    assert dataset.inputs.filename == tmp_path / "X.npy"
    assert (dataset.value_range, dataset.image_shape) == ((0.0, 255.0), (2, 3))
    parts = dataset.split(0.2, 0)
    assert parts.stays_on_disk
    monkeypatch.undo()
    resident = read_npy_pair(tmp_path / "X.npy", tmp_path / "y.npy").split(0.2, 0)
    for name in ("inputs", "labels", "test_inputs", "test_labels"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(resident, name))
    X[40, 1, 2] = np.nan
    np.save(tmp_path / "X.npy", X)
    monkeypatch.setattr(numpy_files, "fits", lambda declared: False)
    monkeypatch.setattr(matrices, "BLOCK_VALUES", 20)
    assert "nan in row 40, column 5" in fails(read_npy_pair, tmp_path / "X.npy", tmp_path / "y.npy")
    np.save(tmp_path / "X.npy", np.asfortranarray(X))
    said = fails(read_npy_pair, tmp_path / "X.npy", tmp_path / "y.npy")
    assert "Fortran's order" in said


def test_an_npz_member_that_claims_more_than_it_holds_is_refused(tmp_path):
    header = np.lib.format.magic(1, 0)
    text = repr({"descr": "|u1", "fortran_order": False, "shape": (10**9,)}).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "X.npz", "w") as archive:
        archive.writestr("X.npy", header + len(text).to_bytes(2, "little") + text + b"few")
        archive.writestr("y.npy", header + len(text).to_bytes(2, "little") + text + b"few")
    assert "declares 1000000000 bytes" in fails(read_npz, tmp_path / "X.npz")


def test_a_line_without_an_end_is_refused(write, monkeypatch):
    monkeypatch.setattr(csv_files, "_LONGEST_LINE", 1000)
    assert "line 2: longer than 1000 characters" in fails(
        read_csv, write("t.csv", b"1,2\n" + b"1," * 2000)
    )


def test_an_npy_header_that_lies_is_an_error(tmp_path):
    np.save(tmp_path / "X.npy", np.zeros((2, 3)))
    content = (tmp_path / "X.npy").read_bytes()
    lies = {b"(2, 4)": "or damaged", b"(9999999999999999, 9)": "more than a file of this size"}
    for shape, said in lies.items():
        lie = content.replace(b"(2, 3), }" + b" " * (len(shape) - 6), shape + b", }")
        assert len(lie) == len(content)
        assert lie != content
        (tmp_path / "X.npy").write_bytes(lie)
        assert said in fails(read_npy, tmp_path / "X.npy")


# --- damaged files of all kinds --------------------------------------------------------------


def mutations(content, n, seed):
    """Give `n` damaged copies: bytes changed, cut off, put in or taken out at random places."""
    rng = random.Random(seed)
    for _ in range(n):
        copy = bytearray(content)
        for _ in range(rng.choice((1, 1, 2, 5))):
            place = rng.randrange(len(copy)) if copy else 0
            kind = rng.randrange(5)
            if kind <= 1 and copy:
                copy[place] = rng.choice((0, 1, 10, 44, 48, 127, 255, rng.randrange(256)))
            elif kind == 2:
                del copy[place:]
            elif kind == 3:
                copy[place:place] = rng.randbytes(rng.randrange(1, 9))
            else:
                del copy[place : place + rng.randrange(1, 9)]
        yield bytes(copy)


def saved(save, **arrays):
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


CSV = b"label,a,b\n" + b"".join(b"%d,%d,0.5\n" % (i % 10, i) for i in range(12))
TRAINING = {"x_train": np.arange(24, dtype=np.uint8).reshape(6, 4), "y_train": np.arange(6)}
SOUND_FILES = {
    "plain.idx": (read_idx, IDX),
    "gzip.idx": (read_idx, gzip.compress(IDX, mtime=0)),
    "plain.csv": (read_csv, CSV),
    "gzip.csv.gz": (read_csv, gzip.compress(CSV, mtime=0)),
    "stored.npz": (read_npz, saved(np.savez, **TRAINING)),
    "deflated.npz": (read_npz, saved(np.savez_compressed, **TRAINING)),
    "a.npy": (read_npy, saved(lambda stream: np.save(stream, np.eye(3)))),
}


@pytest.mark.parametrize("name", SOUND_FILES)
def test_a_damaged_file_is_a_data_error_or_still_reads(write, name):
    read, content = SOUND_FILES[name]
    read(write(name, content))
    cut = [content[:length] for length in range(0, len(content), max(1, len(content) // 100))]
    messages = []
    for damaged in (*cut, *mutations(content, 200, seed=1)):
        path = write(name, damaged)
        try:
            read(path)
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(message.startswith(str(path)) and "\n" not in message for message in messages)


# --- load_dataset, data folders, downloads ---------------------------------------------------


@pytest.mark.parametrize("name", ["nothing", "", "MNIST", "a,b", "a.txt", "\0", "a" * 5000])
def test_unknown_data_sets(name):
    message = fails(load_dataset, name)
    assert "no such file" in message or "expected digits, mnist, fashion-mnist, a .csv" in message


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_known_data_sets_from_a_folder(tmp_path, monkeypatch, name):
    images, *_ = write_idx_folder(tmp_path / name)
    came = load_dataset(name, tmp_path)
    np.testing.assert_array_equal(came.inputs, images.reshape(20, 12))
    assert (came.name, came.value_range, came.n_classes) == (name, (0, 255), 10)
    assert str(tmp_path) in came.description
    monkeypatch.setenv("GPUNN_DATA_DIR", str(tmp_path))
    np.testing.assert_array_equal(load_dataset(name).inputs, came.inputs)


def test_a_folder_that_is_named_must_hold_the_data(tmp_path, monkeypatch):
    message = fails(load_dataset, "mnist", tmp_path)
    assert message.startswith(f"{tmp_path / 'mnist'}: no such folder; expected train-images")
    # The caller's word counts more than the environment's.
    write_idx_folder(tmp_path / "there" / "mnist")
    monkeypatch.setenv("GPUNN_DATA_DIR", str(tmp_path / "there"))
    assert "no such folder" in fails(load_dataset, "mnist", tmp_path)
    assert "no such folder" in fails(load_dataset, "mnist", "")
    (tmp_path / "there" / "mnist" / "train-labels-idx1-ubyte.gz").unlink()
    assert "expected the file train-labels-idx1" in fails(load_dataset, "mnist")


def test_known_data_sets_have_ten_classes(tmp_path):
    write_idx_folder(tmp_path / "mnist", n_classes=11)
    assert "a label is 10; mnist has 0 to 9 only" in fails(load_dataset, "mnist", tmp_path)
    assert read_idx_folder(tmp_path / "mnist").n_classes == 11


@pytest.fixture
def cache(tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "gpunn"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve small files in MNIST's place from this machine; give the list of what was asked."""
    folder = tmp_path / "server"
    write_idx_folder(folder)
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=folder, **kwargs)

        def log_message(self, *args):
            asked.append(self.path)

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        checksums = [
            "sha256:" + hashlib.sha256((folder / f"{stem}-ubyte.gz").read_bytes()).hexdigest()
            for stem in STEMS
        ]
        url = f"http://127.0.0.1:{http.server_port}/"
        monkeypatch.setitem(known.SOURCES, "mnist", known.Source("Small", url, tuple(checksums)))
        yield asked
        http.shutdown()
        thread.join()


def files_below(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


def test_a_download_is_checked_and_kept(server, cache, capfd):
    first = load_dataset("mnist")
    assert first.inputs.shape == (20, 12)
    assert server == [f"/{stem}-ubyte.gz" for stem in STEMS]
    assert len(files_below(cache)) == 4
    second = load_dataset("mnist")
    assert len(server) == 4
    np.testing.assert_array_equal(first.test_inputs, second.test_inputs)
    assert capfd.readouterr() == ("", "")


def test_an_environment_folder_without_the_data_set_leads_to_a_download(
    server, cache, tmp_path, monkeypatch
):
    monkeypatch.setenv("GPUNN_DATA_DIR", str(tmp_path / "empty"))
    assert load_dataset("mnist").name == "mnist"
    assert len(server) == 4


def test_a_damaged_file_in_the_cache_is_fetched_again(server, cache):
    load_dataset("mnist")
    (cache / "mnist" / f"{STEMS[1]}-ubyte.gz").write_bytes(b"damaged")
    load_dataset("mnist")
    assert server[4:] == [f"/{STEMS[1]}-ubyte.gz"]


def test_a_wrong_checksum_leaves_nothing_behind(server, cache, tmp_path, capfd):
    (tmp_path / "server" / f"{STEMS[0]}-ubyte.gz").write_bytes(b"not what it should be")
    message = fails(load_dataset, "mnist")
    assert "its checksum is wrong" in message
    assert "--data-dir D" in message
    assert files_below(cache) == []
    assert capfd.readouterr() == ("", "")


def test_a_file_that_the_server_has_not(server, cache, tmp_path):
    (tmp_path / "server" / f"{STEMS[2]}-ubyte.gz").unlink()
    message = fails(load_dataset, "mnist")
    assert "404" in message
    assert STEMS[2] in message
    assert len(files_below(cache)) == 2


def test_no_connection_is_one_clear_line(cache, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # Port 9 is the discard service, which nobody runs.
    source = known.Source("Small", "http://127.0.0.1:9/", ("sha256:0",) * 4)
    monkeypatch.setitem(known.SOURCES, "mnist", source)
    message = fails(load_dataset, "mnist")
    assert message == (
        "mnist: cannot download http://127.0.0.1:9/train-images-idx3-ubyte.gz (no connection); "
        "put the files into a folder D/mnist and use --data-dir D"
    )


def test_a_cache_that_cannot_be_written_is_one_clear_line(cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    assert "cannot download" in fails(load_dataset, "mnist")


# --- the real thing --------------------------------------------------------------------------

REAL_DATA_DIR = os.environ.get("GPUNN_DATA_DIR")


@pytest.mark.skipif(
    not REAL_DATA_DIR or not Path(REAL_DATA_DIR, "mnist").is_dir(),
    reason="needs GPUNN_DATA_DIR to name a folder that holds mnist",
)
def test_the_real_mnist():
    mnist = load_dataset("mnist", REAL_DATA_DIR)
    assert mnist.inputs.shape == (60000, 784)
    assert mnist.test_inputs.shape == (10000, 784)
    assert mnist.inputs.dtype == mnist.test_inputs.dtype == np.uint8
    assert (mnist.value_range, mnist.image_shape) == ((0, 255), (28, 28))
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test_counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(np.bincount(mnist.labels), counts)
    np.testing.assert_array_equal(np.bincount(mnist.test_labels), test_counts)
    np.testing.assert_array_equal(mnist.labels[:10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4])
    assert mnist.inputs.mean() == pytest.approx(33.318421449829934, abs=1e-12)
    digest = hashlib.sha256(idx_bytes(mnist.test_inputs.reshape(-1, 28, 28))).hexdigest()
    assert digest == "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
