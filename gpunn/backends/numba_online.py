"""One sample at a time on the CPU, in the Python that Numba compiles: a run of a block's samples.

It is the loop of `gpunn.backends.numpy_online.NumpySequencer`, without a call between two numbers.
"""

# Numba has no types to check against, and what it compiles is Python in form alone.
# mypy: ignore-errors

import numpy as np
from numba import njit

from gpunn.backends.numba_arrays import (
    LETTERS,
    OPTIONS,
    READ,
    SUMMING,
    WRITTEN,
    inlined,
    is_array,
    is_none,
    is_vector,
    numbers,
    size,
)
from gpunn.backends.numba_loops import (
    derivative_of_activation,
    elementwise_loss,
    exponentials,
    forward_of_activation,
)


def _suit_run(code):
    """Return what looks at the arrays of a run."""
    letter = LETTERS[code]

    @inlined
    def suit(z, deltas, products, tops, targets, weights, biases, taught, stop):
        if not (
            is_array(z, letter, WRITTEN, 2)
            and is_array(deltas, letter, WRITTEN, 2)
            and is_array(products, letter, READ, 2)
            and is_array(tops, letter, WRITTEN, 2)
            and is_array(targets, letter, READ, 2)
            and is_array(weights, letter, WRITTEN, 2)
        ):
            return False
        n, units, outputs = size(z, 0), size(z, 1), size(tops, 1)
        return (
            (is_none(biases) or is_vector(biases, letter, WRITTEN, outputs))
            and is_vector(taught, letter, WRITTEN, 2 * outputs)
            and size(deltas, 0) == n
            and size(deltas, 1) == units
            and size(products, 0) == n
            and size(products, 1) == n
            and size(tops, 0) == n
            and size(targets, 0) >= stop
            and size(targets, 1) == outputs
            and size(weights, 0) == outputs
            and size(weights, 1) == units
            and stop <= n
        )

    return suit


def learn_run(code, hidden, top, loss, rule):
    """Return the loop of `NumpySequencer._learn_run`.

    `rule` is "gradient" or "textbook". `taught` has room for what each output sends back, and for
    its delta, from which the weights learn; by the true gradient both are the same.
    """
    T = np.dtype(code).type
    zero = T(0)
    suit = _suit_run(code)
    f, slope = forward_of_activation(hidden, code), derivative_of_activation(hidden, code)
    delta_top = _delta_top(code, top, loss, rule)

    @njit(**OPTIONS)
    def correct(z, deltas, row, before, n, x):
        for j in range(n):
            z[row + j] += x * deltas[before + j]

    @njit(**OPTIONS)
    def activate(z, row, n):
        for j in range(row, row + n):
            z[j] = f(z[j])

    @njit(**SUMMING)
    def dot(weights, row, z, first, n):
        total = zero
        for j in range(n):
            total += weights[row + j] * z[first + j]
        return total

    @njit(**OPTIONS)
    def send_back_and_learn(deltas, weights, z, row, first, n, sent, change):
        for j in range(n):
            w = weights[first + j]
            deltas[row + j] += sent * w
            weights[first + j] = w + change * z[row + j]

    @njit(**OPTIONS)
    def go_back(deltas, z, row, n):
        for j in range(row, row + n):
            deltas[j] = deltas[j] * slope(z[j])

    def loop(z_, deltas_, products_, tops_, targets_, w_, b_, taught_, start, stop, scale, share):
        if not suit(z_, deltas_, products_, tops_, targets_, w_, b_, taught_, stop):
            return 0
        n, units, outputs = size(z_, 0), size(z_, 1), size(tops_, 1)
        z, deltas, w = numbers(z_, zero), numbers(deltas_, zero), numbers(w_, zero)
        products, tops = numbers(products_, zero), numbers(tops_, zero)
        targets, taught = numbers(targets_, zero), numbers(taught_, zero)
        biased = not is_none(b_)
        b = numbers(b_ if biased else w_, zero)
        scale, share = T(scale), T(share)
        for t in range(start, stop):
            row, first = t * units, t * outputs
            for s in range(start, t):
                correct(z, deltas, row, s * units, units, -scale * products[t * n + s])
            activate(z, row, units)
            for o in range(outputs):
                total = dot(w, o * units, z, row, units)
                tops[first + o] = total + b[o] if biased else total
            delta_top(tops, targets, taught, first, outputs, share)
            for j in range(row, row + units):
                deltas[j] = zero
            for o in range(outputs):
                sent, change = taught[o], -scale * taught[outputs + o]
                send_back_and_learn(deltas, w, z, row, o * units, units, sent, change)
                if biased:
                    b[o] += change
            go_back(deltas, z, row, units)
        return 1

    return loop


def _delta_top(code, top, loss, rule):
    """Return what writes what each output sends back and its delta, for a sample's z.

    Where the loss is computed from z, z stays as it is; otherwise it becomes the output.
    """
    T = np.dtype(code).type
    zero = T(0)

    if top == "softmax":
        exp = exponentials(code)[0]

        @njit(**OPTIONS)
        def delta_top(tops, targets, taught, first, n, share):
            highest, total, t_sum = tops[first], zero, zero
            for o in range(first, first + n):
                x = tops[o]
                highest = x if x > highest or x != x else highest
            for o in range(n):
                taught[o] = exp(tops[first + o] - highest)
                total += taught[o]
                t_sum += targets[first + o]
            for o in range(n):
                taught[o] = (taught[o] / total) * t_sum - targets[first + o]
                taught[n + o] = taught[o]

        return delta_top

    f, slope = forward_of_activation(top, code), derivative_of_activation(top, code)
    fused = loss in FROM_Z
    derivative = None if fused else elementwise_loss(code, loss)[1]

    @inlined
    def error(a, t, share):
        if rule == "textbook" or fused:
            return a - t
        return derivative(a, t) * share

    @njit(**OPTIONS)
    def delta_top(tops, targets, taught, first, n, share):
        for o in range(n):
            a = f(tops[first + o])
            e = error(a, targets[first + o], share)
            d = e if fused and rule == "gradient" else e * slope(a)
            taught[o] = e if rule == "textbook" else d
            taught[n + o] = d
            if not fused:
                tops[first + o] = a

    return delta_top


FROM_Z = ("cross_entropy", "log_loss", "binary_cross_entropy", "binary_log_loss")
"""Losses that are computed from z."""
