"""What reads a file, and uses what it holds: one function for each way that a file may take."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gpunn import Callback, Checkpoints, Network, ThreeLayerNetwork, fit
from gpunn.cli.console import Console
from gpunn.cli.pictures import read_pictures
from gpunn.cli.predict import read_inputs
from gpunn.data import load_dataset, table_chunks

Read = Callable[[Path], object]

GENERATORS = ("PCG64", "MT19937", "Philox", "SFC64")


def small_data() -> tuple[np.ndarray, np.ndarray]:
    """Return twelve images of 3 by 3 pixels, and the labels 0, 1 and 2."""
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (12, 3, 3)).astype(np.uint8), np.arange(12) % 3


class _Notices(Callback):
    """Expect a line for each damaged checkpoint, which names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_notice(self, text: str) -> None:
        if "\n" in text or str(self.path.parent) not in text:
            raise AssertionError(f"a notice does not name the file in one line: {text}")


def resume_from(path: Path) -> None:
    """Go on with a training, whose random generator is of the kind that the checkpoint names."""
    data = path.read_bytes() if path.exists() else b""
    kind = next((name for name in GENERATORS if name.encode() in data), "PCG64")
    generator = np.random.Generator(getattr(np.random, kind)(5))
    X, y = small_data()
    network = Network([9, 4, 3], device="cpu")
    fit(network, X.reshape(12, 9) / 255.0, y, epochs=2, batch_size=4, learning_rate=0.1,
        optimizer="adam", validation_data=(X.reshape(12, 9) / 255.0, y), seed=generator,
        callbacks=[_Notices(path)],
        checkpoints=Checkpoints(path.parent, "1 step", resume=True))  # fmt: skip


def load_and_use(path: Path) -> None:
    """Load a network of any kind and predict with it, which reads what was said of its inputs."""
    network = Network.load(path, "cpu")
    network.predict(network.scaling.apply(np.ones((2, network.n_inputs)), network.dtype))


def load_classic(path: Path) -> None:
    ThreeLayerNetwork.load(path, "cpu").predict(np.ones(9))


def load_estimator(path: Path) -> None:
    from gpunn import MLPClassifier, MLPRegressor

    kind = MLPRegressor if b"MLPRegressor" in path.read_bytes() else MLPClassifier
    estimator = kind.load(path, "cpu")
    estimator.predict(np.ones((2, estimator.n_features_in_)))


def read_with_options(path: Path) -> None:
    """Read a table with the last column to learn, and what is missing filled in."""
    load_dataset(str(path), target=-1, missing="mean")


def read_in_chunks(path: Path) -> None:
    for _ in table_chunks(path):
        pass


def predict(network: Network, path: Path) -> None:
    """Read inputs as `gpunn predict` does."""
    for inputs in read_inputs(str(path), None, network):
        network.predict(network.scaling.rows(inputs, network.dtype))


def predict_picture(path: Path) -> None:
    """Make a picture an input of a network for MNIST, as `gpunn predict` does."""
    network = Network([784, 2, 2], device="cpu")
    inputs = read_pictures(str(path), network, Console(as_json=False, quiet=True)).inputs
    network.predict(network.scaling.rows(inputs, network.dtype))
