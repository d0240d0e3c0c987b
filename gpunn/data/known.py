"""Data sets that are known by name: the digits that come with gpunn, MNIST and Fashion-MNIST."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.data.datasets import Dataset
from gpunn.data.files import FilePath
from gpunn.data.idx_files import IDX_STEMS, read_idx_folder
from gpunn.errors import DataError, one_line

DATA_DIR_VARIABLE = "GPUNN_DATA_DIR"


@dataclass(frozen=True)
class Source:
    """Where a known data set is downloaded from, and the checksums of its files."""

    title: str
    url: str
    checksums: tuple[str, str, str, str]  # of the four files, in the order of `IDX_STEMS`


SOURCES = {
    "mnist": Source(
        "MNIST handwritten digits",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        (
            "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "fashion-mnist": Source(
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


def load_known(name: str, data_dir: FilePath | None) -> Dataset:
    """Load MNIST or Fashion-MNIST from the caller's folder, else from the cache."""
    root = os.environ.get(DATA_DIR_VARIABLE) if data_dir is None else data_dir
    folder = Path(root or "", name)
    is_there = bool(root) and os.path.isdir(folder)
    if data_dir is not None and not is_there:
        raise DataError(
            f"{folder}: no such folder; expected {IDX_STEMS[0]}-ubyte.gz and the other three "
            f"files of {name} in it"
        )
    if not is_there:
        folder = _download(name)
    dataset = read_idx_folder(folder, needs_train=True)
    if dataset.n_classes > 10:
        raise DataError(f"{folder}: a label is {dataset.n_classes - 1}; {name} has 0 to 9 only")
    return replace(dataset, name=name, description=f"{SOURCES[name].title}, {folder}")


def _download(name: str) -> Path:
    """Return the folder that holds the files of a known data set, fetching those not there yet."""
    import pooch  # here, because only a download needs it and the import takes a while

    source = SOURCES[name]
    folder = Path(pooch.os_cache("gpunn"), name)
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        for stem, checksum in zip(IDX_STEMS, source.checksums, strict=True):
            file = f"{stem}-ubyte.gz"
            pooch.retrieve(source.url + file, checksum, fname=file, path=folder)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name}: cannot download {source.url}{file} ({_why_no_download(error)}); "
            f"put the files into a folder D/{name} and use --data-dir D"
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
    where = f"{error.filename}: " if error.filename else ""
    return where + one_line(error, 120)
