"""The processes that train one network together, as the rest of gpunn sees them.

`Ranks` is a process by itself, which has nobody to talk to: then nothing here costs anything. What
several do is in `gpunn.parallel.mpi`, which is imported only where a launcher has started several.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from gpunn.backends.base import Array, Backend
from gpunn.errors import GpunnError

T = TypeVar("T")


class Ranks:
    """The processes that work together, and which of them this one is.

    All methods but `add_up` may be called by one rank only if they are called by all, in the same
    order.

    Attributes
    ----------
    rank : int
        Which of them this is, from 0.
    size : int
        How many there are.
    library : str
        What carries their messages.
    """

    rank = 0
    size = 1
    library = "nothing"

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that speaks and writes for all."""
        return self.rank == 0

    def add_up(self, backend: Backend, array: Array) -> None:
        """Change an array in place to its sum over all ranks, in their order.

        The same number of ranks gives the same bits, and all ranks get the same.
        """

    def begin_sum(self, backend: Backend, array: Array, slot: int) -> Callable[[], None]:
        """Begin to add up an array as `add_up` does; return what waits until that is done.

        Several may be on their way at once, each in a slot of its own.
        """
        return lambda: None

    def same(self, value: T) -> T:
        """Return what the first rank has given."""
        return value

    def gather(self, value: T) -> list[T]:
        """Return what each rank has given, in their order."""
        return [value]

    def to_first(self, value: T, rank: int) -> T:
        """Return on the first rank what that rank has given; on the others, their own value."""
        return value

    def any(self, wish: bool) -> bool:
        """Whether any rank says yes."""
        return any(self.gather(wish))

    def together(self, work: Callable[[], T]) -> T:
        """Do something on all ranks; what one of them raises, all raise.

        Raises
        ------
        GpunnError
            That of the lowest rank that has one.
        """
        if self.size == 1:
            return work()
        result: Any = None
        error: GpunnError | None = None
        try:
            result = work()
        except GpunnError as caught:
            error = caught
        said = self.gather(None if error is None else (type(error), str(error)))
        first = next((found for found in said if found is not None), None)
        if first is None:
            return result  # type: ignore[no-any-return]
        kind, text = first
        raise error if error is not None and str(error) == text else kind(text)

    def agree(self, number: float, clock: float) -> tuple[float, float]:
        """Return the largest of the ranks' numbers, and the first rank's clock."""
        return number, clock


ALONE = Ranks()
"""A process by itself."""
