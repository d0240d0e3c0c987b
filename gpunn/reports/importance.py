"""Which columns a network's answers depend on: permutation importance."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.network import Network
from gpunn.plots.hidden_units import input_names, strongest_inputs

N_TIMES = 5
"""How often each column is shuffled."""

MOST_COLUMNS = 40
"""Of more columns, those with the largest weights are shuffled."""

_MOST_OUTPUTS = 2_000_000
"""Of a network with very many outputs, fewer samples are asked about, so that it takes seconds."""


@dataclass(frozen=True)
class Importance:
    """How much worse a network answers when a column is shuffled, the most important first.

    Attributes
    ----------
    names : list of str
        What the columns are called.
    means, spreads : ndarray, shape (n_columns,)
        Mean and standard deviation of what is lost, over the shuffles: in accuracy, or in R^2.
    n_left_out : int
        How many columns were not shuffled.
    n_samples : int
        In how many samples they were.
    """

    names: list[str]
    means: NDArray[np.float64]
    spreads: NDArray[np.float64]
    n_left_out: int
    n_samples: int


def importance_of(network: Network, X: NDArray[Any], y: NDArray[Any]) -> Importance:
    """Shuffle one column after the other, and measure what is lost.

    The inputs that a column of words makes are shuffled together.

    Parameters
    ----------
    network : Network
        The network.
    X : ndarray, shape (n, n_0)
        Inputs, scaled as in training.
    y : ndarray, shape (n,) of class numbers, or (n, n_L) of targets
        What is right.

    References
    ----------
    L. Breiman, *Random forests* (2001), section 10.
    """
    n_rows = max(100, _MOST_OUTPUTS // network.n_outputs)
    X, y, groups = X[:n_rows], y[:n_rows], _columns_of(network)
    chosen = list(groups)
    if len(chosen) > MOST_COLUMNS:
        strong = set(strongest_inputs(network, MOST_COLUMNS)[0].tolist())
        chosen = [name for name in chosen if strong & set(groups[name])][:MOST_COLUMNS]
    generator, whole = np.random.default_rng(0), _score(network, X, y)
    lost = np.empty((len(chosen), N_TIMES))
    for row, name in enumerate(chosen):
        for time in range(N_TIMES):
            shuffled = X.copy()
            shuffled[:, groups[name]] = X[generator.permutation(len(X))][:, groups[name]]
            lost[row, time] = whole - _score(network, shuffled, y)
    order = np.argsort(-lost.mean(axis=1), kind="stable")
    return Importance(
        [chosen[k] for k in order],
        lost.mean(axis=1)[order],
        lost.std(axis=1)[order],
        len(groups) - len(chosen),
        len(X),
    )


def _columns_of(network: Network) -> dict[str, list[int]]:
    """Return which inputs each column of the table makes."""
    preparation = network.preparation
    if preparation is None:
        return {name: [k] for k, name in enumerate(input_names(network))}
    return {
        column.label: list(range(network.n_inputs))[inputs]
        for column, inputs in preparation.inputs_by_column()
    }


def _score(network: Network, X: NDArray[Any], y: NDArray[Any]) -> float:
    """Return the accuracy or, for numbers, the mean R^2."""
    outputs = network.predict_rows(X)
    if network.predicts_classes:
        return float(np.mean(outputs.argmax(axis=1) == y))
    y = np.asarray(y, np.float64)
    spread = np.square(y - y.mean(axis=0)).sum(axis=0)
    errors = np.square(outputs - y).sum(axis=0)
    # Of a constant, a mean that is rounded would leave a spread of nearly, but not quite, 0.
    known = y.min(axis=0) < y.max(axis=0)
    return float(np.mean(1 - errors[known] / spread[known])) if known.any() else 0.0
