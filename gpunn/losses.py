"""How wrong the outputs are.

One record for each loss function: its value for a sample and its derivative, from which the output
layer's delta starts. ``t`` are the targets, ``a`` the outputs, ``z`` their pre-activations.

The two cross-entropies are only defined together with the activation that turns ``z`` into
probabilities. Their values are computed from ``z`` (no logarithm of a number that has been rounded
to zero), and the activation's derivative cancels against theirs, so that their ``derivative`` is
already ``dE/dz``.

As in `gpunn.activations`, the NumPy functions take a single sample (n_L,), or samples as columns
(n_L, n), and write to memory that they are given.

`LOG_LOSS` and `BINARY_LOG_LOSS` are the same two as scikit-learn measures them: a probability
counts as no nearer to 0 and 1 than the dtype's machine epsilon, so that one sample's error stays
below 37 in float64 and 16 in float32. Gradients are those of the cross-entropies.

The signed error ``t - a`` is no loss function: misses of +0.1 and -0.1 would sum to nothing.

Source of the formulas: M. A. Nielsen, *Neural Networks and Deep Learning* (2015), chapters 2 and 3;
C. M. Bishop, *Pattern Recognition and Machine Learning* (2006), section 5.2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.activations import ONE, SIGMOID, ZERO
from gpunn.errors import ParameterError

Values = NDArray[Any]

# The machine epsilon of each dtype, the largest probability below 1 that counts, and -log(epsilon).
EPSILON = {code: np.array(np.finfo(code).eps, code) for code in "fd"}
BELOW_ONE = {code: np.array(1 - np.finfo(code).eps, code) for code in "fd"}
MOST = {code: np.array(-np.log(np.finfo(code).eps), code) for code in "fd"}
_CUDA_EPSILON = "(sizeof(T) == 4 ? T(1.1920928955078125e-07) : T(2.220446049250313e-16))"


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss function of the outputs and the targets.

    A record in `LOSSES` is all that networks, training and the command line need to know of it.

    Attributes
    ----------
    name : str
        The name users give.
    value : callable
        ``value(a, targets, out, scratch)`` writes each output's share of the error to `out`; a
        sample's error is the sum of its shares. For a cross-entropy the first argument is z, which
        it turns into a, since both begin with the same exponentials. ``scratch`` is memory, one
        unit longer than `a`, that it may overwrite.
    derivative : callable
        ``derivative(a, targets, out, scratch)`` writes dE/da to `out`, which may be `a` itself; for
        a cross-entropy, dE/dz.
    required_activation : str or None
        The only output activation it is defined for, which makes it a fused one; None for any.
    mean_over_outputs : bool
        Whether value and derivative are to be divided by the number of outputs.
    cuda_value, cuda_derivative : str
        The same as CUDA expressions in ``a`` and ``t`` of type ``T``. In the fused ones ``x`` is z,
        ``log_sum`` the row's log(sum(exp(z))) and ``t_sum`` the sum of the row's targets.
    """

    name: str
    value: Callable[[Values, Values, Values, Values], None]
    derivative: Callable[[Values, Values, Values, Values], None]
    cuda_value: str
    cuda_derivative: str
    required_activation: str | None = None
    mean_over_outputs: bool = False

    @property
    def fused(self) -> bool:
        """Whether value takes z, which it turns into a, and derivative is dE/dz."""
        return self.required_activation is not None

    def share(self, n_outputs: int) -> float:
        """Return what value and derivative of one of so many outputs are to be multiplied by."""
        return 1 / n_outputs if self.mean_over_outputs else 1.0

    def add_losses(
        self,
        a: Values,
        targets: Values,
        errors: NDArray[np.float64],
        out: Values,
        scratch: Values,
        sums: NDArray[np.float64],
        row_weights: Values | None = None,
    ) -> None:
        """Change `errors` (n,) in place by adding each sample's error, summed in float64.

        `a` (n_L, n) is z if the loss is fused, and becomes a then; `out`, `scratch` and `sums` (n,)
        are overwritten. With `row_weights` (n,), each error is multiplied by its sample's.
        """
        self.value(a, targets, out, scratch)
        np.add.reduce(out, axis=0, dtype=np.float64, out=sums)
        if self.mean_over_outputs:
            np.multiply(sums, self.share(len(a)), sums)
        if row_weights is not None:
            np.multiply(sums, row_weights, sums)
        np.add(errors, sums, errors)


def _half_square(a: Values, t: Values, out: Values, scratch: Values) -> None:
    _square(a, t, out, scratch)
    np.multiply(out, 0.5, out)


def _square(a: Values, t: Values, out: Values, scratch: Values) -> None:
    np.subtract(t, a, out)
    np.multiply(out, out, out)


def _distance(a: Values, t: Values, out: Values, scratch: Values) -> None:
    np.subtract(t, a, out)
    np.abs(out, out)


def _difference(a: Values, t: Values, out: Values, scratch: Values) -> None:
    np.subtract(a, t, out)


def _twice_difference(a: Values, t: Values, out: Values, scratch: Values) -> None:
    np.subtract(a, t, out)
    np.add(out, out, out)


def _sign_of_difference(a: Values, t: Values, out: Values, scratch: Values) -> None:
    np.subtract(a, t, out)
    np.sign(out, out)


def _binary_cross_entropy(z: Values, t: Values, out: Values, scratch: Values) -> None:
    # -t log(a) - (1 - t) log(1 - a) with a = sigmoid(z), rearranged so that nothing overflows:
    # (max(z, 0) - z t) + log(1 + exp(-|z|)), whose first part is 0 for a sure and right answer.
    term = scratch[:-1]
    np.multiply(z, t, term)
    np.maximum(z, ZERO[z.dtype.char], out=out)
    np.subtract(out, term, out)
    np.abs(z, term)
    np.negative(term, term)
    np.exp(term, term)
    np.log1p(term, term)
    np.add(out, term, out)
    SIGMOID.forward(z, term)


def _softmax_and_minus_log(z: Values, out: Values, scratch: Values) -> None:
    # z becomes a = exp(z) / sum(exp(z)), and out is -log(a) = log(sum(exp(z))) - z, where the
    # largest z is taken out of both.
    exponentials, of_sample = scratch[:-1], scratch[-1:]
    np.maximum.reduce(z, axis=0, keepdims=True, out=of_sample)
    np.subtract(z, of_sample, z)
    np.exp(z, exponentials)
    np.add.reduce(exponentials, axis=0, keepdims=True, out=of_sample)
    np.copyto(out, z)
    np.divide(exponentials, of_sample, z)
    np.log(of_sample, of_sample)
    np.subtract(of_sample, out, out)


def _cross_entropy(z: Values, t: Values, out: Values, scratch: Values) -> None:
    _softmax_and_minus_log(z, out, scratch)
    np.multiply(out, t, out)


def _log_loss(z: Values, t: Values, out: Values, scratch: Values) -> None:
    # -t log(p), where -log(p) stays between those of 1 - eps and eps.
    _softmax_and_minus_log(z, out, scratch)
    np.minimum(out, MOST[z.dtype.char], out=out)
    np.maximum(out, EPSILON[z.dtype.char], out=out)
    np.multiply(out, t, out)


def _binary_log_loss(z: Values, t: Values, out: Values, scratch: Values) -> None:
    # -log of the target's probability: p where t is 1, 1 - p where it is 0, which is |1 - t - p|.
    SIGMOID.forward(z, out)
    np.subtract(ONE[z.dtype.char], t, out)
    np.subtract(out, z, out)
    np.abs(out, out)
    np.minimum(out, BELOW_ONE[z.dtype.char], out=out)
    np.maximum(out, EPSILON[z.dtype.char], out=out)
    np.log(out, out)
    np.negative(out, out)


def _poisson(z: Values, t: Values, out: Values, scratch: Values) -> None:
    # t log(t / a) - t + a with a = exp(z); t log(t) is 0 for t = 0.
    np.equal(t, ZERO[z.dtype.char], out)
    np.add(out, t, out)
    np.log(out, out)
    np.subtract(out, z, out)
    np.multiply(out, t, out)
    np.exp(z, z)
    np.subtract(out, t, out)
    np.add(out, z, out)


def _cross_entropy_derivative(a: Values, t: Values, out: Values, scratch: Values) -> None:
    # The targets' sum is 1 for one class per sample, which leaves a - t.
    total = scratch[:1]
    np.add.reduce(t, axis=0, keepdims=True, out=total)
    np.multiply(a, total, out)
    np.subtract(out, t, out)


def _cuda_clipped(value: str) -> str:
    """Return the expression that keeps a -log(p) between those of 1 - eps and eps; NaN stays."""
    least, most = _CUDA_EPSILON, f"-log{_CUDA_EPSILON}"
    return f"({value}) < {least} ? {least} : (({value}) > {most} ? {most} : ({value}))"


SQUARED_ERROR = Loss(
    "squared_error",
    value=_half_square,
    derivative=_difference,
    cuda_value="T(0.5) * (t - a) * (t - a)",
    cuda_derivative="a - t",
)
SUM_OF_SQUARES = Loss(
    "sum_of_squares",
    value=_square,
    derivative=_twice_difference,
    cuda_value="(t - a) * (t - a)",
    cuda_derivative="T(2) * (a - t)",
)
MEAN_SQUARED_ERROR = Loss(
    "mean_squared_error",
    value=_square,
    derivative=_twice_difference,
    cuda_value="(t - a) * (t - a)",
    cuda_derivative="T(2) * (a - t)",
    mean_over_outputs=True,
)
ABSOLUTE_ERROR = Loss(
    "absolute_error",
    value=_distance,
    derivative=_sign_of_difference,
    cuda_value="t > a ? t - a : a - t",
    cuda_derivative="a > t ? T(1) : (a < t ? T(-1) : a - t)",
)
BINARY_CROSS_ENTROPY = Loss(
    "binary_cross_entropy",
    value=_binary_cross_entropy,
    derivative=_difference,
    cuda_value="(x < T(0) ? T(0) : x) - x * t + log1p(exp(-(x < T(0) ? -x : x)))",
    cuda_derivative="a - t",
    required_activation="sigmoid",
)
CROSS_ENTROPY = Loss(
    "cross_entropy",
    value=_cross_entropy,
    derivative=_cross_entropy_derivative,
    cuda_value="t * (log_sum - x)",
    cuda_derivative="a * t_sum - t",
    required_activation="softmax",
)

BINARY_LOG_LOSS = Loss(
    "binary_log_loss",
    value=_binary_log_loss,
    derivative=_difference,
    cuda_value=_cuda_clipped("log1p(exp(t > T(0) ? -x : x))"),
    cuda_derivative="a - t",
    required_activation="sigmoid",
)
LOG_LOSS = Loss(
    "log_loss",
    value=_log_loss,
    derivative=_cross_entropy_derivative,
    cuda_value=f"t * ({_cuda_clipped('log_sum - x')})",
    cuda_derivative="a * t_sum - t",
    required_activation="softmax",
)
POISSON = Loss(
    "poisson",
    value=_poisson,
    derivative=_difference,
    cuda_value="(t > T(0) ? t * (log(t) - x) : T(0)) - t + exp(x)",
    cuda_derivative="a - t",
    required_activation="exp",
)

LOSSES = {
    record.name: record
    for record in (
        SQUARED_ERROR,
        SUM_OF_SQUARES,
        MEAN_SQUARED_ERROR,
        ABSOLUTE_ERROR,
        BINARY_CROSS_ENTROPY,
        CROSS_ENTROPY,
    )
}
"""Every loss that has a name."""

# What scikit-learn's estimators measure, for `gpunn.estimators`; no general choices.
_SPECIAL = {record.name: record for record in (BINARY_LOG_LOSS, LOG_LOSS, POISSON)}


def get_loss(name: str, output_activation: str) -> Loss:
    """Return the loss function of that name, for outputs of that activation.

    Parameters
    ----------
    name : str
        A name in `LOSSES`, or one of the estimators' losses: "binary_log_loss", "log_loss" or
        "poisson".
    output_activation : str
        The name of the output layer's activation.

    Returns
    -------
    Loss
        Its record.

    Raises
    ------
    ParameterError
        If there is no loss function of that name, or it does not go with that activation.
    """
    try:
        loss = (_SPECIAL | LOSSES)[name]
    except (KeyError, TypeError):
        raise ParameterError(f"unknown loss {name!r}: use one of {', '.join(LOSSES)}") from None
    if loss.required_activation not in (None, output_activation):
        raise ParameterError(
            f"loss {name!r} needs output_activation={loss.required_activation!r}, "
            f"got {output_activation!r}"
        )
    return loss


def share_errors_by_weight(weights: Values, errors: Values) -> Values:
    """Split each output's error among the hidden units, in proportion to the weights.

    ``hidden_error_j = sum_k (w_kj / sum_i w_ki) e_k``: the first idea of many introductions. It
    keeps the total error, but it is not the gradient of anything; training uses
    `backpropagate_errors`, which drops the denominator.

    Parameters
    ----------
    weights : array_like, shape (n_out, n_in)
        A row holds one output neuron's incoming weights; its sum must not be zero.
    errors : array_like, shape (n_out,)
        The outputs' errors ``t - a``.

    Returns
    -------
    ndarray, shape (n_in,)
        The hidden units' errors.

    References
    ----------
    T. Rashid, *Make Your Own Neural Network* (2016), part 1.
    """
    weights, errors = np.asarray(weights), np.asarray(errors)
    shares = weights / weights.sum(axis=-1, keepdims=True)
    return np.asarray(shares.T @ errors)


def backpropagate_errors(weights: Values, errors: Values) -> Values:
    """Send the outputs' errors back through the transposed weights, ``W^T e``.

    Parameters
    ----------
    weights : array_like, shape (n_out, n_in)
        A row holds one output neuron's incoming weights.
    errors : array_like, shape (n_out,)
        The outputs' errors.

    Returns
    -------
    ndarray, shape (n_in,)
        The hidden units' errors.

    References
    ----------
    T. Rashid, *Make Your Own Neural Network* (2016), part 1.
    """
    return np.asarray(np.asarray(weights).T @ np.asarray(errors))
