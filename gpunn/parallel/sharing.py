"""What of a network a rank has, and how ranks share its training.

Hidden units of a three-layer network meet nowhere but in the sums of the outputs. So each rank may
have its own: their rows of ``W_1`` and ``b_1`` and their columns of ``W_2``, while ``b_2`` belongs
to all ("hidden"). Any network may be on all ranks, each of which learns from its share of every
batch ("data").
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from gpunn.errors import ParameterError
from gpunn.parallel.ranks import ALONE, Ranks
from gpunn.parallel.world import ranks_here

PARALLEL = ("auto", "hidden", "data", "none")
"""How ranks may share a network; "auto" is "hidden" with one hidden layer, else "data"."""

_AXES = {("0", "weight"): 0, ("0", "bias"): 0, ("1", "weight"): 1}
"""By layer and kind, the axis of a parameter along which the hidden units lie."""

_NAME = re.compile(r"(?:best\.)?layers\.(\d+)\.(weight|bias)(?:\.\w+)?")


def unit_axis(name: str) -> int | None:
    """Return along which axis the units of one hidden layer lie in an array of that name, if any.

    The name is one of the network or of a checkpoint.
    """
    match = _NAME.fullmatch(name)
    return _AXES.get((match[1], match[2])) if match else None


class Piece(NamedTuple):
    """Where an array lies in the whole one: at `start` along an axis; None if it is the whole."""

    shape: tuple[int, ...]
    axis: int | None = None
    start: int = 0


class Sharing(NamedTuple):
    """How ranks share a network.

    Attributes
    ----------
    ranks : Ranks
        Who shares it.
    kind : {"none", "hidden", "data"}
        How.
    layer_sizes : tuple of int
        The units of the whole network.
    """

    ranks: Ranks
    kind: str
    layer_sizes: tuple[int, ...]

    @property
    def is_split(self) -> bool:
        """Whether this rank has only some of the hidden units."""
        return self.kind == "hidden"

    @property
    def units(self) -> slice:
        """Which hidden units this rank has, of a network with one hidden layer."""
        return self.units_of(self.ranks.rank)

    def units_of(self, rank: int) -> slice:
        """Return which hidden units a rank has."""
        n_units = self.layer_sizes[1]
        if not self.is_split:
            return slice(0, n_units)
        size = self.ranks.size
        return slice(n_units * rank // size, n_units * (rank + 1) // size)

    @property
    def local_sizes(self) -> tuple[int, ...]:
        """The units of each layer that this rank has."""
        if not self.is_split:
            return self.layer_sizes
        units = self.units
        return (self.layer_sizes[0], units.stop - units.start, self.layer_sizes[2])

    @property
    def largest_sizes(self) -> tuple[int, ...]:
        """The units of each layer that a rank has at most, which is the same on all ranks."""
        if not self.is_split:
            return self.layer_sizes
        n_inputs, n_units, n_outputs = self.layer_sizes
        return n_inputs, -(-n_units // self.ranks.size), n_outputs

    @property
    def n_elsewhere(self) -> int:
        """How many hidden units other ranks have."""
        return self.layer_sizes[1] - (self.units.stop - self.units.start) if self.is_split else 0

    def describe(self) -> str | None:
        """Return in words how ranks share the network, if they do."""
        if self.kind == "none":
            return None
        if self.kind == "data":
            return "each has the whole network, and learns from its share of every batch"
        n_units = self.layer_sizes[1]
        most = f"{self.largest_sizes[1]:,}"
        if n_units % self.ranks.size:
            most = f"{n_units // self.ranks.size:,} or {most}"
        return f"each has {most} of the {n_units:,} hidden units"

    def piece(self, name: str, shape: Sequence[int], rank: int | None = None) -> Piece:
        """Return where an array of a rank, by default this one, lies in that of the whole network.

        Parameters
        ----------
        name : str
            What it is called, in the network or in a checkpoint.
        shape : sequence of int
            Its shape on this rank.
        rank : int, optional
            Whose it is.
        """
        axis = unit_axis(name) if self.is_split else None
        if axis is None:
            return Piece(tuple(shape))
        whole = list(shape)
        whole[axis] = self.layer_sizes[1]
        units = self.units_of(self.ranks.rank if rank is None else rank)
        return Piece(tuple(whole), axis, units.start)


NOT_SHARED = Sharing(ALONE, "none", ())
"""What a process by itself has: all."""


def share(parallel: str, layer_sizes: tuple[int, ...], *, tied: bool = False) -> Sharing:
    """Return how a network is shared between the ranks that there are.

    Parameters
    ----------
    parallel : {"auto", "hidden", "data", "none"}
        What is wanted; without a launcher nothing is shared.
    layer_sizes : tuple of int
        Its layers.
    tied : bool
        Whether its hidden units depend on each other, as those of softmax do.

    Raises
    ------
    ParameterError
        If it is none of those, or the network has not one hidden layer with a unit for each rank.
    """
    if parallel not in PARALLEL:
        raise ParameterError(f"parallel must be one of {', '.join(PARALLEL)}, got {parallel!r:.60}")
    if parallel == "hidden" and len(layer_sizes) != 3:
        raise ParameterError(
            "parallel 'hidden' shares out the units of one hidden layer, and this network has "
            f"{len(layer_sizes) - 2}: use 'data'"
        )
    if parallel == "hidden" and tied:
        raise ParameterError(
            "parallel 'hidden' cannot share the units of softmax, each of which depends on all "
            "others: use 'data'"
        )
    ranks = ALONE if parallel == "none" else ranks_here()
    if ranks.size == 1:
        return Sharing(ALONE, "none", layer_sizes)
    if parallel == "auto":
        parallel = "hidden" if len(layer_sizes) == 3 and not tied else "data"
    if parallel == "hidden" and layer_sizes[1] < ranks.size:
        raise ParameterError(
            f"{layer_sizes[1]} hidden units cannot be shared between {ranks.size} ranks: start at "
            f"most {layer_sizes[1]}, or use parallel 'data'"
        )
    return Sharing(ranks, parallel, layer_sizes)
