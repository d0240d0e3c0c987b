"""The fused loops of the CPU, in the Python that Numba compiles; see `gpunn.backends.numba_build`.

Each function here takes a dtype and returns a loop over arrays of it. A loop does in one pass over
memory what `gpunn.backends.numpy_backend` does in several calls of NumPy. The formulas are the same
in the same order, except that a product and a sum may be rounded once instead of twice, and that
exp and tanh are written out below so that the processor does many at a time.

Every loop begins by looking at its arrays, and returns 0 and changes nothing if they are not what
it is made for: row-major, aligned, of its dtype and of shapes that belong together. Otherwise it
returns 1. `start` and `stop` are the rows, or the numbers, that a thread does.
"""

# Numba has no types to check against, and what it compiles is Python in form alone.
# mypy: ignore-errors

import math
from collections.abc import Callable

import numpy as np
from numba import types
from numba.extending import intrinsic

from gpunn.backends.numba_arrays import (
    LETTERS,
    READ,
    WRITTEN,
    are_alike,
    inlined,
    is_array,
    is_none,
    is_none_or_vector,
    is_of_any_shape,
    is_vector,
    numbers,
    size,
)

GOLDEN = 0x9E3779B1

NUMBER_TYPES = {"f": types.float32, "d": types.float64}
WHOLE_TYPES = {"f": types.int32, "d": types.int64}


def _recast(source, target):
    """Return what takes a number's bits for those of a number of another type."""

    @intrinsic
    def recast(context, number):
        def make(ctx, builder, signature, arguments):
            return builder.bitcast(arguments[0], ctx.get_value_type(target))

        return target(source), make

    return recast


# Exponentials.

# T -> bits of the exponent's bias, bits behind the exponent, the powers of e beyond which the
# result is infinite or 0, and log(2) as a number with zeros at its end and the rest.
_PARTS = {
    "f": (127, 23, -104.0, 89.0, 0.693359375, -2.12194440e-4),
    "d": (1023, 52, -746.0, 710.0, 6.93145751953125e-1, 1.42860682030941723212e-6),
}
_TERMS = {"f": 7, "d": 13}
"""So many terms of the series of exp(r) - 1 are enough for |r| <= log(2) / 2: what is left out is
below a quarter of the last bit."""


def exponentials(code) -> tuple[Callable, Callable]:
    """Return ``exp(x)`` and ``tanh(x)``.

    With ``x = k log(2) + r``, ``exp(x) = 2^k exp(r)``. Adding a large number rounds to whole
    numbers, and leaves k in the last bits, from where it goes into the exponent. 2^k is multiplied
    in two halves, because the whole of it may be out of range where the product is not.
    """
    T = np.dtype(code).type
    bias, shift, least, most, high, low = _PARTS[code]
    one, two, half, per_two = T(1), T(2), T(0.5), T(1 / math.log(2))
    rounder, minus_high, minus_low = T(1.5 * 2.0**shift), T(-high), T(-low)
    least, most = T(least), T(most)
    terms = tuple(T(1 / math.factorial(n)) for n in range(_TERMS[code], 1, -1))
    whole = {"f": np.int32, "d": np.int64}[code]
    bias, shift = whole(bias), whole(shift)
    bits_of = _recast(NUMBER_TYPES[code], WHOLE_TYPES[code])
    number_of = _recast(WHOLE_TYPES[code], NUMBER_TYPES[code])

    @inlined
    def power_of_two(k):
        return number_of((bits_of(k + rounder) + bias) << shift)

    @inlined
    def parts(x):
        # Comparisons that are false for NaN, so that it stays.
        x = least if x < least else x
        x = most if x > most else x
        k = (x * per_two + rounder) - rounder
        r = (x + k * minus_high) + k * minus_low
        p = terms[0]
        for term in terms[1:]:
            p = p * r + term
        return k, (p * r) * r + r

    @inlined
    def exp(x):
        k, p = parts(x)
        first = ((k * half) + rounder) - rounder
        return ((p + one) * power_of_two(first)) * power_of_two(k - first)

    @inlined
    def tanh(x):
        # t / (t + 2) with t = exp(2x) - 1, whose small values are as exact as the large ones; from
        # |x| = 20 on it is 1 to the last bit.
        y = two * x
        y = T(-40) if y < T(-40) else y
        y = T(40) if y > T(40) else y
        k, p = parts(y)
        scale = power_of_two(k)
        t = scale * p + (scale - one)
        return t / (t + two)

    return exp, tanh


_ODD_TERMS = {"f": 9, "d": 18}
"""So many of 1, s^2 / 3, s^4 / 5... for s up to 1/3: what is left out is below the last bit."""


def _log1p(code) -> Callable:
    """Return ``log(1 + x)`` for x from 0 to 1, as ``2 artanh(s)`` with ``s = x / (2 + x)``."""
    T = np.dtype(code).type
    two = T(2)
    terms = tuple(T(1 / (2 * n + 1)) for n in range(_ODD_TERMS[code] - 1, -1, -1))

    @inlined
    def log1p(x):
        s = x / (two + x)
        square = s * s
        p = terms[0]
        for term in terms[1:]:
            p = p * square + term
        return two * s * p

    return log1p


# Activations: f(z), and f'(z) from a.


def forward_of_activation(name, code):
    """Return f."""
    T = np.dtype(code).type
    zero, one = T(0), T(1)
    exp, tanh = exponentials(code)

    @inlined
    def sigmoid(x):
        return one / (one + exp(-x))

    @inlined
    def relu(x):
        return zero if x < zero else x

    @inlined
    def identity(x):
        return x

    return {"sigmoid": sigmoid, "tanh": tanh, "relu": relu, "identity": identity, "exp": exp}[name]


def derivative_of_activation(name, code):
    """Return f', from a."""
    T = np.dtype(code).type
    zero, one = T(0), T(1)

    @inlined
    def sigmoid(a):
        return (one - a) * a

    @inlined
    def tanh(a):
        return one - a * a

    @inlined
    def relu(a):
        return one if a > zero else zero

    @inlined
    def identity(a):
        return one

    @inlined
    def exp(a):
        return a

    return {"sigmoid": sigmoid, "tanh": tanh, "relu": relu, "identity": identity, "exp": exp}[name]


def activate(code, name):
    """Return the loop of `NumpyBackend.activate`."""
    f, zero, letter = forward_of_activation(name, code), np.dtype(code).type(0), LETTERS[code]

    def loop(z_, bias_, start, stop):
        if not is_array(z_, letter, WRITTEN, 2):
            return 0
        width = size(z_, 1)
        if not is_none_or_vector(bias_, letter, width):
            return 0
        z = numbers(z_, zero)
        if is_none(bias_):
            for i in range(start * width, stop * width):
                z[i] = f(z[i])
            return 1
        bias = numbers(bias_, zero)
        for row in range(start, stop):
            first = row * width
            for j in range(width):
                z[first + j] = f(z[first + j] + bias[j])
        return 1

    return loop


def activation_backward(code, name):
    """Return the loop of `NumpyBackend.activation_backward`."""
    slope, zero, letter = (
        derivative_of_activation(name, code),
        np.dtype(code).type(0),
        LETTERS[code],
    )

    def loop(delta_, a_, start, stop):
        if not (is_of_any_shape(delta_, letter, WRITTEN) and are_alike(delta_, a_, letter, READ)):
            return 0
        delta, a = numbers(delta_, zero), numbers(a_, zero)
        for i in range(start, stop):
            delta[i] = delta[i] * slope(a[i])
        return 1

    return loop


# Optimizers, dropout.


def adam_update(code):
    """Return the loop of `NumpyBackend.adam_update`."""
    T = np.dtype(code).type
    zero, letter = T(0), LETTERS[code]

    def loop(w_, g_, m_, v_, start, stop, step, keep1, keep2, epsilon, decay):
        if not (
            is_of_any_shape(w_, letter, WRITTEN)
            and are_alike(w_, g_, letter, READ)
            and are_alike(w_, m_, letter, WRITTEN)
            and are_alike(w_, v_, letter, WRITTEN)
        ):
            return 0
        w, g = numbers(w_, zero), numbers(g_, zero)
        m, v = numbers(m_, zero), numbers(v_, zero)
        step, keep1, keep2 = T(step), T(keep1), T(keep2)
        epsilon, decay = T(epsilon), T(decay)
        if decay == zero:
            for i in range(start, stop):
                m[i] = keep1 * m[i] + g[i]
                v[i] = keep2 * v[i] + g[i] * g[i]
                w[i] = w[i] - step * (m[i] / (np.sqrt(v[i]) + epsilon))
        else:
            for i in range(start, stop):
                s = g[i] + decay * w[i]
                m[i] = keep1 * m[i] + s
                v[i] = keep2 * v[i] + s * s
                w[i] = w[i] - step * (m[i] / (np.sqrt(v[i]) + epsilon))
        return 1

    return loop


def axpby(code):
    """Return the loop of `NumpyBackend.axpby`."""
    T = np.dtype(code).type
    zero, letter = T(0), LETTERS[code]

    def loop(x_, y_, start, stop, alpha, beta):
        if not (is_of_any_shape(y_, letter, WRITTEN) and are_alike(y_, x_, letter, READ)):
            return 0
        x, y = numbers(x_, zero), numbers(y_, zero)
        alpha, beta = T(alpha), T(beta)
        if beta == zero:
            for i in range(start, stop):
                y[i] = alpha * x[i]
        else:
            for i in range(start, stop):
                y[i] = alpha * x[i] + beta * y[i]
        return 1

    return loop


def dropout(code):
    """Return the loop of `NumpyBackend.dropout`."""
    T = np.dtype(code).type
    zero, letter = T(0), LETTERS[code]
    golden, first, second = np.uint32(GOLDEN), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
    thirteen, sixteen = np.uint32(13), np.uint32(16)

    def loop(a_, start, stop, key, limit, scale):
        if not is_of_any_shape(a_, letter, WRITTEN):
            return 0
        a, scale = numbers(a_, zero), T(scale)
        key, limit = np.uint32(key), np.uint32(limit)
        for i in range(start, stop):
            # The place in the array, scattered; then the finalizer of MurmurHash3.
            h = np.uint32(np.uint32(np.uint32(i) * golden) + key)
            h = np.uint32(np.uint32(h ^ np.uint32(h >> sixteen)) * first)
            h = np.uint32(np.uint32(h ^ np.uint32(h >> thirteen)) * second)
            h = np.uint32(h ^ np.uint32(h >> sixteen))
            a[i] = a[i] * (scale if h >= limit else zero)
        return 1

    return loop


# The outputs: bias, activation, loss and output delta.


def _arrays_of_loss(code):
    """Return what looks at the arrays of a loss, and what gives the addresses of their numbers."""
    zero, letter, letter_of_errors = np.dtype(code).type(0), LETTERS[code], LETTERS["d"]

    @inlined
    def suit(z_, bias_, t_, errors_, weights_):
        return (
            is_array(z_, letter, WRITTEN, 2)
            and size(z_, 1) > 0
            and are_alike(z_, t_, letter, READ)
            and is_none_or_vector(bias_, letter, size(z_, 1))
            and is_none_or_vector(weights_, letter, size(z_, 0))
            and is_vector(errors_, letter_of_errors, WRITTEN, size(z_, 0))
        )

    @inlined
    def opened(z_, bias_, t_, errors_, weights_):
        # What is not there is never read.
        bias = numbers(z_ if is_none(bias_) else bias_, zero)
        weights = numbers(z_ if is_none(weights_) else weights_, zero)
        return numbers(z_, zero), bias, numbers(t_, zero), numbers(errors_, np.float64(0)), weights

    return suit, opened


def elementwise_loss(code, name):
    """Return value and derivative by a."""
    T = np.dtype(code).type
    one, half, two = T(1), T(0.5), T(2)

    @inlined
    def half_square(a, t):
        return ((t - a) * (t - a)) * half

    @inlined
    def square(a, t):
        return (t - a) * (t - a)

    @inlined
    def distance(a, t):
        return abs(t - a)

    @inlined
    def difference(a, t):
        return a - t

    @inlined
    def twice(a, t):
        return two * (a - t)

    @inlined
    def sign(a, t):
        return one if a > t else (-one if a < t else a - t)

    return {
        "squared_error": (half_square, difference),
        "sum_of_squares": (square, twice),
        "mean_squared_error": (square, twice),
        "absolute_error": (distance, sign),
    }[name]


def loss_backward(code, activation, loss):
    """Return the loop for a loss of each output by itself, after an elementwise activation."""
    T = np.dtype(code).type
    one = T(1)
    suit, opened = _arrays_of_loss(code)
    f, slope = forward_of_activation(activation, code), derivative_of_activation(activation, code)
    value, derivative = elementwise_loss(code, loss)

    def loop(z_, bias_, t_, errors_, weights_, share, scale):
        if not suit(z_, bias_, t_, errors_, weights_):
            return 0
        n, width = size(z_, 0), size(z_, 1)
        biased, weighted = not is_none(bias_), not is_none(weights_)
        z, bias, t, errors, weights = opened(z_, bias_, t_, errors_, weights_)
        part, scale = T(share), T(scale)
        for row in range(n):
            first = row * width
            if biased:
                for j in range(width):
                    z[first + j] = z[first + j] + bias[j]
            weight = weights[row] if weighted else one
            for j in range(width):
                z[first + j] = f(z[first + j])
            total = 0.0
            for j in range(width):
                total += np.float64(value(z[first + j], t[first + j]))
            errors[row] += (total * share) * np.float64(weight)
            for j in range(width):
                a = z[first + j]
                d = (derivative(a, t[first + j]) * part) * slope(a)
                z[first + j] = (d * weight) * scale
        return 1

    return loop


def softmax_backward(code, loss):
    """Return the loop for softmax and cross-entropy, or scikit-learn's log-loss."""
    T = np.dtype(code).type
    zero, one = T(0), T(1)
    suit, opened = _arrays_of_loss(code)
    exp, _ = exponentials(code)
    least = T(np.finfo(T).eps)
    most = T(-np.log(least))
    clipped = loss == "log_loss"

    def loop(z_, bias_, t_, errors_, weights_, spare_, scale):
        if not suit(z_, bias_, t_, errors_, weights_):
            return 0
        n, width = size(z_, 0), size(z_, 1)
        biased, weighted = not is_none(bias_), not is_none(weights_)
        z, bias, t, errors, weights = opened(z_, bias_, t_, errors_, weights_)
        e = numbers(spare_, zero)
        scale = T(scale)
        for row in range(n):
            first = row * width
            if biased:
                for j in range(width):
                    z[first + j] = z[first + j] + bias[j]
            top = z[first]
            for j in range(1, width):
                x = z[first + j]
                top = x if x > top or x != x else top
            for j in range(width):
                z[first + j] = z[first + j] - top
        # One long loop, of which the processor does many numbers at a time.
        for i in range(n * width):
            e[i] = exp(z[i])
        for row in range(n):
            first = row * width
            total, t_sum = zero, zero
            for j in range(width):
                total += e[first + j]
                t_sum += t[first + j]
            log_total = T(math.log(total))
            error = 0.0
            for j in range(width):
                nats = log_total - z[first + j]
                if clipped:
                    nats = most if nats > most else nats
                    nats = least if nats < least else nats
                error += np.float64(nats * t[first + j])
            weight = weights[row] if weighted else one
            errors[row] += error * np.float64(weight)
            for j in range(width):
                d = (e[first + j] / total) * t_sum - t[first + j]
                z[first + j] = (d * weight) * scale
        return 1

    return loop


def sigmoid_backward(code, loss):
    """Return the loop for sigmoids and binary cross-entropy, or scikit-learn's log-loss."""
    T = np.dtype(code).type
    zero, one = T(0), T(1)
    suit, opened = _arrays_of_loss(code)
    exp, log1p = exponentials(code)[0], _log1p(code)
    f = forward_of_activation("sigmoid", code)
    least, below_one = T(np.finfo(T).eps), T(1 - np.finfo(T).eps)
    clipped = loss == "binary_log_loss"

    @inlined
    def nats(x, a, t):
        if clipped:
            p = abs((one - t) - a)
            p = below_one if p > below_one else p
            p = least if p < least else p
            return -T(math.log(p))
        above = zero if x < zero else x
        return (above - x * t) + log1p(exp(-abs(x)))

    def loop(z_, bias_, t_, errors_, weights_, spare_, scale):
        if not suit(z_, bias_, t_, errors_, weights_):
            return 0
        n, width = size(z_, 0), size(z_, 1)
        biased, weighted = not is_none(bias_), not is_none(weights_)
        z, bias, t, errors, weights = opened(z_, bias_, t_, errors_, weights_)
        e = numbers(spare_, zero)
        scale = T(scale)
        if biased:
            for row in range(n):
                first = row * width
                for j in range(width):
                    z[first + j] = z[first + j] + bias[j]
        # One long loop, of which the processor does many numbers at a time.
        for i in range(n * width):
            a = f(z[i])
            e[i] = nats(z[i], a, t[i])
            z[i] = a - t[i]
        for row in range(n):
            first = row * width
            weight, error = weights[row] if weighted else one, 0.0
            for j in range(width):
                error += np.float64(e[first + j])
                z[first + j] = (z[first + j] * weight) * scale
            errors[row] += error * np.float64(weight)
        return 1

    return loop
