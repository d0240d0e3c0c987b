"""From raw values to what a network trains on, and from class labels to targets.

A sigmoid network learns best from inputs of about the size of one and, in the textbook's words,
from targets that its output can reach. Both are plain affine maps. They belong to the trained
network as much as its weights do: a model that is asked about raw values later must scale them
exactly as it did in training, so a `Scaling` can be written into a model file and read back.
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gpunn.data.labels import TargetRows
from gpunn.data.matrices import Matrix, Rows, blocks
from gpunn.errors import DataError, ModelFileError, ParameterError, ShapeError

Coefficients = float | NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scaling:
    """The scaling ``x * scale + shift`` of inputs, and the two target values.

    Parameters
    ----------
    scale, shift : float or array of float64, shape (n_features,)
        One number for all features, or one for each.
    target_low, target_high : float
        Target value of an output for "not this class", and for "this class".

    Raises
    ------
    ParameterError
        If a number is not finite, or `target_low` is not below `target_high`.
    ShapeError
        If `scale` or `shift` has more than one dimension, or their lengths differ.
    """

    scale: Coefficients = 1.0
    shift: Coefficients = 0.0
    target_low: float = 0.0
    target_high: float = 1.0

    def __post_init__(self) -> None:
        for name in ("scale", "shift"):
            object.__setattr__(self, name, _coefficients(getattr(self, name), name))
        for name in ("target_low", "target_high"):
            object.__setattr__(self, name, _finite_float(getattr(self, name), name))
        if not self.target_low < self.target_high:
            raise ParameterError(
                f"target_low must be below target_high, got {self.target_low:g} "
                f"and {self.target_high:g}"
            )
        lengths = {np.size(c) for c in (self.scale, self.shift) if isinstance(c, np.ndarray)}
        if len(lengths) > 1:
            raise ShapeError(
                f"scale has {np.size(self.scale)} features but shift has {np.size(self.shift)}"
            )

    @classmethod
    def identity(cls, *, target_low: float = 0.0, target_high: float = 1.0) -> Self:
        """Return the scaling that leaves inputs as they are."""
        return cls(1.0, 0.0, target_low, target_high)

    @classmethod
    def to_range(
        cls,
        minimum: float,
        maximum: float,
        low: float = 0.0,
        high: float = 1.0,
        *,
        target_low: float = 0.0,
        target_high: float = 1.0,
    ) -> Self:
        """Return the scaling that takes `minimum` to `low` and `maximum` to `high`.

        Raises
        ------
        ParameterError
            If a number is not finite, or `minimum` is not below `maximum`.
        """
        minimum, maximum = _finite_float(minimum, "minimum"), _finite_float(maximum, "maximum")
        if not minimum < maximum:
            raise ParameterError(f"minimum must be below maximum, got {minimum:g} and {maximum:g}")
        scale = (high - low) / (maximum - minimum)
        return cls(scale, low - minimum * scale, target_low, target_high)

    @classmethod
    def per_feature(
        cls,
        inputs: ArrayLike | Rows,
        low: float = 0.0,
        high: float = 1.0,
        *,
        target_low: float = 0.0,
        target_high: float = 1.0,
    ) -> Self:
        """Return the scaling that takes each feature of `inputs` to the range `low` to `high`.

        A feature that is constant in `inputs` always becomes `low`, whatever its value later.

        Parameters
        ----------
        inputs : array of numbers, shape (n_samples, n_features)
            The training inputs.
        low, high : float
            What the smallest and the largest value of each feature become.
        target_low, target_high : float
            As in `Scaling`.

        Raises
        ------
        ShapeError
            If `inputs` is not a non-empty two-dimensional array of numbers.
        DataError
            If `inputs` holds NaN or infinity.
        ParameterError
            If `low` or `high` is not finite.
        """
        low, high = _finite_float(low, "low"), _finite_float(high, "high")
        smallest, largest = extremes(_numbers(inputs))
        scale = _divide_or_zero(high - low, largest - smallest)
        return cls(scale, low - smallest * scale, target_low, target_high)

    @classmethod
    def standard(
        cls, inputs: ArrayLike | Rows, *, target_low: float = 0.0, target_high: float = 1.0
    ) -> Self:
        """Return the scaling that gives each feature of `inputs` mean 0 and variance 1.

        A feature that is constant in `inputs` always becomes 0, whatever its value later.

        Parameters
        ----------
        inputs : array of numbers, shape (n_samples, n_features)
            The training inputs.
        target_low, target_high : float
            As in `Scaling`.

        Raises
        ------
        ShapeError
            If `inputs` is not a non-empty two-dimensional array of numbers.
        DataError
            If `inputs` holds NaN or infinity.
        """
        array = _numbers(inputs)
        smallest, largest = extremes(array)
        if isinstance(array, Rows):
            mean = np.zeros(array.shape[1])
            for rows in blocks(array):
                mean += array[rows].sum(axis=0, dtype=np.float64)
            mean /= len(array)
        else:
            mean = np.mean(array, axis=0, dtype=np.float64)
        squares = np.zeros_like(mean)
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in blocks(array):
                squares += np.square(array[rows] - mean).sum(axis=0)
        if not np.isfinite(squares).all():
            feature = int(np.argmin(np.isfinite(squares)))
            raise DataError(
                f"feature {feature} of the inputs is too large for its variance to be a number: "
                "divide it by a power of 10"
            )
        # The mean of equal values may be off by a rounding error, which would look like a spread.
        deviation = np.where(smallest == largest, 0.0, np.sqrt(squares / len(array)))
        scale = _divide_or_zero(1.0, deviation)
        return cls(scale, -mean * scale, target_low, target_high)

    @property
    def n_features(self) -> int | None:
        """Number of features that inputs must have; None if any number will do."""
        for coefficients in (self.scale, self.shift):
            if isinstance(coefficients, np.ndarray):
                return coefficients.size
        return None

    def apply(self, inputs: ArrayLike | Rows, dtype: DTypeLike) -> NDArray[Any]:
        """Return ``inputs * scale + shift`` as a new C-contiguous array.

        Parameters
        ----------
        inputs : array of numbers, shape (n_samples, n_features)
            Raw values, of any integer or floating type. They are not changed.
        dtype : data type
            Type of the result. Each value is computed in float64 and rounded once, a block of rows
            at a time, so there is never a float64 copy of all inputs.

        Returns
        -------
        array of `dtype`, shape (n_samples, n_features)

        Raises
        ------
        ShapeError
            If `inputs` is not a two-dimensional array of numbers, or its number of features differs
            from that of the scaling.
        """
        array = self._checked(inputs)
        scaled = np.empty(array.shape, dtype)
        for rows in blocks(array):
            block = np.multiply(array[rows], self.scale, dtype=np.float64)
            block += self.shift
            scaled[rows] = block
        return scaled

    def rows(self, inputs: ArrayLike | Rows, dtype: DTypeLike) -> "ScaledRows":
        """Return what `apply` returns, but compute rows only when they are read.

        Raises
        ------
        ShapeError
            As `apply` does.
        """
        return ScaledRows(self, self._checked(inputs), dtype)

    def _checked(self, inputs: ArrayLike | Rows) -> Matrix:
        array = _numbers(inputs, may_be_empty=True)
        if self.n_features not in (None, array.shape[1]):
            raise ShapeError(
                f"inputs have {array.shape[1]} features, but this scaling was made for "
                f"{self.n_features}"
            )
        return array

    def encode_labels(self, labels: ArrayLike, n_classes: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return one row of targets for each label: `target_high` at the label, else `target_low`.

        Parameters
        ----------
        labels : array of whole numbers, shape (n_samples,)
            Class numbers from 0 to ``n_classes - 1``.
        n_classes : int
            Number of classes.
        dtype : data type
            Type of the result.

        Returns
        -------
        array of `dtype`, shape (n_samples, n_classes)

        Raises
        ------
        DataError
            If a label is not a whole number in that range; the message names it and its position.
        ShapeError
            If `labels` is not one-dimensional.
        """
        return np.asarray(TargetRows(self, labels, n_classes, dtype))

    def to_dict(self) -> dict[str, float | list[float]]:
        """Return a dict that JSON can hold; `from_dict` gives back an equal `Scaling`."""
        return {
            "scale": _plain(self.scale),
            "shift": _plain(self.shift),
            "target_low": self.target_low,
            "target_high": self.target_high,
        }

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """Make a `Scaling` from what `to_dict` returned, trusting nothing in it.

        Raises
        ------
        ModelFileError
            If `values` is not such a dict, or a number in it is missing, of the wrong type, not
            finite, or does not fit the others.
        """
        names = ("scale", "shift", "target_low", "target_high")
        if not isinstance(values, dict) or set(values) != set(names):
            raise ModelFileError(f"scaling: expected a dict with exactly the keys {names}")
        for name in names:
            value = values[name]
            numbers = value if isinstance(value, list) and name in ("scale", "shift") else [value]
            # bool is an int to Python, but no one wrote `true` where a number was meant.
            if not numbers or any(type(number) not in (int, float) for number in numbers):
                raise ModelFileError(f"scaling: {name!r} must be a number or a list of numbers")
        try:
            return cls(**values)
        except (ParameterError, ShapeError, OverflowError) as error:
            raise ModelFileError(f"scaling: {error}") from None

    def describe(self) -> str:
        """Return one line for a person."""
        targets = f"targets {self.target_low:g} and {self.target_high:g}"
        return f"{self.describe_inputs()}; {targets}"

    def describe_inputs(self) -> str:
        """Return what becomes of inputs, for a person."""
        if self.n_features is not None:
            return f"{self.n_features} features, each with its own scale and shift"
        if (self.scale, self.shift) == (1.0, 0.0):
            return "inputs as they are"
        return f"inputs * {self.scale:.6g} + {self.shift:.6g}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scaling):
            return NotImplemented
        return (
            np.array_equal(self.scale, other.scale)
            and np.array_equal(self.shift, other.shift)
            and self.target_low == other.target_low
            and self.target_high == other.target_high
        )

    def __hash__(self) -> int:
        return hash((self.n_features, self.target_low, self.target_high))


class ScaledRows(Rows):
    """Scaled inputs, made by `Scaling.rows`."""

    def __init__(self, scaling: Scaling, inputs: Matrix, dtype: DTypeLike) -> None:
        super().__init__((inputs.shape[0], inputs.shape[1]), dtype)
        self._scaling, self._inputs = scaling, inputs

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        return self._scaling.apply(self._inputs[rows], self.dtype)


def _finite_float(value: Any, name: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ParameterError(f"{name} must be finite, got {number}")
    return number


def _coefficients(value: Any, name: str) -> Coefficients:
    """Return a float, or a float64 array that nobody can change afterwards."""
    if np.ndim(value) == 0:
        return _finite_float(value, name)
    array = np.array(value, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise ShapeError(f"{name} must be a number or have shape (n_features,), got {array.shape}")
    finite = np.isfinite(array)
    if not finite.all():
        feature = int(np.argmin(finite))
        raise ParameterError(f"{name} must be finite, got {array[feature]} for feature {feature}")
    array.flags.writeable = False
    return array


def _plain(value: Coefficients) -> float | list[float]:
    return [float(number) for number in value] if isinstance(value, np.ndarray) else value


def _numbers(inputs: ArrayLike | Rows, *, may_be_empty: bool = False) -> Matrix:
    array = inputs if isinstance(inputs, Rows) else np.asarray(inputs)
    if array.ndim != 2:
        raise ShapeError(f"inputs must have shape (n_samples, n_features), got {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ShapeError(f"inputs must be numbers, got dtype {array.dtype}")
    if not array.size and not may_be_empty:
        raise ShapeError(f"inputs of shape {array.shape} hold no values to compute a scaling from")
    return array


def extremes(array: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each feature's smallest and largest value, which NaN or infinity cannot hide from."""
    if isinstance(array, Rows):
        smallest = np.full(array.shape[1], np.inf)
        largest = -smallest
        for rows in blocks(array):
            low, high = extremes(array[rows])
            np.minimum(smallest, low, out=smallest)
            np.maximum(largest, high, out=largest)
        return smallest, largest
    smallest, largest = (e.astype(np.float64) for e in (array.min(axis=0), array.max(axis=0)))
    finite = np.isfinite(smallest) & np.isfinite(largest)
    if not finite.all():
        feature = int(np.argmin(finite))
        raise DataError(f"feature {feature} of the inputs holds NaN or infinity; remove it first")
    return smallest, largest


def _divide_or_zero(numerator: float, denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    quotient = np.zeros_like(denominator)
    # A spread below the smallest normal number counts as none: its inverse would overflow.
    usable = denominator > np.finfo(np.float64).tiny
    return np.divide(numerator, denominator, out=quotient, where=usable)
