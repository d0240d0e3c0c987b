"""What each sample counts: weights of samples, and of their classes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.data.labels import TargetRows
from gpunn.errors import DataError, ParameterError, ShapeError, one_line
from gpunn.network.frames import plain_values
from gpunn.training.loaders import Given

Values = NDArray[np.float64]
ClassWeight = Mapping[int, float] | str | None


class StepWeights(NamedTuple):
    """An epoch's weights: the sum in each step, and one for each sample in the epoch's order."""

    totals: Values
    of_samples: Values


class SampleWeights(NamedTuple):
    """What each sample's loss is multiplied by.

    Attributes
    ----------
    values : ndarray, shape (n,), float64
        The weights, in the order in which the samples were given.
    mean_in_step : bool
        Whether they are scaled so that their mean over each step is 1, as scikit-learn does; the
        gradient of a step is then divided by their sum, and not by the number of its samples.
    """

    values: Values
    mean_in_step: bool = False

    def in_epoch(self, order: NDArray[np.int64] | None, batch_size: int) -> StepWeights:
        """Return the weights of an epoch's steps."""
        weights = self.values if order is None else self.values[order]
        starts = np.arange(0, len(weights), batch_size)
        counts = np.diff(starts, append=len(weights))
        if not self.mean_in_step:
            return StepWeights(counts.astype(np.float64), weights)
        totals = np.add.reduceat(weights, starts)
        shares = np.divide(counts, totals, out=np.zeros_like(totals), where=totals != 0)
        return StepWeights(totals, weights * np.repeat(shares, counts))


def weights_of(
    given: Given,
    sample_weight: ArrayLike | None,
    class_weight: ClassWeight,
    dtype: np.dtype[Any],
) -> SampleWeights | None:
    """Return what each sample counts, or None if all count the same.

    Parameters
    ----------
    given : Given
        The samples.
    sample_weight : array_like, shape (n,), or None
        A weight for each sample.
    class_weight : mapping of int to float, "balanced" or None
        A weight for each class number; those that are not named count 1. "balanced" is
        ``n / (number of classes * samples of the class)``.

    dtype : dtype
        What the network computes in.

    Returns
    -------
    SampleWeights or None
        The product of both.

    Raises
    ------
    ParameterError
        If there are weights for a stream, or of classes for targets that are no class numbers; or a
        class does not exist.
    ShapeError
        If there is not one weight for each sample.
    DataError
        If a weight is negative, or not a finite number in that dtype, or all are 0.
    """
    if sample_weight is None and class_weight is None:
        return None
    if given.stream is not None:
        raise ParameterError(
            "sample_weight and class_weight need samples as arrays, got a Stream: give arrays, or "
            "repeat samples in the stream"
        )
    weights = np.ones(given.n_samples)
    if sample_weight is not None:
        weights = _checked(_array(sample_weight), "sample_weight", (given.n_samples,))
    if class_weight is not None:
        with np.errstate(over="ignore"):
            weights = weights * _of_classes(given, class_weight)
    with np.errstate(over="ignore", under="ignore"):
        as_used = weights.astype(dtype)
    if not np.isfinite(as_used).all():
        raise DataError(
            f"the weights must fit {dtype}, the largest is {weights.max():g}: divide them all by "
            "the same number"
        )
    if not as_used.any():
        raise DataError("all weights are 0: at least one sample must count")
    return SampleWeights(weights)


def _array(sample_weight: ArrayLike) -> NDArray[Any]:
    values = plain_values(sample_weight, "sample_weight")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ShapeError(f"sample_weight must be a list of numbers: {one_line(error)}") from error
    if np.ma.is_masked(sample_weight):
        raise DataError("sample_weight has masked values: give 0 for samples that are not to count")
    return array


def _checked(weights: NDArray[Any], name: str, shape: tuple[int, ...]) -> Values:
    if weights.shape != shape:
        raise ShapeError(f"{name} must have shape {shape}, one for each, got {weights.shape}")
    if weights.dtype.kind not in "biuf":
        raise DataError(f"{name} must be numbers, got an array of {weights.dtype}")
    good = np.isfinite(weights) & (weights >= 0)
    if not good.all():
        place = int(np.argmin(good))
        where = f" at {place}" if shape else ""
        raise DataError(f"{name} must be finite and at least 0, got {weights.flat[place]}{where}")
    return weights.astype(np.float64)


def _of_classes(given: Given, class_weight: ClassWeight) -> Values:
    """Return the weight of each sample's class."""
    balanced = isinstance(class_weight, str) and class_weight == "balanced"
    if not balanced and not isinstance(class_weight, Mapping):
        raise ParameterError(
            f"class_weight must be 'balanced' or a dict of class number to weight, "
            f"got {class_weight!r:.80}"
        )
    if not isinstance(given.targets, TargetRows):
        one = given.targets.shape[1] == 1
        instead = "sample_weight" if one else "argmax(axis=1) of them, or sample_weight"
        raise ParameterError(
            f"class_weight needs y as class numbers and an output for each class, got targets of "
            f"{given.targets.shape[1]} outputs: give {instead}"
        )
    labels, n_classes = given.targets.labels.astype(np.int64), given.targets.shape[1]
    if balanced:
        counts = np.bincount(labels, minlength=n_classes)
        share: Values = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        return share[labels]
    assert isinstance(class_weight, Mapping)
    factors = np.ones(n_classes)
    for number, weight in class_weight.items():
        if not isinstance(number, int | np.integer) or not 0 <= number < n_classes:
            raise ParameterError(
                f"class_weight has a weight for {number!r:.40}: expected class numbers from 0 to "
                f"{n_classes - 1}"
            )
        factors[number] = _checked(np.asarray(weight), f"class_weight[{number}]", ())
    return factors[labels]
