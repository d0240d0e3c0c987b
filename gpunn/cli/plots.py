"""Pictures, drawn with matplotlib, which is an extra (``pip install 'gpunn[plots]'``)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import MissingPackageError, OutputError, one_line
from gpunn.model_file import replacing


def check_matplotlib() -> None:
    """Raise unless pictures can be drawn.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "pictures need matplotlib, which is not installed: pip install 'gpunn[plots]'"
        ) from error


def save_images(
    path: str | os.PathLike[str],
    images: NDArray[Any],
    titles: Sequence[str],
    heading: str,
) -> None:
    """Write a picture of some images side by side, dark on light, with a title over each.

    Parameters
    ----------
    path : path-like
        Where to; the ending chooses the format, such as ``.png``, ``.pdf`` or ``.svg``. A file that
        is there is replaced once the new one is complete.
    images : ndarray, shape (n, rows, columns)
        Grey images; the larger a number, the darker.
    titles : sequence of str
        One for each image.
    heading : str
        One over all.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    OutputError
        If the picture could not be written.
    """
    n_columns = min(5, len(images))
    n_rows = -(-len(images) // n_columns)
    figure = _new_figure((1.7 * n_columns + 0.6, 1.9 * n_rows + 0.8), heading)
    axes = np.atleast_1d(np.asarray(figure.subplots(n_rows, n_columns))).ravel()
    for axis, image, title in zip(axes, images, titles, strict=False):
        axis.imshow(image, cmap="gray_r")
        axis.set_title(title)
    for axis in axes:
        axis.set_axis_off()
    _save(figure, path)


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
    figure = _new_figure((4.5 * len(units), 4.2), heading)
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
    _save(figure, path)


def _new_figure(size: tuple[float, float], heading: str) -> Any:
    """Return an empty figure of that size in inches, which needs no screen."""
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(heading)
    return figure


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    kind = Path(path).suffix.removeprefix(".") or "png"
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120, format=kind)
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write {path}: {one_line(error)}") from error
