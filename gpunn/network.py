"""The network: layers, the way forward, the way back, and one step of training.

One row per sample. ``Z_l = A_{l-1} W_l^T + b_l`` and ``A_l = f_l(Z_l)`` going forward;
``D_l = (D_{l+1} W_{l+1}) * f_l'(Z_l)`` going back, from ``D_L = dE/dA_L * f_L'(Z_L)``; the
gradients are ``dE/dW_l = D_l^T A_{l-1}`` and ``dE/db_l`` = the column sums of ``D_l``.

Everything is computed through a `Backend`, so that the same lines run on the CPU and on a GPU.

Sources: T. Rashid, *Make Your Own Neural Network* (2016); M. A. Nielsen, *Neural Networks and Deep
Learning* (2015), chapter 2.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from gpunn.activations import Activation, get_activation
from gpunn.backends.base import Array, Backend, get_dtype, is_on_gpu
from gpunn.backends.select import get_backend
from gpunn.data.matrices import Rows, row_blocks
from gpunn.data.scaling import Scaling
from gpunn.errors import (
    ConcurrencyError,
    DataError,
    DeviceError,
    GpunnError,
    ModelFileError,
    ParameterError,
    ShapeError,
    one_line,
)
from gpunn.initializers import draw_biases, draw_weights, make_generator
from gpunn.losses import get_loss
from gpunn.model_file import read_model, write_model

_WORK_NUMBERS = 2**22
"""Predictions go through the network in pieces of about this many numbers, 16 MiB in float32."""


class Layer(NamedTuple):
    """The connections into one layer, on the device, and its activation.

    `weights` is (n_out, n_in), a row holding one neuron's incoming weights; `biases` is (n_out,)
    or None.
    """

    weights: Array
    biases: Array | None
    activation: Activation


Update = Callable[[int, Layer, Array, Array], None]
"""What to do with a layer's gradient: ``update(index, layer, delta, inputs)``.

`delta` (n, n_out) and `inputs` (n, n_in) make the gradient, ``delta^T inputs``, so that an update
need not store it.
"""


def add_gradient(
    backend: Backend,
    delta: Array,
    inputs: Array,
    weights: Array,
    biases: Array | None,
    *,
    alpha: float,
    beta: float = 1.0,
    beta_biases: float = 1.0,
) -> None:
    """Change `weights` and `biases` in place by a multiple of a layer's summed gradient.

    ``weights <- alpha delta^T inputs + beta weights`` and
    ``biases <- alpha (column sums of delta) + beta_biases biases``. With ``alpha = -lr / n`` this
    is a whole step of gradient descent in one matrix product, without a gradient buffer.
    """
    backend.gemm(delta, inputs, weights, transpose_a=True, alpha=alpha, beta=beta)
    if biases is not None:
        backend.sum_rows(delta, biases, alpha=alpha, beta=beta_biases)


class Dropout(NamedTuple):
    """Which hidden units sit out a step: each sample's own, with probability `dropout_rate`.

    What is left of a layer is divided by ``1 - dropout_rate``, so that the sums above it stay as
    large as without. `keys` holds a whole number below 2^32 for each hidden layer, and other keys
    leave out other units; see `gpunn.backends.base.Backend.dropout`.

    Source: N. Srivastava et al., *Dropout: a simple way to prevent neural networks from
    overfitting* (2014).
    """

    dropout_rate: float
    keys: Sequence[int]

    @property
    def kept(self) -> float:
        """The share of the units that does not sit out."""
        return 1 - self.dropout_rate


MANY_BATCH_SIZES = 8
"""For so many sizes of a batch, the views of work arrays are remembered."""


class _WorkArrays(threading.local):
    """An array for each layer of a batch, made once for the largest batch, each thread's own.

    So several threads may read a network at once, and none writes to what another one reads.
    """

    def __init__(self, backend: Backend, sizes: Sequence[int], dtype: np.dtype[Any]) -> None:
        self._backend, self._sizes, self._dtype = backend, sizes, dtype
        self._of: dict[int, list[Array]] = {}

    def __call__(self, n_rows: int) -> list[Array]:
        """Return the arrays (n_rows, n_l), with whatever the memory holds."""
        try:
            return self._of[n_rows]
        except KeyError:
            self._of[n_rows] = arrays = self._make(n_rows)
            return arrays

    def _make(self, n_rows: int) -> list[Array]:
        largest = max(self._of, default=0)
        if n_rows > largest:
            self._of.clear()
            return [self._backend.empty((n_rows, size), self._dtype) for size in self._sizes]
        # A smaller batch, such as an epoch's last, uses the first rows of the largest.
        if len(self._of) > MANY_BATCH_SIZES:
            self._of = {largest: self._of[largest]}
        return [whole[:n_rows] for whole in self._of[largest]]


@dataclass(frozen=True)
class Architecture:
    """What a network is, apart from its numbers."""

    layer_sizes: tuple[int, ...]
    hidden_activation: str = "sigmoid"
    output_activation: str = "sigmoid"
    loss: str = "squared_error"
    biases: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        sizes = self.layer_sizes
        if len(sizes) < 2 or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise ParameterError(
                "layer_sizes must be at least two whole numbers above 0, from inputs to outputs, "
                f"got {list(sizes)}"
            )
        if not isinstance(self.biases, bool):
            raise ParameterError(f"biases must be True or False, got {self.biases!r}")
        get_activation(self.hidden_activation)
        get_activation(self.output_activation)
        get_loss(self.loss, self.output_activation)
        get_dtype(self.dtype)

    def layers(self) -> Iterator[tuple[int, int, Activation]]:
        """Yield each layer's (n_out, n_in, activation), from the first hidden one up."""
        for index, (n_in, n_out) in enumerate(
            zip(self.layer_sizes[:-1], self.layer_sizes[1:], strict=True), start=2
        ):
            last = index == len(self.layer_sizes)
            yield (
                n_out,
                n_in,
                get_activation(self.output_activation if last else self.hidden_activation),
            )


class Network:
    """A multilayer perceptron with any number of hidden layers.

    Several threads may ask a network at once (`predict`, `gpunn.evaluate`, `loss_and_gradients`);
    one at a time may train it.

    Parameters
    ----------
    layer_sizes : sequence of int
        Number of units from the inputs to the outputs, such as ``[784, 200, 10]``.
    hidden_activation, output_activation : {"sigmoid", "tanh", "relu", "identity", "softmax"}
        The activations of the hidden layers and of the outputs.
    loss : str
        "squared_error", "sum_of_squares", "mean_squared_error", "absolute_error",
        "binary_cross_entropy" (with sigmoid outputs) or "cross_entropy" (with softmax outputs).
    biases : bool
        Whether neurons have biases.
    initializer : str
        How the first weights are drawn; see `gpunn.initializers.draw_weights`.
    dtype : {"float32", "float64"}
        What is computed in.
    device : {"auto", "cpu", "cuda", "cuda:N"} or Backend
        Where. "auto" is the first usable GPU, else the CPU.
    seed : int, sequence of int, or numpy.random.Generator
        Where the weights come from. The same seed gives the same bits on every device.

    Attributes
    ----------
    architecture : Architecture
        What the network is, apart from its numbers.
    layers : list of Layer
        The connections, on the device, from the first hidden layer up.
    backend : Backend
        The device.
    scaling : Scaling
        How raw inputs and labels were turned into what the network is trained on. It is kept in
        the model file; `predict` itself takes inputs that are scaled already.
    class_labels : list of int or None
        What each output stands for, where that is known.
    training_record : dict
        What is worth keeping about the training, in plain values; kept in the model file.

    Raises
    ------
    ParameterError
        If an argument is not one of those allowed.
    DeviceError
        If the device cannot be had.
    """

    textbook_rule = False
    """Whether `learn_from` sends the outputs' errors back as `ThreeLayerNetwork` does."""

    def __init__(
        self,
        layer_sizes: Sequence[int],
        *,
        hidden_activation: str = "sigmoid",
        output_activation: str = "sigmoid",
        loss: str = "squared_error",
        biases: bool = True,
        initializer: str = "normal",
        dtype: DTypeLike = "float32",
        device: str | Backend = "auto",
        seed: int | Sequence[int] | np.random.Generator = 0,
    ) -> None:
        architecture = Architecture(
            _whole_numbers(layer_sizes),
            hidden_activation,
            output_activation,
            loss,
            biases,
            get_dtype(dtype).name,
        )
        generator, backend = make_generator(seed), get_backend(device)
        self._set_up(
            architecture,
            backend,
            (
                _draw_layer(backend, initializer, generator, n_out, n_in, architecture.dtype)
                for n_out, n_in, _ in architecture.layers()
            ),
        )

    @classmethod
    def from_parameters(
        cls,
        architecture: Architecture,
        parameters: Iterable[tuple[NDArray[Any], NDArray[Any] | None]],
        device: str | Backend = "auto",
    ) -> Self:
        """Return a network of the given parameters.

        Parameters
        ----------
        architecture : Architecture
            What the network is, apart from its numbers.
        parameters : iterable of (array, array or None)
            Each layer's weights (n_out, n_in) and biases (n_out,), in the network's dtype, on the
            host or already on the device. Row-major arrays of the device, which the CPU's are all,
            become the network's own; they are not copied.
        device : {"auto", "cpu", "cuda", "cuda:N"} or Backend
            Where.

        Returns
        -------
        Network
            The network.

        Raises
        ------
        DeviceError
            If the device cannot be had.
        """
        network, backend = cls.__new__(cls), get_backend(device)
        network._set_up(architecture, backend, _uploaded(backend, parameters))
        return network

    def _set_up(
        self,
        architecture: Architecture,
        backend: Backend,
        parameters: Iterator[tuple[Array, Array | None]],
    ) -> None:
        if backend.precision != "fp32" and architecture.dtype != "float32":
            raise ParameterError(
                f"precision {backend.precision!r} is for float32 networks, and this one is "
                f"{architecture.dtype}: use precision 'fp32'"
            )
        self.architecture = architecture
        self.backend = backend
        self.scaling = Scaling.identity()
        self.class_labels: list[int] | None = None
        self.training_record: dict[str, Any] = {}
        self.loss = get_loss(architecture.loss, architecture.output_activation)
        sizes = architecture.layer_sizes[1:]
        # The last activations first hold the outputs' z, and then their delta.
        self._activations = _WorkArrays(backend, sizes, self.dtype)
        self._deltas = _WorkArrays(backend, sizes, self.dtype)
        self._training = threading.RLock()
        self.layers = [
            Layer(weights, biases if architecture.biases else None, activation)
            for (_, _, activation), (weights, biases) in zip(
                architecture.layers(), parameters, strict=True
            )
        ]

    # What it is.

    @property
    def n_inputs(self) -> int:
        """Number of inputs."""
        return self.architecture.layer_sizes[0]

    @property
    def n_outputs(self) -> int:
        """Number of outputs."""
        return self.architecture.layer_sizes[-1]

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return sum(
            n_out * (n_in + self.architecture.biases)
            for n_out, n_in, _ in self.architecture.layers()
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the parameters."""
        return np.dtype(self.architecture.dtype)

    def __repr__(self) -> str:
        sizes = "-".join(map(str, self.architecture.layer_sizes))
        return (
            f"<{type(self).__name__} {sizes}, {self.architecture.hidden_activation} and "
            f"{self.architecture.output_activation}, {self.dtype} on {self.backend.name}>"
        )

    # Parameters in and out.

    def device_parameters(self) -> dict[str, Array]:
        """Return the parameters themselves, on the device: ``layers.0.weight`` and so on."""
        arrays = {}
        for index, layer in enumerate(self.layers):
            arrays[f"layers.{index}.weight"] = layer.weights
            if layer.biases is not None:
                arrays[f"layers.{index}.bias"] = layer.biases
        return arrays

    def parameters(self) -> dict[str, NDArray[Any]]:
        """Return host copies of the parameters.

        Returns
        -------
        dict of str to ndarray
            ``layers.0.weight`` (n_out, n_in), ``layers.0.bias`` (n_out,), and so on upwards.
        """
        return {
            name: self.backend.to_host(array) for name, array in self.device_parameters().items()
        }

    def load_parameters(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Change the network's parameters in place to copies of the given ones.

        Parameters
        ----------
        parameters : dict of str to array_like
            All of the names and shapes that `parameters` returns.

        Raises
        ------
        ShapeError
            If a name is missing or unknown, a shape differs, or something is no array of numbers.
            Nothing has been changed then.
        """
        own = self.device_parameters()
        if own.keys() != parameters.keys():
            raise ShapeError(
                f"parameters must be named {', '.join(own)}, got {', '.join(parameters)}"
            )
        try:
            host = {name: np.asarray(value, self.dtype) for name, value in parameters.items()}
        except (TypeError, ValueError) as error:
            raise ShapeError(f"parameters must be arrays of numbers: {error}") from error
        for name, value in host.items():
            if value.shape != own[name].shape:
                raise ShapeError(f"{name} must have shape {own[name].shape}, got {value.shape}")
        for name, value in host.items():
            self.backend.copy_into(self.backend.asarray(value), own[name])

    # The way forward.

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the outputs for some inputs.

        Parameters
        ----------
        X : array_like, shape (n, n_0) or (n_0,)
            Inputs, scaled as in training, on the host or already on the device; one row per
            sample, or a single sample.

        Returns
        -------
        ndarray, shape (n, n_L) or (n_L,)
            The outputs ``A_L``, on the host.

        Raises
        ------
        ShapeError
            If the inputs do not have n_0 columns.
        DataError
            If they are not numbers.
        """
        inputs, single = self.check_rows(X, self.n_inputs, "inputs")
        n_rows = inputs.shape[0]
        outputs = self.backend.empty((min(n_rows, self.rows_at_once), self.n_outputs), self.dtype)
        host = np.empty((n_rows, self.n_outputs), self.dtype)
        for rows in row_blocks(n_rows, self.rows_at_once):
            # Piece by piece, because inputs on the host may be more than the device has room for.
            block = self.as_matrix(inputs[rows])
            out = outputs[: block.shape[0]]
            self.write_outputs(block, out)
            host[rows] = self.backend.to_host(out)
        return np.asarray(host[0]) if single else host

    @property
    def rows_at_once(self) -> int:
        """How many samples go forward at a time, so that their activations fit in memory."""
        return max(1, _WORK_NUMBERS // sum(self.architecture.layer_sizes))

    def _forward(self, inputs: Array) -> Array:
        """Return Z_L without its biases, in a work array; a sum over parts can still be added."""
        z = self._activations(inputs.shape[0])[0]
        self.backend.gemm(inputs, self.layers[0].weights, z, transpose_b=True)
        return self._forward_from(z)

    def _forward_from(self, z: Array, dropout: Dropout | None = None) -> Array:
        """Return Z_L for a first layer's Z_1 without biases, which becomes A_1 in place."""
        activations = self._activations(z.shape[0])
        for index, (layer, above) in enumerate(pairwise(self.layers), start=1):
            self.backend.activate(z, layer.biases, layer.activation)
            if dropout is not None:
                self._drop_out(z, dropout, index, 1 / dropout.kept)
            a, z = z, activations[index]
            self.backend.gemm(a, above.weights, z, transpose_b=True)
        return z

    def _drop_out(self, array: Array, dropout: Dropout, index: int, scale: float) -> None:
        """Change in place to 0 what sits out of the layer with that index, and scale the rest."""
        key = dropout.keys[index - 1]
        self.backend.dropout(array, dropout_rate=dropout.dropout_rate, scale=scale, key=key)

    def _write_outputs(self, z: Array, outputs: Array) -> None:
        """Change `outputs` in place to A_L for Z_L without its biases, which is left as it is."""
        top = self.layers[-1]
        self.backend.copy_into(z, outputs)
        self.backend.activate(outputs, top.biases, top.activation)

    # The way back.

    @contextmanager
    def training(self) -> Iterator[None]:
        """Make sure that no other thread trains the network meanwhile.

        Raises
        ------
        ConcurrencyError
            If one does.
        """
        if not self._training.acquire(blocking=False):
            raise ConcurrencyError(
                f"{self!r} is being trained by another thread: give each thread a network of its "
                "own, or train in one thread after the other"
            )
        try:
            yield
        finally:
            self._training.release()

    def step(
        self,
        inputs: Array,
        targets: Array,
        update: Update,
        row_losses: Array,
        outputs: Array | None = None,
        row_weights: Array | None = None,
        dropout: Dropout | None = None,
    ) -> None:
        """Change the network in place by one step of training; nothing crosses to the host.

        Parameters
        ----------
        inputs : Array, shape (n, n_0)
            Inputs, on the device.
        targets : Array, shape (n, n_L)
            Targets, on the device.
        update : callable
            What to do with each layer's gradient, called from the outputs down. A layer's weights
            are no longer needed when it is called, so that it may change them.
        row_losses : Array, shape (n,), float64
            Gets each sample's error added, computed from the weights before the update.
        outputs : Array, shape (n, n_L), optional
            Gets the outputs before the update.
        row_weights : Array, shape (n,), optional
            What each sample's error is multiplied by.
        dropout : Dropout, optional
            Which hidden units sit out.

        Raises
        ------
        ConcurrencyError
            If another thread is training the network.
        """
        with self.training():
            self._step_by(
                self.learn_from, inputs, targets, update, row_losses, outputs, row_weights, dropout
            )

    def _step_by(
        self,
        learn_from: Callable[..., None],
        inputs: Array,
        targets: Array,
        update: Update,
        row_losses: Array,
        outputs: Array | None = None,
        row_weights: Array | None = None,
        dropout: Dropout | None = None,
    ) -> None:
        """Do what `step` says by some class's `learn_from`."""
        z, delta = self._activations(inputs.shape[0])[0], self._deltas(inputs.shape[0])[0]
        self.backend.gemm(inputs, self.layers[0].weights, z, transpose_b=True)
        learn_from(z, delta, targets, update, row_losses, outputs, row_weights, dropout)
        update(0, self.layers[0], delta, inputs)

    def learn_from(
        self,
        z: Array,
        delta: Array,
        targets: Array,
        update: Update,
        row_losses: Array,
        outputs: Array | None = None,
        row_weights: Array | None = None,
        dropout: Dropout | None = None,
    ) -> None:
        """Change all layers above the first in place by one step, given the first one's sums.

        Parameters
        ----------
        z : Array, shape (n, n_1)
            ``Z_1`` without biases; becomes A_1 in place.
        delta : Array, shape (n, n_1)
            Gets ``D_1``, from which the first layer's gradient is made.
        targets, update, row_losses, outputs, row_weights, dropout
            As in `step`.
        """
        backend, top = self.backend, self.layers[-1]
        if dropout is not None and not self.layers[0].activation.elementwise:
            raise ParameterError(
                "dropout is for hidden units that are active by themselves, not for "
                f"{self.architecture.hidden_activation}"
            )
        n_layers = len(self.layers)
        z_top = self._forward_from(z, dropout)
        activations = [z, *self._activations(z.shape[0])[1:]]
        deltas = [delta, *self._deltas(z.shape[0])[1:-1], z_top][:n_layers]
        if outputs is not None:
            self._write_outputs(z_top, outputs)
        backend.loss_backward(
            z_top, top.biases, targets, top.activation, self.loss, row_losses, row_weights
        )
        if n_layers == 1:
            backend.copy_into(z_top, delta)
        for index in range(n_layers - 1, 0, -1):
            layer, below = self.layers[index], self.layers[index - 1]
            backend.gemm(deltas[index], layer.weights, deltas[index - 1])
            update(index, layer, deltas[index], activations[index - 1])
            if dropout is not None:
                self._drop_out(deltas[index - 1], dropout, index, 1 / dropout.kept)
                # The derivative is written from the activation as it was before.
                self._drop_out(activations[index - 1], dropout, index, dropout.kept)
            backend.activation_backward(deltas[index - 1], activations[index - 1], below.activation)

    def add_losses(
        self,
        inputs: Array,
        targets: Array,
        row_losses: Array,
        outputs: Array,
        row_weights: Array | None = None,
    ) -> None:
        """Change `row_losses` and `outputs` in place to samples' errors (added) and outputs."""
        top = self.layers[-1]
        z = self._forward(inputs)
        self._write_outputs(z, outputs)
        self.backend.loss_backward(
            z, top.biases, targets, top.activation, self.loss, row_losses, row_weights
        )

    def write_outputs(self, inputs: Array, outputs: Array) -> None:
        """Change `outputs` in place to the outputs for some inputs, both on the device."""
        self._write_outputs(self._forward(inputs), outputs)

    def loss_and_gradients(
        self, X: ArrayLike, T: ArrayLike
    ) -> tuple[float, dict[str, NDArray[Any]]]:
        """Return the mean error over some samples and its gradients.

        Parameters
        ----------
        X : array_like, shape (n, n_0)
            Inputs.
        T : array_like, shape (n, n_L)
            Targets.

        Returns
        -------
        loss : float
            The error E averaged over the samples.
        gradients : dict of str to ndarray
            dE/dW and dE/db of that average, on the host, named and shaped as `parameters`.

        Raises
        ------
        ShapeError
            If inputs and targets do not fit the network or each other.
        """
        inputs, targets = self.as_samples(X, T)
        n_samples = inputs.shape[0]
        row_losses = self.backend.zeros((n_samples,), np.float64)
        gradients = {}

        def keep(index: int, layer: Layer, delta: Array, below: Array) -> None:
            weights = self.backend.empty(layer.weights.shape, self.dtype)
            biases = None
            if layer.biases is not None:
                biases = self.backend.empty(layer.biases.shape, self.dtype)
                gradients[f"layers.{index}.bias"] = biases
            gradients[f"layers.{index}.weight"] = weights
            add_gradient(
                self.backend,
                delta,
                below,
                weights,
                biases,
                alpha=1 / n_samples,
                beta=0.0,
                beta_biases=0.0,
            )

        # Network's own way back, whatever rule a subclass learns by.
        self._step_by(partial(Network.learn_from, self), inputs, targets, keep, row_losses)
        loss = float(self.backend.to_host(row_losses).sum() / n_samples)
        return loss, {
            name: self.backend.to_host(gradients[name]) for name in self.device_parameters()
        }

    # The way down: what does a class look like to the network?

    def backquery(self, targets: ArrayLike) -> NDArray[Any]:
        """Run the network backwards, from outputs to inputs that would make them.

        From the outputs down, ``z = f^-1(a)`` and ``a_below = (z - b) W``, where each signal
        ``a_below`` is stretched to [0.01, 0.99], the range that the inverse of the sigmoid likes.

        Parameters
        ----------
        targets : array_like, shape (n, n_L) or (n_L,)
            Outputs, within the range of the output activation (strictly between 0 and 1 for
            sigmoid and softmax outputs).

        Returns
        -------
        ndarray, shape (n, n_0) or (n_0,)
            Inputs in [0.01, 0.99], on the host.

        Raises
        ------
        ShapeError
            If the targets do not have n_L columns.
        DataError
            If they are not numbers, or the output activation can never reach them.

        References
        ----------
        T. Rashid, *Make Your Own Neural Network* (2016), part 3.
        """
        if self.backend.owns(targets):
            targets = self.backend.to_host(targets)
        given = host_array(targets, "targets", self.backend.name)
        _check_numbers(given, "targets")
        signals = np.atleast_2d(given).astype(self.dtype)
        if given.ndim not in (1, 2) or signals.shape[1] != self.n_outputs:
            raise ShapeError(
                f"targets must have shape (n, {self.n_outputs}), got {tuple(given.shape)}"
            )
        for layer in reversed(self.layers):
            with np.errstate(all="ignore"):
                z = layer.activation.inverse(signals)
            if not np.isfinite(z).all():
                raise DataError(
                    f"no finite input of {layer.activation.name} gives these targets: "
                    "use values strictly inside its range, such as 0.01 and 0.99"
                )
            if layer.biases is not None:
                z = z - self.backend.to_host(layer.biases)
            signals = _stretch(z @ self.backend.to_host(layer.weights))
        return signals[0] if given.ndim == 1 else signals

    # Files.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file, whole or not at all.

        Parameters
        ----------
        path : path-like
            Where to; a file that is there is replaced once the new one is complete.

        Raises
        ------
        OutputError
            If it could not be written. What was there before is still there.
        """
        write_model(path, self.parameters(), self.header())

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | Backend = "auto") -> Self:
        """Read a network from a file, onto any device.

        Parameters
        ----------
        path : path-like
            A file that `save` wrote, on whatever device.
        device : {"auto", "cpu", "cuda", "cuda:N"} or Backend
            Where to compute with it.

        Returns
        -------
        Network
            The network as it was saved.

        Raises
        ------
        ModelFileError
            If the file is missing, damaged, or holds something else.
        DeviceError
            If the device cannot be had.
        """
        parameters, header = read_model(path)
        backend = get_backend(device)
        try:
            return cls.from_file_contents(parameters, header, backend)
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from error
        except (GpunnError, TypeError, KeyError, ValueError) as error:
            raise ModelFileError(
                f"{path}: its description does not make a network: {one_line(error)}"
            ) from error

    @classmethod
    def from_file_contents(
        cls, parameters: dict[str, NDArray[Any]], header: dict[str, Any], device: str | Backend
    ) -> Self:
        """Return the network of what `gpunn.model_file.read_model` returned.

        Raises
        ------
        ModelFileError, TypeError, KeyError, ValueError
            If it makes no network.
        DeviceError
            If the device cannot be had.
        """
        backend = get_backend(device)
        network = cls.__new__(cls)
        network._restore(parameters, header, backend)
        return network

    def header(self) -> dict[str, Any]:
        """Return what a file says of the network beside its parameters, in plain values."""
        return {
            "architecture": {
                **vars(self.architecture),
                "layer_sizes": list(self.architecture.layer_sizes),
            },
            "scaling": self.scaling.to_dict(),
            "class_labels": self.class_labels,
            "training": self.training_record,
        }

    def _restore(
        self, parameters: dict[str, NDArray[Any]], header: dict[str, Any], backend: Backend
    ) -> None:
        fields = dict(header["architecture"])
        architecture = Architecture(_whole_numbers(fields.pop("layer_sizes")), **fields)
        host = []
        for index, (n_out, n_in, _) in enumerate(architecture.layers()):
            host.append(
                (
                    _expect(parameters, f"layers.{index}.weight", (n_out, n_in), architecture),
                    _expect(parameters, f"layers.{index}.bias", (n_out,), architecture)
                    if architecture.biases
                    else None,
                )
            )
        self._set_up(architecture, backend, _uploaded(backend, host))
        self.scaling = Scaling.from_dict(header["scaling"])
        if self.scaling.n_features not in (None, self.n_inputs):
            raise ModelFileError(
                f"damaged: scales {self.scaling.n_features} features, but takes {self.n_inputs}"
            )
        self.class_labels = _class_labels(header["class_labels"], self.n_outputs)
        self.training_record = dict(header["training"])

    # Inputs as the device wants them.

    def check_rows(self, values: ArrayLike, n_columns: int, name: str) -> tuple[Array, bool]:
        """Return values as a matrix where they are, and whether they were a single row.

        Raises
        ------
        ShapeError
            If they do not have `n_columns` columns.
        DataError
            If they are not numbers.
        DeviceError
            If they lie on another device.
        """
        own = self.backend.owns(values)
        array: Any = values if own else host_array(values, name, self.backend.name)
        _check_numbers(array, name)
        single = array.ndim == 1
        if array.ndim not in (1, 2) or array.shape[-1] != n_columns:
            raise ShapeError(
                f"{name} must have shape (n, {n_columns}) for this network, "
                f"got {tuple(array.shape)}"
            )
        return array.reshape((1, n_columns)) if single else array, single

    def as_matrix(self, rows: Array | Rows) -> Array:
        """Return a matrix as a row-major one on the device, in the network's dtype."""
        if self.backend.owns(rows):
            return self.backend.contiguous(rows, self.dtype)
        return self.backend.asarray(np.asarray(rows), self.dtype)

    def check_samples(self, X: ArrayLike, T: ArrayLike) -> tuple[Array, Array]:
        """Return inputs and targets as matrices where they are, checked against each other.

        Raises
        ------
        ShapeError
            If they do not fit the network or each other, or there are none.
        """
        inputs, _ = self.check_rows(X, self.n_inputs, "inputs")
        targets, _ = self.check_rows(T, self.n_outputs, "targets")
        if inputs.shape[0] != targets.shape[0] or inputs.shape[0] == 0:
            raise ShapeError(
                f"inputs and targets must be as many, and at least one: "
                f"got {inputs.shape[0]} inputs and {targets.shape[0]} targets"
            )
        return inputs, targets

    def as_samples(self, X: ArrayLike, T: ArrayLike) -> tuple[Array, Array]:
        """Return inputs and targets as matrices on the device, checked as by `check_samples`."""
        inputs, targets = self.check_samples(X, T)
        return self.as_matrix(inputs), self.as_matrix(targets)


def _uploaded(
    backend: Backend, parameters: Iterable[tuple[NDArray[Any], NDArray[Any] | None]]
) -> Iterator[tuple[Array, Array | None]]:
    """Yield each layer's weights and biases on the device."""

    def upload(array: Any) -> Array:
        own = backend.owns(array)
        return backend.contiguous(array, array.dtype) if own else backend.asarray(array)

    for weights, biases in parameters:
        yield upload(weights), None if biases is None else upload(biases)


def _draw_layer(
    backend: Backend,
    initializer: str,
    generator: np.random.Generator,
    n_out: int,
    n_in: int,
    dtype: str,
) -> tuple[Array, Array]:
    """Draw a layer's first weights and biases onto the device."""
    weights = backend.empty((n_out, n_in), dtype)
    for rows, block in draw_weights(initializer, generator, n_out, n_in, dtype):
        backend.copy_into(backend.asarray(block), weights[rows])
    return weights, backend.asarray(draw_biases(initializer, generator, n_out, dtype))


def _whole_numbers(sizes: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(size if isinstance(size, str) else size.__index__() for size in sizes)
    except (TypeError, AttributeError):
        raise ParameterError(
            f"layer_sizes must be whole numbers from inputs to outputs, got {sizes!r}"
        ) from None


def host_array(values: ArrayLike, name: str, device: str) -> NDArray[Any]:
    """Return values as an array on the host; `Rows` stay what they are.

    Raises
    ------
    DeviceError
        If they lie on a GPU.
    ShapeError
        If they are no rectangular array.
    """
    if isinstance(values, Rows):
        return values  # type: ignore[return-value]
    if is_on_gpu(values):
        raise DeviceError(
            f"{name} lie on a GPU, but the network is on {device}: "
            "give the network that device, or the host copy (`.get()`)"
        )
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ShapeError(f"{name} must be a rectangular array: {error}") from error


def _check_numbers(array: Array, name: str) -> None:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} must be numbers, got an array of {array.dtype}")


def _expect(
    parameters: dict[str, NDArray[Any]], name: str, shape: tuple[int, ...], what: Architecture
) -> NDArray[Any]:
    array = parameters.get(name)
    if array is None or array.shape != shape or array.dtype != what.dtype:
        found = "nothing" if array is None else f"{array.dtype} {array.shape}"
        raise ModelFileError(f"damaged: expected {name} as {what.dtype} {shape}, found {found}")
    return array


def _class_labels(labels: Any, n_outputs: int) -> list[int] | None:
    if labels is None:
        return None
    if (
        not isinstance(labels, list)
        or len(labels) != n_outputs
        or not all(type(label) is int and -(2**63) <= label < 2**63 for label in labels)
    ):
        raise ModelFileError(f"damaged: expected {n_outputs} class labels, found {labels!r:.80}")
    return labels


def _stretch(signals: NDArray[Any]) -> NDArray[Any]:
    """Return each row stretched to [0.01, 0.99]; a row of equal numbers becomes 0.5."""
    low = signals.min(axis=1, keepdims=True)
    span = signals.max(axis=1, keepdims=True) - low
    with np.errstate(invalid="ignore", divide="ignore"):
        stretched = (signals - low) / span * 0.98 + 0.01
    return np.where(span > 0, stretched, 0.5)
