"""The contract of a device.

Everything above this module computes through a `Backend` that is passed to it: there is no global
device and no branch on one. A backend owns arrays on its device (NumPy's or CuPy's ``ndarray``,
here called `Array`), moves them across with `Backend.asarray` and `Backend.to_host`, and does the
arithmetic of one training step with about ten fused formulas. The only other way across is a
`StagingBuffer`, for samples that are brought while the device computes.

All matrices are row-major, one row per sample. Methods that change an argument in place say so in
their first line. Arrays may be sliced by rows, reshaped and copied with the methods that NumPy and
CuPy share; all arithmetic goes through the backend.
"""

from abc import ABC, abstractmethod
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.activations import Activation
from gpunn.errors import ParameterError, ShapeError
from gpunn.host_memory import MemoryInfo
from gpunn.losses import Loss


class Array(Protocol):
    """An array on some device: what NumPy's and CuPy's share, and code above the seam may use."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its lengths."""

    @property
    def ndim(self) -> int:
        """The number of them."""

    @property
    def size(self) -> int:
        """The number of its numbers."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Their type."""

    @property
    def strides(self) -> tuple[int, ...]:
        """The distances in memory, in bytes."""

    @property
    def flags(self) -> Any:
        """Whether it is contiguous: ``c_contiguous``, ``f_contiguous``."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Return a view of some rows."""

    def reshape(self, shape: tuple[int, ...], /) -> Any:
        """Return the same memory in another shape."""


def is_on_gpu(values: object) -> bool:
    """Say whether something is an array on a GPU, of whichever library."""
    return hasattr(values, "__cuda_array_interface__")


class LayerParams(Protocol):
    """What a device needs to know of a layer; `gpunn.network.Layer` is one."""

    @property
    def weights(self) -> Array:
        """(n_out, n_in)."""

    @property
    def biases(self) -> Array | None:
        """(n_out,), or None."""

    @property
    def activation(self) -> Activation:
        """What the neurons make of their sums."""


class Sequencer(ABC):
    """Goes through a block of single samples in their order; see `gpunn.training.online`.

    Attributes
    ----------
    z : Array, shape (n_rows, n_1)
        To be filled with ``X W_1^T`` before a block is learnt; becomes A_1.
    deltas : Array, shape (n_rows, n_1)
        Holds D_1 once a block has been learnt.
    """

    z: Array
    deltas: Array

    @abstractmethod
    def learn(
        self,
        inputs: Array,
        targets: Array,
        scale: float,
        row_losses: Array,
        outputs: Array | None,
    ) -> None:
        """Change the top layer in place by learning from samples one after the other.

        The first layer's parameters are left for the caller to update from `deltas`.

        Parameters
        ----------
        inputs : Array, shape (n, n_0)
            The samples, whose sums are in the first n rows of `z`.
        targets : Array, shape (n, n_2)
            Their targets.
        scale : float
            What gradients are multiplied by: the learning rate over the samples in a step, one.
        row_losses : Array, shape (n,), float64
            Gets each sample's error added.
        outputs : Array, shape (n, n_2), or None
            Gets each sample's outputs, from before it was learnt from.
        """


class BatchLearner(ABC):
    """Learns from mini-batch after mini-batch in one call, by plain gradient descent."""

    @abstractmethod
    def learn(
        self,
        inputs: Array,
        targets: Array,
        batch_size: int,
        *,
        scale: float,
        kept: float,
        row_losses: Array,
    ) -> None:
        """Change the network in place by a step for each batch of samples.

        Parameters
        ----------
        inputs : Array, shape (n, n_0)
            The samples, batch by batch.
        targets : Array, shape (n, n_2)
            Their targets.
        batch_size : int
            Samples in a step, at most as many as the learner was made for; n is a multiple of it.
        scale : float
            The learning rate over the samples in a step.
        kept : float
            What the weights, but not the biases, are multiplied by in each step.
        row_losses : Array, shape (n,), float64
            Gets each sample's error added, from before the step.
        """


PRECISIONS = ("fp32", "tf32", "bf16")
"""What the factors of a float32 product are rounded to; see `gpunn.get_backend`."""


class StagingBuffer:
    """Numbers on their way to the device while it computes: memory on the host and on the device.

    Again and again: `wait`, write to `host`, `send`, `receive`, compute with what that returned.
    Before the buffer is given up, `wait`.

    This is the whole of it for a device that computes in the host's memory, where nothing need be
    copied; others override it.

    Parameters
    ----------
    size : int
        How many numbers it has room for.
    dtype : dtype_like
        Their dtype.

    Attributes
    ----------
    host : ndarray, shape (size,)
        What is written to on the host.
    """

    def __init__(self, size: int, dtype: DTypeLike) -> None:
        self.host: NDArray[Any] = np.empty(size, dtype)

    def wait(self) -> None:
        """Wait until nothing is being copied from `host`."""

    def send(self, n: int) -> None:
        """Begin to copy the first n numbers, once all work given to the device so far is done."""

    def receive(self) -> Array:
        """Return the numbers on the device; work given to it from now on awaits their copy."""
        return self.host


def get_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return the NumPy dtype, if it is one that networks compute in.

    Parameters
    ----------
    dtype : dtype_like
        "float32" or "float64", or anything that NumPy takes for one of them.

    Returns
    -------
    numpy.dtype
        The dtype.

    Raises
    ------
    ParameterError
        If it is neither float32 nor float64.
    """
    try:
        result = np.dtype(dtype)
    except Exception:  # NumPy reads a text as Python would, and raises as many kinds
        result = None
    # Not `result not in (...)`: NumPy holds None and float64 for equal.
    if dtype is None or result is None or result.str[1:] not in ("f4", "f8") or not result.isnative:
        raise ParameterError(f"dtype must be 'float32' or 'float64', got {dtype!r:.80}")
    return result


class Backend(ABC):
    """What a device can do; see the two implementations for how.

    Attributes
    ----------
    name : str
        The device's name, "cpu" or "cuda:N".
    precision : {"fp32", "tf32", "bf16"}
        What the factors of a float32 product are rounded to: "fp32" leaves them as they are.
    multiplies_sparse_rows : bool
        Whether `gemm` takes `gpunn.backends.sparse_rows.SparseRows` for a network's inputs: as `a`
        in ``a op(b)^T``, and as `b` in ``op(a)^T b``.
    """

    name: str
    precision: str = "fp32"
    multiplies_sparse_rows: bool = False

    # The crossings between host and device.

    @abstractmethod
    def asarray(self, host: NDArray[Any], dtype: DTypeLike | None = None) -> Array:
        """Return a host array as a row-major array on the device.

        On the CPU an array that is one already is returned itself, not a copy.
        """

    @abstractmethod
    def contiguous(self, array: Array, dtype: DTypeLike) -> Array:
        """Return an array of this device as a row-major one of a dtype; itself if it is one."""

    @abstractmethod
    def to_host(self, array: Array) -> NDArray[Any]:
        """Return a host copy of a device array."""

    def make_staging_buffer(self, size: int, dtype: DTypeLike) -> StagingBuffer:
        """Return a buffer through which numbers cross to the device while it computes."""
        return StagingBuffer(size, dtype)

    # Memory.

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array with whatever the memory holds."""

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of zeros."""

    @abstractmethod
    def copy_into(self, source: Array, out: Array) -> None:
        """Change `out` in place to `source`, an array of its shape on this device.

        On a GPU that is not the current one, ``out[...] = source`` would run on the wrong device.
        """

    @abstractmethod
    def owns(self, array: object) -> TypeGuard[Array]:
        """Say whether the array lives on this device, so that it can be computed with as it is."""

    # One training step.

    def gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        """Change `out` in place to ``alpha op(a) op(b) + beta out``, where op may transpose.

        Parameters
        ----------
        a, b : Array
            Matrices of one dtype, contiguous (row-major or column-major).
        out : Array, shape (m, n)
            A row-major contiguous matrix of that dtype that shares no memory with `a` and `b`.
            With ``beta=0`` it is not read, so it may hold anything, NaN too.
        transpose_a, transpose_b : bool
            Whether to use the transpose of `a` and `b`.
        alpha, beta : float
            Factors of the product and of what `out` held before.

        Raises
        ------
        ShapeError
            If shapes, dtypes or layouts are not as above, or an array is not this device's.
            Nothing has been changed then.
        """
        self._check_matrices(a, b, out)
        m, k = a.shape[::-1] if transpose_a else a.shape
        k_b, n = b.shape[::-1] if transpose_b else b.shape
        if k != k_b or out.shape != (m, n):
            raise ShapeError(
                f"gemm: expected op(a) (m, k), op(b) (k, n) and out (m, n), "
                f"got {(m, k)}, {(k_b, n)} and {tuple(out.shape)}"
            )
        self._gemm(a, b, out, transpose_a, transpose_b, alpha, beta)

    def _check_matrices(self, a: Array, b: Array, out: Array) -> None:
        for name, array in (("a", a), ("b", b), ("out", out)):
            if not self.owns(array):
                raise ShapeError(f"gemm: {name} is not an array on {self.name}: {type(array)}")
            if array.ndim != 2:
                raise ShapeError(f"gemm: {name} must have 2 dimensions, got {array.ndim}")
            contiguous = array.flags.c_contiguous or (array is not out and array.flags.f_contiguous)
            if not contiguous:
                raise ShapeError(f"gemm: {name} must be contiguous, got strides {array.strides}")
        if not a.dtype == b.dtype == out.dtype:
            raise ShapeError(f"gemm: dtypes differ: a {a.dtype}, b {b.dtype}, out {out.dtype}")
        if out.dtype.char not in "fd":
            raise ShapeError(f"gemm: dtype must be float32 or float64, got {out.dtype}")

    @abstractmethod
    def _gemm(
        self,
        a: Array,
        b: Array,
        out: Array,
        transpose_a: bool,
        transpose_b: bool,
        alpha: float,
        beta: float,
    ) -> None: ...

    @abstractmethod
    def sum_rows(self, a: Array, out: Array, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        """Change `out` (n,) in place to ``alpha * (sum of the rows of a) + beta * out``.

        With ``beta=0``, `out` is not read.
        """

    @abstractmethod
    def take_rows(self, source: Array, indices: Array, out: Array) -> None:
        """Change `out` in place to ``source[indices]``, all of them on the device.

        `indices` (n,) are int64 and within range; nothing checks that on a GPU.
        """

    @abstractmethod
    def activate(self, z: Array, bias: Array | None, activation: Activation) -> None:
        """Change `z` (n, n_l) in place to ``a = f(z + bias)``; `bias` is (n_l,) or None."""

    @abstractmethod
    def activation_backward(self, delta: Array, a: Array, activation: Activation) -> None:
        """Change `delta` (n, n_l) in place from dE/da to dE/dz, using ``a = f(z)`` alone."""

    @abstractmethod
    def loss_backward(
        self,
        z: Array,
        bias: Array | None,
        targets: Array,
        activation: Activation,
        loss: Loss,
        row_losses: Array,
        row_weights: Array | None = None,
    ) -> None:
        """Change `z` in place to the output delta dE/dz, and add to `row_losses` in place.

        Parameters
        ----------
        z : Array, shape (n, n_L)
            The output layer's weighted sums without biases; becomes dE/d(z + bias).
        bias : Array, shape (n_L,), or None
            The output layer's biases.
        targets : Array, shape (n, n_L)
            What the outputs should be.
        activation : Activation
            The output layer's activation.
        loss : Loss
            The error function E.
        row_losses : Array, shape (n,), float64
            Row i gets sample i's error added. Summing rows only when the sum is wanted keeps a
            step free of crossings and its result independent of the order in which threads run.
        row_weights : Array, shape (n,), or None
            What sample i's error, and so its row of the delta, is multiplied by.
        """

    def make_sequencer(
        self,
        n_rows: int,
        hidden: LayerParams,
        top: LayerParams,
        loss: Loss,
        *,
        textbook_rule: bool,
    ) -> Sequencer | None:
        """Return what goes through a block of single samples in one call, if there is such a way.

        Parameters
        ----------
        n_rows : int
            Samples in a block at most.
        hidden, top : Layer
            The two layers of the network.
        loss : Loss
            The error function.
        textbook_rule : bool
            Whether the outputs' errors go back as in `gpunn.ThreeLayerNetwork`.

        Returns
        -------
        Sequencer or None
            None if this device, or this kind of network, has no such way; the caller then goes
            through the steps itself, with the same result but for rounding.
        """
        return None

    def make_batch_learner(
        self,
        batch_size: int,
        hidden: LayerParams,
        top: LayerParams,
        loss: Loss,
        *,
        textbook_rule: bool,
    ) -> BatchLearner | None:
        """Return what goes through many mini-batches in one call, if there is such a way.

        Parameters
        ----------
        batch_size : int
            Samples in a step at most.
        hidden, top, loss, textbook_rule
            As in `make_sequencer`.

        Returns
        -------
        BatchLearner or None
            As in `make_sequencer`.
        """
        return None

    @abstractmethod
    def axpby(self, source: Array, out: Array, *, alpha: float, beta: float) -> None:
        """Change `out` in place to ``alpha * source + beta * out``.

        Both are contiguous, of one shape and dtype, and share no memory. With ``beta=0``, `out` is
        not read, so it may hold anything, NaN too.
        """

    @abstractmethod
    def add_squares(self, a: Array, out: Array, *, alpha: float) -> None:
        """Change `out` (1,) in place by adding ``alpha * (sum of the squares of a)``.

        `a` is contiguous; `out` is float64.
        """

    @abstractmethod
    def dropout(self, a: Array, *, dropout_rate: float, scale: float, key: int) -> None:
        """Change `a` in place: some numbers to 0, and all others by a factor.

        Which ones depends on `key` and on their place in `a` alone, and is the same on all devices.

        Parameters
        ----------
        a : Array
            A contiguous array.
        dropout_rate : float
            How likely a number becomes 0, in [0, 1).
        scale : float
            What the others are multiplied by.
        key : int
            From 0 to 2^32 - 1; another one for other choices.
        """

    @abstractmethod
    def adam_update(
        self,
        parameter: Array,
        gradient: Array,
        first_moment: Array,
        second_moment: Array,
        *,
        step_size: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        weight_decay: float,
    ) -> None:
        """Change `parameter` and both moments in place by one step of Adam.

        With ``g = gradient + weight_decay * w``: ``m <- beta1 m + g``, ``v <- beta2 v + g^2``,
        ``w <- w - step_size * m / (sqrt(v) + epsilon)``. The caller puts all that turns these
        sums into means, and the means into unbiased ones, into `step_size` and `epsilon`.
        """

    # The device itself.

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work given to the device is done."""

    @abstractmethod
    def memory_info(self) -> MemoryInfo:
        """Return the device's free and total memory."""

    @abstractmethod
    def describe(self) -> str:
        """Return one line for a person: which device this is and through what it is used."""


class Gram:
    """The dot products of a block's samples, which single steps correct their sums by.

    Parameters
    ----------
    backend : Backend
        The device.
    size : int
        How many products there are at a time at most.
    dtype : dtype_like
        The samples' dtype.
    biases : bool
        Whether 1 is added, for the input of the biases.
    """

    def __init__(self, backend: Backend, size: int, dtype: DTypeLike, *, biases: bool) -> None:
        self._backend = backend
        self._products = backend.empty((size,), dtype)
        self._ones = backend.asarray(np.ones(size, dtype)) if biases else None

    def of(self, left: Array, right: Array) -> Array:
        """Return ``left right^T`` (+ 1), in memory that the next call overwrites."""
        shape = (left.shape[0], right.shape[0])
        size = shape[0] * shape[1]
        products: Array = self._products[:size].reshape(shape)
        beta = 0.0
        if self._ones is not None:
            self._backend.copy_into(self._ones[:size].reshape(shape), products)
            beta = 1.0
        self._backend.gemm(left, right, products, transpose_b=True, beta=beta)
        return products
