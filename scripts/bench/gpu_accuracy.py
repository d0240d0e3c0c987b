"""Train one contestant of bench_gpu.py on MNIST until it is accurate, in this process alone.

    python scripts/bench/gpu_accuracy.py JAX FOLDER

The folder holds inputs.npy, labels.npy, test_inputs.npy and test_labels.npy. Nothing is imported
that this contestant does not need, as its imports count. One line of JSON says how it went.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from gpu_task import LOSS, Place, Task, Weights
from made_samples import targets_of
from numpy.typing import NDArray

MODULES = {
    "PyTorch": ("gpu_torch", "Torch"),
    "torch.compile": ("gpu_torch", "CompiledTorch"),
    "JAX": ("gpu_jax", "Jax"),
}
MOST_EPOCHS = 15
"""Whoever needs more does something else: on a CPU, gpunn needs five."""


@dataclass(frozen=True)
class Accuracy(Task):
    """A training of MNIST until so many of its test images are recognized."""

    hidden: tuple[int, ...] = (400,)
    batch: int = 100
    optimizer: str = "adam"
    goal: float = 0.975

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return f"MNIST to {100 * self.goal:.1f} %, {super().label}"

    @property
    def learning_rate(self) -> float:
        """The step size, which gives that accuracy in a few epochs."""
        return 0.005


@dataclass(frozen=True)
class Images:
    """What is learnt from, all of it in each epoch and in this order, and what is tested with."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    test_inputs: NDArray[np.float32]
    test_labels: NDArray[np.int64]

    @property
    def targets(self) -> NDArray[np.float32]:
        """What the outputs should be."""
        return targets_of(self.labels)


def first_weights(task: Task) -> Weights:
    """Return the weights that everyone starts from."""
    generator, found = np.random.default_rng(0), {}
    for index, (n_in, n_out) in enumerate(zip(task.layers, task.layers[1:], strict=False)):
        weights = generator.standard_normal((n_out, n_in), np.float32)
        found[f"layers.{index}.weight"] = weights * np.float32(n_in**-0.5)
        found[f"layers.{index}.bias"] = np.zeros(n_out, np.float32)
    return found


def train_gpunn(
    task: Accuracy, images: Images, place: Place, begin: Callable[[], None]
) -> list[float]:
    """Return the accuracies after each epoch of gpunn, whose ``fit`` evaluates by itself."""
    import gpunn

    class UntilAccurate(gpunn.Callback):
        """Ends the training."""

        def on_epoch_end(self, network: Any, record: Any) -> bool:
            return bool(record.validation_accuracy >= task.goal)

    backend = gpunn.get_backend(place.device, task.precision)
    network = gpunn.Network(task.layers, loss=LOSS, device=backend)
    network.load_parameters(first_weights(task))
    inputs, targets, test_inputs = (
        backend.asarray(a) for a in (images.inputs, images.targets, images.test_inputs)
    )
    begin()
    history = gpunn.fit(
        network,
        inputs,
        targets,
        epochs=MOST_EPOCHS,
        batch_size=task.batch,
        optimizer=task.optimizer,
        learning_rate=task.learning_rate,
        shuffle=False,
        validation_data=(test_inputs, images.test_labels),
        callbacks=[UntilAccurate()],
    )
    return history.validation_accuracy


def train_other(
    name: str, task: Accuracy, images: Images, place: Place, begin: Callable[[], None]
) -> list[float]:
    """Return the accuracies after each epoch of PyTorch or JAX."""
    module, kind = MODULES[name]
    contestant = getattr(import_module(module), kind)(task, images, place, first_weights(task))
    predict = contestant.predictor(images.test_inputs)
    begin()

    found: list[float] = []
    while len(found) < MOST_EPOCHS and (not found or found[-1] < task.goal):
        contestant.run(len(images.inputs) // task.batch)
        found.append(float(np.mean(predict() == images.test_labels)))
    return found


def train(name: str, task: Accuracy, folder: Path, place: Place, began: float) -> dict[str, Any]:
    """Return how a training went that began, with its process, at that time."""
    parts = ("inputs", "labels", "test_inputs", "test_labels")
    images = Images(*(np.load(folder / f"{part}.npy") for part in parts))
    stepped = 0.0

    def begin() -> None:
        nonlocal stepped
        stepped = time.time()

    if name == "gpunn":
        accuracies = train_gpunn(task, images, place, begin)
    else:
        accuracies = train_other(name, task, images, place, begin)
    now = time.time()
    return {
        "reached": accuracies[-1] >= task.goal,
        "epochs": len(accuracies),
        "accuracies": accuracies,
        "seconds_of_process": now - began,
        "seconds_of_training": now - stepped,
    }


def main() -> None:
    began = time.time()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("gpunn", *MODULES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--compile-mode", default="reduce-overhead", help="of torch.compile")
    parser.add_argument("--began", type=float, default=began, help="when the process was started")
    parser.add_argument("--hidden", type=int, default=Accuracy.hidden[0])
    parser.add_argument("--goal", type=float, default=Accuracy.goal)
    options = parser.parse_args()
    task = Accuracy((options.hidden,), goal=options.goal)
    place = Place(options.device, options.compile_mode)
    print(json.dumps(train(options.name, task, options.folder, place, options.began)))


if __name__ == "__main__":
    main()
