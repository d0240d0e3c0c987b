"""The fused loops of the CPU, in the Python that Numba compiles; see `gpunn.backends.numba_build`.

Each function here takes a dtype and returns a loop over arrays of it. A loop does in one pass over
memory what `gpunn.backends.numpy_backend` does in several calls of NumPy. The formulas are the same
in the same order, except that a product and a sum may be rounded once instead of twice, and that
exp and tanh are written out below so that the processor does many at a time.

Arrays come as the addresses of NumPy's array objects, in which the address of the numbers stands
behind the head that every Python object has. NumPy promises that to C programs, and reading it here
saves half a microsecond for each argument. They are row-major, and `start` and `stop` are the rows,
or the numbers, that a thread does.
"""

# Numba has no types to check against, and what it compiles is Python in form alone.
# mypy: ignore-errors

import math
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from gpunn.backends.numba_signatures import DATA_OFFSET

OPTIONS = {"error_model": "numpy", "fastmath": {"contract"}}
"""A division by zero is no error, and a product and a sum may be one instruction. None of what else
"fast" arithmetic allows: NaN, infinity and the order of sums stay as they are written."""

GOLDEN = 0x9E3779B1

NUMBERS = {"f": types.float32, "d": types.float64}
WHOLE = {"f": types.int32, "d": types.int64}


@intrinsic
def _pointer(context, address, number):
    """Return the address of an array's numbers; `number` is one of them, for its type."""

    def make(ctx, builder, signature, arguments):
        place = builder.add(arguments[0], ir.Constant(arguments[0].type, DATA_OFFSET))
        kind = ctx.get_data_type(signature.args[1])
        return builder.load(builder.inttoptr(place, kind.as_pointer().as_pointer()))

    return types.CPointer(number)(address, number), make


def _recast(source, target):
    """Return what takes a number's bits for those of a number of another type."""

    @intrinsic
    def recast(context, number):
        def make(ctx, builder, signature, arguments):
            return builder.bitcast(arguments[0], ctx.get_value_type(target))

        return target(source), make

    return recast


def _inlined(function):
    return njit(function, forceinline=True, **OPTIONS)


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


def _exponentials(code) -> tuple[Callable, Callable]:
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
    bits_of = _recast(NUMBERS[code], WHOLE[code])
    number_of = _recast(WHOLE[code], NUMBERS[code])

    @_inlined
    def power_of_two(k):
        return number_of((bits_of(k + rounder) + bias) << shift)

    @_inlined
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

    @_inlined
    def exp(x):
        k, p = parts(x)
        first = ((k * half) + rounder) - rounder
        return ((p + one) * power_of_two(first)) * power_of_two(k - first)

    @_inlined
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

    @_inlined
    def log1p(x):
        s = x / (two + x)
        square = s * s
        p = terms[0]
        for term in terms[1:]:
            p = p * square + term
        return two * s * p

    return log1p


# Activations: f(z), and f'(z) from a.


def _forward(name, code):
    T = np.dtype(code).type
    zero, one = T(0), T(1)
    exp, tanh = _exponentials(code)

    @_inlined
    def sigmoid(x):
        return one / (one + exp(-x))

    @_inlined
    def relu(x):
        return zero if x < zero else x

    @_inlined
    def identity(x):
        return x

    return {"sigmoid": sigmoid, "tanh": tanh, "relu": relu, "identity": identity, "exp": exp}[name]


def _derivative(name, code):
    T = np.dtype(code).type
    zero, one = T(0), T(1)

    @_inlined
    def sigmoid(a):
        return (one - a) * a

    @_inlined
    def tanh(a):
        return one - a * a

    @_inlined
    def relu(a):
        return one if a > zero else zero

    @_inlined
    def identity(a):
        return one

    @_inlined
    def exp(a):
        return a

    return {"sigmoid": sigmoid, "tanh": tanh, "relu": relu, "identity": identity, "exp": exp}[name]


def activate(code, name):
    """Return the loop of `NumpyBackend.activate`."""
    f, zero = _forward(name, code), np.dtype(code).type(0)

    def loop(z_, bias_, start, stop, width, biased):
        z = _pointer(z_, zero)
        if biased == 0:
            for i in range(start * width, stop * width):
                z[i] = f(z[i])
            return
        bias = _pointer(bias_, zero)
        for row in range(start, stop):
            first = row * width
            for j in range(width):
                z[first + j] = f(z[first + j] + bias[j])

    return loop


def activation_backward(code, name):
    """Return the loop of `NumpyBackend.activation_backward`."""
    slope, zero = _derivative(name, code), np.dtype(code).type(0)

    def loop(delta_, a_, start, stop):
        delta, a = _pointer(delta_, zero), _pointer(a_, zero)
        for i in range(start, stop):
            delta[i] = delta[i] * slope(a[i])

    return loop


# Optimizers, dropout.


def adam_update(code):
    """Return the loop of `NumpyBackend.adam_update`."""
    T = np.dtype(code).type
    zero = T(0)

    def loop(w_, g_, m_, v_, start, stop, size, keep1, keep2, epsilon, decay):
        w, g = _pointer(w_, zero), _pointer(g_, zero)
        m, v = _pointer(m_, zero), _pointer(v_, zero)
        size, keep1, keep2 = T(size), T(keep1), T(keep2)
        epsilon, decay = T(epsilon), T(decay)
        if decay == zero:
            for i in range(start, stop):
                m[i] = keep1 * m[i] + g[i]
                v[i] = keep2 * v[i] + g[i] * g[i]
                w[i] = w[i] - size * (m[i] / (np.sqrt(v[i]) + epsilon))
        else:
            for i in range(start, stop):
                s = g[i] + decay * w[i]
                m[i] = keep1 * m[i] + s
                v[i] = keep2 * v[i] + s * s
                w[i] = w[i] - size * (m[i] / (np.sqrt(v[i]) + epsilon))

    return loop


def axpby(code):
    """Return the loop of `NumpyBackend.axpby`."""
    T = np.dtype(code).type
    zero = T(0)

    def loop(x_, y_, start, stop, alpha, beta):
        x, y = _pointer(x_, zero), _pointer(y_, zero)
        alpha, beta = T(alpha), T(beta)
        if beta == zero:
            for i in range(start, stop):
                y[i] = alpha * x[i]
        else:
            for i in range(start, stop):
                y[i] = alpha * x[i] + beta * y[i]

    return loop


def dropout(code):
    """Return the loop of `NumpyBackend.dropout`."""
    T = np.dtype(code).type
    zero = T(0)
    golden, first, second = np.uint32(GOLDEN), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
    thirteen, sixteen = np.uint32(13), np.uint32(16)

    def loop(a_, start, stop, key, limit, scale):
        a, scale = _pointer(a_, zero), T(scale)
        key, limit = np.uint32(key), np.uint32(limit)
        for i in range(start, stop):
            # The place in the array, scattered; then the finalizer of MurmurHash3.
            h = np.uint32(np.uint32(np.uint32(i) * golden) + key)
            h = np.uint32(np.uint32(h ^ np.uint32(h >> sixteen)) * first)
            h = np.uint32(np.uint32(h ^ np.uint32(h >> thirteen)) * second)
            h = np.uint32(h ^ np.uint32(h >> sixteen))
            a[i] = a[i] * (scale if h >= limit else zero)

    return loop


# The outputs: bias, activation, loss and output delta.


def _elementwise_loss(code, name):
    """Return value and derivative by a."""
    T = np.dtype(code).type
    one, half, two = T(1), T(0.5), T(2)

    @_inlined
    def half_square(a, t):
        return ((t - a) * (t - a)) * half

    @_inlined
    def square(a, t):
        return (t - a) * (t - a)

    @_inlined
    def distance(a, t):
        return abs(t - a)

    @_inlined
    def difference(a, t):
        return a - t

    @_inlined
    def twice(a, t):
        return two * (a - t)

    @_inlined
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
    zero, one = T(0), T(1)
    f, slope = _forward(activation, code), _derivative(activation, code)
    value, derivative = _elementwise_loss(code, loss)

    def loop(z_, bias_, t_, errors_, weights_, start, stop, width, share, scale, biased, weighted):
        z, t = _pointer(z_, zero), _pointer(t_, zero)
        bias = _pointer(bias_, zero)
        errors = _pointer(errors_, np.float64(0))
        weights = _pointer(weights_, zero)
        part, scale = T(share), T(scale)
        for row in range(start, stop):
            first = row * width
            if biased != 0:
                for j in range(width):
                    z[first + j] = z[first + j] + bias[j]
            weight = weights[row] if weighted != 0 else one
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

    return loop


def softmax_backward(code, loss):
    """Return the loop for softmax and cross-entropy, or scikit-learn's log-loss."""
    T = np.dtype(code).type
    zero, one = T(0), T(1)
    exp, _ = _exponentials(code)
    least = T(np.finfo(T).eps)
    most = T(-np.log(least))
    clipped = loss == "log_loss"

    def loop(z_, bias_, t_, errors_, weights_, spare_, start, stop, width, scale, biased, weighted):
        z, t = _pointer(z_, zero), _pointer(t_, zero)
        bias = _pointer(bias_, zero)
        errors = _pointer(errors_, np.float64(0))
        weights = _pointer(weights_, zero)
        e = _pointer(spare_, zero)
        scale = T(scale)
        for row in range(start, stop):
            first = row * width
            if biased != 0:
                for j in range(width):
                    z[first + j] = z[first + j] + bias[j]
            top = z[first]
            for j in range(1, width):
                x = z[first + j]
                top = x if x > top or x != x else top
            for j in range(width):
                z[first + j] = z[first + j] - top
        # One long loop, of which the processor does many numbers at a time.
        for i in range(start * width, stop * width):
            e[i] = exp(z[i])
        for row in range(start, stop):
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
            weight = weights[row] if weighted != 0 else one
            errors[row] += error * np.float64(weight)
            for j in range(width):
                d = (e[first + j] / total) * t_sum - t[first + j]
                z[first + j] = (d * weight) * scale

    return loop


def sigmoid_backward(code, loss):
    """Return the loop for sigmoids and binary cross-entropy, or scikit-learn's log-loss."""
    T = np.dtype(code).type
    zero, one = T(0), T(1)
    exp, log1p = _exponentials(code)[0], _log1p(code)
    f = _forward("sigmoid", code)
    least, below_one = T(np.finfo(T).eps), T(1 - np.finfo(T).eps)
    clipped = loss == "binary_log_loss"

    @_inlined
    def nats(x, a, t):
        if clipped:
            p = abs((one - t) - a)
            p = below_one if p > below_one else p
            p = least if p < least else p
            return -T(math.log(p))
        above = zero if x < zero else x
        return (above - x * t) + log1p(exp(-abs(x)))

    def loop(z_, bias_, t_, errors_, weights_, spare_, start, stop, width, scale, biased, weighted):
        z, t = _pointer(z_, zero), _pointer(t_, zero)
        bias = _pointer(bias_, zero)
        errors = _pointer(errors_, np.float64(0))
        weights = _pointer(weights_, zero)
        e = _pointer(spare_, zero)
        scale = T(scale)
        if biased != 0:
            for row in range(start, stop):
                first = row * width
                for j in range(width):
                    z[first + j] = z[first + j] + bias[j]
        # One long loop, of which the processor does many numbers at a time.
        for i in range(start * width, stop * width):
            a = f(z[i])
            e[i] = nats(z[i], a, t[i])
            z[i] = a - t[i]
        for row in range(start, stop):
            first = row * width
            weight, error = weights[row] if weighted != 0 else one, 0.0
            for j in range(width):
                error += np.float64(e[first + j])
                z[first + j] = (z[first + j] * weight) * scale
            errors[row] += error * np.float64(weight)

    return loop
