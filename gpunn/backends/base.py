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
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.activations import Activation
from gpunn.backends.arrays import Array, LayerParams, Number, get_dtype, is_on_gpu
from gpunn.backends.fused import (
    BatchLearner,
    FusedModel,
    HiddenPass,
    Sequencer,
    StepRecorder,
    StepShape,
    ThinTop,
    UpdateRule,
)
from gpunn.backends.rank_sum import RankLinks, RankSum
from gpunn.backends.staging import StagingBuffer
from gpunn.errors import ShapeError
from gpunn.host_memory import MemoryInfo
from gpunn.losses import Loss

__all__ = [
    "PRECISIONS",
    "AdamStep",
    "Array",
    "Backend",
    "LayerParams",
    "Number",
    "get_dtype",
    "is_on_gpu",
]


PRECISIONS = ("fp32", "tf32", "bf16")
"""What the factors of a float32 product are rounded to; see `gpunn.get_backend`."""


ALL = slice(None)
"""All rows of a matrix."""


class AdamStep(NamedTuple):
    """The numbers of a step of Adam, as `Backend.adam_update` has them."""

    size: Number
    beta1: Number
    beta2: Number
    epsilon: Number
    weight_decay: Number


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
    records_steps : bool
        Whether `make_recorder` returns something.
    """

    name: str
    precision: str = "fp32"
    multiplies_sparse_rows: bool = False
    records_steps: bool = False

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

    def work_dtype(self, dtype: DTypeLike) -> np.dtype[Any]:
        """Return what the samples, activations and deltas of a network are kept in.

        That is the network's own dtype but for the precision "bf16", where it is uint16, the bits
        of bfloat16 numbers.
        """
        return np.dtype(dtype)

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array with whatever the memory holds."""

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return an array of zeros."""

    @abstractmethod
    def copy_into(self, source: Array, out: Array) -> None:
        """Change `out` in place to `source`, an array of its shape on this device.

        Between a network's dtype and its `work_dtype` numbers are converted, to the nearest.

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
        beta: Number = 0.0,
    ) -> None:
        """Change `out` in place to ``alpha op(a) op(b) + beta out``, where op may transpose.

        Parameters
        ----------
        a, b : Array
            Matrices of one dtype, contiguous (row-major or column-major).
        out : Array, shape (m, n)
            A row-major contiguous matrix of that dtype, or where that is `work_dtype` of float32
            also of float32, that shares no memory with `a` and `b`.
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
        kept_in = self.work_dtype(np.float32)
        rounded = a.dtype == kept_in and out.dtype in (kept_in, np.float32)
        if a.dtype != b.dtype or not (a.dtype == out.dtype or rounded):
            raise ShapeError(f"gemm: dtypes differ: a {a.dtype}, b {b.dtype}, out {out.dtype}")
        if out.dtype.char not in "fd" and out.dtype != kept_in:
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
        beta: Number,
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

    def update_blocks(
        self, weights: Array, delta: Array, inputs: Array
    ) -> Iterable[tuple[slice, Array]]:
        """Return which rows of a layer's weights an optimizer changes at a time, in all its passes.

        What a cache holds is then read from memory once. A GPU changes all at once.

        Parameters
        ----------
        weights : Array, shape (n_out, n_in)
            The weights.
        delta : Array, shape (n, n_out)
            dE/dZ of the layer.
        inputs : Array, shape (n, n_in)
            What came into it.

        Returns
        -------
        iterable of (slice, Array)
            The rows, `ALL` if they are all, with the columns of `delta` that belong to them, which
            are good until the next ones come.
        """
        return ((ALL, delta),)

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
        scale: Number = 1.0,
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
            The loss function E.
        row_losses : Array, shape (n,), float64
            Row i gets sample i's error added. Summing rows only when the sum is wanted keeps a
            step free of crossings and its result independent of the order in which threads run.
        row_weights : Array, shape (n,), or None
            What sample i's error, and so its row of the delta, is multiplied by.
        scale : Number
            What the delta, but not the error, is multiplied by beside that.
        """

    def do_both(self, work: Callable[[], None], beside: Callable[[], None]) -> None:
        """Do two things, neither of which reads or changes what the other one changes.

        A device may do them at the same time.
        """
        work()
        beside()

    def rows_in_block(self, model: FusedModel) -> int:
        """Return how many single samples are best learnt in a block; see `make_sequencer`."""
        return 64

    def make_sequencer(self, n_rows: int, model: FusedModel) -> Sequencer | None:
        """Return the fused way through a block of single samples, if there is one.

        Parameters
        ----------
        n_rows : int
            Samples in a block at most.
        model : FusedModel
            The network.

        Returns
        -------
        Sequencer or None
            None if this device, or this kind of network, has no such way; the caller then goes
            through the steps itself, with the same result but for rounding.
        """
        return None

    def make_batch_learner(self, batch_size: int, model: FusedModel) -> BatchLearner | None:
        """Return the fused way through many mini-batches, if there is one.

        Parameters
        ----------
        batch_size : int
            Samples in a step at most.
        model : FusedModel
            The network.

        Returns
        -------
        BatchLearner or None
            As in `make_sequencer`.
        """
        return None

    def make_recorder(self, shape: StepShape) -> StepRecorder | None:
        """Return what records a step and does it again in one call; None if the device cannot."""
        return None

    def make_thin_top(
        self, n_rows: int, model: FusedModel, rule: UpdateRule, dropout_rate: float
    ) -> ThinTop | None:
        """Return the passes through a network's two uppermost layers; None if there are none.

        Parameters
        ----------
        n_rows : int
            Samples in a step.
        model : FusedModel
            The two layers, of a network of any depth.
        rule : UpdateRule
            How they learn.
        dropout_rate : float
            How likely a unit of the lower one sits out a step.
        """
        return None

    def make_hidden_pass(
        self, n_rows: int, layer: LayerParams, rule: UpdateRule, dropout_rate: float
    ) -> HiddenPass | None:
        """Return the passes through a lower hidden layer, likewise; None if there are none."""
        return None

    def make_rank_sum(self, ranks: RankLinks) -> RankSum | None:
        """Return how this device adds up over ranks by itself; None if the host is to do it."""
        return None

    @abstractmethod
    def axpby(self, source: Array, out: Array, *, alpha: Number, beta: Number) -> None:
        """Change `out` in place to ``alpha * source + beta * out``.

        Both are contiguous, of one shape and dtype, and share no memory. With ``beta=0``, `out` is
        not read, so it may hold anything, NaN too.
        """

    @abstractmethod
    def add_squares(self, a: Array, out: Array, *, alpha: Number) -> None:
        """Change `out` (1,) in place by adding ``alpha * (sum of the squares of a)``.

        `a` is contiguous; `out` is float64.
        """

    @abstractmethod
    def dropout(
        self,
        a: Array,
        *,
        dropout_rate: float,
        scale: float,
        key: Number,
        first: int = 0,
        skipped: int = 0,
    ) -> None:
        """Change `a` in place: some numbers to 0, and all others by a factor.

        Which ones depends on `key` and on their place in `a` alone, and is the same on all devices.
        The number at row i and column j of n columns is at place ``first + i (n + skipped) + j``.

        Parameters
        ----------
        a : Array
            A contiguous array.
        dropout_rate : float
            How likely a number becomes 0, in [0, 1).
        scale : float
            What the others are multiplied by.
        key : Number
            A whole number from 0 to 2^32 - 1; another one for other choices.
        first, skipped : int
            If `a` is a part of a matrix that others have the rest of: the place in it where `a`
            begins, and how many columns of each row are elsewhere.
        """

    @abstractmethod
    def adam_update(
        self,
        parameter: Array,
        gradient: Array,
        first_moment: Array,
        second_moment: Array,
        step: AdamStep,
    ) -> None:
        """Change `parameter` and both moments in place by one step of Adam.

        With ``g = gradient + weight_decay * w``: ``m <- beta1 m + g``, ``v <- beta2 v + g^2``,
        ``w <- w - size * m / (sqrt(v) + epsilon)``. The caller puts all that turns these
        sums into means, and the means into unbiased ones, into the step's size and epsilon.
        """

    # The device itself.

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work given to the device is done."""

    def step_bytes(self, layer_sizes: Sequence[int], n_rows: int, dtype: DTypeLike) -> int:
        """Return what steps of so many samples take of its memory beside their own arrays."""
        return 0

    @abstractmethod
    def memory_info(self) -> MemoryInfo:
        """Return the device's free and total memory."""

    @abstractmethod
    def describe(self) -> str:
        """Return one line for a person: which device this is and through what it is used."""
