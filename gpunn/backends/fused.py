"""The contracts of the fused ways of training: what a device may do in one call, if it can.

The plain path is `gpunn.Network.step`, where the chain rule stands. A device may record such a step
and do it again in one call (`StepRecorder`), go through the top of a network in two passes
(`ThinTop`), or do the steps of many samples in one call (`Sequencer`, `BatchLearner`), the latter
for a network with one hidden layer and plain gradient descent. The result is the same but for
rounding. A device need not have any; each one that there is has tests that hold it against the
plain path.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.backends.arrays import Array, LayerParams, Number
from gpunn.losses import Loss


class FusedModel(NamedTuple):
    """What a fused path needs to know of a network with one hidden layer.

    Attributes
    ----------
    hidden, top : Layer
        The two layers, whose arrays are those of the network.
    loss : Loss
        The loss.
    textbook_rule : bool
        Whether the outputs send back ``o - t`` itself; see
        `gpunn.network.architecture.Architecture`.
    """

    hidden: LayerParams
    top: LayerParams
    loss: Loss
    textbook_rule: bool


class Sequencer(ABC):
    """Goes through a block of single samples in their order, fused; see `gpunn.training.online`.

    Attributes
    ----------
    z : Array, shape (n_rows, n_1)
        To be filled with ``X W_1^T`` before a block is learnt; afterwards it may hold anything.
    deltas : Array, shape (n_rows, n_1)
        Holds D_1 once a block has been learnt.
    """

    z: Array
    deltas: Array

    @abstractmethod
    def prepare(self, inputs: Array) -> None:
        """Do what `learn` needs of the samples alone, and not of the network."""

    @abstractmethod
    def learn(
        self,
        inputs: Array,
        targets: Array,
        scale: float | Array,
        row_losses: Array,
        outputs: Array | None,
    ) -> None:
        """Change the top layer in place by learning from samples one after the other.

        The first layer's parameters are left for the caller to update from `deltas`.

        Parameters
        ----------
        inputs : Array, shape (n, n_0)
            The samples that have been prepared, whose sums are in the first n rows of `z`.
        targets : Array, shape (n, n_2)
            Their targets.
        scale : float or Array, shape (1,)
            What gradients are multiplied by: the learning rate over the samples in a step, one.
            On the device, in the network's dtype, it is read when the device comes to it.
        row_losses : Array, shape (n,), float64
            Gets each sample's error added.
        outputs : Array, shape (n, n_2), or None
            Gets each sample's outputs, from before it was learnt from.
        """


class BatchLearner(ABC):
    """Learns from mini-batch after mini-batch in one call, fused, by plain gradient descent."""

    @abstractmethod
    def learn(
        self,
        inputs: Array,
        targets: Array,
        batch_size: int,
        *,
        scale: float,
        kept: float,
        row_losses: Array,
    ) -> None:
        """Change the network in place by a step for each batch of samples.

        Parameters
        ----------
        inputs : Array, shape (n, n_0)
            The samples, batch by batch.
        targets : Array, shape (n, n_2)
            Their targets.
        batch_size : int
            Samples in a step, at most as many as the learner was made for; n is a multiple of it.
        scale : float
            The learning rate over the samples in a step.
        kept : float
            What the weights, but not the biases, are multiplied by in each step.
        row_losses : Array, shape (n,), float64
            Gets each sample's error added, from before the step.
        """


class UpdateRule(NamedTuple):
    """An optimizer's whole rule for a parameter, as CUDA.

    Attributes
    ----------
    n_memories : int
        How many numbers it remembers for each parameter.
    cuda : str
        Statements that change the parameter ``w`` and what is remembered of it, ``m[0]``,
        ``m[1]``..., by the gradient ``g``, all of type ``T``. ``n[0]``, ``n[1]``... are the
        numbers of `Optimizer.step_numbers`, and ``decays`` is true for weights, false for biases.
    """

    n_memories: int
    cuda: str


class StepShape(NamedTuple):
    """What a recorder must know of the steps that it is to record.

    Attributes
    ----------
    n_rows : int
        Samples in a step at most.
    n_steps : int
        Steps in an epoch.
    n_samples, n_inputs, n_outputs : int
        Samples in an epoch, and what belongs to each.
    n_numbers : int
        How many numbers a step takes.
    weighted : bool
        Whether samples have weights.
    dtype, kept_in : str
        What the network computes in, and what inputs are kept in.
    """

    n_rows: int
    n_steps: int
    n_samples: int
    n_inputs: int
    n_outputs: int
    n_numbers: int
    weighted: bool
    dtype: str
    kept_in: str


class EpochSource(NamedTuple):
    """Where the steps of an epoch find their samples and numbers.

    Attributes
    ----------
    samples : (Array, Array) or None
        All inputs and targets, on the device, from which each step gathers its own; None if the
        caller puts them into the recorder's arrays before each step.
    order : ndarray, shape (n_samples,), int64, or None
        The order in which they are learnt from, on the host; None for their own.
    row_weights : ndarray, shape (n_samples,), or None
        What each counts, in that order, on the host.
    numbers : ndarray, shape (n_steps, n_numbers), float64
        The numbers that each step takes, on the host.
    """

    samples: tuple[Array, Array] | None
    order: NDArray[np.int64] | None
    row_weights: NDArray[Any] | None
    numbers: NDArray[np.float64]


class StepArrays(NamedTuple):
    """What a recorded step works with, all on the device.

    Attributes
    ----------
    inputs, targets : Array, shape (n, n_0) and (n, n_L)
        Its samples.
    row_weights : Array, shape (n,), or None
        What each counts.
    numbers, whole_numbers : Array, shape (n_numbers,)
        Its numbers, in the network's dtype and as uint32.
    """

    inputs: Array
    targets: Array
    row_weights: Array | None
    numbers: Array
    whole_numbers: Array


Work = Callable[[StepArrays], list[Any]]
"""What a step does. It returns memory that it uses and that others may give up, to be kept."""


class StepRecorder(ABC):
    """Records what a step does, and then does it again in one call, with the next samples.

    What changes from step to step lies on the device: the number of the step, and for each step its
    numbers and the places of its samples. Each step begins by fetching them.

    Attributes
    ----------
    inputs, targets : Array, shape (n_rows, n_0) and (n_rows, n_L)
        The samples of a step.
    problem : str or None
        Why steps are not recorded, but done one call after the other, with the same result.
    """

    inputs: Array
    targets: Array
    problem: str | None = None

    @abstractmethod
    def begin_epoch(self, source: EpochSource, first_step: int) -> None:
        """Take samples and numbers from there, from the step of that number on."""

    @abstractmethod
    def step(self, n_rows: int, work: Work, row_losses: Array) -> None:
        """Do the next step.

        Parameters
        ----------
        n_rows : int
            Its samples.
        work : callable
            What is done with them. It must do the same each time: it is asked for it only until it
            has been recorded.
        row_losses : Array
            Where it adds the losses; if this is another array, the step is recorded anew.
        """

    @abstractmethod
    def skip(self) -> None:
        """Leave out the next step."""

    @abstractmethod
    def forget(self) -> None:
        """Record anew, because a step now does something else."""


class ThinTop(ABC):
    """The way through a network's two uppermost layers where the outputs are few.

    With few outputs the three products of the last layer are little work, but each reads the whole
    of the activations. Here the passes over the activations that a step needs anyway do them, too.
    """

    @abstractmethod
    def go_forward(
        self,
        z: Array,
        targets: Array,
        row_losses: Array,
        row_weights: Array | None,
        scale: Number,
        key: Number | None,
    ) -> None:
        """Change `z` (n, n_1) in place from Z without biases to A, and add to `row_losses`.

        The output delta, times `scale`, is kept for the way back. `key` is dropout's.
        """

    @abstractmethod
    def go_back(self, a: Array, delta: Array, key: Number | None) -> None:
        """Change `delta` (n, n_1) in place to the lower layer's D, of whose A `a` is; keep sums."""

    @abstractmethod
    def update(
        self,
        numbers: Array,
        weights: Sequence[Array],
        biases: Sequence[Array],
        biases_below: Sequence[Array],
    ) -> None:
        """Change the upper layer and the lower one's biases in place by a step of the rule.

        Parameters
        ----------
        numbers : Array, shape (n_numbers,)
            Those of the step, the rule's first.
        weights, biases, biases_below : sequence of Array
            What the rule remembers of each.
        """


class HiddenPass(ABC):
    """The way through a hidden layer below a wide one, of which each is one pass."""

    @abstractmethod
    def go_forward(self, z: Array, key: Number | None) -> None:
        """Change `z` (n, n_l) in place from Z without biases to A. `key` is dropout's."""

    @abstractmethod
    def go_back(self, delta: Array, a: Array, key: Number | None) -> None:
        """Change `delta` (n, n_l) in place from dE/dA to D, and keep the sums for the biases."""

    @abstractmethod
    def update(self, numbers: Array, biases: Sequence[Array]) -> None:
        """Change the biases in place by a step of the rule; see `ThinTop.update`."""
