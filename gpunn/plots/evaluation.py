"""The plot of an evaluation."""

from typing import Any

import numpy as np

from gpunn.errors import DataError
from gpunn.plots.figures import axes_for
from gpunn.plots.results import draw_confusion, draw_numbers

_SIZE = (4.6, 4.2)
_MOST_KINDS = 10


def plot_evaluation(evaluation: Any, given: Any = None) -> list[Any]:
    """Draw which classes were taken for which or, for numbers, predicted against true ones.

    Numbers are as the network has them: scaled as in training. Each of its outputs has a colour; of
    many, the first ten are drawn.

    Parameters
    ----------
    evaluation : gpunn.training.Evaluation
        What `gpunn.evaluate` returned.
    given : matplotlib.axes.Axes or two of them, optional
        Where to draw: one for classes, two for numbers. New ones by default.

    Returns
    -------
    list of matplotlib.axes.Axes
        The confusion matrix; or the numbers, and their residuals.

    Raises
    ------
    DataError
        If the evaluation has no outputs, because the samples were a stream.
    MissingPackageError
        If matplotlib is not installed.
    ParameterError
        If there is another number of axes.
    """
    if evaluation.outputs is None or evaluation.expected is None:
        raise DataError(
            "an evaluation of a Stream keeps no outputs, so there is nothing to draw: evaluate an "
            "array"
        )
    outputs, expected = evaluation.outputs, evaluation.expected
    if evaluation.accuracy is None:
        axes, n = axes_for(given, 2, _SIZE), min(outputs.shape[1], _MOST_KINDS)
        labels = [f"output {k + 1}" for k in range(n)] if n > 1 else []
        draw_numbers(axes, expected[:, :n], outputs[:, :n], "output of the network", labels)
        return axes
    axes = axes_for(given, 1, _SIZE)
    n = outputs.shape[1]
    counts = np.zeros((n, n), np.int64)
    np.add.at(counts, (expected, outputs.argmax(axis=1)), 1)
    draw_confusion(axes[0], counts, evaluation.class_labels or range(n))
    axes[0].set_title(f"accuracy {evaluation.accuracy:.4f}")
    return axes
