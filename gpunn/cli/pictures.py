"""Pictures of anyone's as inputs of a saved network."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.cli.console import Console
from gpunn.data.files import check_fits
from gpunn.data.picture_fields import box_shape, place
from gpunn.data.picture_folders import PictureFiles, find_pictures, read_alike
from gpunn.data.picture_records import PictureField
from gpunn.data.pictures import read_picture
from gpunn.errors import DataError
from gpunn.network import Network
from gpunn.network.picture_inputs import picture_field_of


class Pictures(NamedTuple):
    """Pictures as a network takes them, before its scaling: a row for each file."""

    files: PictureFiles
    inputs: NDArray[Any]


def read_pictures(data: str, network: Network, console: Console) -> Pictures:
    """Return the pictures that a path names as inputs of a network, and say what was done to them.

    Parameters
    ----------
    data : str
        A picture, a folder of pictures, or one with a sub-folder of pictures for each class.
    network : Network
        Its record tells the size, and whether the pictures that it knows are like MNIST's.
    console : Console
        Takes the lines.

    Raises
    ------
    DataError
        If a picture is damaged or empty, or the network does not take pictures.
    MissingPackageError
        If Pillow is not installed.
    """
    field = _field_of(network, data)
    if field.note is not None:
        console.say(f"pictures: {field.note}")
    files = find_pictures(data)
    values = _whole(files, field) if field.box is None else _placed(files, field, console)
    for note in files.notes:
        console.say(note)
    if (field.low, field.high) == (0, 255):
        return Pictures(files, values)
    return Pictures(files, field.low + values * ((field.high - field.low) / 255))


def _field_of(network: Network, data: str) -> PictureField:
    field = picture_field_of(network)
    if field is None:
        raise DataError(
            f"{data}: is a picture, or a folder of them, but the model takes {network.n_inputs} "
            "numbers that are no pixels; use data like those that it was trained on"
        )
    return field


def _whole(files: PictureFiles, field: PictureField) -> NDArray[np.uint8]:
    inputs, (rows, columns) = read_alike(files)
    if (rows, columns) != field.shape:
        raise DataError(
            f"{files.root / files.names[0]}: has {columns} x {rows} pixels; expected "
            f"{_size(field.shape)}, as the pictures that the model was trained on have, so resize "
            "it"
        )
    return inputs


def _placed(files: PictureFiles, field: PictureField, console: Console) -> NDArray[np.uint8]:
    assert field.box is not None
    rows, columns = field.shape
    check_fits(files.root, 8 * rows * columns * len(files.names), "predict fewer at a time")
    inputs = np.empty((len(files.names), rows * columns), np.uint8)
    done = []
    for row, name in enumerate(files.names):
        path = files.root / name
        placed = place(read_picture(path), field.shape, field.box, path)
        inputs[row] = placed.values.reshape(-1)
        done.append((placed.was_inverted, placed.was_fitted))
    console.say(_what_was_done(done, field, field.box))
    return inputs


def _what_was_done(done: Sequence[tuple[bool, bool]], field: PictureField, box: float) -> str:
    """Say in a line what became of pictures that were, or were not, inverted and fitted."""
    n = len(done)
    n_inverted, n_fitted = (sum(column) for column in zip(*done, strict=True))
    if not n_fitted:
        return f"pictures: grey, and as they are: {_size(field.shape)} on a dark ground"
    line = "pictures: grey"
    if n_inverted:
        which = "" if n_inverted == n else f"{n_inverted:,} of {n:,} "
        line += f", {which}inverted because the ground is light"
    line += (
        f", ink fitted into {_size(box_shape(field.shape, box))} and centred in "
        f"{_size(field.shape)}, as {field.like} are"
    )
    if n_fitted < n:
        line += (
            f"; {n - n_fitted:,} of {n:,} were {_size(field.shape)} on a dark ground and stay as "
            "they are"
        )
    return line


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]}"
