"""A device on which each operation is off at random, within the bound on its error.

That is Monte Carlo arithmetic, which shows how a program that runs for long enlarges or forgets
what happened at its start.

Source: D. S. Parker, *Monte Carlo arithmetic* (1997).
"""

# The contract takes any device's arrays, and this device its own alone.
# mypy: disable-error-code="override"

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.parity.bounded import Arithmetic, Bounded
from gpunn.parity.error_bounds import BoundBackend


class RandomRoundingBackend(BoundBackend):
    """The contract of `Backend` in float64, where each operation is off at random.

    Parameters
    ----------
    arithmetic : Arithmetic
        The rounding that is imitated: each number is changed by an independent draw, uniform within
        the bound on its operation's error.
    seed : int
        Where the draws come from.
    """

    name = "random rounding"
    carries = False

    def __init__(self, arithmetic: Arithmetic, seed: int) -> None:
        super().__init__(arithmetic)
        self._generator = np.random.default_rng(seed)

    def _settle(self, out: Bounded, values: Any, errors: Any) -> None:
        # No error is carried on, so that what comes is the operation's own.
        own = errors + self._of_keeping(out) * np.abs(values)
        out.values[...] = values + self._generator.uniform(-1, 1, out.shape) * own

    def to_host(self, array: Bounded) -> NDArray[Any]:
        """Return the numbers."""
        return array.values.copy()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Bounded:
        return Bounded(np.full(shape, np.nan), np.zeros(shape), dtype)
