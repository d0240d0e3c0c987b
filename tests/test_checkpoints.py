"""Checkpoints: what comes back, what is refused, and that an interruption changes no bit."""

import os

import numpy as np
import pytest
from conftest import make_backend

from gpunn import Callback, Checkpoints, EarlyStopping, Network, fit
from gpunn.optimizers import cosine

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and limits")


class InterruptionError(Exception):
    """What an interruption is in tests without processes."""


class StopAfter(Callback):
    """Raise after so many chunks of samples; keep the notices."""

    def __init__(self, n_chunks=10**9):
        self.n_chunks, self.notices, self.resumed = n_chunks, [], None

    def on_step_end(self, n_samples):
        self.n_chunks -= 1
        if self.n_chunks < 0:
            raise InterruptionError

    def on_notice(self, text):
        assert "\n" not in text
        self.notices.append(text)

    def on_resume(self, n_samples):
        self.resumed = n_samples


@pytest.fixture
def samples():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(150, 4))
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def make(device="cpu", **options):
    return Network([4, 6, 3], device=device, initializer="standard_normal", **options)


def bits(network):
    return {name: value.tobytes() for name, value in network.parameters().items()}


def without_times(history):
    return [{**vars(record), "seconds": None} for record in history.epochs]


KINDS = {
    "single samples": {"batch_size": 1, "learning_rate": 0.1},
    "small batches": {"batch_size": 4, "learning_rate": 0.1},
    "batches": {"batch_size": 32, "learning_rate": 0.1},
    "in order": {"batch_size": 32, "learning_rate": 0.1, "shuffle": False},
    "momentum": {"batch_size": 32, "learning_rate": 0.05, "optimizer": "momentum"},
    "nesterov": {"batch_size": 32, "learning_rate": 0.05, "optimizer": "nesterov"},
    "adam": {"batch_size": 32, "learning_rate": 0.01, "optimizer": "adam"},
    "schedule": {"batch_size": 1, "learning_rate": cosine(0.1, epochs=4, warmup=0.5)},
    "mersenne": {
        "batch_size": 32,
        "learning_rate": 0.1,
        "seed": lambda: np.random.Generator(np.random.MT19937(5)),
    },
    "philox": {
        "batch_size": 32,
        "learning_rate": 0.1,
        "seed": lambda: np.random.Generator(np.random.Philox(5)),
    },
    "best": {
        "batch_size": 32,
        "learning_rate": 0.5,
        "optimizer": "nesterov",
        "early_stopping": EarlyStopping(2, monitor="accuracy"),
    },
}


def train(kind, device, samples, folder=None, *, resume=False, callback=None, every="1 step"):
    network, options = make(device), {"seed": 7, **KINDS[kind]}
    if callable(options["seed"]):
        options["seed"] = options["seed"]()
    if "early_stopping" in options:
        options["validation_data"] = samples[0][::3], samples[1][::3]
    checkpoints = None if folder is None else Checkpoints(folder, every, resume)
    callbacks = [] if callback is None else [callback]
    history = fit(
        network, *samples, epochs=4, callbacks=callbacks, checkpoints=checkpoints, **options
    )
    return network, history


@pytest.mark.parametrize("kind", KINDS)
def test_interruptions_at_every_place_change_no_bit(backend, samples, tmp_path, kind):
    alone, expected = train(kind, backend, samples)
    n_interruptions, resume = 0, False
    while True:
        try:
            network, history = train(
                kind, backend, samples, tmp_path, resume=resume, callback=StopAfter(1)
            )
        except InterruptionError:
            # Each run gets two chunks further, the second of which is lost.
            n_interruptions, resume = n_interruptions + 1, True
        else:
            break
    assert n_interruptions >= 2
    assert bits(network) == bits(alone)
    assert without_times(history) == without_times(expected)
    assert (history.stopped, history.best_epoch, history.n_samples_trained) == (
        expected.stopped,
        expected.best_epoch,
        expected.n_samples_trained,
    )
    assert len(list(tmp_path.iterdir())) == 3


def test_a_training_that_has_ended_is_not_trained_again(samples, tmp_path):
    alone, expected = train("best", "cpu", samples, tmp_path)
    callback = StopAfter(0)
    again, history = train("best", "cpu", samples, tmp_path, resume=True, callback=callback)
    assert bits(again) == bits(alone)
    assert (history.stopped, history.restored_best) == (expected.stopped, True)
    assert callback.resumed == expected.n_samples_trained


def test_a_training_can_move_to_another_device(samples, tmp_path):
    # 20 steps of sums over at most 32 terms, slopes below 1: see the tests of training.
    with pytest.raises(InterruptionError):
        train("batches", "cpu", samples, tmp_path, callback=StopAfter(7))
    moved, history = train("batches", make_backend("double"), samples, tmp_path, resume=True)
    alone, expected = train("batches", "cpu", samples)
    for name, value in alone.parameters().items():
        np.testing.assert_allclose(moved.parameters()[name], value, rtol=0, atol=2e-4)
    assert history.train_loss == pytest.approx(expected.train_loss, rel=2e-4)
