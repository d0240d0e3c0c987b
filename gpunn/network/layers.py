"""A network's layers on the device, and what a step of training does to them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpunn.activations import Activation
from gpunn.backends.base import Array, Backend, Number
from gpunn.backends.fused import UpdateRule


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


class FusedUpdate(NamedTuple):
    """How parameters learn where a device does that in the same passes as the way back.

    Attributes
    ----------
    rule : UpdateRule
        The rule.
    numbers : Array
        The numbers of the step, on the device.
    memories : callable
        ``memories(index)`` returns what is remembered of a layer: arrays in the shape of its
        weights, and arrays in that of its biases.
    """

    rule: UpdateRule
    numbers: Array
    memories: Callable[[int], tuple[Sequence[Array], Sequence[Array]]]


class Step(NamedTuple):
    """What a step of training is asked; see `Network.step` for the fields.

    `fused` is how the parameters of the uppermost layers learn, if the device may do that by
    itself; `textbook` is whether hidden errors are those of the textbook.
    """

    targets: Array
    update: Update
    row_losses: Array
    outputs: Array | None = None
    row_weights: Array | None = None
    dropout: "Dropout | None" = None
    scale: Number = 1.0
    fused: FusedUpdate | None = None
    textbook: bool = False

    @property
    def dropout_rate(self) -> float:
        """How likely a hidden unit sits out."""
        return 0.0 if self.dropout is None else self.dropout.dropout_rate


def add_gradient(
    backend: Backend,
    delta: Array,
    inputs: Array,
    weights: Array,
    biases: Array | None,
    *,
    alpha: float,
    beta: Number = 1.0,
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
    leave out other units; see `gpunn.backends.base.Backend.dropout`. Where ranks share a step,
    `first_row` and `first_unit` say which rows of the batch and units of the layer begin those of
    this rank, and `n_elsewhere` how many units others have: who sits out is the same on any number
    of ranks.

    Source: N. Srivastava et al., *Dropout: a simple way to prevent neural networks from
    overfitting* (2014).
    """

    dropout_rate: float
    keys: Sequence[Number]
    first_row: int = 0
    first_unit: int = 0
    n_elsewhere: int = 0

    @property
    def kept(self) -> float:
        """The share of the units that does not sit out."""
        return 1 - self.dropout_rate

    def go_forward(self, backend: Backend, a: Array, index: int) -> None:
        """Change the activations of a hidden layer in place: some to 0, and all others scaled."""
        self._apply(backend, a, index, 1 / self.kept)

    def go_back(self, backend: Backend, delta: Array, a: Array, index: int) -> None:
        """Change a hidden layer's delta in place as `go_forward` changed its activations.

        The activations lose their scale, also in place: derivatives are written from them.
        """
        self._apply(backend, delta, index, 1 / self.kept)
        self._apply(backend, a, index, self.kept)

    def _apply(self, backend: Backend, array: Array, index: int, scale: float) -> None:
        first = self.first_row * (array.shape[1] + self.n_elsewhere) + self.first_unit
        backend.dropout(
            array,
            dropout_rate=self.dropout_rate,
            scale=scale,
            key=self.keys[index],
            first=first,
            skipped=self.n_elsewhere,
        )
