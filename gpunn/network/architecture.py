"""What a network is, apart from its numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gpunn.activations import Activation, get_activation
from gpunn.backends.base import get_dtype
from gpunn.errors import ParameterError
from gpunn.losses import get_loss

HIDDEN_ERRORS = ("gradient", "textbook")

TOO_MANY_WEIGHTS = 2**60
"""So many weights in a layer take more bytes than a 64-bit machine can count."""


@dataclass(frozen=True)
class Architecture:
    """What a network is, apart from its numbers.

    Attributes
    ----------
    layer_sizes : tuple of int
        Number of units from the inputs to the outputs.
    hidden_activation, output_activation, loss, biases, dtype
        As in `gpunn.Network`.
    hidden_errors : {"gradient", "textbook"}
        What a layer sends back to the one below when it learns: ``D_l W_l``, which is the gradient,
        or ``e_l W_l`` without the slope of its own activation, from ``e_L = o - t`` at the outputs.
        The latter is the rule of `gpunn.ThreeLayerNetwork`, for the squared error alone.
    """

    layer_sizes: tuple[int, ...]
    hidden_activation: str = "sigmoid"
    output_activation: str = "sigmoid"
    loss: str = "squared_error"
    biases: bool = True
    dtype: str = "float32"
    hidden_errors: str = "gradient"

    def __post_init__(self) -> None:
        sizes = self.layer_sizes
        if len(sizes) < 2 or not all(isinstance(n, int) and n > 0 for n in sizes):
            raise ParameterError(
                "layer_sizes must be at least two whole numbers above 0, from inputs to outputs, "
                f"got {list(sizes)}"
            )
        if any(n_in * n_out >= TOO_MANY_WEIGHTS for n_in, n_out in pairwise(sizes)):
            raise ParameterError(
                f"layer_sizes {list(sizes)} make a layer of 2^60 weights or more, which no memory "
                "holds: use fewer units"
            )
        if not isinstance(self.biases, bool):
            raise ParameterError(f"biases must be True or False, got {self.biases!r}")
        get_activation(self.hidden_activation)
        get_activation(self.output_activation)
        get_loss(self.loss, self.output_activation)
        get_dtype(self.dtype)
        if self.hidden_errors not in HIDDEN_ERRORS:
            raise ParameterError(
                f"hidden_errors must be one of {', '.join(HIDDEN_ERRORS)}, "
                f"got {self.hidden_errors!r:.80}"
            )
        if self.hidden_errors == "textbook" and self.loss != "squared_error":
            raise ParameterError(
                "hidden_errors 'textbook' sends back t - o, which belongs to the squared error: "
                f"expected loss 'squared_error', got {self.loss!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return it in plain values, as model files and checkpoints have it.

        The usual rule for hidden errors goes without saying, so that earlier versions read the
        files, and their checkpoints are those of the same network.
        """
        fields = {**vars(self), "layer_sizes": list(self.layer_sizes)}
        if self.hidden_errors == "gradient":
            del fields["hidden_errors"]
        return fields

    @property
    def ties_hidden_units(self) -> bool:
        """Whether the activation of a hidden unit depends on the others of its layer."""
        return not get_activation(self.hidden_activation).elementwise

    def check_dropout(self) -> None:
        """Raise unless hidden units may sit out steps.

        Raises
        ------
        ParameterError
            If there are none, they depend on each other, or the rule of learning has no dropout.
        """
        if self.hidden_errors == "textbook":
            raise ParameterError("the textbook's rule has no dropout: use gpunn.Network")
        if len(self.layer_sizes) == 2:
            raise ParameterError("dropout is for hidden units, and this network has none")
        if self.ties_hidden_units:
            raise ParameterError(
                "dropout is for hidden units that are active by themselves, not for "
                f"{self.hidden_activation}"
            )

    def layers(self) -> Iterator[tuple[int, int, Activation]]:
        """Yield each layer's (n_out, n_in, activation), from the first hidden one up."""
        last = len(self.layer_sizes) - 2
        for index, (n_in, n_out) in enumerate(pairwise(self.layer_sizes)):
            name = self.output_activation if index == last else self.hidden_activation
            yield n_out, n_in, get_activation(name)


def whole_numbers(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return sizes of layers as whole numbers, whatever kind of whole numbers they are.

    Raises
    ------
    ParameterError
        If they are none.
    """
    try:
        return tuple(size if isinstance(size, str) else size.__index__() for size in sizes)
    except (TypeError, AttributeError):
        raise ParameterError(
            f"layer_sizes must be whole numbers from inputs to outputs, got {sizes!r}"
        ) from None
