"""Samples on the device or streamed to it: the same batches, the same result, no missing wait."""

import gc
import sys

import fake_cuda
import fake_memory
import numpy as np
import pytest
from conftest import make_backend
from fake_cuda import crossings
from fake_streams import RaceError

from gpunn import Callback, EarlyStopping, Network, cli, evaluate, fit
from gpunn.backends.staging import StagingBuffer
from gpunn.errors import OutOfMemoryError
from gpunn.optimizers import OPTIMIZERS
from gpunn.training import loaders, memory
from gpunn.training.loaders import HostLoader, ResidentLoader, make_loader

N_SAMPLES = 103


@pytest.fixture
def samples(rng):
    X = rng.normal(size=(N_SAMPLES, 7))
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


@pytest.fixture
def little_memory(monkeypatch, small_pieces):
    """Return what leaves so many bytes of a device of the double free.

    What cuBLAS has for itself is there already, and recordings are taken to need nothing.
    """
    monkeypatch.setattr(memory, "TOO_LITTLE_TO_ASK", 0)
    double = make_backend("double")
    double.gemm(*(double.zeros((1, 1), "f") for _ in "abc"))
    monkeypatch.setattr(fake_cuda.load_cupy_backend(), "RECORDING_BYTES", 0)

    def leave(n_bytes):
        gc.collect()
        monkeypatch.setattr(fake_memory, "DEVICE_BYTES", fake_memory.used_bytes(0) + n_bytes)

    return leave


@pytest.fixture
def unraisable(monkeypatch):
    """Collect what is raised where Python collects garbage."""
    caught = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: caught.append(raised.exc_value))
    return caught


def make(backend, dtype="float32", **options):
    return Network([7, 5, 3], device=backend, dtype=dtype, **options)


def same_parameters(one, other):
    for name, value in one.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], value)


# The same batches.


def layouts(X, folder):
    wide = np.repeat(X, 2, axis=1)
    np.save(folder / "X.npy", X)
    return {
        "float64": X,
        "float32": X.astype("f4"),
        "big-endian": X.astype(">f4"),
        "integers": (10 * X).astype("i2"),
        "booleans": X > 0,
        "Fortran": np.asfortranarray(X.astype("f4")),
        "columns": wide[:, ::2],
        "backwards": X[::-1],
        "read-only file": np.load(folder / "X.npy", mmap_mode="r"),
        "unaligned": np.frombuffer(b"x" + X.astype("f4").tobytes(), "f4", offset=1).reshape(
            X.shape
        ),
    }


@pytest.mark.parametrize("n_rows", [1, 10, 64, N_SAMPLES])
@pytest.mark.parametrize("shuffled", [False, True])
def test_streamed_batches_are_the_resident_ones(
    backend, dtype, samples, small_pieces, tmp_path, shuffled, n_rows
):
    order = np.random.default_rng(1).permutation(N_SAMPLES) if shuffled else None
    network, targets = make(backend, dtype), np.eye(3)[samples[1]]
    for name, X in layouts(samples[0], tmp_path).items():
        resident = ResidentLoader(network, X, targets, n_rows)
        streamed = HostLoader(network, X, targets, n_rows, "a test says so")
        expected = np.asarray(X, dtype)[slice(None) if order is None else order]
        n_seen = 0
        pairs = zip(resident.batches(order), streamed.batches(order), strict=True)
        for one, other in pairs:
            assert one.rows == other.rows
            for a, b in zip(one[1:], other[1:], strict=True):
                assert a.dtype == b.dtype == dtype
                np.testing.assert_array_equal(backend.to_host(a), backend.to_host(b))
            got = backend.to_host(one.inputs)
            np.testing.assert_array_equal(got, expected[one.rows], err_msg=name)
            n_seen += len(got)
        assert n_seen == N_SAMPLES


@pytest.mark.parametrize("shuffled", [False, True])
def test_streamed_batches_lie_as_the_resident_ones(double, dtype, samples, small_pieces, shuffled):
    """A BLAS may choose by an address how to add up."""

    def offset(array):
        return (array.data.ptr - array._memory.ptr) % loaders.ALIGNMENT

    order = np.arange(N_SAMPLES) if shuffled else None
    network, X, T = make(double, dtype), samples[0], np.eye(3)[samples[1]]
    resident = ResidentLoader(network, X, T, 9).batches(order)
    streamed = HostLoader(network, X, T, 9, "a test says so").batches(order)
    offsets = set()
    for one, other in zip(resident, streamed, strict=True):
        assert list(map(offset, one[1:])) == list(map(offset, other[1:]))
        offsets.update(map(offset, one[1:]))
    assert (offsets == {0}) == shuffled


def test_what_is_copied_at_a_time_is_long(double):
    X, T, network = np.zeros((3_000_000, 7), "i1"), np.zeros((3_000_000, 3), "i1"), make(double)
    before = crossings.to_device
    for _ in HostLoader(network, X, T, 30_000, "a test says so").batches():
        pass
    # Batches of 10 numbers a sample, and a little for where they begin, 13 to a piece.
    assert 13 <= loaders.CHUNK_BYTES / (30_000 * 10 * 4) < 14
    assert crossings.to_device - before == 8  # 100 / 13, rounded up


# The same result.


# Each rule and each batch size meets both dtypes, and not each pair of them.
TRAININGS = [
    (name, batch_size, ("float32", "float64")[(i + j) % 2])
    for i, name in enumerate(OPTIMIZERS)
    for j, batch_size in enumerate((1, 3, 20, N_SAMPLES))
]


@pytest.mark.parametrize(("name", "batch_size", "dtype"), TRAININGS)
def test_a_streamed_training_is_the_resident_one(
    gpu, dtype, samples, monkeypatch, small_pieces, name, batch_size
):
    X, y = samples
    options = {
        "epochs": 2, "batch_size": batch_size, "learning_rate": 0.05, "optimizer": name,
        "validation_data": (X[:41], y[:41]), "early_stopping": EarlyStopping(1),
    }  # fmt: skip
    for shuffle in (True, False):
        networks = [make(gpu, dtype) for _ in "ab"]
        histories = []
        for network, why in zip(networks, (None, "a test says so"), strict=True):
            monkeypatch.setattr(loaders, "why_too_large", lambda *_, why=why: why)
            histories.append(fit(network, X, y, shuffle=shuffle, **options))
            assert histories[-1].streamed == why
        same_parameters(*networks)
        for what in ("train_loss", "validation_loss", "validation_accuracy"):
            assert getattr(histories[0], what) == getattr(histories[1], what)


def test_what_is_on_the_device_stays_there(double, samples, no_room):
    X, T = samples[0].astype("f4"), np.eye(3, dtype="f4")[samples[1]]
    network = make(double)
    on_device = double.asarray(X), double.asarray(T)
    placed = make_loader(network, *on_device, 10, 0)
    assert isinstance(placed, ResidentLoader)
    assert placed.inputs is on_device[0]
    assert placed.targets is on_device[1]
    assert isinstance(make_loader(network, on_device[0], T, 10, 0), ResidentLoader)
    assert isinstance(make_loader(network, X, T, 10, 0), HostLoader)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_resident_step_crosses_nothing(double, samples, shuffle):
    def crossed(batch_size):
        network, before = make(double), (crossings.to_device, crossings.to_host)
        history = fit(
            network, *samples, epochs=2, batch_size=batch_size, learning_rate=0.1,
            optimizer="adam", shuffle=shuffle,
        )  # fmt: skip
        assert history.streamed is None
        return crossings.to_device - before[0], crossings.to_host - before[1]

    # An order and the steps' numbers to the device, and a loss back, in each epoch; the samples to
    # the device at first.
    assert crossed(2) == crossed(50) == (2 * shuffle + 2 + 2, 2)


# What does not fit.


class Listener(Callback):
    def __init__(self):
        self.heard = []

    def on_train_begin(self, network, n_epochs, n_samples):
        self.heard.append("begin")

    def on_streaming(self, reason):
        self.heard.append(reason)


def test_a_data_set_that_does_not_fit_is_streamed(double, samples, little_memory):
    X, y = (np.concatenate([part] * 40) for part in samples)
    network, resident, listener = make(double), make(double), Listener()
    options = {"epochs": 1, "batch_size": 50, "learning_rate": 0.1, "validation_data": (X, y)}
    expected = fit(resident, X, y, **options)
    assert expected.streamed is None
    little_memory(2**17)
    with pytest.raises(OutOfMemoryError):
        network.as_samples(X, np.eye(3)[y])
    history = fit(network, X, y, callbacks=[listener], **options)
    n_gib = X.shape[0] * 10 * 4 / 2**30
    assert f"they take {n_gib:.1f} GiB, but cuda:0 has room for" in history.streamed
    assert listener.heard == ["begin", history.streamed]
    same_parameters(resident, network)
    assert history.validation_loss == expected.validation_loss
    outcome = evaluate(network, X, y)
    assert outcome.loss == history.validation_loss[0]
    np.testing.assert_array_equal(network.predict(X), outcome.outputs)


def test_samples_that_fit_only_by_themselves_share_the_memory(double, samples, little_memory):
    X, y = (np.concatenate([part] * 40) for part in samples)
    n_bytes, listener = len(X) * 10 * 4, Listener()
    little_memory(n_bytes * 7 // 4)
    options = {"epochs": 1, "batch_size": 50, "learning_rate": 0.1}
    assert fit(make(double), X, y, **options).streamed is None
    history = fit(make(double), X, y, validation_data=(X, y), callbacks=[listener], **options)
    assert listener.heard == ["begin", history.streamed]


def test_too_wide_a_network_is_not_blamed_on_its_samples(double, samples, little_memory):
    X, y = (np.concatenate([part] * 30) for part in samples)
    network = make(double)
    before = network.parameters()
    little_memory(2**12)
    with pytest.raises(OutOfMemoryError) as error:
        fit(network, X, y, epochs=1, batch_size=100, learning_rate=0.1)
    assert "a batch size of" in str(error.value)
    # Room for the steps, but not for the pieces.
    little_memory(2**14)
    with pytest.raises(OutOfMemoryError) as error:
        fit(network, X, y, epochs=1, batch_size=10, learning_rate=0.1)
    assert "samples" not in str(error.value)
    for name, value in network.parameters().items():
        np.testing.assert_array_equal(value, before[name])


def test_the_command_line_says_that_samples_are_streamed(
    installed_double, little_memory, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    command = ["train", "--hidden", "8", "--epochs", "1", "--device", "cuda", "--val-fraction"]
    texts = []
    monkeypatch.setattr("gpunn.backends.cupy_backend.RECORDING_BYTES", 0)
    for n_bytes in (2**30, 2**18):
        little_memory(n_bytes)
        assert cli.main([*command, "0.2", "--out", f"{n_bytes}.safetensors"]) == 0
        texts.append(capsys.readouterr().out)
    assert "streamed" not in texts[0]
    assert "samples: streamed from the host in each epoch, because they take" in texts[1]
    one, other = (Network.load(f"{n}.safetensors", device="cpu") for n in (2**30, 2**18))
    same_parameters(one, other)


# Missing waits. Each is left out here, and must be noticed.


class Buffers:
    """A backend that makes its staging buffers with something left out."""

    def __init__(self, backend, **changes):
        self.backend, self.changes = backend, changes

    def __call__(self, size, dtype):
        buffer = type(self.backend).make_staging_buffer(self.backend, size, dtype)
        for name, change in self.changes.items():
            setattr(buffer, name, lambda *a, change=change: change(buffer, *a))
        return buffer


def copy_at_once(buffer, n):
    buffer._numbers[:n].set(buffer.host[:n], stream=buffer._stream)
    buffer._copied.record(buffer._stream)


MISSING = {
    "the host's for the last copy": ({"wait": lambda buffer: None}, "pinned memory was written"),
    "the copy's for computations": ({"send": copy_at_once}, "a stream uses memory"),
    "the computations' for the copy": (
        {"receive": lambda buffer: buffer._numbers},
        "a stream uses memory",
    ),
}


def train(double, samples, callbacks=()):
    options = {"epochs": 2, "batch_size": 4, "learning_rate": 0.1, "optimizer": "adam"}
    return fit(make(double), *samples, callbacks=callbacks, **options)


@pytest.mark.parametrize("missing", MISSING)
def test_a_missing_wait_is_noticed(double, samples, no_room, monkeypatch, unraisable, missing):
    changes, message = MISSING[missing]
    monkeypatch.setattr(double, "make_staging_buffer", Buffers(double, **changes), raising=False)
    with pytest.raises(RaceError, match=message):
        train(double, samples)
    monkeypatch.undo()
    gc.collect()


def test_giving_up_a_buffer_in_use_is_noticed(double, unraisable):
    buffer = double.make_staging_buffer(10, "float32")
    buffer.send(10)
    buffer.wait()
    del buffer
    assert unraisable == []
    buffer = double.make_staging_buffer(10, "float32")
    buffer.send(10)
    del buffer
    assert [type(error) for error in unraisable] == [RaceError]
    assert "is given up" in str(unraisable[0])


@pytest.mark.parametrize("n_steps", [1, 10, 20, 26])
def test_a_training_that_is_broken_off_gives_up_no_buffer_in_use(
    double, samples, no_room, unraisable, n_steps
):
    class Breaks(Callback):
        n_left = n_steps

        def on_step_end(self, n_samples):
            self.n_left -= 1
            if not self.n_left:
                raise KeyboardInterrupt

    try:
        train(double, samples, [Breaks()])
    except KeyboardInterrupt:
        pass
    else:
        pytest.fail("not broken off")
    gc.collect()
    assert unraisable == []


def test_only_pinned_memory_is_copied_from(double):
    device = double.empty((4,), "float32")
    stream = fake_cuda.cupy.cuda.Stream(non_blocking=True)
    with pytest.raises(ValueError, match="pinned"):
        device.set(np.zeros(4, "f4"), stream=stream)


def test_a_device_in_the_hosts_memory_copies_nothing():
    buffer = StagingBuffer(3, "float64")
    buffer.wait()
    buffer.host[:] = 1, 2, 3
    buffer.send(3)
    assert buffer.receive() is buffer.host
