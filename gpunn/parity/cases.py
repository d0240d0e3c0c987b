"""The trainings that devices are compared by."""

from dataclasses import dataclass, replace

from gpunn.activations import ACTIVATIONS
from gpunn.backends.base import Backend
from gpunn.losses import LOSSES
from gpunn.network import Network
from gpunn.optimizers import OPTIMIZERS, default_learning_rate

_RATES = {"momentum": 0.03, "nesterov": 0.03}
"""Step sizes of optimizers that are to go further here than by default."""


@dataclass(frozen=True)
class Case:
    """A training that is done twice; all but the name are the arguments of `Network` and `fit`.

    Attributes
    ----------
    layer_sizes : tuple of int
        Units from the inputs to the outputs.
    hidden_activation, output_activation, loss, biases, initializer, dtype, seed
        As in `gpunn.Network`.
    batch_size, optimizer, learning_rate, epochs
        As in `gpunn.fit`.
    """

    layer_sizes: tuple[int, ...]
    hidden_activation: str = "sigmoid"
    output_activation: str = "softmax"
    loss: str = "cross_entropy"
    biases: bool = True
    initializer: str = "normal"
    dtype: str = "float32"
    seed: int = 0
    batch_size: int = 32
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    epochs: int = 3

    @property
    def name(self) -> str:
        """One line for a person."""
        how = "online" if self.batch_size == 1 else f"batches of {self.batch_size}"
        sizes = "-".join(map(str, self.layer_sizes))
        biases = "" if self.biases else ", no biases"
        return (
            f"{sizes} {self.hidden_activation}, {self.output_activation} {self.loss}{biases}, "
            f"{self.optimizer}, {how}, {self.dtype}"
        )

    def make_network(self, backend: Backend, dtype: str, parallel: str = "none") -> Network:
        """Return the network on a device; weights are those of the case's own dtype."""
        network = self._network(backend, self.dtype, parallel)
        if dtype == self.dtype:
            return network
        wider = self._network(backend, dtype, parallel)
        wider.load_parameters(network.parameters())
        return wider

    def _network(self, backend: Backend, dtype: str, parallel: str) -> Network:
        return Network(
            self.layer_sizes,
            hidden_activation=self.hidden_activation,
            output_activation=self.output_activation,
            loss=self.loss,
            biases=self.biases,
            initializer=self.initializer,
            dtype=dtype,
            device=backend,
            seed=self.seed,
            parallel=parallel,
        )


def standard_cases(n_inputs: int, n_outputs: int, dtype: str = "float32") -> list[Case]:
    """Return every activation and every error, in batches and one sample at a time.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Number of values in a sample, and of classes.
    dtype : {"float32", "float64"}
        What is computed in.

    Returns
    -------
    list of Case
        Each hidden activation, each error with each output activation that it goes with, both ways
        of training; and each optimizer, a deep network, one without biases, and small batches.
    """
    base = Case((n_inputs, 32, n_outputs), dtype=dtype)
    kinds = [replace(base, hidden_activation=name) for name in ACTIVATIONS]
    kinds += [
        replace(base, hidden_activation="tanh", output_activation=output, loss=loss.name)
        for loss in LOSSES.values()
        for output in ACTIVATIONS
        if loss.required_activation in (None, output) and loss.required_activation != "softmax"
    ]
    # Where outputs are not bounded, a large step would leap out of the valley.
    kinds = [replace(kind, learning_rate=0.1 if _bounded(kind) else 0.01) for kind in kinds]
    cases = [*kinds, *(_online(kind) for kind in kinds)]
    cases += [
        replace(base, optimizer=name, learning_rate=_RATES.get(name, default_learning_rate(name)))
        for name in OPTIMIZERS
        if name != base.optimizer
    ]
    deep = replace(base, layer_sizes=(n_inputs, 24, 24, n_outputs))
    without_biases = replace(base, biases=False)
    cases += [deep, _online(deep), without_biases, _online(without_biases)]
    return [*cases, replace(base, batch_size=10)]


def _online(case: Case) -> Case:
    return replace(case, batch_size=1, epochs=2)


def _bounded(case: Case) -> bool:
    return case.output_activation in ("sigmoid", "softmax")
