"""The figures of a report."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.picture_records import PictureField
from gpunn.network import Network
from gpunn.network.backquery import best_method
from gpunn.network.class_images import class_images
from gpunn.plots.figures import as_svg, new_figure
from gpunn.plots.hidden_units import input_names, plot_hidden_units, strongest_inputs
from gpunn.plots.images import draw_classes
from gpunn.plots.results import draw_bars, draw_calibration, draw_confusion, draw_numbers
from gpunn.reports.findings import Calibration, Findings
from gpunn.reports.importance import Importance
from gpunn.training.scores import Confusion

MOST_CLASSES_DRAWN = 20
"""Of a network with more classes, the first are drawn."""

MOST_CLASSES_CROSSED = 200
"""A confusion matrix of more classes would be too fine to see anything."""

_MOST_BARS = 30
_MOST_CLOUDS = 8


def confusion_matrix(confusion: Confusion, names: Sequence[str]) -> str | None:
    """Return a heat map, if there are not too many classes for one."""
    if confusion.n_classes > MOST_CLASSES_CROSSED:
        return None
    side = min(7.5, 3.2 + 0.25 * confusion.n_classes)
    figure = new_figure((side, side))
    draw_confusion(figure.subplots(), confusion.matrix(), names)
    return as_svg(figure, "confusion")


def reliability(calibration: Calibration) -> str:
    """Return how often the network is right, against how sure it is."""
    figure = new_figure((5, 3.6))
    draw_calibration(
        figure.subplots(), calibration.confidences, calibration.accuracies, calibration.shares
    )
    return as_svg(figure, "calibration")


def true_and_predicted(
    network: Network, findings: Findings, names: Sequence[str]
) -> list[tuple[str, str]]:
    """Return, for each of the first numbers to predict, the true ones, and what was left over."""
    expected, outputs = (_as_said(network, values) for values in findings.some[1:])
    drawn = []
    for k, name in enumerate(names[:_MOST_CLOUDS]):
        pair = new_figure((5, 3.6)), new_figure((5, 3.6))
        draw_numbers([figure.subplots() for figure in pair], expected[:, k], outputs[:, k], name)
        drawn.append((as_svg(pair[0], f"numbers{k}"), as_svg(pair[1], f"residuals{k}")))
    return drawn


def _as_said(network: Network, values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers in the units of the data."""
    scaling = network.output_scaling
    return values if scaling is None else scaling.apply(values, np.float64)


def hidden_units(network: Network) -> str:
    """Return the weights of the inputs to hidden units."""
    figure = new_figure((7.5, 6))
    plot_hidden_units(network, ax=figure.subplots())
    return as_svg(figure, "hidden")


def classes(network: Network, field: PictureField, names: Sequence[str]) -> str:
    """Return what the network looks for in each class."""
    n = min(len(names), MOST_CLASSES_DRAWN)
    images = class_images(network, field, best_method(network), n)
    figure = new_figure((7.5, 0.2 + 1.75 * -(-n // 5)))
    draw_classes(figure.subplots(), images, names[:n])
    return as_svg(figure, "classes")


def weights_by_input(network: Network) -> str:
    """Return the root of the mean square of each input's weights, of the largest ones."""
    chosen, sizes = strongest_inputs(network, _MOST_BARS)
    names = input_names(network)
    figure = new_figure((7, 0.9 + 0.24 * len(chosen)))
    axis = figure.subplots()
    draw_bars(axis, [names[int(k)] for k in chosen], sizes)
    axis.set_xlabel("size of its weights")
    return as_svg(figure, "inputs")


def importance(found: Importance, lost: str) -> str:
    """Return how much is lost when a column is shuffled."""
    shown = slice(_MOST_BARS)
    figure = new_figure((7, 0.9 + 0.24 * len(found.names[shown])))
    axis = figure.subplots()
    draw_bars(axis, found.names[shown], found.means[shown], found.spreads[shown])
    axis.set_xlabel(f"lost {lost} when the column is shuffled")
    return as_svg(figure, "importance")
