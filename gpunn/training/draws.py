"""What a training draws at random in an epoch: the order of its samples, and who sits out.

A training that is interrupted within an epoch draws the same again. So the state of the random
numbers from before the epoch is remembered (`Draws.begin_epoch`), and written into checkpoints.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpunn.errors import ModelFileError
from gpunn.training.loaders import Loader, Order

Arrays = dict[str, NDArray[Any]]


class Draws(ABC):
    """Where the random numbers of a training come from, and how they are used.

    Attributes
    ----------
    before : dict
        The state from before the epoch, in plain values.
    """

    before: dict[str, Any]

    @abstractmethod
    def begin_epoch(self) -> None:
        """Remember the state from before an epoch."""

    @abstractmethod
    def draw(
        self, loader: Loader, *, shuffle: bool, keys: tuple[int, int] | None
    ) -> tuple[Order | None, NDArray[np.uint32] | None]:
        """Draw what an epoch needs.

        Parameters
        ----------
        loader : Loader
            The samples.
        shuffle : bool
            Whether they are to have a new order.
        keys : (int, int) or None
            The numbers of steps and of hidden layers, if there is dropout.

        Returns
        -------
        order : Order or None
            The order of the samples; None for their own.
        keys : ndarray, shape (n_steps, n_layers), or None
            What dropout is decided by.
        """

    @abstractmethod
    def arrays(self) -> Arrays:
        """Return what else the draws of this epoch depend on, by name."""

    @abstractmethod
    def check(self, before: Any, arrays: Arrays) -> None:
        """Raise ModelFileError unless `restore` can go back to these."""

    @abstractmethod
    def restore(self, before: dict[str, Any], arrays: Arrays) -> None:
        """Go back to before an epoch, of which `before` and `arrays` were kept."""


class GeneratorDraws(Draws):
    """New orders from a generator, as `gpunn.fit` draws them.

    Parameters
    ----------
    generator : numpy.random.Generator
        Where the random numbers come from.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Remember the state from before an epoch."""
        self.before = plain(dict(self._generator.bit_generator.state))

    def draw(
        self, loader: Loader, *, shuffle: bool, keys: tuple[int, int] | None
    ) -> tuple[Order | None, NDArray[np.uint32] | None]:
        """Draw what an epoch needs: the keys first, since a stream's order is drawn bit by bit."""
        drawn = None
        if keys is not None:
            drawn = self._generator.integers(2**32, size=keys, dtype=np.uint32)
        return loader.draw_order(self._generator) if shuffle else None, drawn

    def arrays(self) -> Arrays:
        """Return nothing: the generator's state is all."""
        return {}

    def check(self, before: Any, arrays: Arrays) -> None:
        """Raise ModelFileError unless it is a state of such a generator."""
        own = self._generator.bit_generator
        check_state(before, plain(own.state))
        type(own)().state = with_arrays(before)  # raises for numbers that are too large

    def restore(self, before: dict[str, Any], arrays: Arrays) -> None:
        """Go back to before an epoch."""
        self._generator.bit_generator.state = with_arrays(before)
        self.begin_epoch()


def check_state(state: Any, own: dict[str, Any]) -> None:
    """Raise ModelFileError unless a state has the form of a generator's own: NumPy believes all."""
    if (
        not _has_form_of(state, own)
        or not 0 <= state.get("buffer_pos", 0) <= 4
        or not 0 <= state["state"].get("pos", 0) <= 624
    ):
        raise ModelFileError("the state of its random generator makes no sense")


def _has_form_of(value: Any, own: Any) -> bool:
    """Whether plain values have the same types, names and numbers of items as others."""
    if type(value) is not type(own):
        return False
    if isinstance(own, dict):
        return value.keys() == own.keys() and all(_has_form_of(value[k], own[k]) for k in own)
    if isinstance(own, list):
        return len(value) == len(own) and all(map(_has_form_of, value, own))
    return True


def plain(value: Any) -> Any:
    """Return a generator's state as JSON has it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def with_arrays(value: Any) -> Any:
    """Return a generator's state as NumPy has it."""
    if isinstance(value, dict):
        return {key: with_arrays(item) for key, item in value.items()}
    return np.array(value, np.uint64) if isinstance(value, list) else value
