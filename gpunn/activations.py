"""What a neuron makes of its weighted sum.

One record an activation. It holds the formula ``a = f(z)``, the backward rule
``delta <- delta * f'(z)`` written from ``a`` alone (so that ``z`` need not be kept), the inverse
``z = f^-1(a)`` for running a network backwards, and, beside each formula, the CUDA expression that
a GPU kernel is made from. The NumPy functions work in place, on one piece of an array at a time.

Sigmoid, tanh, ReLU and the identity act on each number alone. Softmax ties the units of a layer
together: its Jacobian is ``da_j/dz_k = a_j (1[j = k] - a_k)``. Its NumPy functions go along the
first axis: they take a single sample (n_l,), or samples as columns (n_l, n), where sums over a few
units are sums of a few long rows, which NumPy adds many numbers at a time.

Source of the formulas: C. M. Bishop, *Pattern Recognition and Machine Learning* (2006), chapter 5.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import ParameterError

Values = NDArray[Any]

# NumPy takes an array without dimensions in half the time that it takes to convert a Python number,
# which is most of what a formula costs on a layer of a few hundred units.
ZERO = {code: np.zeros((), code) for code in "fd"}
ONE = {code: np.ones((), code) for code in "fd"}


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation function: its formula, its backward rule and its inverse.

    A record in `ACTIVATIONS` is all that networks, training, the command line and files in ONNX's
    format need to know of an activation.

    The derivative is written from the output a alone, since nothing else is kept. So a function
    whose derivative needs z, such as GELU or SiLU, cannot be a record. One that is not elementwise
    has no kernel on a GPU, where it is refused; softmax, which has its own there, is the exception.

    Attributes
    ----------
    name : str
        The name users give.
    forward : callable
        ``forward(z, scratch)`` turns the pre-activations z into ``a = f(z)``, in place; ``scratch``
        is memory of the same shape and dtype that it may overwrite. Overflow on the way is to be
        expected.
    backward : callable
        ``backward(delta, a, scratch)`` turns ``dE/da`` into ``dE/dz``, in place; ``scratch`` is
        memory of the same shape and dtype that it may overwrite.
    inverse : callable
        ``inverse(a)`` returns a new array z with ``f(z) = a``. Where f has no inverse (ReLU below
        zero, softmax's free constant) it is the natural choice.
    elementwise : bool
        Whether each number is treated alone; if not, all units of a sample are needed, along the
        first axis.
    cuda_forward, cuda_derivative : str
        The same as CUDA expressions, ``f`` in the variable ``x`` and ``f'`` in the variable ``a``,
        both of type ``T``. Empty for softmax, which no expression of one number can give.
    onnx : str or None
        The ONNX operator that computes it, "" if none is needed; None if there is none, so that
        networks with it cannot be written in ONNX's format.
    """

    name: str
    forward: Callable[[Values, Values], None]
    backward: Callable[[Values, Values, Values], None]
    inverse: Callable[[Values], Values]
    elementwise: bool
    cuda_forward: str
    cuda_derivative: str
    onnx: str | None = None


def _sigmoid(z: Values, scratch: Values) -> None:
    # exp overflows to infinity for z below -88 in float32; 1 / (1 + inf) = 0 is then exact.
    np.negative(z, z)
    np.exp(z, z)
    np.add(z, ONE[z.dtype.char], z)
    np.reciprocal(z, z)


def _sigmoid_backward(delta: Values, a: Values, scratch: Values) -> None:
    np.subtract(ONE[a.dtype.char], a, scratch)
    np.multiply(scratch, a, scratch)
    np.multiply(delta, scratch, delta)


def _logit(a: Values) -> Values:
    return np.asarray(np.log(a / (1 - a)))


def _tanh(z: Values, scratch: Values) -> None:
    np.tanh(z, out=z)


def _tanh_backward(delta: Values, a: Values, scratch: Values) -> None:
    np.multiply(a, a, scratch)
    np.subtract(ONE[a.dtype.char], scratch, scratch)
    np.multiply(delta, scratch, delta)


@lru_cache(maxsize=16)
def _zeros(shape: tuple[int, ...], code: str) -> Values:
    zeros = np.zeros(shape, code)
    zeros.flags.writeable = False
    return zeros


def _relu(z: Values, scratch: Values) -> None:
    # NumPy compares with an array of zeros four times as fast as with a single one.
    np.maximum(z, _zeros(z.shape, z.dtype.char), out=z)


def _relu_backward(delta: Values, a: Values, scratch: Values) -> None:
    np.greater(a, ZERO[a.dtype.char], scratch)
    np.multiply(delta, scratch, delta)


def _identity(z: Values, scratch: Values) -> None:
    pass


def _identity_backward(delta: Values, a: Values, scratch: Values) -> None:
    pass


def _exp(z: Values, scratch: Values) -> None:
    np.exp(z, z)


def _exp_backward(delta: Values, a: Values, scratch: Values) -> None:
    np.multiply(delta, a, delta)


def _softmax(z: Values, scratch: Values) -> None:
    # The largest number is taken off first: the result is the same, and exp cannot overflow.
    of_sample = scratch[:1]
    np.maximum.reduce(z, axis=0, keepdims=True, out=of_sample)
    np.subtract(z, of_sample, z)
    np.exp(z, z)
    np.add.reduce(z, axis=0, keepdims=True, out=of_sample)
    np.divide(z, of_sample, z)


def _softmax_backward(delta: Values, a: Values, scratch: Values) -> None:
    of_sample = scratch[:1]
    np.einsum("k...,k...->...", delta, a, out=of_sample[0, ...])
    np.subtract(delta, of_sample, delta)
    np.multiply(delta, a, delta)


SIGMOID = Activation(
    "sigmoid",
    forward=_sigmoid,
    backward=_sigmoid_backward,
    inverse=_logit,
    elementwise=True,
    cuda_forward="T(1) / (T(1) + exp(-x))",
    cuda_derivative="a * (T(1) - a)",
    onnx="Sigmoid",
)
TANH = Activation(
    "tanh",
    forward=_tanh,
    backward=_tanh_backward,
    inverse=np.arctanh,
    elementwise=True,
    cuda_forward="tanh(x)",
    cuda_derivative="T(1) - a * a",
    onnx="Tanh",
)
RELU = Activation(
    "relu",
    forward=_relu,
    backward=_relu_backward,
    inverse=np.array,
    elementwise=True,
    # Written so that NaN stays NaN, as in NumPy's maximum.
    cuda_forward="x < T(0) ? T(0) : x",
    cuda_derivative="a > T(0) ? T(1) : T(0)",
    onnx="Relu",
)
IDENTITY = Activation(
    "identity",
    forward=_identity,
    backward=_identity_backward,
    inverse=np.array,
    elementwise=True,
    cuda_forward="x",
    cuda_derivative="T(1)",
    onnx="",
)
EXP = Activation(
    "exp",
    forward=_exp,
    backward=_exp_backward,
    inverse=np.log,
    elementwise=True,
    cuda_forward="exp(x)",
    cuda_derivative="a",
    onnx="Exp",
)
SOFTMAX = Activation(
    "softmax",
    forward=_softmax,
    backward=_softmax_backward,
    inverse=np.log,
    elementwise=False,
    cuda_forward="",
    cuda_derivative="",
    onnx="Softmax",
)

ACTIVATIONS = {record.name: record for record in (SIGMOID, TANH, RELU, IDENTITY, SOFTMAX)}
"""Every activation that has a name, for hidden layers and outputs."""

# The exponential is the output of one loss function, `gpunn.losses.POISSON`; no general choice.
_SPECIAL = {EXP.name: EXP}


def get_activation(name: str) -> Activation:
    """Return the activation of that name.

    Parameters
    ----------
    name : str
        A name in `ACTIVATIONS`, or "exp", the output activation of the Poisson loss.

    Returns
    -------
    Activation
        Its record.

    Raises
    ------
    ParameterError
        If there is no activation of that name.
    """
    try:
        return (_SPECIAL | ACTIVATIONS)[name]
    except (KeyError, TypeError):
        raise ParameterError(
            f"unknown activation {name!r}: use one of {', '.join(ACTIVATIONS)}"
        ) from None
