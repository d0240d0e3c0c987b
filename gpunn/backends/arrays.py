"""What code above the seam may know of an array, whatever device it lies on."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from gpunn.activations import Activation
from gpunn.errors import ParameterError


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


Number = Any
"""A number; where a device records steps, also an array of one number on it, of the network's dtype
(or uint32), which holds the number by the time that the work is done."""


def is_on_gpu(values: object) -> bool:
    """Say whether something is an array on a GPU, of whichever library."""
    return hasattr(values, "__cuda_array_interface__")


class LayerParams(Protocol):
    """What a device needs to know of a layer; `gpunn.network.layers.Layer` is one."""

    @property
    def weights(self) -> Array:
        """(n_out, n_in)."""

    @property
    def biases(self) -> Array | None:
        """(n_out,), or None."""

    @property
    def activation(self) -> Activation:
        """What the neurons make of their sums."""


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
