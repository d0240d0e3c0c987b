"""Images side by side."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.plots.figures import new_figure, save_figure


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
    figure = new_figure((1.7 * n_columns + 0.6, 1.9 * n_rows + 0.8), heading)
    axes = np.atleast_1d(np.asarray(figure.subplots(n_rows, n_columns))).ravel()
    for axis, image, title in zip(axes, images, titles, strict=False):
        axis.imshow(image, cmap="gray_r")
        axis.set_title(title)
    for axis in axes:
        axis.set_axis_off()
    save_figure(figure, path)
