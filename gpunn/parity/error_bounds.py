"""How far one device's arithmetic may take a number from another's.

`BoundBackend` is a device like any other, so that networks, optimizers and `gpunn.fit` run on it
as they are. Each of its numbers is computed in float64 and carries a bound on the difference that
two devices' rounding may have made to it until then: the running error analysis of the textbook.
Asked for a host copy, it gives the bounds.

``docs/parity.md`` derives the bounds. In short: a sum of K terms ``x`` is off by at most
``(min(K, 8 sqrt(K)) + 2) u sum|x|``, a formula by 12 u times its result and by what its argument's
error makes of it, for which it is evaluated at both ends of the argument's interval.

Sources: N. J. Higham, *Accuracy and Stability of Numerical Algorithms* (2002), section 3.3; N. J.
Higham and T. Mary, *A new approach to probabilistic rounding error analysis* (2019).
"""

# The contract takes any device's arrays, and this device its own alone.
# mypy: disable-error-code="override"

import math
from collections.abc import Callable
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpunn.activations import Activation
from gpunn.backends.base import AdamStep, Backend
from gpunn.backends.numpy_backend import NumpyBackend
from gpunn.backends.numpy_blas import Blas
from gpunn.host_memory import MemoryInfo, host_memory
from gpunn.losses import Loss
from gpunn.parity.bounded import Arithmetic, Bounded
from gpunn.parity.formulas import apply, columnwise, slope_of, softmax_spread

Values = NDArray[Any]
Formula = Callable[[Values], Values]

CONFIDENCE = 8.0
"""Roundings of a sum are taken for independent; this many standard deviations are allowed for.

A sum of K terms exceeds that with a probability of at most 2 K exp(-8^2 / 2): 2e-11 for 784 terms.
"""

FUNCTION = 12.0
"""Roundings, of u each, in an activation: 4 ulps (8 u) of exp or tanh, and what is around it."""

DERIVATIVE = 4.0
"""Roundings in a derivative or a loss function."""

_FLOAT64 = float(np.finfo(np.float64).eps)


class BoundBackend(Backend):
    """The contract of `Backend`, for the bounds on what other devices compute.

    Parameters
    ----------
    arithmetic : Arithmetic
        The devices' rounding.
    """

    name = "bounds"
    carries = True
    """Whether numbers carry errors, so that operations must reckon with their arguments'."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        self.unit, self.factor, self.kept = arithmetic
        self._blas = Blas()

    def _settle(self, out: Bounded, values: Any, errors: Any) -> None:
        """Change `out` in place to an operation's result, which is rounded where it is kept so."""
        out.values[...] = values
        out.errors[...] = errors + self._of_keeping(out) * np.abs(values)

    def work_dtype(self, dtype: DTypeLike) -> np.dtype[Any]:
        return np.dtype(np.uint16 if self.kept else dtype)

    def _of_keeping(self, array: Bounded) -> float:
        """Return by how much, relative to their size, numbers are rounded that go there."""
        return self.kept if array.dtype.kind == "u" else 0.0

    def _spread(self, formula: Formula, x: Values, errors: Values, here: Values) -> Any:
        """Return how far a formula's result may be off for an argument that is.

        It is evaluated at both ends of the argument's interval, which is exact for formulas that
        rise, or fall, or bend one way.
        """
        if not self.carries:
            return 0.0
        above, below = formula(x + errors) - here, formula(x - errors) - here
        return np.maximum(np.abs(above), np.abs(below))

    def _of_sum(self, n_terms: int) -> float:
        """Return by how much, relative to the sum of its terms' sizes, a sum may be off."""
        return (min(n_terms, CONFIDENCE * math.sqrt(n_terms)) + 2) * self.unit

    # Crossings and memory.

    def asarray(self, host: NDArray[Any], dtype: DTypeLike | None = None) -> Bounded:
        rounded = np.ascontiguousarray(host, dtype=dtype)
        exact = rounded.astype(np.float64) if rounded.dtype.kind == "f" else rounded
        return Bounded(exact, np.zeros(exact.shape), rounded.dtype)

    def contiguous(self, array: Bounded, dtype: DTypeLike) -> Bounded:
        return Bounded(
            np.ascontiguousarray(array.values), np.ascontiguousarray(array.errors), dtype
        )

    def to_host(self, array: Bounded) -> NDArray[Any]:
        """Return how far the numbers may be off."""
        return array.errors.copy()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Bounded:
        return Bounded(np.full(shape, np.nan), np.full(shape, np.nan), dtype)

    def zeros(self, shape: tuple[int, ...], dtype: DTypeLike) -> Bounded:
        return Bounded(np.zeros(shape), np.zeros(shape), dtype)

    def copy_into(self, source: Bounded, out: Bounded) -> None:
        if source.dtype == out.dtype:
            np.copyto(out.values, source.values)
            np.copyto(out.errors, source.errors)
        else:
            self._settle(out, source.values, source.errors)

    def owns(self, array: object) -> TypeGuard[Any]:
        return isinstance(array, Bounded)

    def take_rows(self, source: Bounded, indices: Bounded, out: Bounded) -> None:
        np.take(source.values, indices.values, axis=0, out=out.values)
        np.take(source.errors, indices.values, axis=0, out=out.errors)

    # Sums.

    def _gemm(
        self,
        a: Bounded,
        b: Bounded,
        out: Bounded,
        transpose_a: bool,
        transpose_b: bool,
        alpha: float,
        beta: float,
    ) -> None:
        n_terms = a.shape[0] if transpose_a else a.shape[1]

        def multiply(x: Values, y: Values) -> Values:
            product = np.empty(out.shape)
            self._blas.gemm(x, y, product, transpose_a, transpose_b, 1.0, 0.0)
            return product

        size_a, size_b = np.abs(a.values), np.abs(b.values)
        # One product for what rounding and the errors of b make of |a| |b|.
        own = self._of_sum(n_terms) + 2 * self.factor * (a.dtype.kind == "f")
        errors = multiply(size_a, own * size_b + b.errors)
        if self.carries:
            errors += multiply(a.errors, size_b + b.errors)
        values = multiply(a.values, b.values)
        if beta == 0:
            self._settle(out, alpha * values, abs(alpha) * errors)
            return
        before = np.abs(beta * out.values)
        self._settle(
            out,
            alpha * values + beta * out.values,
            abs(alpha) * errors + abs(beta) * out.errors + self._of_sum(n_terms) * before,
        )

    def sum_rows(self, a: Bounded, out: Bounded, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        own = self._of_sum(a.shape[0])
        values = alpha * a.values.sum(axis=0)
        errors = abs(alpha) * (a.errors + own * np.abs(a.values)).sum(axis=0)
        if beta != 0:
            errors += abs(beta) * (out.errors + own * np.abs(out.values))
            values += beta * out.values
        self._settle(out, values, errors)

    def axpby(self, source: Bounded, out: Bounded, *, alpha: float, beta: float) -> None:
        values, errors = alpha * source.values, abs(alpha) * source.errors
        errors += 2 * self.unit * np.abs(values)
        if beta != 0:
            values += beta * out.values
            errors += abs(beta) * (out.errors + 2 * self.unit * np.abs(out.values))
        self._settle(out, values, errors)

    # Formulas.

    def activate(self, z: Bounded, bias: Bounded | None, activation: Activation) -> None:
        self._settle(z, *self._activation(*self._with_bias(z, bias), activation))

    def _with_bias(self, z: Bounded, bias: Bounded | None) -> tuple[Values, Values]:
        if bias is None:
            return z.values, z.errors
        values = z.values + bias.values
        return values, z.errors + bias.errors + self.unit * np.abs(values)

    def _activation(self, z: Values, errors: Values, activation: Activation) -> tuple[Any, Any]:
        if not activation.elementwise:
            return self._softmax(z, errors, activation)
        a = apply(activation, z)
        spread = self._spread(lambda x: apply(activation, x), z, errors, a)
        return a, spread + FUNCTION * self.unit * np.abs(a)

    def _softmax(self, z: Values, errors: Values, activation: Activation) -> tuple[Any, Any]:
        a = apply(activation, z.T).T
        depth = z.max(axis=1, keepdims=True) - z
        own = depth + (a * depth).sum(axis=1, keepdims=True) + FUNCTION + FUNCTION + a.shape[1]
        spread = softmax_spread(a, errors) if self.carries else 0.0
        return a, spread + own * self.unit * a

    def activation_backward(self, delta: Bounded, a: Bounded, activation: Activation) -> None:
        if activation.elementwise:
            slope = slope_of(activation, a.values)
            spread = self._spread(lambda x: slope_of(activation, x), a.values, a.errors, slope)
            moving = (a.errors > 0) | (slope != 0)
            spread += DERIVATIVE * self.unit * moving * np.maximum(np.abs(slope), 1)
            errors = delta.errors * (np.abs(slope) + spread) + np.abs(delta.values) * spread
            self._settle(delta, delta.values * slope, errors)
            return
        mean = (delta.values * a.values).sum(axis=1, keepdims=True)
        own = self._of_sum(a.shape[1])
        of_mean = delta.errors * (a.values + a.errors) + np.abs(delta.values) * (
            a.errors + own * a.values
        )
        difference = delta.values - mean
        of_difference = delta.errors + of_mean.sum(axis=1, keepdims=True)
        of_difference += 2 * self.unit * np.abs(difference)
        self._settle(
            delta,
            difference * a.values,
            np.abs(difference) * a.errors + of_difference * (a.values + a.errors),
        )

    def loss_backward(
        self,
        z: Bounded,
        bias: Bounded | None,
        targets: Bounded,
        activation: Activation,
        loss: Loss,
        row_losses: Bounded,
        row_weights: Bounded | None = None,
        scale: float = 1.0,
    ) -> None:
        self._settle(z, *self._with_bias(z, bias))
        a, errors = self._activation(z.values, z.errors, activation)
        outputs = Bounded(np.array(a), np.array(errors), z.dtype)
        t, share = targets.values, loss.share(z.shape[1])

        def derivative(x: Values) -> Values:
            return share * columnwise(loss.derivative, x, t)

        slope = derivative(outputs.values)
        own = share * DERIVATIVE * self.unit
        spread = self._spread(derivative, outputs.values, outputs.errors, slope)
        spread += own * (np.abs(slope) + np.abs(outputs.values) + np.abs(t))
        if loss.fused:
            values = columnwise(loss.value, z.values, t)
            # The error's slope in z is `slope`; its second derivatives are at most 1 a target.
            weight = np.abs(t) + activation.elementwise
            of_values = np.abs(slope) * z.errors + weight.sum(axis=1, keepdims=True) * z.errors**2
            largest = np.abs(z.values).max(axis=1, keepdims=True)
            of_values += weight * self.unit * (FUNCTION * (1 + 2 * largest) + z.shape[1])
        else:
            values = share * columnwise(loss.value, outputs.values, t)
            of_values = self._spread(
                lambda x: share * columnwise(loss.value, x, t),
                outputs.values,
                outputs.errors,
                values,
            )
            of_values += DERIVATIVE * self.unit * np.abs(values)
        if row_weights is not None:
            self._weigh(row_weights, values, of_values)
        self._add_losses(row_losses, values, of_values)
        self._settle(z, slope, spread)
        if not loss.fused:
            self.activation_backward(z, outputs, activation)
        if row_weights is not None:
            errors = z.errors.copy()
            self._settle(z, *self._weigh(row_weights, z.values, errors))
        if scale != 1:
            values = scale * z.values
            self._settle(z, values, abs(scale) * z.errors + self.unit * np.abs(values))

    def _weigh(self, weights: Bounded, values: Values, errors: Values) -> tuple[Values, Values]:
        """Change numbers and their bounds in place: each row times its weight; return both."""
        factors, of_factors = weights.values[:, np.newaxis], weights.errors[:, np.newaxis]
        errors *= np.abs(factors) + of_factors
        errors += np.abs(values) * of_factors
        values *= factors
        errors += 2 * self.unit * np.abs(values)
        return values, errors

    def _add_losses(self, row_losses: Bounded, values: Values, errors: Values) -> None:
        total = row_losses.values + values.sum(axis=1)
        # Added up in float64: here, over an epoch, and over the samples.
        own = (values.shape[1] + 64) * _FLOAT64 * np.abs(total)
        self._settle(row_losses, total, row_losses.errors + errors.sum(axis=1) + own)

    def add_squares(self, a: Bounded, out: Bounded, *, alpha: float) -> None:
        total = float(np.square(a.values).sum())
        of_total = float((a.errors * (2 * np.abs(a.values) + a.errors)).sum())
        of_total += self._of_sum(a.size) * total
        values = out.values + alpha * total
        own = 2 * self.unit * abs(alpha) * total + _FLOAT64 * np.abs(values)
        self._settle(out, values, out.errors + abs(alpha) * of_total + own)

    def dropout(
        self,
        a: Bounded,
        *,
        dropout_rate: float,
        scale: float,
        key: int,
        first: int = 0,
        skipped: int = 0,
    ) -> None:
        # Which units sit out is the same on all devices, so the CPU may say it.
        kept = np.ones(a.shape)
        place = {"first": first, "skipped": skipped}
        NumpyBackend().dropout(kept, dropout_rate=dropout_rate, scale=scale, key=key, **place)
        values = a.values * kept
        self._settle(a, values, a.errors * kept + 2 * self.unit * np.abs(values))

    def adam_update(
        self,
        parameter: Bounded,
        gradient: Bounded,
        first_moment: Bounded,
        second_moment: Bounded,
        step: AdamStep,
    ) -> None:
        w, m, v, u = parameter, first_moment, second_moment, self.unit
        step_size, beta1, beta2, epsilon, weight_decay = step
        g = gradient.values + weight_decay * w.values
        of_g = gradient.errors + weight_decay * (w.errors + 2 * u * np.abs(w.values))
        of_g += u * np.abs(g)
        kept = beta1 * m.values
        self._settle(
            m, kept + g, beta1 * m.errors + of_g + u * (2 * np.abs(kept) + np.abs(kept + g))
        )
        kept = beta2 * v.values
        of_square = of_g * (2 * np.abs(g) + of_g) + u * g**2
        self._settle(v, kept + g**2, beta2 * v.errors + of_square + u * (3 * kept + g**2))
        # m / (sqrt(v) + epsilon) at the ends of both intervals; whatever the gradients were,
        # |m| / sqrt(v) is at most `limit`, by the inequality of Cauchy and Schwarz.
        root = np.sqrt(v.values)
        ratio = m.values / (root + epsilon)
        least = np.sqrt(np.maximum(v.values - v.errors, 0)) + epsilon
        most = np.sqrt(v.values + v.errors) + epsilon
        sign = np.where(m.values < 0, -1.0, 1.0)
        low, high = sign * m.values - m.errors, sign * m.values + m.errors
        limit = (1 - beta1**2 / beta2) ** -0.5 if beta1**2 < beta2 else math.inf
        highest = np.minimum(high / least, limit)
        lowest = np.maximum(np.where(low < 0, low / least, low / most), -limit)
        of_ratio = np.maximum(highest - sign * ratio, sign * ratio - lowest)
        of_ratio += 8 * u * np.abs(ratio)
        values = w.values - step_size * ratio
        self._settle(w, values, w.errors + step_size * of_ratio + u * np.abs(values))

    # The device itself.

    def synchronize(self) -> None:
        """Do nothing: all work is done at once."""

    def memory_info(self) -> MemoryInfo:
        return host_memory()

    def describe(self) -> str:
        return f"bounds for a unit roundoff of {self.unit:.2g}"
