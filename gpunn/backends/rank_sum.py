"""The contract of a device that adds up over ranks by itself; see `gpunn.parallel`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, TypeVar

from gpunn.backends.arrays import Array

T = TypeVar("T")


class RankLinks(Protocol):
    """What a device may say to the same device of other ranks while it finds its way to them."""

    @property
    def rank(self) -> int:
        """Which rank this is."""

    @property
    def size(self) -> int:
        """How many there are."""

    def same(self, value: T) -> T:
        """Return what the first rank has given."""

    def gather(self, value: T) -> list[T]:
        """Return what each rank has given."""


class RankSum(ABC):
    """Adds up arrays over ranks without a way through the host."""

    @abstractmethod
    def add_up(self, array: Array) -> None:
        """Change a contiguous array in place to its sum over all ranks, the same on each.

        The same number of ranks, in the same places, gives the same bits.
        """

    @abstractmethod
    def begin(self, array: Array) -> Callable[[], None]:
        """Begin to add up an array as `add_up` does; return what makes later work wait for it.

        Work that is given to the device in between goes on meanwhile.
        """

    @abstractmethod
    def is_done(self) -> bool:
        """Whether all sums have been computed that the device was given."""

    @abstractmethod
    def n_bytes_sent(self, array: Array) -> int:
        """Return what a rank sends in a sum of that array."""
