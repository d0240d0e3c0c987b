"""Data larger than memory: mapped files and streams train as the same data in memory do."""

import numpy as np
import pytest

import gpunn
from gpunn import Callback, Checkpoints, Network, Scaling, Stream, evaluate, fit
from gpunn.data.matrices import SelectedRows
from gpunn.errors import DataError, OutOfMemoryError, ParameterError, ShapeError
from gpunn.training import loaders
from gpunn.training.loaders import HostLoader, StreamLoader
from gpunn.training.streams import look_at

N_SAMPLES = 203


class Chunks:
    """Samples in chunks of these sizes, over and over."""

    def __init__(self, X, y, *sizes):
        self.X, self.y, self.sizes, self.n_begun = X, y, sizes, 0

    def __iter__(self):
        self.n_begun += 1
        start = k = 0
        while start < len(self.X):
            stop = start + self.sizes[k % len(self.sizes)]
            yield self.X[start:stop], self.y[start:stop]
            start, k = stop, k + 1


@pytest.fixture
def samples(rng):
    X = rng.normal(size=(N_SAMPLES, 7))
    return X, (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def make(backend, dtype="float32", **options):
    return Network([7, 5, 3], device=backend, dtype=dtype, **options)


def same_parameters(one, other):
    for name, value in one.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], value)


def rows_of(network, stream, seed=None, n_rows=10):
    """Return the row numbers, which are the first inputs, in an epoch's order."""
    known = look_at(network, stream)
    chunked = StreamLoader(network, known, n_rows)
    order = None if seed is None else chunked.draw_order(np.random.default_rng(seed))
    batches = [network.backend.to_host(batch.inputs)[:, 0] for batch in chunked.batches(order)]
    return np.concatenate(batches).astype(int)


def numbered(n, n_columns=7):
    X = np.zeros((n, n_columns))
    X[:, 0] = np.arange(n)
    return X, np.arange(n) % 3


# Mapped files.


@pytest.mark.parametrize(
    ("name", "batch_size"), [("sgd", 1), ("sgd", 20), ("momentum", N_SAMPLES), ("adam", 20)]
)
def test_a_mapped_file_trains_as_an_array_does(
    backend, dtype, samples, monkeypatch, small_pieces, tmp_path, name, batch_size
):
    X, y = np.rint(samples[0] * 20 + 100).astype(np.uint8), samples[1]
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y.astype(np.uint8))
    mapped = [np.load(tmp_path / f"{part}.npy", mmap_mode="r") for part in "Xy"]
    scaling = Scaling.to_range(0, 255)
    options = {
        "epochs": 2, "batch_size": batch_size, "learning_rate": 0.05, "optimizer": name,
        "validation_data": (scaling.apply(X[:41], dtype), y[:41]),
    }  # fmt: skip
    networks = [make(backend, dtype) for _ in "ab"]
    expected = fit(networks[0], scaling.apply(X, dtype), y, **options)
    monkeypatch.setattr(loaders, "why_too_large", lambda *_: "a test says so")
    history = fit(networks[1], scaling.rows(mapped[0], dtype), mapped[1], **options)
    assert (expected.streamed, history.streamed) == (None, "a test says so")
    same_parameters(*networks)
    assert history.train_loss == expected.train_loss
    assert history.validation_loss == expected.validation_loss


def test_raw_bytes_of_a_mapped_file_need_no_copy(backend, samples, no_room, tmp_path, monkeypatch):
    X = np.rint(samples[0] * 20 + 100).astype(np.uint8)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    networks = [make(backend) for _ in "ab"]
    options = {"epochs": 2, "batch_size": 20, "learning_rate": 0.001, "optimizer": "adam"}
    assert fit(networks[1], mapped, samples[1], **options).streamed == "a test says so"
    monkeypatch.setattr(loaders, "why_too_large", lambda *_: None)
    fit(networks[0], X.astype("f4"), samples[1], **options)
    same_parameters(*networks)


def test_what_is_made_of_a_mapped_file_are_rows(samples, dtype):
    scaling, index = Scaling.standard(samples[0]), np.array([3, 1, 1, 200])
    rows = SelectedRows(scaling.rows(samples[0], dtype), index)
    expected = scaling.apply(samples[0], dtype)[index]
    assert (rows.shape, rows.size, len(rows), rows.dtype) == ((4, 7), 28, 4, dtype)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(rows[1:], expected[1:])
    assert Scaling.per_feature(rows) == Scaling.per_feature(expected)
    with pytest.raises(ShapeError, match="features"):
        scaling.rows(samples[0][:, :3], dtype)


def test_standard_scaling_of_rows_is_that_of_an_array_within_rounding(rng, monkeypatch):
    X = rng.normal(1e6, 1.0, (1000, 3))
    monkeypatch.setattr(gpunn.data.matrices, "BLOCK_VALUES", 30)
    rows = SelectedRows(X, np.arange(1000))
    one, other = Scaling.standard(X), Scaling.standard(rows)
    # The mean is off by n eps |x| at most, which is small beside a deviation of 1; its square adds
    # to the variance.
    bound = 1000 * np.finfo(float).eps * np.abs(X).max()
    np.testing.assert_allclose(other.scale, one.scale, rtol=bound)
    np.testing.assert_allclose(other.shift, one.shift, rtol=2 * bound)


def test_predictions_of_rows_are_those_of_the_array(backend, samples, small_pieces):
    network, scaling = make(backend), Scaling.standard(samples[0])
    rows = scaling.rows(samples[0], "float32")
    np.testing.assert_array_equal(network.predict(rows), network.predict(np.asarray(rows)))


def test_bad_values_of_rows_are_named(samples):
    X = samples[0].copy()
    X[150, 4] = np.nan
    with pytest.raises(DataError, match="row 150, column 4 is nan"):
        fit(make("cpu"), Scaling().rows(X, "f4"), samples[1], epochs=1, learning_rate=0.1)


# The order of a stream.


@pytest.mark.parametrize("buffer_rows", [1, 7, 50, 202, 203, 1000])
def test_each_row_comes_once_an_epoch_and_not_far_from_its_place(backend, buffer_rows):
    X, y = numbered(N_SAMPLES)
    network, stream = make(backend), Stream(Chunks(X, y, 13), buffer_rows=buffer_rows)
    for seed in range(5):
        order = rows_of(network, stream, seed)
        assert sorted(order) == list(range(N_SAMPLES))
        assert np.abs(order - np.arange(N_SAMPLES)).max() < buffer_rows
    assert list(rows_of(network, stream)) == list(range(N_SAMPLES))


def test_the_order_depends_on_the_seed_alone(backend):
    X, y = numbered(N_SAMPLES)
    orders = {}
    for device in (backend, "cpu"):
        network = make(device)
        for sizes in ((1,), (50,), (3, 90, 1)):
            for n_rows in (9, 64):
                stream = Stream(Chunks(X, y, *sizes), buffer_rows=50)
                for seed in (1, 2):
                    orders.setdefault(seed, set()).add(
                        tuple(rows_of(network, stream, seed, n_rows))
                    )
    assert len(orders[1]) == len(orders[2]) == 1
    assert orders[1] != orders[2]


def test_within_a_block_every_order_is_as_likely(rng):
    """Of 3! orders in 6000 epochs, each comes 1000 times, plus or minus 5 standard deviations."""
    X, y = numbered(3)
    network, known = make("cpu"), None
    stream, counts = Stream([(X, y)], buffer_rows=3), {}
    known = look_at(network, stream)
    chunked = StreamLoader(network, known, 3)
    for _ in range(6000):
        (batch,) = chunked.batches(chunked.draw_order(rng))
        key = tuple(batch.inputs[:, 0])
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6
    assert all(abs(count - 1000) < 5 * np.sqrt(6000 * 1 / 6 * 5 / 6) for count in counts.values())


def test_any_two_neighbours_change_places_in_some_epoch():
    X, y = numbered(60)
    network, stream, swapped = make("cpu"), Stream([(X, y)], buffer_rows=20), set()
    for seed in range(60):
        place = np.argsort(rows_of(network, stream, seed, 60))
        swapped.update(np.flatnonzero(place[1:] < place[:-1]))
    assert swapped == set(range(59))


# Training on a stream.


@pytest.mark.parametrize(
    ("name", "batch_size"), [("sgd", 1), ("sgd", 20), ("momentum", N_SAMPLES), ("adam", 20)]
)
def test_a_stream_that_fits_its_buffer_trains_as_an_array_does(
    backend, dtype, samples, small_pieces, name, batch_size
):
    X, y = samples
    options = {"epochs": 2, "batch_size": batch_size, "learning_rate": 0.05, "optimizer": name}
    for shuffle in (True, False):
        networks = [make(backend, dtype) for _ in "ab"]
        held_out = Stream(Chunks(X[:41], y[:41], 9))
        expected = fit(
            networks[0], X, y, shuffle=shuffle, validation_data=(X[:41], y[:41]), **options
        )
        history = fit(
            networks[1], Stream(Chunks(X, y, 17)), shuffle=shuffle, validation_data=held_out,
            **options,
        )  # fmt: skip
        assert history.streamed == "they come in chunks"
        same_parameters(*networks)
        assert history.train_loss == expected.train_loss
        assert history.validation_loss == expected.validation_loss
        assert history.validation_accuracy == expected.validation_accuracy


def test_chunks_of_any_kind_do(backend, samples):
    X, y = samples
    T = np.eye(3)[y]
    networks = [make(backend) for _ in range(4)]
    options = {"epochs": 2, "batch_size": 8, "learning_rate": 0.1}
    fit(networks[0], X, T, **options)
    empty = (np.empty((0, 7)), [])
    fit(networks[1], Stream([(X[:9].tolist(), y[:9].tolist()), empty, (X[9:], y[9:])]), **options)
    fit(networks[2], Stream([(X[:99], T[:99]), (X[99:].astype(">f8"), T[99:])]), **options)
    fit(networks[3], Stream([(X, y)], n_samples=N_SAMPLES), **options)
    for other in networks[1:]:
        same_parameters(networks[0], other)


def test_a_stream_of_known_length_is_not_gone_through_to_count_it(samples):
    chunks = Chunks(*samples, 1)
    fit(make("cpu"), Stream(chunks), epochs=3, learning_rate=0.1)
    assert chunks.n_begun == 4
    known = look_at(make("cpu"), Stream(chunks, n_samples=N_SAMPLES))
    assert known.n_samples == N_SAMPLES


class Poison(Callback):
    """Make the weights NaN once, in the middle of an epoch."""

    def __init__(self, network):
        self.network, self.n_left = network, 15

    def on_step_end(self, n_samples):
        self.n_left -= 1
        if not self.n_left:
            poisoned = {name: value * np.nan for name, value in self.network.parameters().items()}
            self.network.load_parameters(poisoned)


def test_a_stream_that_diverges_goes_back_as_arrays_do(samples, tmp_path):
    X, y = samples
    options = {"epochs": 3, "batch_size": 20, "learning_rate": 0.1, "on_divergence": "halve-lr"}
    networks = [make("cpu") for _ in "ab"]
    for network, name, data in zip(
        networks, "ab", ((X, y), (Stream(Chunks(X, y, 30)),)), strict=True
    ):
        history = fit(
            network, *data, checkpoints=Checkpoints(tmp_path / name, "1 epoch"),
            callbacks=[Poison(network)], **options,
        )  # fmt: skip
        assert [record.learning_rate for record in history.epochs] == [0.1, 0.05, 0.05]
    same_parameters(*networks)


def test_a_stream_is_evaluated(backend, samples, small_pieces):
    network = make(backend)
    expected = evaluate(network, *samples)
    got = evaluate(network, Stream(Chunks(*samples, 11)))
    assert (got.loss, got.accuracy) == (expected.loss, expected.accuracy)
    assert got.outputs is None


# Going on.


class Stop(Callback):
    def __init__(self, n_steps):
        self.n_left = n_steps

    def on_step_end(self, n_samples):
        self.n_left -= 1
        if not self.n_left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("buffer_rows", [20, 1000])
@pytest.mark.parametrize("n_steps", [1, 20, 29, 45])
def test_a_stream_goes_on_in_the_middle_of_an_epoch(
    backend, samples, tmp_path, buffer_rows, n_steps, small_pieces
):
    options = {
        "epochs": 3, "batch_size": 10, "learning_rate": 0.05, "optimizer": "adam",
        "validation_data": Stream(Chunks(*samples, 50)),
    }  # fmt: skip
    networks = [make(backend) for _ in "ab"]
    expected = fit(networks[0], Stream(Chunks(*samples, 30), buffer_rows=buffer_rows), **options)
    with pytest.raises(KeyboardInterrupt):
        fit(
            networks[1], Stream(Chunks(*samples, 30), buffer_rows=buffer_rows),
            checkpoints=Checkpoints(tmp_path, "1 step"), callbacks=[Stop(n_steps)], **options,
        )  # fmt: skip
    resumed = make(backend)
    history = fit(
        resumed, Stream(Chunks(*samples, 7, 60), buffer_rows=buffer_rows),
        checkpoints=Checkpoints(tmp_path, "1 epoch", resume=True), **options,
    )  # fmt: skip
    same_parameters(networks[0], resumed)
    assert history.train_loss == expected.train_loss
    assert history.validation_loss == expected.validation_loss


def changed_late(X):
    X = X.copy()
    X[-1, -1] += 1
    return X


CHANGES = {
    "a value of the last row": (lambda X, y: Stream(Chunks(changed_late(X), y, 30)), "stream"),
    "a label": (lambda X, y: Stream(Chunks(X, (y + 1) % 3, 30)), "stream"),
    "fewer": (lambda X, y: Stream(Chunks(X[1:], y[1:], 30)), "samples 203 there, 202 here"),
    "other blocks": (lambda X, y: Stream(Chunks(X, y, 30), buffer_rows=9), "buffer rows"),
    "arrays": (lambda X, y: X, "stream"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_going_on_with_another_stream_is_refused(samples, tmp_path, change):
    X, y = samples
    options = {"epochs": 1, "learning_rate": 0.1}
    fit(make("cpu"), Stream(Chunks(X, y, 30)), checkpoints=Checkpoints(tmp_path), **options)
    again, message = Checkpoints(tmp_path, resume=True), CHANGES[change][1]
    fit(make("cpu"), Stream(Chunks(X, y, 9, 1)), checkpoints=again, **options)
    other = CHANGES[change][0](X, y)
    labels = None if isinstance(other, Stream) else y
    with pytest.raises(ParameterError, match=message):
        fit(make("cpu"), other, labels, checkpoints=again, **options)


def test_a_fingerprint_stands_for_the_samples(samples, tmp_path):
    X, y = samples
    options = {"epochs": 1, "learning_rate": 0.1}
    fit(
        make("cpu"), Stream([(X, y)], fingerprint="a"), checkpoints=Checkpoints(tmp_path), **options
    )
    again = Checkpoints(tmp_path, resume=True)
    fit(make("cpu"), Stream([(X + 1, y)], fingerprint="a"), checkpoints=again, **options)
    with pytest.raises(ParameterError, match="stream 'a' there, 'b' here"):
        fit(make("cpu"), Stream([(X, y)], fingerprint="b"), checkpoints=again, **options)


@pytest.mark.parametrize("row", [0, 3, 499, 500, 998, 999])
def test_the_hash_of_a_large_array_covers_pieces_of_it(row, monkeypatch):
    """Of 1000 pieces, a row of 1 MiB each, so many are hashed, the first and the last with them."""
    monkeypatch.setattr(gpunn.parallel.alike, "HASHED_CHUNKS", 4)
    backend = make("cpu").backend
    X = np.zeros((1000, 2**17))[:, :]
    before = gpunn.parallel.alike.array_fingerprint(backend, X)
    X[row, 5] = 1
    assert (gpunn.parallel.alike.array_fingerprint(backend, X) != before) == (row in (0, 999))
    X[333, 5] = 1
    assert gpunn.parallel.alike.array_fingerprint(backend, X) != before


# What is wrong with a stream.


def bad_chunk(**changes):
    """Return a stream whose third chunk is another one."""
    X, y = numbered(30)
    chunks = [(X[:10], y[:10]), (X[10:20], y[10:20]), (X[20:], y[20:])]
    chunks[2] = tuple(changes.get(name, part) for name, part in zip("Xy", chunks[2], strict=True))
    return Stream(chunks)


X10, Y10 = np.zeros((10, 7)), np.zeros(10, int)
BAD = {
    "width": (bad_chunk(X=np.zeros((10, 6))), r"chunk 3 .*from sample 20 on: .*\(n, 7\)"),
    "NaN": (bad_chunk(X=np.full((10, 7), np.nan)), "chunk 3 .*: inputs must be finite: row 0"),
    "class": (bad_chunk(y=Y10 + 3), "chunk 3 .*: labels must be whole numbers from 0 to 2, got 3"),
    "lengths": (bad_chunk(y=Y10[1:]), "chunk 3 .*: expected as many targets as inputs"),
    "strings": (bad_chunk(X=np.full((10, 7), "a")), "chunk 3 .*: inputs must be numbers"),
    "no pair": (Stream([(X10, Y10), X10]), r"chunk 2 .*: expected a pair \(X, y\), got ndarray"),
    "no chunks": (Stream([]), "no samples"),
    "empty chunks": (Stream([(X10[:0], Y10[:0])]), "no samples"),
    "targets": (Stream([(X10, Y10), (X10, np.eye(3)[Y10])]), "class numbers in some chunks"),
    "too short": (
        Stream([(X10, Y10)], n_samples=11),
        "ended after 10 samples, but it should have 11",
    ),
    "too long": (Stream([(X10, Y10)], n_samples=9), "goes on after its 9 samples"),
    "a chunk more": (Stream([(X10, Y10)] * 2, n_samples=10), "goes on after its 10 samples"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("shuffle", [True, False])
def test_what_is_wrong_with_a_stream_is_said_in_a_line(backend, name, shuffle):
    stream, message = BAD[name]
    if name == "targets" and not shuffle:
        pytest.skip("as they come, they are made into the same targets")
    with pytest.raises((DataError, ShapeError), match=message) as error:
        fit(make(backend), stream, epochs=1, learning_rate=0.1, shuffle=shuffle)
    assert "\n" not in str(error.value)


def test_a_stream_that_changes_its_length_is_noticed(samples):
    class Changing(Chunks):
        def __iter__(self):
            yield from super().__iter__()
            if self.n_begun == 3:
                yield self.X[:1], self.y[:1]

    with pytest.raises(DataError, match="goes on after its 203 samples"):
        fit(make("cpu"), Stream(Changing(*samples, 30)), epochs=5, learning_rate=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunks": iter([])}, "only once"),
        ({"chunks": (pair for pair in ())}, "only once"),
        ({"chunks": 3}, "iterable"),
        ({"buffer_rows": 0}, "buffer_rows"),
        ({"n_samples": 0}, "n_samples"),
    ],
)
def test_a_stream_that_cannot_be_one_is_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        Stream(**{"chunks": [], **changes})


def test_targets_belong_beside_arrays_and_into_streams(samples):
    options = {"epochs": 1, "learning_rate": 0.1}
    with pytest.raises(ParameterError, match="leave out y"):
        fit(make("cpu"), Stream([samples]), samples[1], **options)
    with pytest.raises(ParameterError, match="y is missing"):
        fit(make("cpu"), samples[0], **options)


def test_too_large_a_buffer_is_refused_before_it_is_made(samples):
    stream = Stream([samples], n_samples=2**45, buffer_rows=2**40)
    with pytest.raises(OutOfMemoryError, match="fewer buffer_rows"):
        fit(make("cpu"), stream, epochs=1, learning_rate=0.1)


def test_streamed_samples_need_no_arrays(backend, samples, small_pieces):
    rows = Scaling().rows(samples[0], "f4")
    network = make(backend)
    streamed = HostLoader(network, rows, np.eye(3)[samples[1]], 10, "a test says so")
    got = [backend.to_host(batch.inputs) for batch in streamed.batches()]
    np.testing.assert_array_equal(np.concatenate(got), rows)


@pytest.mark.parametrize("buffer_rows", [1000, 24])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_training_killed_after_the_last_step_of_an_epoch_goes_on_to_the_same_bits(
    tmp_path, buffer_rows, dropout
):
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(64, 5)), rng.integers(0, 3, 64)

    class Killed(Exception):  # noqa: N818
        pass

    class Kill(Callback):
        """Ends a training when the newest checkpoint holds all of an epoch's steps."""

        def on_epoch_end(self, network, record):
            raise Killed

    def train(**options):
        network = Network([5, 6, 3], dtype="float64", device="cpu", seed=1)
        stream = Stream([(X, y)], buffer_rows=buffer_rows)
        kinds = {"epochs": 4, "batch_size": 8, "learning_rate": 0.1, "dropout": dropout}
        return fit(network, stream, **kinds, **options).train_loss, network.parameters()

    losses, weights = train()
    checkpoints = Checkpoints(tmp_path, every="8 steps")
    with pytest.raises(Killed):
        train(checkpoints=checkpoints, callbacks=[Kill()])
    again, resumed = train(checkpoints=Checkpoints(tmp_path, every="8 steps", resume=True))
    assert again == losses
    for name, array in weights.items():
        np.testing.assert_array_equal(resumed[name], array)
