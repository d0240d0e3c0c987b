"""What a model's record says of the pictures that it takes."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from gpunn.data.picture_fields import BOX

AS_THEY_ARE = "as they are"
"""What a model's record says of pictures if those that it was trained on came from a folder."""

AS_DIGITS = "as digits"
"""The same if it was trained on the digits that come with gpunn."""

SMALLEST_SIDE = 8
"""Fewer inputs are taken for measurements, even if their number is a square."""


class PictureField(NamedTuple):
    """What a network takes for a picture.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns.
    box : float or None
        How much of them ink may take; None if pictures stay as they are.
    low, high : float
        The values of black and of white.
    like : str
        Whose pictures were prepared like that.
    is_guessed : bool
        Whether the size is a guess, because the number of inputs is a square.
    """

    shape: tuple[int, int]
    box: float | None
    low: float
    high: float
    like: str
    is_guessed: bool = False

    @property
    def note(self) -> str | None:
        """A line that says what was guessed, if something was."""
        if not self.is_guessed:
            return None
        rows, columns = self.shape
        return (
            f"the model's file does not say what its {rows * columns:,} inputs are; they are taken "
            f"for {columns} x {rows} pixels, because their number is a square"
        )


def picture_field(record: Mapping[str, Any], n_inputs: int) -> PictureField | None:
    """Return what a network takes for a picture; None if its inputs are no pixels.

    Parameters
    ----------
    record : mapping
        What the network's file says of its training. It may hold anything.
    n_inputs : int
        How many inputs the network has. Without a size in the record, a square number of them is
        taken for the pixels of a square, which `PictureField.note` says.
    """
    ends = _pair(record.get("value_range"))
    said = _shape(record.get("image_shape"))
    shape = said or _square(n_inputs)
    if shape is None or shape[0] * shape[1] != n_inputs:
        return None
    is_digits = record.get("pictures") == AS_DIGITS or record.get("data") == "digits"
    low, high = ends or ((0, 16) if is_digits else (0, 255))
    # The digits that come with gpunn fill all of their 8 x 8 pixels.
    box = None if record.get("pictures") == AS_THEY_ARE else 1.0 if is_digits else BOX
    like = "the digits'" if is_digits else "MNIST's"
    return PictureField(shape, box, low, high, like, is_guessed=said is None)


def _square(n_inputs: int) -> tuple[int, int] | None:
    side = math.isqrt(n_inputs)
    return (side, side) if side >= SMALLEST_SIDE and side * side == n_inputs else None


def _shape(value: object) -> tuple[int, int] | None:
    rows, columns = _pair(value) or (0, 0)
    is_shape = isinstance(rows, int) and isinstance(columns, int) and min(rows, columns) > 0
    return (int(rows), int(columns)) if is_shape else None


def _pair(value: object) -> tuple[float, float] | None:
    """Return two numbers, if it is a list of them."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    if not all(isinstance(item, int | float) and math.isfinite(item) for item in value):
        return None
    return value[0], value[1]
