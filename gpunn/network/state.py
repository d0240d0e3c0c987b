"""What a network has: layers on a device, numbers that come and go, one thread that trains it.

There is no mathematics here; `gpunn.network.network` has it.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpunn.activations import get_activation
from gpunn.backends.base import Array, Backend
from gpunn.backends.fused import FusedModel
from gpunn.backends.select import get_backend
from gpunn.data.matrices import Rows
from gpunn.data.scaling import Scaling
from gpunn.data.tables.preparation import Preparation
from gpunn.errors import ConcurrencyError, ParameterError, ShapeError
from gpunn.initializers import BLOCK_UNITS, Fans, block_generators, draw_biases, draw_weights
from gpunn.losses import get_loss
from gpunn.network.architecture import Architecture
from gpunn.network.frames import column_names
from gpunn.network.inputs import check_rows
from gpunn.network.layers import Layer
from gpunn.network.names import as_names, check_names, warn_of_missing_names
from gpunn.network.passes import Factors, Passes
from gpunn.network.summary import layer_table
from gpunn.network.work_arrays import WorkArrays
from gpunn.parallel.alike import check_same_arrays
from gpunn.parallel.sharing import Sharing, share


class OneTrainer:
    """Lets one thread at a time train a network; it may enter again while it does."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise ConcurrencyError(
                "this network is being trained by another thread: give each thread a network of "
                "its own, or train in one thread at a time"
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class NetworkState:
    """A network's layers and all that belongs to them; see `gpunn.Network` for the attributes."""

    @classmethod
    def from_parameters(
        cls,
        architecture: Architecture,
        parameters: Iterable[tuple[NDArray[Any], NDArray[Any] | None]],
        device: str | Backend = "auto",
    ) -> Self:
        """Return a network with the given parameters.

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
            If the device cannot be used.
        """
        network, backend = cls.__new__(cls), get_backend(device)
        sharing = share("none", architecture.layer_sizes)
        network._set_up(architecture, backend, sharing, uploaded(backend, parameters))
        return network

    def _set_up(
        self,
        architecture: Architecture,
        backend: Backend,
        sharing: Sharing,
        parameters: Iterator[tuple[Array, Array | None]],
    ) -> None:
        if backend.precision != "fp32" and architecture.dtype != "float32":
            raise ParameterError(
                f"precision {backend.precision!r} is for float32 networks, but this one is "
                f"{architecture.dtype}: use precision 'fp32'"
            )
        self.architecture = architecture
        self.backend = backend
        self.sharing = sharing
        self.scaling = Scaling.identity()
        self.output_scaling: Scaling | None = None
        self.preparation: Preparation | None = None
        self.class_labels: list[int | str] | None = None
        self._feature_names: list[str] | None = None
        self.training_record: dict[str, Any] = {}
        self.loss = get_loss(architecture.loss, architecture.output_activation)
        sizes = sharing.local_sizes[1:]
        self.work_dtype = self._choose_work_dtype()
        # The last activations first hold the outputs' z, and then their delta.
        hidden = [self.work_dtype] * (len(sizes) - 1)
        self._activations = WorkArrays(backend, sizes, [*hidden, self.dtype])
        self._deltas = WorkArrays(backend, sizes, [*hidden, self.work_dtype])
        self._inputs = WorkArrays(backend, architecture.layer_sizes[:1], [self.work_dtype])
        self._factors = Factors(backend, self.work_dtype)
        self._passes = Passes()
        self._training = OneTrainer()
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
    def predicts_classes(self) -> bool:
        """Whether the outputs are those of classes, and not numbers to predict."""
        return self.n_outputs > 1 and self.output_scaling is None

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return sum(
            n_out * (n_in + self.architecture.biases)
            for n_out, n_in, _ in self.architecture.layers()
        )

    @property
    def n_held(self) -> int:
        """Number of weights and biases that this process has; all, unless ranks share them."""
        return sum(int(array.size) for array in self.device_parameters().values())

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the parameters."""
        return np.dtype(self.architecture.dtype)

    @property
    def feature_names(self) -> list[str] | None:
        """The name of each input, or None if unknown; anything else raises ParameterError."""
        return self._feature_names

    @feature_names.setter
    def feature_names(self, names: Sequence[str] | None) -> None:
        self._feature_names = as_names(names, self.n_inputs)

    def _choose_work_dtype(self) -> np.dtype[Any]:
        """Return what samples, hidden activations and deltas are kept in.

        That is the network's own dtype unless the device rounds them, and can: its formulas must
        take the numbers of a layer one by one.
        """
        architecture = self.architecture
        hidden = get_activation(architecture.hidden_activation)
        if architecture.hidden_errors == "textbook" or not hidden.elementwise:
            return self.dtype
        return self.backend.work_dtype(self.dtype)

    def __repr__(self) -> str:
        sizes = "-".join(map(str, self.architecture.layer_sizes))
        return (
            f"<{type(self).__name__} {sizes}, {self.architecture.hidden_activation} and "
            f"{self.architecture.output_activation}, {self.dtype} on {self.backend.name}>"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return layer_table(self.architecture, repr(self).strip("<>"))

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

        If ranks share the hidden units, all of them must call it, and each gets the whole network.

        Returns
        -------
        dict of str to ndarray
            ``layers.0.weight`` (n_out, n_in), ``layers.0.bias`` (n_out,), and so on upwards.
        """
        return self.whole(self.device_parameters())

    def whole(self, arrays: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        """Return host copies of arrays that have the names and shapes of this rank's parameters.

        Of those that ranks share each gets the whole; then all must call it.
        """
        host = {name: self.backend.to_host(array) for name, array in arrays.items()}
        if not self.sharing.is_split:
            return host
        axes = {name: self.sharing.piece(name, array.shape).axis for name, array in host.items()}
        return {
            name: array
            if (axis := axes[name]) is None
            else np.concatenate(self.sharing.ranks.gather(array), axis)
            for name, array in host.items()
        }

    def weights_of(self, index: int) -> NDArray[Any]:
        """Return a host copy of the weights of a layer; ranks that share them must all call it."""
        name = f"layers.{index}.weight"
        return self.whole({name: self.layers[index].weights})[name]

    def load_parameters(self, parameters: Mapping[str, ArrayLike]) -> None:
        """Change the network's parameters in place to copies of the given ones.

        What `training_record` says of a training is forgotten.

        Parameters
        ----------
        parameters : dict of str to array_like
            All of the names and shapes that `parameters` returns.

        Raises
        ------
        ShapeError
            If a name is missing or unknown, a shape differs, or a value is not an array of numbers.
            Then nothing has been changed.
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
        check_same_arrays(
            self.sharing,
            self.backend,
            "the network",
            **{name: np.atleast_2d(value) for name, value in host.items()},
        )
        for name, value in host.items():
            piece = self.sharing.piece(name, own[name].shape)
            if value.shape != piece.shape:
                raise ShapeError(f"{name} must have shape {piece.shape}, got {value.shape}")
            if piece.axis is not None:
                host[name] = value.take(np.r_[self.sharing.units], piece.axis)
        with self.training():
            for name, value in host.items():
                self.backend.copy_into(self.backend.asarray(value), own[name])
            self.forget_training()

    def fused_model(self) -> FusedModel | None:
        """Return what a fused path needs to know; None without exactly one hidden layer.

        There is none either if ranks share it: no fused path stops where they add up.
        """
        if len(self.layers) != 2 or self.sharing.is_split:
            return None
        hidden, top = self.layers
        return FusedModel(hidden, top, self.loss, self.architecture.hidden_errors == "textbook")

    def step_memory(self, n_rows: int) -> list[Any]:
        """Return what a step of so many samples uses in this thread: arrays, and who has some."""
        arrays = [*self._activations(n_rows), *self._deltas(n_rows), *self._factors.copies()]
        return [*arrays, *self._passes.all()]

    # Who trains it.

    def forget_training(self) -> None:
        """Forget what the record says of a training, since the weights are no longer its own.

        What it says of the kind of data stays.
        """
        kept = ("image_shape", "value_range", "pictures", "targets")
        self.training_record = {
            key: value for key, value in self.training_record.items() if key in kept
        }

    def training(self) -> "OneTrainer":
        """Return what makes sure, in a ``with``, that no other thread trains the network.

        It raises ConcurrencyError where one does.
        """
        return self._training

    # Inputs as the device wants them.

    def check_rows(self, values: ArrayLike, n_columns: int, name: str) -> tuple[Array, bool]:
        """Return values as a matrix where they are; see `gpunn.network.inputs.check_rows`."""
        return check_rows(self.backend, values, n_columns, name)

    def check_names(self, X: object) -> None:
        """Compare the names of inputs with those of the network, for a method that a user calls.

        It warns, at the user's line, if only one of them has names.

        Raises
        ------
        DataError
            If they differ.
        """
        if type(X) is np.ndarray and self._feature_names is None:
            return  # which is all that it costs whoever has no names
        came = column_names(X)
        known = self.names_to_compare(came)
        check_names(known, came)
        warn_of_missing_names(known, came, stacklevel=4)

    def names_to_compare(self, came: list[str] | None) -> list[str] | None:
        """Return what the names of inputs must be, if that is known.

        The names of a table's columns count only for inputs that have names, too: arrays that were
        scaled have none, and nobody is to be warned of that.
        """
        if self._feature_names is None and self.preparation is not None and came is not None:
            return self.preparation.feature_names
        return self._feature_names

    def as_matrix(self, rows: Array | Rows) -> Array:
        """Return a matrix as a row-major one on the device, in the network's dtype."""
        if self.backend.owns(rows):
            return self.backend.contiguous(rows, self.dtype)
        return self.backend.asarray(np.asarray(rows), self.dtype)

    def as_kept(self, rows: Array | Rows) -> Array:
        """Return a matrix of samples as `as_matrix` does, in what they are kept in."""
        matrix = self.as_matrix(rows)
        if self.work_dtype == self.dtype:
            return matrix
        kept: Array = self.backend.empty(matrix.shape, self.work_dtype)
        self.backend.copy_into(matrix, kept)
        return kept

    def _rounded_inputs(self, inputs: Array) -> Array:
        """Return the inputs of a step in what they are kept in, in a work array if need be."""
        if inputs.dtype == self.work_dtype:
            return inputs
        (rounded,) = self._inputs(inputs.shape[0])
        self.backend.copy_into(inputs, rounded)
        return rounded

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
                "expected as many targets as inputs, and at least one of each, got "
                f"{inputs.shape[0]} inputs and {targets.shape[0]} targets"
            )
        return inputs, targets

    def as_samples(self, X: ArrayLike, T: ArrayLike) -> tuple[Array, Array]:
        """Return inputs and targets as matrices on the device, checked as by `check_samples`."""
        inputs, targets = self.check_samples(X, T)
        return self.as_matrix(inputs), self.as_matrix(targets)


def uploaded(
    backend: Backend, parameters: Iterable[tuple[NDArray[Any], NDArray[Any] | None]]
) -> Iterator[tuple[Array, Array | None]]:
    """Yield each layer's weights and biases on the device."""

    def upload(array: Any) -> Array:
        own = backend.owns(array)
        return backend.contiguous(array, array.dtype) if own else backend.asarray(array)

    for weights, biases in parameters:
        yield upload(weights), None if biases is None else upload(biases)


def drawn(
    architecture: Architecture,
    backend: Backend,
    sharing: Sharing,
    initializer: str,
    generator: np.random.Generator,
) -> Iterator[tuple[Array, Array | None]]:
    """Yield each layer's first weights and biases on the device, drawn from the first layer up."""
    sizes = architecture.layer_sizes
    if len(sizes) == 3 and (sharing.is_split or sizes[1] > BLOCK_UNITS):
        yield from _drawn_in_blocks(architecture, backend, sharing.units, initializer, generator)
        return
    dtype = architecture.dtype
    for n_out, n_in, _ in architecture.layers():
        weights = backend.empty((n_out, n_in), dtype)
        for rows, block in draw_weights(initializer, generator, n_out, n_in, dtype):
            backend.copy_into(backend.asarray(block), weights[rows])
        yield weights, backend.asarray(draw_biases(initializer, generator, n_out, dtype))


def _drawn_in_blocks(
    architecture: Architecture,
    backend: Backend,
    units: slice,
    initializer: str,
    generator: np.random.Generator,
) -> Iterator[tuple[Array, Array | None]]:
    """Yield both layers of some hidden units, drawn block by block, without most of the others."""
    (n_in, n_units, n_out), dtype = architecture.layer_sizes, architecture.dtype
    n_own, of_block = units.stop - units.start, block_generators(generator, n_units)
    first, second = backend.empty((n_own, n_in), dtype), backend.empty((n_out, n_own), dtype)
    biases = np.empty(n_own, dtype)
    for number in range(units.start // BLOCK_UNITS, -(-units.stop // BLOCK_UNITS)):
        start = number * BLOCK_UNITS
        stop, source = min(start + BLOCK_UNITS, n_units), of_block(number)
        wanted = slice(max(start, units.start), min(stop, units.stop))
        inside = slice(wanted.start - start, wanted.stop - start)
        own = slice(wanted.start - units.start, wanted.stop - units.start)

        def draw(n_rows: int, n_columns: int, fans: Fans, source: Any = source) -> Any:
            return draw_weights(initializer, source, n_rows, n_columns, dtype, fans)

        for rows, block in draw(stop - start, n_in, Fans(n_in, n_units)):
            low, high = max(rows.start, inside.start), min(rows.stop, inside.stop)
            if low < high:
                place = slice(low - inside.start + own.start, high - inside.start + own.start)
                part = backend.asarray(block[low - rows.start : high - rows.start])
                backend.copy_into(part, first[place])
        biases[own] = draw_biases(initializer, source, stop - start, dtype)[inside]
        for rows, block in draw(n_out, stop - start, Fans(n_units, n_out)):
            backend.copy_into(backend.asarray(block[:, inside]), second[rows, own])  # type: ignore[index]
    yield first, backend.asarray(biases)
    yield second, backend.asarray(draw_biases(initializer, of_block(None), n_out, dtype))
