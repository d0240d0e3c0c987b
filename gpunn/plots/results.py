"""What a network answered, and what would have been right."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.plots.figures import literal

_WITH_COUNTS = 15
"""Confusion matrices of more classes have no numbers in their cells."""

_WITH_NAMES = 40
"""Those of more classes have only some names at their sides."""

MOST_POINTS = 1000
"""A cloud of points has at most so many."""


def draw_confusion(axis: Any, counts: NDArray[np.int64], names: Sequence[object]) -> None:
    """Draw a confusion matrix as a heat map.

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        Where to.
    counts : ndarray, shape (n, n)
        How many samples of a true class (row) were taken for a class (column).
    names : sequence
        What the classes are called.
    """
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The root makes a few mistakes among many right answers visible.
    axis.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    n = len(counts)
    if n <= _WITH_COUNTS:
        for row, column in np.argwhere(counts):
            axis.text(
                column,
                row,
                f"{counts[row, column]:,}",
                ha="center",
                va="center",
                fontsize="x-small",
                color="white" if shares[row, column] > 0.3 else "0.2",
            )
    shown = range(0, n, -(-n // _WITH_NAMES))
    labels = [literal(names[k], 14) for k in shown]
    longest = max(map(len, labels))
    axis.set_xticks(shown, labels, rotation=90 if longest > 3 else 0, fontsize="small")
    axis.set_yticks(shown, labels, fontsize="small")
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")


def draw_calibration(
    axis: Any, confidences: NDArray[Any], accuracies: NDArray[Any], shares: NDArray[Any]
) -> None:
    """Draw how often a network is right, against how sure it is (a reliability diagram).

    Parameters
    ----------
    axis : matplotlib.axes.Axes
        Where to.
    confidences, accuracies, shares : ndarray, shape (n_bins,)
        Of each bin the mean confidence, the share of right answers and the share of all samples;
        NaN where a bin is empty.

    References
    ----------
    C. Guo et al., *On calibration of modern neural networks* (2017).
    """
    n = len(shares)
    edges = np.linspace(0, 1, n + 1)
    axis.bar(edges[:-1], shares, 1 / n, align="edge", color="0.85", label="share of the samples")
    axis.plot([0, 1], [0, 1], color="0.4", ls="--", lw=1, label="as sure as right")
    axis.plot(confidences, accuracies, marker="o", ms=4, lw=1.5, label="share of right answers")
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence: the largest output", ylabel="share")
    # Above the axes, for the line may go anywhere inside.
    axis.legend(
        frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3
    )
    axis.spines[["top", "right"]].set_visible(False)


def draw_numbers(
    axes: Sequence[Any],
    expected: NDArray[Any],
    predicted: NDArray[Any],
    name: object,
    labels: Sequence[str] = (),
) -> None:
    """Draw predicted against true numbers, and what was left over (the residuals).

    Parameters
    ----------
    axes : two of matplotlib.axes.Axes
        Where to.
    expected, predicted : ndarray, shape (n,) or (n, n_kinds)
        The true numbers, and what was predicted, in the same unit.
    name : str
        What the numbers are called.
    labels : sequence of str
        What each kind of them is called, which has a colour of its own.
    """
    pairs, residuals = axes
    some = np.linspace(0, len(expected) - 1, min(len(expected), MOST_POINTS)).astype(int)
    expected, predicted = (np.asarray(values, float)[some] for values in (expected, predicted))
    ends = [np.nanmin([expected, predicted]), np.nanmax([expected, predicted])]
    left_over = expected - predicted
    for axis, x, y in ((pairs, expected, predicted), (residuals, predicted, left_over)):
        kinds = zip_longest(np.atleast_2d(x.T), np.atleast_2d(y.T), labels)
        for its_x, its_y, label in kinds:
            axis.scatter(its_x, its_y, s=9, alpha=0.5, lw=0, label=label)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    pairs.plot(ends, ends, color="0.4", ls="--", lw=1)
    pairs.set(xlabel=f"true {literal(name)}", ylabel=f"predicted {literal(name)}")
    if labels:
        pairs.legend(frameon=False, fontsize="small")
    residuals.axhline(0, color="0.4", ls="--", lw=1)
    residuals.set(xlabel=f"predicted {literal(name)}", ylabel="true - predicted")


def draw_bars(axis: Any, names: Sequence[object], values: Any, spreads: Any = None) -> None:
    """Draw a bar for each name, the first at the top, with the spread of its value."""
    places = np.arange(len(names))
    axis.barh(places, values, xerr=spreads, height=0.7, color="C0", ecolor="0.3")
    axis.set_yticks(places, [literal(name, 24) for name in names], fontsize="small")
    axis.invert_yaxis()
    axis.axvline(0, color="0.4", lw=1)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right", "left"]].set_visible(False)
