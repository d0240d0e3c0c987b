"""The classic network of the textbooks: inputs, one hidden layer, outputs.

Source: T. Rashid, *Make Your Own Neural Network* (2016).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gpunn.backends.base import Array, Backend
from gpunn.errors import ModelFileError, ParameterError
from gpunn.network import Network
from gpunn.network.architecture import Architecture
from gpunn.network.frames import column_names
from gpunn.network.layers import Layer, add_gradient
from gpunn.network.names import check_names
from gpunn.parallel.sharing import Sharing
from gpunn.training.online import OnlineTrainer


class ThreeLayerNetwork(Network):
    """The classic network: inputs, one hidden layer, outputs; sigmoid, and no biases.

    It is trained on one sample at a time. Everything is computed from the weights before the
    update: output errors ``e = t - o``, hidden errors ``W_2^T e``, and for both layers
    ``W <- W + lr * outer(error * a * (1 - a), a_below)``.

    The textbook sends back ``e`` itself, not ``e * o * (1 - o)``. This is not quite the gradient of
    the squared error: hidden units keep learning when outputs are saturated. For the gradient,
    train a ``Network([n_inputs, n_hidden, n_outputs], biases=False)``; `loss_and_gradients` returns
    the true gradient for both.

    Parameters
    ----------
    n_inputs, n_hidden, n_outputs : int
        Number of units in the three layers.
    learning_rate : float
        The step size lr.
    initializer : str
        "normal" (standard deviation ``fan_in^-1/2``), "uniform" (``+-fan_in^-1/2``),
        "uniform_half" (``+-0.5``); see `gpunn.initializers.draw_weights` for the others.
    dtype : {"float32", "float64"}
        Number type of the weights and of all computations.
    device : {"auto", "cpu", "cuda", "cuda:N"} or Backend
        Where to compute; "auto" takes the first usable GPU, else the CPU.
    seed : int, sequence of int, or numpy.random.Generator
        Seed of the first weights, or the generator that draws them.
    parallel : {"auto", "hidden", "data", "none"}
        How several ranks share the network; see `gpunn.Network`.

    References
    ----------
    T. Rashid, *Make Your Own Neural Network* (2016).
    """

    def __init__(
        self,
        n_inputs: int,
        n_hidden: int,
        n_outputs: int,
        learning_rate: float,
        *,
        initializer: str = "normal",
        dtype: DTypeLike = "float32",
        device: str | Backend = "auto",
        seed: int | Sequence[int] | np.random.Generator = 0,
        parallel: str = "auto",
    ) -> None:
        self.learning_rate = _learning_rate(learning_rate)
        super().__init__(
            [n_inputs, n_hidden, n_outputs],
            biases=False,
            hidden_errors="textbook",
            initializer=initializer,
            dtype=dtype,
            device=device,
            seed=seed,
            parallel=parallel,
        )

    def train(self, inputs: ArrayLike, targets: ArrayLike) -> NDArray[Any]:
        """Change the network in place by training on samples, one after the other.

        Parameters
        ----------
        inputs : array_like, shape (n_0,) or (n, n_0)
            One sample, or several, which are used in their order.
        targets : array_like, shape (n_L,) or (n, n_L)
            What the outputs should be.

        Returns
        -------
        ndarray, shape (n_L,) or (n, n_L)
            The output errors ``t - o`` of each sample, before the step on it.

        Raises
        ------
        ShapeError
            If inputs and targets do not fit the network or each other.
        DataError
            If they are not numbers, or columns have other names or another order than
            `feature_names`, which the first data frame sets.
        ConcurrencyError
            If another thread is training the network.
        """
        names = column_names(inputs)
        check_names(self.feature_names, names)
        with self.training():
            errors = self._train(inputs, targets)
            if names is not None:
                self.feature_names = names
            return errors

    def _train(self, inputs: ArrayLike, targets: ArrayLike) -> NDArray[Any]:
        _, single = self.check_rows(inputs, self.n_inputs, "inputs")
        device_inputs, device_targets = self.as_samples(inputs, targets)
        outputs = self.backend.empty(device_targets.shape, self.dtype)
        self.forget_training()
        if device_inputs.shape[0] == 1:
            # A block of one sample would save nothing, and cost its preparations.
            row_losses = self.backend.zeros((1,), np.float64)
            self.step(device_inputs, device_targets, self._descend, row_losses, outputs)
        else:
            trainer = OnlineTrainer(self)
            for rows in trainer.blocks(device_inputs.shape[0]):
                X, T = device_inputs[rows], device_targets[rows]
                trainer.learn(X, T, self.learning_rate, outputs=outputs[rows])
        errors = self.backend.to_host(device_targets) - self.backend.to_host(outputs)
        return np.asarray(errors[0] if single else errors)

    def _descend(self, index: int, layer: Layer, delta: Array, inputs: Array) -> None:
        rate = self.learning_rate
        add_gradient(self.backend, delta, inputs, layer.weights, layer.biases, alpha=-rate)

    def header(self) -> dict[str, Any]:
        """Return what a file says of the network; see `Network.header`."""
        # In files the rule of the hidden errors goes with the class: what `Network.load` makes of
        # them learns by the gradient.
        usual = replace(self.architecture, hidden_errors="gradient")
        return {
            **super().header(),
            "architecture": usual.to_dict(),
            "learning_rate": self.learning_rate,
        }

    def _restore(
        self,
        parameters: dict[str, NDArray[Any]],
        header: dict[str, Any],
        backend: Backend,
        sharing: Sharing,
    ) -> None:
        super()._restore(parameters, header, backend, sharing)
        found = self.architecture
        classic = Architecture(
            found.layer_sizes, biases=False, dtype=found.dtype, hidden_errors="textbook"
        )
        by_gradient = replace(classic, hidden_errors="gradient")
        if len(self.layers) != 2 or found not in (by_gradient, classic):
            raise ModelFileError(
                f"holds {self!r}, which is not a three-layer network without biases; "
                "load it with Network.load"
            )
        self.architecture = classic
        self.learning_rate = _learning_rate(header.get("learning_rate", 0.1))


def _learning_rate(value: float) -> float:
    try:
        rate = float(value) if isinstance(value, int | float | np.number) else 0.0
    except OverflowError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ParameterError(f"learning_rate must be a number above 0, got {value!r:.80}")
    return rate
