"""What a training is given: everything that stays the same over its epochs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpunn.network import Network
from gpunn.optimizers import Optimizer
from gpunn.training.callbacks import Callback
from gpunn.training.checkpoints import Checkpoints
from gpunn.training.draws import Draws
from gpunn.training.evaluation import Holdout
from gpunn.training.loaders import Loader
from gpunn.training.stopping import StoppingPolicy
from gpunn.training.trainer import Trainer


@dataclass
class Plan:
    """What stays the same over a training.

    Attributes
    ----------
    network : Network
        The network, which is changed in place.
    loader : Loader
        The samples to learn from.
    trainer : Trainer
        How steps are done.
    optimizer : Optimizer
        The rule to learn by, prepared for the network.
    n_epochs, batch_size : int
        How many times to go through the samples, and how many are in a step.
    learning_rate : callable
        ``learning_rate(t)``, the step size at time t, in epochs.
    draws : Draws
        Where orders and dropout come from.
    shuffle : bool
        Whether each epoch has a new order.
    policy : StoppingPolicy
        When to stop, and with which weights.
    holdout : Holdout or None
        What the network is measured on after each epoch.
    callbacks : sequence of Callback
        Who hears of it.
    checkpoints : Checkpoints or None
        Where the state is kept.
    fingerprint : dict
        What its checkpoints may be used for, in plain values.
    loss_share : float
        What a sample's loss is multiplied by where it is reported.
    halve_rate : bool
        Whether to go back and halve the step size when the training diverges.
    """

    network: Network
    loader: Loader
    trainer: Trainer
    optimizer: Optimizer
    n_epochs: int
    batch_size: int
    learning_rate: Callable[[float], float]
    draws: Draws
    shuffle: bool
    policy: StoppingPolicy
    holdout: Holdout | None = None
    callbacks: Sequence[Callback] = ()
    checkpoints: Checkpoints | None = None
    fingerprint: dict[str, Any] = field(default_factory=dict)
    loss_share: float = 1.0
    halve_rate: bool = False

    @property
    def streamed(self) -> str | None:
        """Why samples are brought to the device chunk by chunk; None if they fit there."""
        held_out = None if self.holdout is None else self.holdout.loader.streamed
        return self.loader.streamed or held_out

    def notice(self, text: str) -> None:
        """Tell all callbacks a line that a person should read."""
        for callback in self.callbacks:
            callback.on_notice(text)
