"""How the step size changes over time: functions of the time in epochs, which may be a fraction.

Source of the cosine: I. Loshchilov and F. Hutter, *SGDR* (2017).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from gpunn.ranges import check_positive, check_range

Shape = Callable[[float], float]


def _stays(t: float) -> float:
    return 1.0


@dataclass(frozen=True)
class Schedule:
    """A step size as a function of the time: ``lr(t) = learning_rate * warm(t) * shape(t)``.

    ``t`` is in epochs. The shapes start at 1; make schedules with `constant`, `step_decay`,
    `exponential_decay`, `inverse_scaling` and `cosine`.

    Parameters
    ----------
    learning_rate : float
        The step size at the start, above 0.
    shape : callable
        ``shape(t)``, a factor.
    warmup : float
        Over so many epochs the step size rises linearly from 0 to its place.

    Raises
    ------
    ParameterError
        If a number is outside its range.
    """

    learning_rate: float
    shape: Shape = field(default=_stays, repr=False)
    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_positive("learning_rate", self.learning_rate)
        check_range("warmup", self.warmup, 0.0)

    @property
    def is_constant(self) -> bool:
        """Whether the step size is known to be the same at all times."""
        return self.shape is _stays and not self.warmup

    def __call__(self, t: float) -> float:
        """Return the step size at time `t`, in epochs."""
        rate = float(self.learning_rate) * self.shape(t)
        return rate * t / self.warmup if t < self.warmup else rate


def constant(learning_rate: float, *, warmup: float = 0.0) -> Schedule:
    """Return the schedule that stays at `learning_rate`."""
    return Schedule(learning_rate, warmup=warmup)


def step_decay(
    learning_rate: float, *, every: float, factor: float = 0.1, warmup: float = 0.0
) -> Schedule:
    """Return the schedule ``learning_rate * factor^floor(t / every)``; `every` is in epochs."""
    check_range("factor", factor, 0.0)
    check_positive("every", every)
    return Schedule(learning_rate, lambda t: float(factor ** math.floor(t / every)), warmup)


def exponential_decay(learning_rate: float, *, factor: float, warmup: float = 0.0) -> Schedule:
    """Return the schedule ``learning_rate * factor^t``: an epoch multiplies it by `factor`."""
    check_range("factor", factor, 0.0)
    return Schedule(learning_rate, lambda t: float(factor**t), warmup)


def inverse_scaling(learning_rate: float, *, power: float = 0.5, warmup: float = 0.0) -> Schedule:
    """Return the schedule ``learning_rate / (1 + t)^power``."""
    check_range("power", power, 0.0)
    return Schedule(learning_rate, lambda t: float((1 + t) ** -power), warmup)


def cosine(
    learning_rate: float, *, epochs: float, minimum: float = 0.0, warmup: float = 0.0
) -> Schedule:
    """Return half a cosine from `learning_rate` down to `minimum` at time `epochs`."""
    check_positive("learning_rate", learning_rate)
    check_positive("epochs", epochs)
    check_range("minimum", minimum, 0.0)
    floor = float(minimum) / float(learning_rate)

    def shape(t: float) -> float:
        wave = 0.5 * (1 + math.cos(math.pi * min(t / epochs, 1.0)))
        return floor + (1 - floor) * wave

    return Schedule(learning_rate, shape, warmup)
