"""How two trainings drift apart."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gpunn.plots.figures import new_figure, save_figure


class Divergence(NamedTuple):
    """How two trainings drift apart over time.

    Attributes
    ----------
    unit : str
        What time is counted in, such as "epoch"; each has its own picture.
    group : str
        Curves of one group share a colour.
    times, differences, tolerances : sequence of numbers
        The curve, and the one it must stay below.
    """

    unit: str
    group: str
    times: Sequence[int]
    differences: Sequence[float]
    tolerances: Sequence[float]


def save_divergence(
    path: str | os.PathLike[str], curves: Sequence[Divergence], heading: str
) -> None:
    """Write a picture of differences over time, each with its tolerance.

    Parameters
    ----------
    path : path-like
        Where to, as in `save_images`.
    curves : sequence of Divergence
        What to draw.
    heading : str
        One over all.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    OutputError
        If the picture could not be written.
    """
    units = list(dict.fromkeys(curve.unit for curve in curves))
    groups = list(dict.fromkeys(curve.group for curve in curves))
    figure = new_figure((4.5 * len(units), 4.2), heading)
    all_axes = np.atleast_1d(np.asarray(figure.subplots(1, len(units), sharey=True)))
    for axis, unit in zip(all_axes, units, strict=True):
        for curve in (curve for curve in curves if curve.unit == unit):
            colour = f"C{groups.index(curve.group)}"
            axis.plot(curve.times, curve.differences, colour, lw=0.8, marker=".")
            axis.plot(curve.times, curve.tolerances, colour, lw=0.8, ls=":")
        axis.set_yscale("log")
        axis.set_xticks(sorted({time for c in curves if c.unit == unit for time in c.times}))
        axis.set_xlabel(unit)
    all_axes[0].set_ylabel("relative difference; dotted: tolerance")
    for index, group in enumerate(groups):
        all_axes[-1].plot([], [], f"C{index}", label=group)
    all_axes[-1].legend()
    save_figure(figure, path)
