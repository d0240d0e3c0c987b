"""Training on all samples at once by L-BFGS, which SciPy does on the host.

Each evaluation brings the parameters to the device, goes through the samples chunk by chunk, adds
up the gradient there, and brings it back. Computation is in float64, whatever the samples are: the
line search compares losses that differ by little.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from gpunn.backends.base import Array
from gpunn.estimators.data import Data
from gpunn.estimators.samples import place, rows_at_once
from gpunn.estimators.stochastic import loss_share
from gpunn.network import Network
from gpunn.network.layers import Layer, add_gradient
from gpunn.training.callbacks import Callback, EpochRecord, History
from gpunn.training.loaders import Loader

Values = NDArray[np.float64]


class Objective:
    """The loss and its gradient as functions of one vector of all parameters.

    Parameters
    ----------
    network : Network
        The network, whose parameters are overwritten.
    loader : Loader
        The samples.
    weights : ndarray, shape (n,), float64, or None
        What each counts.
    alpha : float
        The strength of the penalty.
    loss_share : float
        What the sum of the samples' losses is multiplied by for the loss alone.
    """

    def __init__(
        self,
        network: Network,
        loader: Loader,
        weights: Values | None,
        alpha: float,
        loss_share: float,
    ) -> None:
        self.network, self.loader, backend = network, loader, network.backend
        self.alpha, self.loss_share = alpha, loss_share
        self._gradients = [
            (
                backend.empty(layer.weights.shape, network.dtype),
                backend.empty(layer.biases.shape, network.dtype),
            )
            for layer in network.layers
            if layer.biases is not None
        ]
        self._row_weights = None if weights is None else backend.asarray(weights, network.dtype)
        self._total = float(loader.n_samples if weights is None else weights.sum())

    def pack(self) -> Values:
        """Return the network's parameters as one vector."""
        return np.concatenate([array.ravel() for array in self.network.parameters().values()])

    def unpack(self, vector: Values) -> None:
        """Change the network's parameters in place to those of a vector."""
        start, backend = 0, self.network.backend
        for array in self.network.device_parameters().values():
            values = vector[start : start + array.size].reshape(array.shape)
            backend.copy_into(backend.asarray(values, self.network.dtype), array)
            start += array.size

    def __call__(self, vector: Values) -> tuple[float, Values]:
        """Return the loss and its gradient."""
        self.unpack(vector)
        network, loader, backend = self.network, self.loader, self.network.backend
        row_losses = backend.zeros((loader.n_rows,), np.float64)
        penalty = backend.zeros((1,), np.float64)
        for rows, inputs, targets in loader.batches():
            weights = None if self._row_weights is None else self._row_weights[rows]
            update = partial(self._add, beta=1.0 if rows.start else 0.0)
            losses = row_losses[: rows.stop - rows.start]
            network.step(inputs, targets, update, losses, row_weights=weights)
        for layer, (gradient, _) in zip(network.layers, self._gradients, strict=True):
            alpha = self.alpha / self._total
            backend.axpby(layer.weights, gradient, alpha=alpha, beta=1.0)
            backend.add_squares(layer.weights, penalty, alpha=0.5 * alpha)
        loss = float(backend.to_host(row_losses).sum()) * self.loss_share / self._total
        loss += float(backend.to_host(penalty)[0])
        parts = [backend.to_host(part).ravel() for pair in self._gradients for part in pair]
        return loss, np.concatenate(parts)

    def _add(self, index: int, layer: Layer, delta: Array, inputs: Array, beta: float) -> None:
        add_gradient(
            self.network.backend,
            delta,
            inputs,
            *self._gradients[index],
            alpha=1 / self._total,
            beta=beta,
            beta_biases=beta,
        )


def check_lbfgs(estimator: Any, callbacks: Sequence[Callback]) -> None:
    """Raise ValueError if a fit asks for what only training in steps has."""
    if callbacks:
        raise ValueError(
            "callbacks are for the solvers 'sgd' and 'adam': L-BFGS has no steps and epochs; "
            f"got {len(callbacks)} of them and solver='lbfgs'"
        )
    if estimator.dropout:
        raise ValueError(
            "dropout is for the solvers 'sgd' and 'adam': L-BFGS needs a loss that is not random; "
            f"got dropout={estimator.dropout} and solver='lbfgs'"
        )


def minimize(estimator: Any, network: Network, data: Data, callbacks: Sequence[Callback]) -> None:
    """Change a network in place by training it with L-BFGS, and note in the estimator how it went.

    Parameters
    ----------
    estimator : estimator
        Whose `max_iter`, `max_fun` and `tol` bound the search; gets `n_iter_` and `loss_`.
    network : Network
        The network, in float64.
    data : Data
        What is to be learnt.
    callbacks : sequence of Callback
        Who hears of each iteration, as of an epoch.
    """
    from scipy.optimize import OptimizeResult
    from scipy.optimize import minimize as scipy_minimize

    reserved = 2 * network.n_parameters * network.dtype.itemsize
    loader = place(network, data.X, data.targets, rows_at_once(network, data.X), reserved)
    alpha, history = float(estimator.alpha), History(streamed=loader.streamed)
    objective = Objective(network, loader, data.weights, alpha, loss_share(estimator))

    def after_iteration(intermediate_result: OptimizeResult) -> None:
        number, loss = len(history.epochs) + 1, float(intermediate_result.fun)
        history.epochs.append(EpochRecord(number, loss, None, None, 1.0, 0.0))
        for callback in callbacks:
            callback.on_epoch_end(network, history.epochs[-1])

    for callback in callbacks:
        callback.on_train_begin(network, estimator.max_iter, loader.n_samples)
    try:
        result = scipy_minimize(
            objective,
            objective.pack(),
            method="L-BFGS-B",
            jac=True,
            callback=after_iteration,
            options={
                "maxfun": estimator.max_fun,
                "maxiter": estimator.max_iter,
                "gtol": estimator.tol,
            },
        )
    finally:
        for callback in callbacks:
            callback.on_train_end(history)
    objective.unpack(result.x)
    estimator.n_iter_ = min(int(result.nit), estimator.max_iter)
    estimator.loss_ = float(result.fun)
    if result.status != 0:
        warnings.warn(
            f"lbfgs has not converged after {estimator.n_iter_} iterations ({result.message}): "
            "allow more with max_iter or max_fun, or scale the inputs",
            ConvergenceWarning,
            stacklevel=5,
        )
