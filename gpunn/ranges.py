"""Numbers as users give them, checked against their ranges."""

import math
from typing import Any

import numpy as np

from gpunn.errors import ParameterError


def check_range(name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raise ParameterError unless a number lies in [low, high)."""
    # bool is an int to Python, but nobody means it as a number.
    number = isinstance(value, int | float | np.integer | np.floating)
    if isinstance(value, bool) or not number or not low <= value < high:
        until = "" if high == math.inf else f" and below {high:g}"
        raise ParameterError(f"{name} must be a number of at least {low:g}{until}, got {value!r}")


def check_positive(name: str, value: Any) -> None:
    """Raise ParameterError unless a number is above 0 and finite."""
    check_range(name, value, 0.0)
    if value == 0:
        raise ParameterError(f"{name} must be above 0, got {value!r}")


def check_count(name: str, value: int) -> None:
    """Raise unless a value is a whole number of at least 1.

    Raises
    ------
    ParameterError
        If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ParameterError(f"{name} must be a whole number of at least 1, got {value!r}")
