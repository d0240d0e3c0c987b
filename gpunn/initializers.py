"""The weights a network starts from.

Weights are drawn on the host, in float64, layer by layer, and only then cast and copied to a
device: the same seed gives the same bits on every device. A row of weights holds one neuron's
incoming connections, so `fan_in` is the number of columns.

Biases start at zero, except with "standard_normal", which draws them too.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import DTypeLike, NDArray

from gpunn.errors import ParameterError


class Fans(NamedTuple):
    """How many units a layer has below it, and how many it has."""

    n_in: int
    n_out: int


ROWS_NUMBERS = 2**20
"""How many numbers are drawn at a time."""

BLOCK_UNITS = 4096
"""Hidden units of a three-layer network that one generator draws; see `block_generators`."""

Draw = Callable[[Generator, tuple[int, ...], Fans], NDArray[np.float64]]


def _normal(generator: Generator, shape: tuple[int, ...], fans: Fans) -> NDArray[np.float64]:
    return generator.normal(0.0, fans.n_in**-0.5, shape)


def _uniform(generator: Generator, shape: tuple[int, ...], fans: Fans) -> NDArray[np.float64]:
    return generator.uniform(-(fans.n_in**-0.5), fans.n_in**-0.5, shape)


def _uniform_half(generator: Generator, shape: tuple[int, ...], fans: Fans) -> NDArray[np.float64]:
    return generator.uniform(-0.5, 0.5, shape)


def _standard_normal(
    generator: Generator, shape: tuple[int, ...], fans: Fans
) -> NDArray[np.float64]:
    return generator.standard_normal(shape)


def _glorot_uniform(
    generator: Generator, shape: tuple[int, ...], fans: Fans
) -> NDArray[np.float64]:
    bound = (6.0 / (fans.n_in + fans.n_out)) ** 0.5
    return generator.uniform(-bound, bound, shape)


def _he_normal(generator: Generator, shape: tuple[int, ...], fans: Fans) -> NDArray[np.float64]:
    return generator.normal(0.0, (2.0 / fans.n_in) ** 0.5, shape)


INITIALIZERS: dict[str, Draw] = {
    "normal": _normal,
    "uniform": _uniform,
    "uniform_half": _uniform_half,
    "standard_normal": _standard_normal,
    "glorot_uniform": _glorot_uniform,
    "he_normal": _he_normal,
}


def make_generator(seed: int | Sequence[int] | Generator) -> Generator:
    """Return the source of random numbers that a seed stands for.

    Parameters
    ----------
    seed : int, sequence of int, or numpy.random.Generator
        Whole numbers of at least 0; a generator is returned as it is.

    Returns
    -------
    numpy.random.Generator
        The generator.

    Raises
    ------
    ParameterError
        If it is nothing of the kind.
    """
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise ParameterError(
            f"seed must be whole numbers of at least 0 or a numpy.random.Generator, got {seed!r}"
        ) from None


def block_generators(generator: Generator, n_units: int) -> Callable[[int | None], Generator]:
    """Return who draws which hidden units of a three-layer network.

    A network of up to `BLOCK_UNITS` hidden units is drawn by its own generator, from the first
    weight to the last. Of a wider one each block of so many units has a generator of its own, so
    that whoever wants some of the units need not draw those before them: it draws their rows of the
    first weights, their biases and then their columns of the second weights.

    Parameters
    ----------
    generator : numpy.random.Generator
        The network's. For a wider network it only draws what the others are seeded by.
    n_units : int
        The number of hidden units.

    Returns
    -------
    callable
        Returns a block's generator for its number, and for None that of the outputs' biases.
    """
    if n_units <= BLOCK_UNITS:
        return lambda _: generator
    entropy = generator.integers(2**32, size=4, dtype=np.uint32).tolist()

    def of_block(block: int | None) -> Generator:
        key = () if block is None else (block,)
        return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=key))

    return of_block


def draw_weights(
    initializer: str,
    generator: Generator,
    n_out: int,
    n_in: int,
    dtype: DTypeLike,
    fans: Fans | None = None,
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Draw one layer's weights (n_out, n_in), a few rows at a time.

    So a layer that fills a GPU's memory never lies in the host's, let alone in float64.

    Parameters
    ----------
    initializer : str
        - "normal": normal with standard deviation ``fan_in^-1/2`` (LeCun et al., 1998; Rashid),
        - "uniform": uniform in ``+-fan_in^-1/2``,
        - "uniform_half": uniform in ``+-0.5``,
        - "standard_normal": N(0, 1) for weights and biases (Nielsen, chapter 1),
        - "glorot_uniform": uniform in ``+-(6 / (fan_in + fan_out))^1/2`` (Glorot and Bengio, 2010),
        - "he_normal": normal with standard deviation ``(2 / fan_in)^1/2`` (He et al., 2015).
    generator : numpy.random.Generator
        Where the numbers come from.
    n_out, n_in : int
        The layer's size and that of the layer below.
    dtype : dtype_like
        What the float64 draws are cast to.
    fans : Fans, optional
        The size of the whole layer and that of the layer below, if this is a part of it.

    Yields
    ------
    rows : slice
        Which rows of the weights these are.
    weights : ndarray, shape (n_rows, n_in)
        The rows.

    Raises
    ------
    ParameterError
        If there is no initializer of that name.
    """
    if not isinstance(initializer, str) or initializer not in INITIALIZERS:
        raise ParameterError(
            f"unknown initializer {initializer!r}: use one of {', '.join(INITIALIZERS)}"
        )
    fans = Fans(n_in, n_out) if fans is None else fans
    n_rows = max(1, ROWS_NUMBERS // n_in)
    for start in range(0, n_out, n_rows):
        rows = slice(start, min(start + n_rows, n_out))
        block = INITIALIZERS[initializer](generator, (rows.stop - start, n_in), fans)
        yield rows, block.astype(dtype, copy=False)


def draw_biases(
    initializer: str, generator: Generator, n_out: int, dtype: DTypeLike
) -> NDArray[Any]:
    """Draw one layer's biases (n_out,), after its weights; see `draw_weights`."""
    if initializer == "standard_normal":
        return generator.standard_normal(n_out).astype(dtype)
    return np.zeros(n_out, dtype)
