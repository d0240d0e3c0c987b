"""What hidden units look at: the weights of their inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.network import Network
from gpunn.network.backquery import checked_image_shape
from gpunn.network.checks import check_network
from gpunn.network.picture_inputs import picture_field_of
from gpunn.plots.figures import axes_for, literal
from gpunn.plots.images import draw_images
from gpunn.ranges import check_count

_MOST_INPUTS = 40
"""A heat map names at most so many inputs; of more, those with the largest weights are shown."""


def plot_hidden_units(
    network: Network,
    *,
    n_units: int = 20,
    image_shape: tuple[int, int] | None = None,
    ax: Any = None,
) -> Any:
    """Draw the weights from the inputs to units of the first layer after them.

    Red weights are above 0 and blue ones below; white is 0. Of more units than are asked for, those
    with the largest weights to the next layer are shown.

    Parameters
    ----------
    network : Network
        The network, on any device.
    n_units : int
        How many units to draw, at most.
    image_shape : (int, int), optional
        Rows and columns, if the inputs are the pixels of a picture; by default, what the network
        was trained on or, of a square number of inputs, a square. Other inputs make a heat map with
        a row for each input.
    ax : matplotlib.axes.Axes, optional
        Where to draw. A new one by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ParameterError
        If it is no network, `n_units` is below 1, or `image_shape` has another number of pixels.
    MissingPackageError
        If matplotlib is not installed.
    """
    check_network(network)
    check_count("n_units", n_units)
    shape = checked_image_shape(image_shape, network.n_inputs)
    if shape is None and (field := picture_field_of(network)) is not None:
        shape = field.shape
    (axis,) = axes_for(ax, 1, (6.4, 5.2))
    units = strongest_units(network, n_units)
    weights = network.weights_of(0)[units]
    # A few weights are far larger than all others; they would make those white.
    most = max(float(np.quantile(np.abs(weights), 0.995)), 1e-30)
    colours = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    if shape is not None:
        titles = [f"unit {unit}" for unit in units]
        drawn = draw_images(axis, weights.reshape(-1, *shape), titles, columns=5, **colours)
    else:
        kind = "hidden" if len(network.layers) > 1 else "output"
        drawn = _draw_table(axis, weights, units, input_names(network), kind, colours)
    axis.figure.colorbar(drawn, ax=axis, shrink=0.6, label="weight")
    return axis


def input_names(network: Network) -> list[str]:
    """Return what the inputs are called."""
    prepared = None if network.preparation is None else network.preparation.feature_names
    names = network.feature_names or prepared
    return names or [f"input {k}" for k in range(network.n_inputs)]


def strongest_units(network: Network, n_units: int) -> NDArray[np.int64]:
    """Return the units of the first hidden layer with the largest weights to the next layer."""
    if len(network.layers) == 1:
        return np.arange(min(n_units, network.n_outputs))
    outgoing = network.weights_of(1)
    strength = np.square(outgoing, dtype=np.float64).sum(axis=0)
    chosen: NDArray[np.int64] = np.sort(np.argsort(-strength, kind="stable")[:n_units])
    return chosen


def strongest_inputs(network: Network, n_inputs: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the inputs with the largest weights, and the root of the mean square of each's."""
    weights = network.weights_of(0)
    sizes = np.sqrt(np.square(weights, dtype=np.float64).mean(axis=0))
    chosen = np.argsort(-sizes, kind="stable")[:n_inputs]
    return chosen, sizes[chosen]


def _draw_table(
    axis: Any,
    weights: NDArray[Any],
    units: NDArray[np.int64],
    names: Sequence[str],
    kind: str,
    colours: dict[str, Any],
) -> Any:
    shown = np.arange(weights.shape[1])
    if len(shown) > _MOST_INPUTS:
        sizes = np.square(weights, dtype=np.float64).sum(axis=0)
        shown = np.sort(np.argsort(-sizes, kind="stable")[:_MOST_INPUTS])
    drawn = axis.imshow(weights[:, shown].T, aspect="auto", interpolation="nearest", **colours)
    axis.set_yticks(
        range(len(shown)), [literal(names[int(k)], 24) for k in shown], fontsize="small"
    )
    axis.set_xticks(range(len(units)), [str(unit) for unit in units], rotation=90, fontsize="small")
    axis.set_xlabel(f"{kind} unit")
    return drawn
