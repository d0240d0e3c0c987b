"""Images side by side, in one picture."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.plots.figures import literal

_GAP = 0.08
"""The space between images, as a part of their width."""


def draw_images(
    axis: Any,
    images: NDArray[Any],
    titles: Sequence[object],
    *,
    columns: int,
    **how: Any,
) -> Any:
    """Draw images side by side, with a title over each, and return what matplotlib made.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        Where to.
    images : ndarray, shape (n, rows, columns)
        The images.
    titles : sequence
        One for each image.
    columns : int
        How many images are in a row.
    **how
        What ``imshow`` is told, such as a colour map.
    """
    n, height, width = images.shape
    gap, head = max(1, round(_GAP * width)), max(2, round(0.22 * height))
    across, down = width + gap, height + head
    sheet = np.full((math.ceil(n / columns) * down, min(n, columns) * across - gap), np.nan)
    for k, (image, title) in enumerate(zip(images, titles, strict=True)):
        top, left = k // columns * down + head, k % columns * across
        sheet[top : top + height, left : left + width] = image
        axis.text(
            left + width / 2,
            top - 0.5 - head * 0.15,
            literal(title, 12),
            ha="center",
            va="bottom",
            fontsize="small",
        )
    drawn = axis.imshow(sheet, interpolation="nearest", **how)
    axis.set_axis_off()
    return drawn


def draw_classes(axis: Any, images: NDArray[Any], names: Sequence[object]) -> None:
    """Draw a picture of each class, dark on light.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        Where to.
    images : ndarray, shape (n, rows, columns)
        Grey images; the larger a number, the darker. Each has its own darkest and lightest.
    names : sequence
        What each class is called.
    """
    low, high = (f(axis=(1, 2), keepdims=True) for f in (images.min, images.max))
    shares = (images - low) / np.where(high > low, high - low, 1)
    draw_images(axis, shares, names, columns=5, cmap="gray_r", vmin=0, vmax=1)
