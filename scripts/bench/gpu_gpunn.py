"""gpunn as a contestant of bench_gpu.py."""

from gpu_task import LOSS, Contestant, Place, Task, Weights
from made_samples import Samples

import gpunn


class Gpunn(Contestant):
    """``gpunn.fit``, timed whole."""

    def __init__(
        self, task: Task, samples: Samples, place: Place, weights: Weights | None = None
    ) -> None:
        self._task = task
        self.backend = gpunn.get_backend(place.device, task.precision)
        self._network = gpunn.Network(task.layers, loss=LOSS, device=self.backend)
        if weights is not None:
            self._network.load_parameters(weights)
        self._inputs = self.backend.asarray(samples.inputs)
        self._targets = self.backend.asarray(samples.targets)

    def run(self, n_steps: int) -> None:
        rows = slice(0, n_steps * self._task.batch)
        self._history = gpunn.fit(
            self._network,
            self._inputs[rows],
            self._targets[rows],
            epochs=1,
            batch_size=self._task.batch,
            optimizer=self._task.optimizer,
            learning_rate=self._task.learning_rate,
            shuffle=False,
            dropout=self._task.dropout,
        )

    def loss(self) -> float:
        return self._history.train_loss[0]

    def weights(self) -> Weights:
        return self._network.parameters()
