"""Data sets: a few known ones by name, and your own from files.

`load_dataset` takes what stands after ``gpunn train`` on the command line. Values stay as the
source has them (8-bit images stay 8-bit); `gpunn.data.scaling` makes network inputs of them.
Whatever is wrong with a file ends in one line of `DataError` that says where, and what to do.
"""

import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gpunn.data.matrices import Matrix, select, stays_on_disk
from gpunn.data.parquet_files import parquet_bytes, parquet_chunks
from gpunn.data.readers import (
    FilePath,
    are_bytes,
    check_inputs,
    check_labels,
    csv_bytes,
    csv_chunks,
    fits,
    one_line,
    read_csv_table,
    read_npy,
    read_npz_arrays,
)
from gpunn.data.readers import read_idx as read_idx
from gpunn.errors import DataError, ParameterError

DATA_DIR_VARIABLE = "GPUNN_DATA_DIR"
_BYTE_RANGE = (0.0, 255.0)
_IDX_STEMS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


@dataclass(frozen=True)
class _Source:
    """Where a known data set is downloaded from, and the checksums of its files."""

    title: str
    url: str
    checksums: tuple[str, str, str, str]  # of the four files, in the order of `_IDX_STEMS`


_SOURCES = {
    "mnist": _Source(
        "MNIST handwritten digits",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        (
            "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "fashion-mnist": _Source(
        "Fashion-MNIST articles of clothing",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "md5:25c81989df183df01b3e8a0aad5dffbe",
            "md5:bef4ecab320f06d8554ea6380940ec79",
            "md5:bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with their labels, and perhaps a second lot to test with.

    Attributes
    ----------
    name : str
        Short name: that of a known data set, or of the file.
    inputs : array of numbers, shape (n_samples, n_features)
        In the data type of the source.
    labels : array of int64, shape (n_samples,)
        Class numbers, from 0.
    test_inputs, test_labels : array or None
        Samples that training must not see; both or neither.
    value_range : (float, float) or None
        Smallest and largest raw value by the nature of the source, such as (0, 255) for 8-bit
        images; None if that is not known.
    image_shape : (int, int) or None
        Rows and columns, if the features are the pixels of an image, row by row.
    description : str
        One line that says where the data come from.
    sample_weight : array, shape (n_samples,), or None
        How much each sample counts, not those of the test part.

    Inputs that are larger than the memory stay in their files: they are a `numpy.memmap`, or
    `gpunn.data.matrices.Rows` of one after `split`, which also give rows as arrays.
    """

    name: str
    inputs: Matrix
    labels: NDArray[np.int64]
    test_inputs: Matrix | None = None
    test_labels: NDArray[np.int64] | None = None
    value_range: tuple[float, float] | None = None
    image_shape: tuple[int, int] | None = None
    description: str = ""
    sample_weight: NDArray[Any] | None = None

    @property
    def n_features(self) -> int:
        """Number of values in one input."""
        return int(self.inputs.shape[1])

    @property
    def stays_on_disk(self) -> bool:
        """Whether the inputs are larger than the memory, and stay in their files."""
        return stays_on_disk(self.inputs)

    @property
    def n_classes(self) -> int:
        """One more than the largest label, in training and test samples together."""
        tested = -1 if self.test_labels is None else int(self.test_labels.max(initial=-1))
        return max(int(self.labels.max(initial=-1)), tested) + 1

    def split(self, test_fraction: float, seed: int) -> Self:
        """Return this data set with a part held out for testing, class by class.

        Both parts are in random order and hold each class in about the same proportion; a class
        of two samples or more has at least one in each. Equal seeds give equal parts.

        Parameters
        ----------
        test_fraction : float
            Part of the samples to hold out, between 0 and 1, both excluded.
        seed : int
            Seed of the random order.

        Returns
        -------
        Dataset
            This very object if it has a test part already.

        Raises
        ------
        ParameterError
            If `test_fraction` is not between 0 and 1.
        DataError
            If no class has two samples, so that nothing can be held out.
        """
        if not 0 < test_fraction < 1:
            raise ParameterError(f"test_fraction must be between 0 and 1, got {test_fraction}")
        if self.test_labels is not None:
            return self
        order = np.random.default_rng(seed).permutation(len(self.labels))
        held_out = _choose_from_each_class(self.labels, order, test_fraction)
        if not held_out.any():
            raise DataError(f"{self.name}: no class has two samples, so none can be held out")
        train, test = order[~held_out[order]], order[held_out[order]]
        return replace(
            self,
            inputs=select(self.inputs, train),
            labels=self.labels[train],
            test_inputs=select(self.inputs, test),
            test_labels=self.labels[test],
            sample_weight=None if self.sample_weight is None else self.sample_weight[train],
        )


def load_dataset(data: str, data_dir: FilePath | None = None) -> Dataset:
    """Load a data set by its name, or from files.

    Parameters
    ----------
    data : str
        ``digits`` (comes with gpunn), ``mnist`` or ``fashion-mnist``; or the path of a ``.csv``
        or ``.csv.gz`` or a ``.parquet`` file (label first), an ``.npz`` file or a folder of IDX
        files; or
        ``X.npy,y.npy``, two paths with a comma between them.
    data_dir : path, optional
        Folder that holds ``mnist`` and ``fashion-mnist``, each a folder of IDX files. Without
        it, the folder that the environment variable ``GPUNN_DATA_DIR`` names is looked into;
        what is not there is downloaded once and kept.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If there is no such data set, it cannot be downloaded, or a file of it is bad.
    """
    if data == "digits":
        return load_digits()
    if data in _SOURCES:
        return _load_known(data, data_dir)
    if os.path.isdir(data):
        return read_idx_folder(data)
    if "," in data and not os.path.exists(data):
        inputs_path, labels_path = data.split(",", 1)
        return read_npy_pair(inputs_path, labels_path)
    if is_table(data):
        return read_parquet(data) if data.endswith(".parquet") else read_csv(data)
    if data.endswith(".npz"):
        return read_npz(data)
    known = "digits, " + ", ".join(_SOURCES)
    what = "a file of unknown kind" if os.path.exists(data) else "neither a data set nor a path"
    raise DataError(
        f"{data!r} is {what}; expected {known}, a .csv, .csv.gz, .parquet or .npz file, "
        "X.npy,y.npy, or a folder of IDX files"
    )


def load_digits() -> Dataset:
    """Return the 1797 handwritten digits of 8 x 8 pixels, 0 to 16, that come with gpunn.

    They are the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and
    C. Kaynak (1998), UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, under the
    licence CC BY 4.0, in the order and form in which scikit-learn has them.
    """
    # Imported here because it costs as much as a third of NumPy.
    import importlib.resources

    resource = importlib.resources.files("gpunn.data").joinpath("digits.npz")
    with resource.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        images, labels = archive["inputs"], archive["labels"]
    return Dataset(
        name="digits",
        inputs=images.reshape(len(images), -1),
        labels=labels.astype(np.int64),
        value_range=(0.0, 16.0),
        image_shape=images.shape[1:],
        description="Optical Recognition of Handwritten Digits, UCI, CC BY 4.0",
    )


def read_csv(path: FilePath) -> Dataset:
    """Read a data set from a CSV file: each line the label, then the inputs.

    Whole numbers that run from 0 to 255 are taken as 8-bit pixels: they become uint8, and a
    square number of them an image. See `gpunn.data.readers.read_csv_table` for what a line may hold
    and for the errors.
    """
    return _of_table(path, read_csv_table(path), f"CSV file {path}")


def read_parquet(path: FilePath) -> Dataset:
    """Read a data set from a Parquet file: the first column the label, then the inputs.

    Bytes are told from other numbers as in `read_csv`. See
    `gpunn.data.parquet_files.parquet_chunks` for what a column may hold and for the errors.
    """
    if not table_fits(path):
        raise DataError(
            f"{path}: holds more data than this machine has memory for; read it in chunks "
            "(gpunn.data.table_chunks)"
        )
    return _of_table(path, np.concatenate(list(parquet_chunks(path))), f"Parquet file {path}")


def is_table(path: FilePath) -> bool:
    """Whether a file is a table by its name: one that can be read in chunks."""
    return os.fspath(path).endswith((".csv", ".csv.gz", ".parquet"))


def table_fits(path: FilePath) -> bool:
    """Whether a CSV or Parquet file fits the memory twice, going by its beginning or its header.

    Raises
    ------
    DataError
        If it is missing or damaged.
    """
    is_parquet = os.fspath(path).endswith(".parquet")
    return fits(parquet_bytes(path) if is_parquet else csv_bytes(path))


def table_chunks(path: FilePath, *, labelled: bool = True) -> Iterator[NDArray[np.float64]]:
    """Read a CSV or Parquet file some rows at a time, however long it is.

    Parameters
    ----------
    path : path
        The file: ``.csv``, ``.csv.gz`` or ``.parquet``.
    labelled : bool
        Whether the first column must be a label.

    Yields
    ------
    array of float64, shape (n, n_columns)
        The next rows, label first.

    Raises
    ------
    DataError
        If the file is bad; the message says where.
    """
    is_parquet = os.fspath(path).endswith(".parquet")
    return (parquet_chunks if is_parquet else csv_chunks)(path, labelled=labelled)


def _of_table(path: FilePath, table: NDArray[np.float64], description: str) -> Dataset:
    inputs: NDArray[Any] = table[:, 1:]
    inputs = inputs.astype(np.uint8) if are_bytes(inputs) else np.ascontiguousarray(inputs)
    return _dataset(path, [("inputs", inputs), ("labels", table[:, 0])], description)


def read_npz(path: FilePath) -> Dataset:
    """Read a data set from an .npz file.

    Its arrays are named ``x_train``, ``y_train`` and perhaps ``x_test``, ``y_test`` as in Keras,
    or ``X`` and ``y``, or ``inputs`` and ``labels``. Inputs of shape (n, rows, columns) are
    images.

    Raises
    ------
    DataError
        If the file cannot be read, or the arrays are not inputs with their labels.
    """
    return _dataset(path, read_npz_arrays(path), f"NumPy file {path}")


def read_npy_pair(inputs_path: FilePath, labels_path: FilePath) -> Dataset:
    """Read a data set from two .npy files, one of inputs and one of labels.

    Raises
    ------
    DataError
        If a file cannot be read, or the arrays are not inputs with their labels.
    """
    arrays = [(os.fspath(path), read_npy(path)) for path in (inputs_path, labels_path)]
    description = f"NumPy files {inputs_path} and {labels_path}"
    return _dataset(inputs_path, arrays, description, in_one_place=False)


def read_idx_folder(folder: FilePath) -> Dataset:
    """Read a data set from a folder of IDX files, named as those of MNIST are.

    ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte`` must be there, the pair that
    starts with ``t10k`` may be; each with ``.gz`` at the end or without.

    Raises
    ------
    DataError
        If a file is missing or bad, or images and labels do not match.
    """
    files = [_find_idx_file(folder, stem) for stem in _IDX_STEMS]
    if not any(files[2:]):
        del files[2:]
    for stem, file in zip(_IDX_STEMS, files, strict=False):
        if file is None:
            raise DataError(f"{folder}: expected the file {stem}-ubyte.gz (or without .gz) in it")
    arrays = [(file.name, read_idx(file)) for file in files if file is not None]
    dataset = _dataset(folder, arrays, f"IDX files in {folder}")
    return replace(dataset, value_range=_BYTE_RANGE) if arrays[0][1].dtype == np.uint8 else dataset


def _dataset(
    path: FilePath,
    arrays: list[tuple[str, NDArray[Any]]],
    description: str,
    *,
    in_one_place: bool = True,
) -> Dataset:
    """Make a checked data set of named arrays: inputs, labels and perhaps the same for testing.

    They are in the file or folder `path`, or else each has the name of its own file.
    """
    within = f"{path}: " if in_one_place else ""
    checked: list[NDArray[Any]] = []
    for (inputs_name, inputs), (labels_name, labels) in zip(arrays[::2], arrays[1::2], strict=True):
        checked.append(check_inputs(inputs, within + inputs_name))
        checked.append(check_labels(labels, within + labels_name))
        if len(inputs) != len(labels):
            raise DataError(
                f"{within}{inputs_name} has {len(inputs)} samples but {labels_name} has "
                f"{len(labels)}; there must be one label for each"
            )
    if len({inputs.shape[1] for inputs in checked[::2]}) > 1:
        raise DataError(
            f"{within}{arrays[0][0]} has {checked[0].shape[1]} features but {arrays[2][0]} has "
            f"{checked[2].shape[1]}; both must have the same"
        )
    value_range = _BYTE_RANGE if are_bytes(checked[0]) else None
    image_shape = image_shape_of(arrays[0][1].shape[1:], guess=value_range is not None)
    test_inputs, test_labels = checked[2:] or (None, None)
    return Dataset(
        os.path.basename(os.path.abspath(path)),
        checked[0],
        checked[1],
        test_inputs,
        test_labels,
        value_range=value_range,
        image_shape=image_shape,
        description=description,
    )


def image_shape_of(shape: tuple[int, ...], *, guess: bool) -> tuple[int, int] | None:
    """Return rows and columns of inputs of a shape that are images; a square may be guessed."""
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 1):
        return int(shape[0]), int(shape[1])
    side = math.isqrt(shape[0])
    return (side, side) if guess and shape == (side * side,) else None


def _choose_from_each_class(
    labels: NDArray[np.int64], order: NDArray[np.intp], fraction: float
) -> NDArray[np.bool_]:
    """Mark about that fraction of each class, those of it that come first in `order`."""
    by_class = order[np.argsort(labels[order], kind="stable")]
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    wanted = np.minimum(np.maximum(np.rint(counts * fraction), 1), counts - 1)
    rank_in_class = np.arange(len(labels)) - np.repeat(starts, counts)
    chosen = np.zeros(len(labels), np.bool_)
    chosen[by_class] = rank_in_class < np.repeat(wanted, counts)
    return chosen


def _load_known(name: str, data_dir: FilePath | None) -> Dataset:
    """Load MNIST or Fashion-MNIST from the caller's folder, else from the cache."""
    root = os.environ.get(DATA_DIR_VARIABLE) if data_dir is None else data_dir
    folder = Path(root or "", name)
    is_there = bool(root) and os.path.isdir(folder)
    if data_dir is not None and not is_there:
        raise DataError(
            f"{folder}: no such folder; expected {_IDX_STEMS[0]}-ubyte.gz and the other three "
            f"files of {name} in it"
        )
    if not is_there:
        folder = _download(name)
    dataset = read_idx_folder(folder)
    if dataset.n_classes > 10:
        raise DataError(f"{folder}: a label is {dataset.n_classes - 1}; {name} has 0 to 9 only")
    return replace(dataset, name=name, description=f"{_SOURCES[name].title}, {folder}")


def _find_idx_file(folder: FilePath, stem: str) -> Path | None:
    candidates = (Path(folder, f"{stem}-ubyte"), Path(folder, f"{stem}-ubyte.gz"))
    return next((file for file in candidates if os.path.isfile(file)), None)


def _download(name: str) -> Path:
    """Return the folder that holds the files of a known data set, fetching those not there yet."""
    import pooch  # here, because only a download needs it and the import takes a while

    source = _SOURCES[name]
    folder = Path(pooch.os_cache("gpunn"), name)
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        for stem, checksum in zip(_IDX_STEMS, source.checksums, strict=True):
            file = f"{stem}-ubyte.gz"
            pooch.retrieve(source.url + file, checksum, fname=file, path=folder)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name}: cannot download {source.url}{file} ({_why_no_download(error)}); "
            f"put the files into a folder D/{name} and say --data-dir D"
        ) from None
    finally:
        logger.setLevel(level)
    return folder


def _why_no_download(error: Exception) -> str:
    """Say in a few words what stopped pooch, whose own messages fill several lines."""
    if not isinstance(error, OSError):
        return "its checksum is wrong"
    # Errors of requests, through which pooch downloads, carry the server's answer, or None.
    response: Any = getattr(error, "response", error)
    if response is None:
        return "no connection"
    if response is not error:
        response.close()  # which pooch forgets when the answer is, say, "404 not found"
    return one_line(error)
