"""How long everyone takes to learn until accurate, in processes of their own."""

from pathlib import Path

import gpu_race
import numpy as np
import pytest
from bench_rehearsal import skip_without, tiny_plan
from gpu_accuracy import Accuracy


def save_images(folder: Path) -> None:
    """Save images that are easy to tell apart: one bright stripe for each class."""
    generator = np.random.default_rng(0)
    for prefix, n in (("", 2000), ("test_", 300)):
        labels = generator.integers(0, 10, n)
        inputs = generator.random((n, 10, 78), np.float32) * 0.2
        inputs[np.arange(n), labels] += 0.8
        flat = np.zeros((n, 784), np.float32)
        flat[:, :780] = inputs.reshape(n, -1)
        np.save(folder / f"{prefix}inputs.npy", flat)
        np.save(folder / f"{prefix}labels.npy", labels)


@pytest.mark.parametrize("name", ["gpunn", "PyTorch", "JAX"])
def test_everyone_learns_until_accurate_in_a_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    skip_without(name, monkeypatch)
    save_images(tmp_path)
    row, plan = Accuracy((20,), goal=0.9), tiny_plan("cpu", name, seconds=300)
    found = gpu_race.race_in(tmp_path, row, plan, {"somebody": "is not here"})
    run = found["races"][name]
    assert run["reached"]
    assert run["accuracies"][-1] >= 0.9 > max([0.0, *run["accuracies"][:-1]])
    assert run["epochs"] == len(run["accuracies"])
    assert run["seconds_of_process"] > run["seconds_of_training"] > 0


def test_who_fails_in_the_race_is_named(tmp_path: Path) -> None:
    plan = tiny_plan("cpu", "gpunn", "PyTorch")
    found = gpu_race.race_in(tmp_path, Accuracy((20,)), plan, {"PyTorch": "is not here"})
    assert found["races"] == {}
    assert found["absent"]["PyTorch"] == "is not here"
    assert "inputs.npy" in found["absent"]["gpunn"]


def test_without_mnist_the_race_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUNN_DATA_DIR", raising=False)
    found = gpu_race.race(Accuracy(), tiny_plan("cpu"), {})
    assert "GPUNN_DATA_DIR" in found["skipped"]
    assert "MNIST" in found["label"]


def test_mnist_is_saved_for_the_race(tmp_path: Path, mnist_dir: Path) -> None:
    del mnist_dir
    assert gpu_race.save_mnist(tmp_path) is None
    inputs = np.load(tmp_path / "test_inputs.npy")
    assert inputs.shape == (10_000, 784)
    assert (inputs.dtype, inputs.min(), inputs.max()) == (np.float32, 0, 1)
