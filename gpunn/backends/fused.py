"""The contracts of the fused ways of training: what a device may do in one call, if it can.

The plain path is `gpunn.Network.step`, where the chain rule stands. A fused path does the steps of
many samples in one call, for a network with one hidden layer and plain gradient descent, and with
the same result but for rounding. A device need not have any; each one that there is has tests that
hold it against the plain path.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

from gpunn.backends.arrays import Array, LayerParams
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
            The samples, whose sums are in the first n rows of `z`.
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
