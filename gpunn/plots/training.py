"""Learning curves."""

from typing import Any

import numpy as np

from gpunn.plots.figures import as_svg, axes_for, new_figure

_SIZE = (5.2, 3.4)


def plot_history(history: Any, given: Any = None) -> list[Any]:
    """Draw how the loss and, if there is one, the validation accuracy changed over the epochs.

    Parameters
    ----------
    history : gpunn.History
        What a training reported.
    given : sequence of matplotlib.axes.Axes, optional
        Where to draw: as many as `n_plots` says. New ones by default.

    Returns
    -------
    list of matplotlib.axes.Axes
        The loss, and the accuracy.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    ParameterError
        If there is another number of axes.
    """
    axes = axes_for(given, n_plots(history), _SIZE)
    epochs = [record.epoch for record in history.epochs]
    _draw(axes[0], epochs, history.train_loss, "training")
    if history.validation_loss:
        _draw(axes[0], epochs, [r.validation_loss for r in history.epochs], "validation")
    axes[0].set_ylabel("loss")
    if len(axes) > 1:
        accuracies = [record.validation_accuracy for record in history.epochs]
        _draw(axes[1], epochs, accuracies, "validation", colour="C1")
        axes[1].set_ylabel("accuracy")
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if history.best_epoch is not None:
            axis.axvline(history.best_epoch, color="0.4", ls="--", lw=1, label="best epoch")
        if history.epochs:
            axis.legend(frameon=False)
    return axes


def history_svgs(history: Any) -> list[str]:
    """Return the curves of `plot_history` as SVG elements for a page, one for each of its axes."""
    figures = [new_figure((5, 3.2)) for _ in range(n_plots(history))]
    plot_history(history, [figure.subplots() for figure in figures])
    return [as_svg(figure, f"learning{k}") for k, figure in enumerate(figures)]


def n_plots(history: Any) -> int:
    """Return how many axes `plot_history` needs."""
    return 2 if history.validation_accuracy else 1


def _draw(axis: Any, epochs: Any, values: Any, label: str, colour: str | None = None) -> None:
    """Draw a curve; what is not finite leaves a gap in it."""
    numbers = np.array([np.nan if value is None else value for value in values], float)
    numbers[~np.isfinite(numbers)] = np.nan
    # A single epoch is a dot, because a line needs two.
    marker = "o" if len(numbers) < 30 else ""
    axis.plot(epochs, numbers, color=colour, label=label, marker=marker, ms=3, lw=1.5)
