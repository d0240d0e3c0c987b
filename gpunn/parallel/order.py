"""A network's numbers in the order of the whole network, wherever they are."""

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from gpunn.backends.base import Array, Backend
from gpunn.data.matrices import row_blocks
from gpunn.parallel.sharing import Sharing

PIECE_NUMBERS = 2**22
"""How many numbers come at a time."""


def in_order(sharing: Sharing, name: str, array: Array, backend: Backend) -> Iterator[NDArray[Any]]:
    """Yield on the first rank all parts of an array, from its first number to its last.

    Parameters
    ----------
    sharing : Sharing
        What each rank has; all must go through this.
    name : str
        What the array is called in the network.
    array : Array
        This rank's, on its device.
    backend : Backend
        The device.

    Yields
    ------
    ndarray
        Host copies; on the other ranks, of their own numbers.
    """
    axis = sharing.piece(name, array.shape).axis
    if axis is None:
        yield backend.to_host(array)
        return
    n_ranks = sharing.ranks.size
    if axis == 1:
        rows_of_all = [slice(row, row + 1) for row in range(array.shape[0])]
        turns = [(rows, rank) for rows in rows_of_all for rank in range(n_ranks)]
    else:
        width = array.shape[1] if array.ndim == 2 else 1
        n_rows = [(units := sharing.units_of(rank)).stop - units.start for rank in range(n_ranks)]
        turns = [
            (rows, rank)
            for rank in range(n_ranks)
            for rows in row_blocks(n_rows[rank], max(1, PIECE_NUMBERS // width))
        ]
    for rows, rank in turns:
        yield sharing.ranks.to_first(backend.to_host(array[rows]), rank)
