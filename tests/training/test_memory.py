import numpy as np
import pytest

import gpunn
from gpunn.errors import GpunnError, OutOfMemoryError
from gpunn.host_memory import MemoryInfo
from gpunn.optimizers import OPTIMIZERS, get_optimizer
from gpunn.training.memory import bytes_per_sample, check_memory

GIB = 2**30


@pytest.fixture
def network(monkeypatch):
    network = gpunn.Network([784, 5000, 10], device="cpu")
    monkeypatch.setattr(network.backend, "memory_info", lambda: MemoryInfo(GIB, 2 * GIB))
    return network


def check(network, optimizer="sgd", batch_size=100, keeps_best=False):
    check_memory(
        network,
        get_optimizer(optimizer),
        batch_size=batch_size,
        n_rows=batch_size,
        keeps_best=keeps_best,
    )


def test_what_fits_is_let_through(network):
    each = bytes_per_sample(network)
    assert each == 4 * (784 + 10 + 2 * 5010)
    check(network, batch_size=GIB // each)


def test_too_large_a_batch_is_told_what_would_fit(network):
    each = bytes_per_sample(network)
    with pytest.raises(OutOfMemoryError, match=r"needs 1\.0 GiB, but cpu has 1\.0 GiB") as error:
        check(network, batch_size=GIB // each + 1)
    assert str(error.value).endswith(f"try a batch size of {2**14}")
    check(network, batch_size=2**14)
    assert isinstance(error.value, GpunnError)
    assert isinstance(error.value, MemoryError)


def test_fit_asks_before_it_trains(network):
    before = network.parameters()
    x = np.zeros((30_000, 784), np.float32)
    with pytest.raises(OutOfMemoryError, match="a batch size of"):
        gpunn.fit(network, x, np.zeros(30_000, int), epochs=1, batch_size=30_000, learning_rate=0.1)
    for name, array in network.parameters().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_too_large_a_network_is_told_so(monkeypatch, network, optimizer):
    free = network.n_parameters * 4
    monkeypatch.setattr("gpunn.training.memory.TOO_LITTLE_TO_ASK", 0)
    monkeypatch.setattr(network.backend, "memory_info", lambda: MemoryInfo(free, free))
    with pytest.raises(OutOfMemoryError, match="plain SGD"):
        check(network, optimizer)
    check(network, "sgd")
    with pytest.raises(OutOfMemoryError):
        check(network, "sgd", keeps_best=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_what_they_say(backend, name):
    allocated = []

    class Counting:
        def __getattr__(self, method):
            return getattr(backend, method)

        def empty(self, shape, dtype):
            allocated.append(int(np.prod(shape)) * np.dtype(dtype).itemsize)
            return backend.empty(shape, dtype)

        def zeros(self, shape, dtype):
            return self.empty(shape, dtype)

    network = gpunn.Network([20, 30, 5], device=backend)
    network.backend = Counting()
    optimizer = get_optimizer(name)
    optimizer.prepare(network)
    assert sum(allocated) == optimizer.extra_bytes(network)


def test_a_full_gpu_says_what_is_free(double):
    with pytest.raises(OutOfMemoryError, match=r"cuda:\d has .* GiB free, but 400.0 GiB more"):
        double.empty((400, 2**28), "float32")
    with pytest.raises(OutOfMemoryError, match="use a smaller batch"):
        double.zeros((400, 2**28), "float32")
