"""Folders of IDX files under all the names that they have, and with only one pair in them."""

import gzip
import struct

import numpy as np
import pytest

from gpunn.data import load_dataset, read_idx_folder
from gpunn.errors import DataError

STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
TRAIN, TEST = STEMS[:2], STEMS[2:]
DOTTED = {stem: stem.replace("-idx", ".idx") for stem in STEMS}


def content(stem, fill=None):
    """Return an IDX file: pictures of 4 x 3 pixels, 5 to train on and 2 to test with, or labels."""
    n = 5 if stem.startswith("train") else 2
    shape = (n, 4, 3) if "images" in stem else (n,)
    array = np.arange(np.prod(shape)) % 7 if fill is None else np.full(shape, fill)
    header = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    return header + array.astype(np.uint8).tobytes()


def put(folder, stem, name, fill=None):
    data = content(stem, fill)
    (folder / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)


def put_all(folder, stems=STEMS):
    for stem in stems:
        put(folder, stem, f"{stem}-ubyte.gz")


def refusal(function, *arguments):
    with pytest.raises(DataError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ends", [("", ""), (".gz", ".gz"), ("", ".gz"), (".gz", "")])
@pytest.mark.parametrize("dotted", [STEMS, TRAIN, STEMS[::2], STEMS[3:]])
def test_a_dot_may_be_in_the_place_of_a_dash(tmp_path, ends, dotted):
    for number, stem in enumerate(STEMS):
        name = DOTTED[stem] if stem in dotted else stem
        put(tmp_path, stem, f"{name}-ubyte{ends[number % 2]}")
    came = load_dataset(str(tmp_path))
    assert (came.inputs.shape, came.test_inputs.shape) == ((5, 12), (2, 12))
    assert came.labels.tolist() == [0, 1, 2, 3, 4]
    assert came.inputs[1].tolist() == [5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2]
    assert (came.value_range, came.image_shape, came.notes) == ((0, 255), (4, 3), ())


@pytest.mark.parametrize("end", ["", ".gz"])
def test_of_two_spellings_the_standard_one_is_read(tmp_path, end):
    put_all(tmp_path)
    put(tmp_path, STEMS[1], f"{DOTTED[STEMS[1]]}-ubyte{end}", fill=9)
    assert load_dataset(str(tmp_path)).labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("spelling", [str, DOTTED.get])
def test_the_test_pair_alone_is_the_data_set(tmp_path, spelling):
    for stem in TEST:
        put(tmp_path, stem, f"{spelling(stem)}-ubyte")
    came = load_dataset(str(tmp_path))
    assert (len(came.inputs), came.test_inputs, came.test_labels) == (2, None, None)
    assert came.description == f"IDX files in {tmp_path}, the pair t10k alone"
    assert came.notes == (
        "IDX files: only the pair t10k is there, so its samples are all that there are",
    )


def test_the_training_pair_alone_is_the_data_set(tmp_path):
    put_all(tmp_path, TRAIN)
    came = load_dataset(str(tmp_path))
    assert (len(came.inputs), came.test_inputs, came.notes) == (5, None, ())


@pytest.mark.parametrize("missing", STEMS)
@pytest.mark.parametrize("both_pairs", [True, False])
def test_images_without_labels_and_labels_without_images(tmp_path, missing, both_pairs):
    pair = TRAIN if missing in TRAIN else TEST
    put_all(tmp_path, [s for s in (STEMS if both_pairs else pair) if s != missing])
    (there,) = (stem for stem in pair if stem != missing)
    assert refusal(load_dataset, str(tmp_path)) == (
        f"{tmp_path}: has {there}-ubyte.gz, but not what belongs to it; expected the file "
        f"{missing}-ubyte.gz (or without .gz) beside it"
    )


def test_a_folder_that_a_file_is_named_as_is_passed_over(tmp_path):
    put_all(tmp_path)
    (tmp_path / f"{STEMS[0]}-ubyte").mkdir()
    assert len(read_idx_folder(tmp_path).inputs) == 5


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_a_known_data_set_is_not_its_test_pair_alone(tmp_path, name):
    (tmp_path / name).mkdir()
    put_all(tmp_path / name, TEST)
    message = refusal(load_dataset, name, str(tmp_path))
    assert message.endswith("expected the file train-images-idx3-ubyte.gz (or without .gz) in it")


def test_a_known_data_set_may_be_spelled_with_dots(tmp_path):
    (tmp_path / "mnist").mkdir()
    for stem in TRAIN:
        put(tmp_path / "mnist", stem, f"{DOTTED[stem]}-ubyte")
    assert len(load_dataset("mnist", str(tmp_path)).labels) == 5
