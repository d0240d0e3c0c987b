"""What a network looks for: inputs that climb from an empty picture towards wanted outputs.

Where no layer can be inverted, or the biases drown what the inverse shows, this still does: from an
input x_0 whose values are all the lowest, x goes down the gradient of

    E(x) = loss(f(x), t) + l/2 |x - x_0|^2 + s/2 (sum of (x_i - x_j)^2 over neighbours i, j)

in which the two penalties, with l = `PULL` and s = `SMOOTHNESS`, keep it from becoming noise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PULL = 0.001
"""How much a value that differs from the empty picture's costs."""

SMOOTHNESS = 0.03
"""How much it costs that neighbours differ."""

_OPTIONS = {"maxiter": 200, "ftol": 1e-4}
"""A climb ends where a step changes E by less than this part: by eye, nothing changes after it."""


LossOfInputs = Callable[[NDArray[Any], NDArray[Any]], tuple[float, NDArray[Any]]]
"""From an input (1, n_0) and targets (1, n_L) to the loss and its gradient (1, n_0)."""


class Field(NamedTuple):
    """Where a climb may go.

    Attributes
    ----------
    low, high : ndarray of float64, shape (n_0,)
        The lowest value of each input, where the climb begins, and the highest.
    shape : (int, int), or None
        Rows and columns, if the inputs are the pixels of a picture.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    shape: tuple[int, int] | None


def climb(loss: LossOfInputs, targets: NDArray[Any], field: Field) -> NDArray[Any]:
    """Return inputs whose outputs are near the targets, as the module says.

    Parameters
    ----------
    loss : callable
        The loss and its gradient.
    targets : ndarray, shape (n, n_L)
        The outputs that are wanted.
    field : Field
        Where to begin, and how far the inputs may go.

    Returns
    -------
    ndarray, shape (n, n_0)
        Inputs in [low, high], in the dtype of the targets.

    References
    ----------
    D. Erhan et al., *Visualizing higher-layer features of a deep network* (2009), for the climb; R.
    H. Byrd et al., *A limited memory algorithm for bound constrained optimization* (1995), for
    L-BFGS-B, the method.
    """
    from scipy.optimize import minimize

    found = np.empty((len(targets), len(field.low)), targets.dtype)
    for row, target in zip(found, targets, strict=True):

        def cost(x: NDArray[np.float64], t: NDArray[Any] = target) -> Any:
            value, slope = loss(x[None].astype(targets.dtype), t[None])
            away = x - field.low
            penalty, its_slope = _roughness(x, field.shape)
            return (
                value + PULL / 2 * away @ away + SMOOTHNESS / 2 * penalty,
                slope[0] + PULL * away + SMOOTHNESS / 2 * its_slope,
            )

        row[:] = minimize(
            cost,
            field.low,
            jac=True,
            method="L-BFGS-B",
            bounds=np.stack([field.low, field.high], axis=1),
            options=_OPTIONS,
        ).x
    return found


def _roughness(
    x: NDArray[np.float64], shape: tuple[int, int] | None
) -> tuple[float, NDArray[np.float64]]:
    """Return the sum of the squared differences of neighbours, and its gradient."""
    slope = np.zeros_like(x)
    if shape is None:
        return 0.0, slope
    picture, slopes, total = x.reshape(shape), slope.reshape(shape), 0.0
    for values, its_slopes in ((picture, slopes), (picture.T, slopes.T)):
        steps = np.diff(values, axis=0)
        total += float(np.square(steps).sum())
        its_slopes[1:] += 2 * steps
        its_slopes[:-1] -= 2 * steps
    return total, slope
