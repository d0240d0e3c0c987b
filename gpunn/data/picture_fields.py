"""A picture of anyone's in the middle of a field of pixels, as the digits of MNIST are."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.data.files import FilePath
from gpunn.errors import DataError

BOX = 20 / 28
"""MNIST's digits fit into 20 x 20 pixels, in the middle of 28 x 28."""

INK = 0.3
"""What stands out from the ground by less than this part of the contrast is not ink: paper is not
of one grey, and a JPEG file has waves around each stroke."""

Grey = NDArray[np.uint8]


class Placed(NamedTuple):
    """A picture in its field, and what was done to it.

    Attributes
    ----------
    values : array of uint8, shape (rows, columns)
        Bright ink on a black ground.
    was_inverted, was_fitted : bool
        Whether the ground had been light, and whether the ink was fitted into a box and centred.
    """

    values: Grey
    was_inverted: bool
    was_fitted: bool


def place(picture: Grey, shape: tuple[int, int], box: float, where: FilePath) -> Placed:
    """Return a picture as ink in the middle of a field, prepared as MNIST's digits were.

    The ground, told by the border, becomes black. The ink is cut out, made to fit a box with its
    proportions kept, and put where its centre of mass is the centre of the field. A picture that
    has the size of the field and a dark ground stays as it is.

    Parameters
    ----------
    picture : array of uint8, shape (height, width)
        Grey values.
    shape : (int, int)
        Rows and columns of the field.
    box : float
        How much of the field's rows and columns the ink may take: above 0, up to 1.
    where : path
        The picture's file, for the error.

    Returns
    -------
    Placed

    Raises
    ------
    DataError
        If all of the picture has the same grey.

    References
    ----------
    Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits".
    """
    low, high = int(picture.min()), int(picture.max())
    if low == high:
        raise DataError(
            f"{where}: nothing is on it, for all of it has the same grey; expected something drawn "
            "on a plain ground"
        )
    ground = _ground(picture)
    is_light = ground > (low + high) / 2
    if picture.shape == shape and not is_light:
        return Placed(picture, False, False)
    strongest = low if is_light else high
    ink_of_grey = np.clip((np.arange(256) - ground) / (strongest - ground), 0, 1)
    cut = _cut_out(picture, ink_of_grey > INK)
    ink = _fitted(ink_of_grey.astype(np.float32)[cut], shape, box)
    return Placed(_centred(ink, shape), is_light, True)


def box_shape(shape: tuple[int, int], box: float) -> tuple[int, int]:
    """Return the rows and columns that ink may take in a field."""
    return max(1, round(shape[0] * box)), max(1, round(shape[1] * box))


def _ground(picture: Grey) -> float:
    border = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    return float(np.median(np.concatenate(border)))


def _cut_out(picture: Grey, is_ink: NDArray[np.bool_]) -> Grey:
    """Return the smallest rectangle that has all the ink, going by which greys are ink."""
    where = is_ink[picture]
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _fitted(ink: NDArray[np.float32], shape: tuple[int, int], box: float) -> NDArray[np.float64]:
    """Return ink at the largest size that fits the box, smoothed where it becomes smaller."""
    from PIL import Image

    most = box_shape(shape, box)
    factor = min(most[0] / ink.shape[0], most[1] / ink.shape[1])
    rows, columns = (max(1, round(side * factor)) for side in ink.shape)
    image = Image.fromarray(ink)
    resized = image.resize((columns, rows), Image.Resampling.BICUBIC)
    fitted = np.clip(np.asarray(resized, np.float64), 0, 1)
    fitted /= fitted.max()  # because thin lines have become faint
    return fitted


def _centred(ink: NDArray[np.float64], shape: tuple[int, int]) -> Grey:
    """Return a field with ink in it, as near to the middle as whole pixels allow."""
    field = np.zeros(shape, np.uint8)
    tops = []
    for axis, side in enumerate(shape):
        mass = ink.sum(axis=1 - axis)
        centre = mass @ np.arange(len(mass)) / mass.sum()
        # MNIST's centres of mass are, on average, at 14.0 of 0 to 27.
        # Of two places that are as near, the first.
        top = math.ceil(side / 2 - centre - 0.5 - 1e-9)
        tops.append(min(max(top, 0), side - len(mass)))
    (top, left), (rows, columns) = tops, ink.shape
    field[top : top + rows, left : left + columns] = np.rint(255 * ink)
    return field
