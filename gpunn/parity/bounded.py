"""Numbers that are known within bounds, and what rounding does to them on some device."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

Values = NDArray[Any]

FACTOR_ROUNDOFF = {"fp32": 0.0, "tf32": 2.0**-10, "bf16": 2.0**-7}
"""How far, relative to their size, the factors of a product may be changed.

Twice the unit roundoff of 11 and 8 significant bits: NVIDIA does not say whether factors are
rounded to the nearest number or cut off.
"""


BFLOAT16_ROUNDOFF = 2.0**-8
"""How far, relative to its size, rounding to the nearest of 8 significant bits changes a number."""


class Arithmetic(NamedTuple):
    """What rounding may do to a number, relative to its size, each time.

    Attributes
    ----------
    unit : float
        The unit roundoff u of an operation's result, half the distance from 1 to the next number.
    factor : float
        That of the factors of a matrix product; 0 where they are taken as they are.
    kept : float
        That of what samples, activations and deltas are kept in; 0 where that is the network's own
        dtype.
    """

    unit: float
    factor: float = 0.0
    kept: float = 0.0

    @classmethod
    def of(cls, dtype: DTypeLike, precision: str = "fp32") -> "Arithmetic":
        """Return a device's arithmetic, for networks of that dtype."""
        kept = BFLOAT16_ROUNDOFF if precision == "bf16" else 0.0
        return cls(float(np.finfo(dtype).eps) / 2, FACTOR_ROUNDOFF[precision], kept)

    def beside(self, other: "Arithmetic") -> "Arithmetic":
        """Return what makes the bounds those of the difference between two devices."""
        return Arithmetic(*(ours + theirs for ours, theirs in zip(self, other, strict=True)))


class Bounded:
    """An array of numbers that are known within bounds.

    Attributes
    ----------
    values : ndarray of float64
        The numbers, computed in float64.
    errors : ndarray of float64
        How far a device's numbers may be from them, or two devices' numbers from each other.
    dtype : numpy.dtype
        What the devices hold them in.
    """

    __slots__ = ("dtype", "errors", "values")

    def __init__(self, values: Values, errors: Values, dtype: DTypeLike) -> None:
        self.values, self.errors, self.dtype = values, errors, np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an ndarray; so are the others."""
        return self.values.shape

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.values.ndim

    @property
    def size(self) -> int:
        """The number of numbers."""
        return self.values.size

    @property
    def strides(self) -> tuple[int, ...]:
        """The distances in memory."""
        return self.values.strides

    @property
    def flags(self) -> Any:
        """Whether it is contiguous."""
        return self.values.flags

    def __getitem__(self, key: Any) -> "Bounded":
        return Bounded(self.values[key], self.errors[key], self.dtype)

    def reshape(self, *shape: Any) -> "Bounded":
        """Return the same memory in another shape."""
        return Bounded(self.values.reshape(*shape), self.errors.reshape(*shape), self.dtype)
