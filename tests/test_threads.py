"""Several threads at once: all may read a network, and get right answers; one may train it."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import make_backend
from sklearn.exceptions import ConvergenceWarning

import gpunn
from gpunn.errors import ConcurrencyError

pytestmark = pytest.mark.usefixtures("several_threads")

N_THREADS = 8
HERE = ("cpu", "double", pytest.param("cuda", marks=pytest.mark.gpu))


@pytest.fixture(params=HERE)
def network(request):
    """The network of a web service."""
    return gpunn.Network([30, 64, 5], device=make_backend(request.param), seed=1)


def batches(n_calls):
    """Return inputs of 1 to 39 rows for each call."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(int(n), 30)) for n in rng.integers(1, 40, n_calls)]


def in_threads(work, items):
    """Do the work on all items, in threads that begin together; return the results in order."""
    ready = threading.Barrier(N_THREADS)

    def do(number):
        ready.wait()
        return [work(item) for item in items[number::N_THREADS]]

    with ThreadPoolExecutor(N_THREADS) as pool:
        parts = list(pool.map(do, range(N_THREADS)))
    results = [None] * len(items)
    for number, part in enumerate(parts):
        results[number::N_THREADS] = part
    return results


def assert_equal(got, expected):
    wrong = sum(not np.array_equal(g, e) for g, e in zip(got, expected, strict=True))
    assert wrong == 0, f"{wrong} of {len(expected)} calls gave a wrong answer"


def n_calls(network, on_cpu):
    # The stand-in for CuPy takes a millisecond for what the CPU does in twenty microseconds.
    return on_cpu if network.backend.name == "cpu" else on_cpu // 20


def test_predict(network):
    inputs = batches(n_calls(network, 24_000))
    expected = [network.predict(X) for X in inputs]
    assert_equal(in_threads(network.predict, inputs), expected)


def test_evaluate(network):
    inputs = batches(n_calls(network, 4_000))

    def measure(X):
        outcome = gpunn.evaluate(network, X, np.arange(len(X)) % 5)
        return np.append(outcome.outputs.ravel(), [outcome.loss, outcome.accuracy])

    expected = [measure(X) for X in inputs]
    assert_equal(in_threads(measure, inputs), expected)


def test_loss_and_gradients(network):
    inputs = batches(n_calls(network, 4_000))

    def differentiate(X):
        loss, gradients = network.loss_and_gradients(X, np.tile(np.eye(5), (8, 1))[: len(X)])
        return np.concatenate([[loss], *(array.ravel() for array in gradients.values())])

    expected = [differentiate(X) for X in inputs]
    assert_equal(in_threads(differentiate, inputs), expected)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_predict_proba(installed_double, device):
    rng = np.random.default_rng(1)
    model = gpunn.MLPClassifier((64,), max_iter=2, random_state=0, tol=1, device=device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rng.normal(size=(100, 30)), np.arange(100) % 5)
    inputs = batches(4_000 if device == "cpu" else 200)
    expected = [model.predict_proba(X) for X in inputs]
    assert_equal(in_threads(model.predict_proba, inputs), expected)


class Meeting(gpunn.Callback):
    """Holds a training in its first epoch until it is let go."""

    def __init__(self):
        self.here, self.go_on = threading.Event(), threading.Event()

    def on_step_end(self, n_samples):
        self.here.set()
        assert self.go_on.wait(60)


def test_two_threads_that_train_one_network_get_an_error(network):
    X, y = np.random.default_rng(0).normal(size=(40, 30)), np.arange(40) % 5
    meeting = Meeting()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(
            gpunn.fit, network, X, y, epochs=1, learning_rate=0.1, callbacks=[meeting]
        )
        assert meeting.here.wait(60)
        before = network.parameters()
        try:
            with pytest.raises(ConcurrencyError, match="trained by another thread"):
                gpunn.fit(network, X, y, epochs=1, learning_rate=0.1)
            with pytest.raises(ConcurrencyError):
                network.load_parameters(before)
            for name, array in network.parameters().items():
                np.testing.assert_array_equal(array, before[name])
            assert network.predict(X).shape == (40, 5)  # reading is allowed meanwhile
        finally:
            meeting.go_on.set()
        first.result()
    gpunn.fit(network, X, y, epochs=1, learning_rate=0.1)


def test_an_optimizer_serves_one_training_at_a_time(network):
    X, y = np.random.default_rng(0).normal(size=(40, 30)), np.arange(40) % 5
    other = gpunn.Network([30, 6, 5], device="cpu", seed=1)
    alone = gpunn.Network([30, 6, 5], device="cpu", seed=1)
    options = {"epochs": 1, "learning_rate": 0.1}
    meeting, optimizer = Meeting(), gpunn.Momentum()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(
            gpunn.fit, other, X, y, **options, optimizer=optimizer, callbacks=[meeting]
        )
        assert meeting.here.wait(60)
        try:
            for network_of_second in (network, other):
                with pytest.raises(ConcurrencyError):
                    gpunn.fit(network_of_second, X, y, **options, optimizer=optimizer)
        finally:
            meeting.go_on.set()
        first.result()
    gpunn.fit(alone, X, y, **options, optimizer=gpunn.Momentum())
    for name, array in alone.parameters().items():
        np.testing.assert_array_equal(array, other.parameters()[name])
    gpunn.fit(network, X, y, **options, optimizer=optimizer)


def test_so_do_two_that_train_a_three_layer_network():
    network = gpunn.ThreeLayerNetwork(3, 4, 2, 0.1, device="cpu")
    inputs, targets = np.ones((1, 3)), np.ones((1, 2))
    with network.training(), ThreadPoolExecutor(1) as pool:
        with pytest.raises(ConcurrencyError):
            pool.submit(network.train, inputs, targets).result()
        network.train(inputs, targets)
