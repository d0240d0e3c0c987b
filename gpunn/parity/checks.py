"""What two devices came to, held against each other: numbers, differences, tolerances.

See `gpunn.parity.comparison` for where the readings come from.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]


class Reading(NamedTuple):
    """What a device has come to."""

    name: str
    stage: str
    number: int
    arrays: dict[str, Values]


class Growth(NamedTuple):
    """How far random rounding takes a reading's numbers.

    Attributes
    ----------
    norm : float
        The 2-norm of all their deviations.
    largest : float
        The largest deviation of a single number.
    """

    norm: float = 0.0
    largest: float = 0.0

    def or_more(self, other: "Growth") -> "Growth":
        """Return the larger of each."""
        return Growth(*map(max, self, other))

    def times(self, factor: float) -> "Growth":
        """Return both that many times as large."""
        return Growth(factor * self.norm, factor * self.largest)


@dataclass(frozen=True)
class Check:
    """One quantity at one time, on two devices.

    Attributes
    ----------
    name : str
        "initial weights", "weights", "outputs", "gradients", "loss", "predictions" or "accuracy".
    stage : {"start", "step", "epoch"}
        When it was compared.
    number : int
        After how many steps or epochs.
    difference, tolerance : float
        Relative to the largest number of the array; of the number that comes closest to its
        tolerance. After epochs: the 2-norm of the whole difference, relative to the array's. For
        "predictions" and "accuracy" they are shares of the samples.
    ok : bool
        Whether all numbers are within their tolerances.
    """

    name: str
    stage: str
    number: int
    difference: float
    tolerance: float
    ok: bool

    @property
    def share(self) -> float:
        """The difference as a share of the tolerance; infinite where there is none."""
        if self.difference == 0:
            return 0.0
        measurable = math.isfinite(self.difference) and self.tolerance > 0
        return self.difference / self.tolerance if measurable else math.inf


def checks_of_steps(
    T: Values, reference: list[Reading], tested: list[Reading], bounds: list[Reading]
) -> list[Check]:
    """Compare readings number by number, each within its own bound.

    Parameters
    ----------
    T : ndarray, shape (n, n_L)
        The targets of the samples whose outputs are in the readings.
    reference, tested : list of Reading
        What two devices came to.
    bounds : list of Reading
        How far they may be from each other, in arrays of the same shapes.

    Returns
    -------
    list of Check
        One for each reading, and two more for the classes that outputs stand for.
    """
    checks = []
    for one, other, bound in zip(reference, tested, bounds, strict=True):
        checks.append(_check_numbers(one, other, bound))
        if one.name == "outputs" and T.shape[1] > 1:
            allowed = bound.arrays["outputs"]
            checks += _check_classes(one, other, allowed, T)
    return checks


def _check_numbers(one: Reading, other: Reading, bound: Reading) -> Check:
    """Compare number by number, each with its own bound."""
    worst, ok = (-1.0, 0.0, 0.0), True
    for name, expected in one.arrays.items():
        allowed = bound.arrays[name]
        if one.name != "initial weights":
            # Below the smallest normal number a device may take a number for zero.
            allowed = allowed + 4 * float(np.finfo(other.arrays[name].dtype).tiny)
        difference = np.abs(other.arrays[name].astype(np.float64) - expected)
        within = difference <= allowed  # NaN is not
        ok = ok and bool(within.all())
        share = np.where(within, 0.0, np.inf)
        np.divide(difference, allowed, out=share, where=allowed > 0)
        share = np.where(np.isnan(share), np.inf, share)
        index = np.unravel_index(np.argmax(share), share.shape)
        scale = float(np.abs(expected).max()) or 1.0
        here = (
            float(share[index]),
            float(difference[index]) / scale,
            float(allowed[index]) / scale,
        )
        worst = max(worst, here, key=lambda item: item[0])
    return Check(one.name, one.stage, one.number, worst[1], worst[2], ok)


def _check_classes(one: Reading, other: Reading, allowed: Any, T: Values) -> Iterator[Check]:
    """Compare which class each sample is put in; only a sample that is nearly a tie may differ."""
    expected, got = one.arrays["outputs"], other.arrays["outputs"]
    rows = np.arange(len(expected))
    classes, others = expected.argmax(axis=1), got.argmax(axis=1)
    allowed = np.broadcast_to(allowed, expected.shape)
    margin = expected[rows, classes][:, np.newaxis] - expected
    near = margin <= allowed[rows, classes][:, np.newaxis] + allowed
    near[rows, classes] = False
    ties = near.any(axis=1)
    differ = classes != others
    share = float(ties.mean())
    yield Check(
        "predictions",
        one.stage,
        one.number,
        float(differ.mean()),
        share,
        not (differ & ~ties).any(),
    )
    right = T.argmax(axis=1)
    difference = abs(float((classes == right).mean()) - float((others == right).mean()))
    yield Check("accuracy", one.stage, one.number, difference, share, difference <= share)


def growth_of(draw: list[Reading], exact: list[Reading]) -> list[Growth]:
    """Return how far a training with random rounding came from the same one in float64.

    Parameters
    ----------
    draw, exact : list of Reading
        What the two came to.

    Returns
    -------
    list of Growth
        One for each reading.
    """
    # What one of the two never came to, because it diverged, may be anything.
    n_common = min(len(draw), len(exact))
    pairs = zip(draw[:n_common], exact[:n_common], strict=True)
    deviations = [_flat(one) - _flat(true) for one, true in pairs]
    grown = [Growth(_norm(deviation), float(np.abs(deviation).max())) for deviation in deviations]
    return grown + [Growth(math.inf, math.inf)] * (len(exact) - n_common)


def checks_of_epochs(
    T: Values, allowed: list[Growth], reference: list[Reading], tested: list[Reading]
) -> list[Check]:
    """Compare readings as a whole, within what the growth of random rounding errors allows.

    Parameters
    ----------
    T : ndarray, shape (n, n_L)
        The targets of the samples whose outputs are in the readings.
    allowed : list of Growth
        How far the devices may be from each other, one for each reading.
    reference, tested : list of Reading
        What two devices came to.

    Returns
    -------
    list of Check
        One for each reading, and two more for the classes that outputs stand for.
    """
    checks = []
    # A training that diverges ends there; its last loss is NaN or infinite, which no check allows.
    for one, other, most in zip(reference, tested, allowed, strict=False):
        scale = _norm(_flat(one)) or 1.0
        difference = _norm(_flat(other) - _flat(one)) / scale
        tolerance = most.norm / scale
        ok = difference <= tolerance
        checks.append(Check(one.name, "epoch", one.number, difference, tolerance, ok))
        if one.name == "outputs" and T.shape[1] > 1:
            checks += _check_classes(one, other, most.largest, T)
    return checks


def _flat(reading: Reading) -> Values:
    return np.concatenate([array.ravel() for array in reading.arrays.values()]).astype(np.float64)


def _norm(values: Values) -> float:
    # Not numpy.linalg.norm: it wakes the threads of NumPy's BLAS, which gpunn
    # leaves asleep where it calls SciPy's.
    return math.sqrt(float(np.square(values).sum()))
