"""Epochs: order, batches, validation, early stopping, callbacks, Ctrl-C."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import make_backend

from gpunn import Callback, EarlyStopping, Network, ThreeLayerNetwork, evaluate, fit
from gpunn.data import read_idx
from gpunn.data.scaling import Scaling
from gpunn.errors import DataError, ParameterError, ShapeError
from gpunn.optimizers import (
    OPTIMIZERS,
    SGD,
    Optimizer,
    constant,
    default_learning_rate,
    exponential_decay,
    get_optimizer,
)

OPTIONS = {"epochs": 2, "learning_rate": 0.3}


def fails(kind, function, *arguments, **options):
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def make(device, **options):
    options = {"dtype": "float64", "initializer": "standard_normal"} | options
    return Network([4, 6, 3], device=device, **options)


@pytest.fixture
def samples():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(23, 4))
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def same_parameters(one, other, *, atol=0.0):
    for name, value in one.parameters().items():
        np.testing.assert_allclose(other.parameters()[name], value, rtol=0, atol=atol)


# Order and batches.


@pytest.mark.parametrize("batch_size", [1, 5, 23, 24])
def test_an_epoch_is_its_batches_in_the_order_of_the_seed(backend, samples, batch_size):
    X, y = samples
    network, by_hand = make(backend), make(backend)
    history = fit(network, X, y, batch_size=batch_size, seed=[5, 1], **OPTIONS)
    generator, T = np.random.default_rng([5, 1]), np.eye(3)[y]
    for epoch in range(2):
        order, loss = generator.permutation(23), 0.0
        for start in range(0, 23, batch_size):
            rows = order[start : start + batch_size]
            mean, gradients = by_hand.loss_and_gradients(X[rows], T[rows])
            loss += mean * len(rows)
            p = by_hand.parameters()
            by_hand.load_parameters({name: p[name] - 0.3 * gradients[name] for name in p})
        assert history.train_loss[epoch] == pytest.approx(loss / 23, rel=1e-12)
    same_parameters(by_hand, network, atol=1e-12)
    assert history.n_samples_trained == 46


def test_without_shuffling_samples_come_in_their_order(backend, samples):
    X, y = samples
    one, other = make(backend), make(backend)
    fit(one, X, y, shuffle=False, epochs=1, learning_rate=0.3, batch_size=4)
    for start in range(0, 23, 4):
        rows = slice(start, start + 4)
        fit(other, X[rows], y[rows], shuffle=False, epochs=1, learning_rate=0.3, batch_size=4)
    same_parameters(one, other, atol=1e-13)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(backend, samples):
    one, again, other = make(backend), make(backend), make(backend)
    histories = [
        fit(network, *samples, batch_size=4, seed=seed, **OPTIONS)
        for network, seed in ((one, 1), (again, 1), (other, 2))
    ]
    same_parameters(one, again)
    assert histories[0].train_loss == histories[1].train_loss
    assert (one.parameters()["layers.0.weight"] != other.parameters()["layers.0.weight"]).any()


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam"])
def test_devices_agree_to_within_rounding(backend, dtype, samples, optimizer):
    # 12 steps of sums over at most 8 terms of about 1, and slopes below 1: some 100 roundings,
    # and Adam's quotient of small numbers may magnify them tenfold.
    tolerance = 1000 * float(np.finfo(dtype).eps)
    networks = [make(device, dtype=dtype) for device in (backend, make_backend("cpu"))]
    options = {"epochs": 4, "learning_rate": 0.05, "batch_size": 8, "optimizer": optimizer}
    histories = [fit(network, *samples, **options) for network in networks]
    same_parameters(*networks, atol=tolerance)
    assert histories[0].train_loss == pytest.approx(histories[1].train_loss, rel=tolerance)


def test_labels_are_targets_of_the_scaling(backend, samples):
    X, y = samples
    one, other, on_device = (make(backend) for _ in range(3))
    one.scaling = Scaling.identity(target_low=0.01, target_high=0.99)
    fit(one, X, y, **OPTIONS)
    T = np.where(y[:, None] == np.arange(3), 0.99, 0.01)
    fit(other, X.tolist(), T.tolist(), **OPTIONS)
    same_parameters(one, other)
    fit(on_device, backend.asarray(X), backend.asarray(T), **OPTIONS)
    same_parameters(one, on_device)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_usual_step_size_is_the_default(samples, optimizer):
    rate = default_learning_rate(optimizer)
    one, other, third = make("cpu"), make("cpu"), make("cpu")
    fit(one, *samples, epochs=2, optimizer=optimizer)
    fit(other, *samples, epochs=2, optimizer=optimizer, learning_rate=rate)
    fit(third, *samples, epochs=2, optimizer=get_optimizer(optimizer), learning_rate=None)
    same_parameters(one, other)
    same_parameters(one, third)


def test_a_rule_of_ones_own_without_a_step_size_wants_one(samples):
    class Bare(Optimizer):
        prepare = begin_step = update = lambda *_: None

    class WithOne(Bare):
        default_learning_rate = 0.5

    message = fails(ParameterError, fit, make("cpu"), *samples, epochs=1, optimizer=Bare())
    assert message.startswith("expected a learning_rate, because Bare has no default")
    fit(make("cpu"), *samples, epochs=1, optimizer=Bare(), learning_rate=0.1)
    fit(make("cpu"), *samples, epochs=1, optimizer=WithOne())


def test_a_single_output_takes_a_list_of_targets(backend, samples):
    X, y = samples
    one, other = (Network([4, 1], dtype="float64", device=backend) for _ in "ab")
    fit(one, X, y / 2, **OPTIONS)
    fit(other, X, y[:, None] / 2, **OPTIONS)
    same_parameters(one, other)
    assert evaluate(one, X, y / 2).accuracy is None


# What is reported.


class Recorder(Callback):
    def __init__(self, stop_after=None):
        self.stop_after, self.heard, self.records = stop_after, [], []

    def on_train_begin(self, network, n_epochs, n_samples):
        self.heard.append(("begin", n_epochs, n_samples))

    def on_step_end(self, n_samples):
        self.heard.append(n_samples)

    def on_epoch_end(self, network, record):
        self.records.append(record)
        return record.epoch == self.stop_after

    def on_train_end(self, history):
        self.heard.append(history.stopped)


def test_history_says_what_happened(backend, samples):
    X, y = samples
    network, recorder = make(backend), Recorder()
    schedule = exponential_decay(0.4, factor=0.25)
    history = fit(
        network, X, y, epochs=2, batch_size=10, learning_rate=schedule,
        validation_data=(X[:7], y[:7]), callbacks=[recorder],
    )  # fmt: skip
    assert (recorder.heard[0], recorder.heard[-1]) == (("begin", 2, 23), "finished")
    assert sum(recorder.heard[1:-1]) == history.n_samples_trained == 46
    assert recorder.records == history.epochs
    assert [record.epoch for record in history.epochs] == [1, 2]
    last = history.epochs[-1]
    assert last.learning_rate == pytest.approx(0.4 * 0.25 ** (1 + 20 / 23))
    outcome = evaluate(network, X[:7], y[:7])
    assert (last.validation_loss, last.validation_accuracy) == (outcome.loss, outcome.accuracy)
    assert history.best_epoch == 1 + int(np.argmin(history.validation_loss))
    assert (history.stopped, history.restored_best) == ("finished", False)
    assert 0 < sum(record.seconds for record in history.epochs) <= history.seconds
    assert len(history.validation_accuracy) == 2


def test_evaluate_counts_hits_and_averages_errors(backend, samples):
    X, y = samples
    network = make(backend)
    outcome, outputs = evaluate(network, X, y), network.predict(X)
    np.testing.assert_array_equal(outcome.outputs, outputs)
    assert outcome.accuracy == np.mean(outputs.argmax(axis=1) == y)
    expected = np.square(outputs - np.eye(3)[y]).sum() / 2 / 23
    assert outcome.loss == pytest.approx(expected, rel=1e-14)


def test_no_validation_means_none(backend, samples):
    history = fit(make(backend), *samples, **OPTIONS)
    assert history.best_epoch is None
    assert history.validation_loss == history.validation_accuracy == []


def test_a_callback_can_end_the_training_and_all_hear_of_it(samples):
    recorder, other = Recorder(stop_after=2), Recorder()
    history = fit(make("cpu"), *samples, epochs=9, learning_rate=0.1, callbacks=[recorder, other])
    assert (history.stopped, len(history.epochs)) == ("callback", 2)
    assert other.heard[-1] == "callback"
    assert len(other.records) == 2


def test_early_stopping_restores_the_best_weights(backend, samples):
    X, y = samples
    network = make(backend)
    # With such steps the validation loss goes up and down.
    history = fit(
        network, X, y, epochs=60, batch_size=4, learning_rate=20.0,
        validation_data=(X[15:], y[15:]), early_stopping=EarlyStopping(patience=3),
    )  # fmt: skip
    losses = history.validation_loss
    assert (history.stopped, history.restored_best) == ("early stopping", True)
    assert len(losses) == history.best_epoch + 3
    assert losses[history.best_epoch - 1] == min(losses) < losses[-1]
    assert evaluate(network, X[15:], y[15:]).loss == min(losses)


def test_an_improvement_must_exceed_min_delta(samples):
    history = fit(
        make("cpu"), *samples, epochs=20, learning_rate=0.01, validation_data=samples,
        early_stopping=EarlyStopping(patience=2, min_delta=10.0),
    )  # fmt: skip
    assert (history.best_epoch, len(history.epochs)) == (1, 3)


def test_callbacks_hear_of_every_step_of_an_optimizer_with_a_memory(samples):
    recorder = Recorder()
    options = {"epochs": 1, "batch_size": 10, "learning_rate": 0.1, "optimizer": "momentum"}
    fit(make("cpu"), *samples, callbacks=[recorder], **options)
    assert recorder.heard == [("begin", 1, 23), 10, 10, 3, "finished"]


# What is refused, before anything is changed.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_with_their_place(backend, samples, bad):
    X, y = samples
    network, X, T = make(backend), X.copy(), np.eye(3)[y]
    X[17, 2] = T[4, 1] = bad
    assert "inputs must be finite: row 17, column 2" in fails(
        DataError, fit, network, X, y, **OPTIONS
    )
    message = fails(DataError, fit, network, samples[0], T, **OPTIONS)
    assert "targets must be finite: row 4, column 1" in message
    fails(DataError, fit, network, *samples, validation_data=(X, y), **OPTIONS)
    fails(DataError, evaluate, network, X, y)
    X[17, 2] = 1e39
    fit(network, X, y, epochs=1, learning_rate=1e-300)
    single = make(backend, dtype="float32")
    assert "row 17, column 2 is 1e+39" in fails(DataError, fit, single, X, y, **OPTIONS)
    one_output = Network([4, 1], device=backend)
    assert "row 4, column 0" in fails(DataError, fit, one_output, samples[0], T[:, 1], **OPTIONS)


@pytest.mark.parametrize("label", [3, -1, 1.5, np.nan, "one"])
def test_labels_that_are_no_class_are_refused(samples, label):
    y = samples[1].tolist()
    y[5] = label
    message = fails(DataError, fit, make("cpu"), samples[0], y, **OPTIONS)
    assert "position 5" in message or "whole numbers" in message


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 2.0}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "all"}, "batch_size"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": "usual"}, "learning_rate"),
        ({"optimizer": "best"}, "optimizer"),
        ({"optimizer": SGD}, "optimizer"),
        ({"early_stopping": EarlyStopping()}, "validation_data"),
        ({"seed": -1}, "seed"),
    ],
)
def test_arguments_that_are_not_allowed_are_named(samples, changed, named):
    assert named in fails(ParameterError, fit, make("cpu"), *samples, **(OPTIONS | changed))


def test_early_stopping_refuses_impatience():
    assert "patience" in fails(ParameterError, EarlyStopping, 0)
    for wrong in (-1.0, float("nan"), "little"):
        assert "min_delta" in fails(ParameterError, EarlyStopping, 1, wrong)


@pytest.mark.parametrize(("n", "m"), [(4, 3), (0, 0)])
def test_samples_must_be_as_many_and_some(n, m):
    fails(ShapeError, fit, make("cpu"), np.zeros((n, 4)), np.zeros(m, int), **OPTIONS)
    fails(ShapeError, fit, make("cpu"), np.zeros((n, 4)), np.zeros((m, 3)), **OPTIONS)


def test_numpy_numbers_will_do_and_global_state_is_left_alone(samples):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    rate = constant(np.float32(0.25))
    fit(make("cpu"), *samples, epochs=np.int64(1), batch_size=np.uint8(4), learning_rate=rate)
    fit(make("cpu"), *samples, epochs=1, learning_rate=np.float32(0.25))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_early_stopping_can_watch_accuracy(samples):
    """Nothing ends early with so much patience, but the most accurate weights are restored."""
    network = make("cpu")
    rule = EarlyStopping(1000, monitor="accuracy")
    history = fit(
        network,
        *samples,
        epochs=30,
        learning_rate=2.0,
        validation_data=samples,
        early_stopping=rule,
    )
    best = max(history.validation_accuracy)
    assert history.restored_best
    assert history.validation_accuracy.index(best) + 1 == history.best_epoch
    assert evaluate(network, *samples).accuracy == best
    with pytest.raises(ParameterError, match="monitor must be 'loss' or 'accuracy'"):
        EarlyStopping(monitor="f1")


# Threads and signals.


@pytest.mark.usefixtures("several_threads")
def test_trainings_in_threads_give_the_same_bits_as_alone(samples):
    alone, together = ([make("cpu", seed=s) for s in range(4)] for _ in "ab")
    for network in alone:
        fit(network, *samples, epochs=20, learning_rate=0.1)
    threads = [
        threading.Thread(
            target=fit, args=(n, *samples), kwargs={"epochs": 20, "learning_rate": 0.1}
        )
        for n in together
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        same_parameters(one, other)


def test_ctrl_c_is_as_before_after_a_training(samples):
    class Fails(Callback):
        def on_step_end(self, n_samples):
            assert signal.getsignal(signal.SIGINT) is not before
            raise RuntimeError("stop")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="stop"):
        fit(make("cpu"), *samples, callbacks=[Fails()], **OPTIONS)
    assert signal.getsignal(signal.SIGINT) is before


SCRIPT = """
import sys, time
import numpy as np
from gpunn import Callback, Network, evaluate, fit

class Tell(Callback):
    steps = 0
    def on_step_end(self, n):
        self.steps += 1
        if self.epochs and self.steps == 3:
            print("training", flush=True)
            for _ in range(n_signals):
                time.sleep(0.05) if sys.stdin.read(1) else None
    epochs = 0
    def on_epoch_end(self, network, record):
        self.epochs, self.steps = record.epoch, 0

n_signals = int(sys.argv[1])
rng = np.random.default_rng(0)
X, y = rng.normal(size=(64, 4)), rng.integers(0, 3, 64)
network = Network([4, 5, 3], device="cpu", dtype="float64")
tell = Tell()
history = fit(network, X, y, epochs=10**9, batch_size=8, learning_rate=0.1,
              optimizer="momentum",  # each step by itself
              validation_data=(X, y), callbacks=[tell])
best = min(history.validation_loss)
print(history.stopped, tell.steps, history.restored_best,
      evaluate(network, X, y).loss == best, flush=True)
"""


def interrupt(n_signals):
    """Send a real training so many SIGINTs; return its exit status, output and error output."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(n_signals)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout.readline() == "training\n"
            for _ in range(n_signals):
                os.kill(process.pid, signal.SIGINT)
                time.sleep(0.1)
                if process.poll() is None:
                    process.stdin.write("x")
                    process.stdin.flush()
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    return process.returncode, out, err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
def test_a_real_ctrl_c_ends_after_the_step_with_the_best_weights():
    assert interrupt(1) == (0, "interrupted 3 True True\n", "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send to one process")
def test_a_second_ctrl_c_ends_at_once():
    status, out, err = interrupt(2)
    assert status != 0
    assert out == ""
    assert err.rstrip().endswith("KeyboardInterrupt")


# The real thing.


@pytest.mark.usefixtures("several_threads")
def test_it_learns_mnist(mnist_dir, backend):
    images, labels = (read_idx(next(mnist_dir.glob(f"train-{kind}*"))) for kind in ("im", "la"))
    X = images[:2000].reshape(2000, -1) / np.float32(255)
    network = Network([784, 30, 10], hidden_activation="relu", output_activation="softmax",
                      loss="cross_entropy", initializer="he_normal", device=backend)  # fmt: skip
    history = fit(network, X[:1500], labels[:1500], epochs=5, optimizer="adam", learning_rate=0.003)
    assert history.train_loss == sorted(history.train_loss, reverse=True)
    assert evaluate(network, X[1500:], labels[1500:2000]).accuracy > 0.85


def test_the_classic_network_can_be_fitted_with_any_optimizer(backend, samples):
    network = ThreeLayerNetwork(4, 6, 3, 0.1, device=backend)
    history = fit(network, *samples, epochs=40, optimizer="adam", learning_rate=0.03)
    assert history.train_loss[-1] < 0.7 * history.train_loss[0]


class Halved(SGD):
    """A rule of a user's own over a known one."""

    def begin_step(self, learning_rate):
        super().begin_step(learning_rate / 2)


@pytest.mark.parametrize("batch_size", [1, 10, 100])
def test_a_rule_of_ones_own_over_sgd_is_followed_where_sgd_goes_many_steps_at_once(
    backend, batch_size
):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 6)), rng.integers(0, 3, 100)
    one, other = (Network([6, 5, 3], dtype="float64", device=backend, seed=1) for _ in "ab")
    options = {"epochs": 2, "batch_size": batch_size, "seed": 1}
    fit(one, X, y, optimizer=Halved(), learning_rate=0.2, **options)
    fit(other, X, y, optimizer="sgd", learning_rate=0.1, **options)
    for name, array in one.parameters().items():
        # The same training in another order of summation.
        np.testing.assert_allclose(array, other.parameters()[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_stopping": 3}, "early_stopping must be a gpunn.EarlyStopping, got 3"),
        ({"checkpoints": "folder"}, "checkpoints must be a gpunn.Checkpoints, got 'folder'"),
        ({"callbacks": Callback()}, "callbacks must be a list of gpunn.Callback"),
        ({"callbacks": [1]}, "callbacks must be a list of gpunn.Callback"),
        ({"validation_data": 5}, r"validation_data must be a pair \(X, y\) or a Stream, got 5"),
        ({"validation_data": ([[0.0]], [0], [1])}, "validation_data must be a pair"),
    ],
)
def test_an_argument_of_a_wrong_kind_is_named(options, message):
    with pytest.raises(ParameterError, match=message):
        fit(Network([1, 2], device="cpu"), [[0.0]], [0], epochs=1, learning_rate=0.1, **options)
