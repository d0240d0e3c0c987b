"""Recorded steps: the same training as on the CPU, in one call a step."""

import gc
import warnings
from typing import Any

import fake_captures
import fake_cuda
import fake_streams
import numpy as np
import pytest
from conftest import assert_same, bound, make_backend

import gpunn
from gpunn import Checkpoints, fit
from gpunn.backends.base import Backend
from gpunn.errors import DeviceWarning
from gpunn.network import Network
from gpunn.optimizers import SGD, Adam, Momentum, Optimizer, exponential_decay
from gpunn.training import batches
from gpunn.training.recorded import RecordedTrainer

RULES = [
    SGD(),
    SGD(weight_decay=0.05),
    Momentum(0.8),
    Momentum(0.8, weight_decay=0.05),
    Momentum(0.8, nesterov=True, weight_decay=0.05),
    Adam(weight_decay=0.05),
]

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "in order": {"shuffle": False},
    "schedule": {"learning_rate": exponential_decay(0.1, factor=0.5)},
    "dropout": {"dropout": 0.3},
    "weights": {"sample_weight": np.linspace(0, 2, 50)},
    "all": {
        "dropout": 0.3,
        "sample_weight": np.linspace(0, 2, 50),
        "learning_rate": exponential_decay(0.1, factor=0.5),
    },
}


@pytest.fixture(autouse=True)
def _step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the kernel that takes many steps of plain gradient descent by itself."""
    monkeypatch.setattr(batches.BatchTrainer, "make", lambda *_: None)


def samples(rng: np.random.Generator, n_inputs: int, n_outputs: int) -> tuple[Any, Any]:
    return rng.uniform(-1, 1, (50, n_inputs)), rng.uniform(0, 1, (50, n_outputs))


def train(network: Network, X: Any, T: Any, **options: Any) -> gpunn.History:
    usual = {"epochs": 3, "batch_size": 16, "learning_rate": 0.1, "seed": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeviceWarning)  # which says that a step was not recorded
        return fit(network, X, T, **(usual | options))


def assert_trains_alike(
    device: Backend, rng: np.random.Generator, sizes: tuple[int, ...] = (7, 9, 3), **given: Any
) -> None:
    kinds = {name: given.pop(name) for name in ("hidden_activation", "biases") if name in given}
    X, T = samples(rng, sizes[0], sizes[-1])
    one, other = (
        Network(sizes, dtype="float64", device=d, **kinds) for d in (make_backend("cpu"), device)
    )
    losses = [train(network, X, T, **given).train_loss for network in (one, other)]
    assert_same(one, other, 150)
    np.testing.assert_allclose(*losses, rtol=bound(one, 150))


@pytest.fixture
def launches(double: Backend, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The launches of recordings, as they come."""
    found: list[str] = []
    launch = fake_captures.Graph.launch

    def counted(self: Any, stream: Any = None) -> None:
        found.append("launch")
        launch(self, stream)

    monkeypatch.setattr(fake_captures.Graph, "launch", counted)
    return found


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_rule_and_option(
    gpu: Backend, rng: np.random.Generator, rule: Optimizer, options: str
) -> None:
    assert_trains_alike(gpu, rng, optimizer=rule, **OPTIONS[options])


@pytest.mark.parametrize("hidden", ["sigmoid", "relu", "softmax"])
@pytest.mark.parametrize(
    "sizes", [(5, 3), (5, 6, 2), (5, 6, 34), (5, 6, 7, 3), (5, 4, 6, 7, 33)], ids=str
)
def test_every_depth(
    gpu: Backend, rng: np.random.Generator, sizes: tuple[int, ...], hidden: str
) -> None:
    """With few outputs and with many, with passes for hidden layers and without."""
    for biases in (True, False):
        assert_trains_alike(
            gpu, rng, sizes, hidden_activation=hidden, biases=biases, optimizer=Adam()
        )


@pytest.mark.parametrize("sizes", [(7, 9, 3), (7, 9, 40), (7, 6, 5, 3)], ids=str)
def test_blocks_of_single_samples(
    gpu: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, sizes: Any
) -> None:
    """By either kernel, and for a deeper network sample by sample; the last block is shorter."""
    monkeypatch.setattr(type(gpu), "rows_in_block", lambda *_: 20)
    monkeypatch.setattr("gpunn.training.online.BLOCK_ROWS", 20)
    for options in ("as it is", "schedule"):
        for biases in (True, False):
            assert_trains_alike(gpu, rng, sizes, batch_size=1, biases=biases, **OPTIONS[options])


def test_a_block_is_one_call(
    double: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, launches: list[str]
) -> None:
    monkeypatch.setattr(type(double), "rows_in_block", lambda *_: 20)
    train(Network((4, 5, 2), device=double), *samples(rng, 4, 2), epochs=4, batch_size=1)
    # Of 8 whole blocks and 4 short ones, the first of each is done call by call.
    assert len(launches) == 7 + 3


def test_a_step_is_one_call(double: Backend, rng: np.random.Generator, launches: list[str]) -> None:
    """Four steps an epoch, the last of two samples: three kinds of call by call, the rest not."""
    X, T = samples(rng, 4, 2)
    network = Network((4, 5, 2), device=double)
    train(network, X, T, epochs=5, optimizer="momentum")
    # Of 15 whole steps and 5 short ones, the first of each is done call by call.
    assert len(launches) == 14 + 4


@pytest.mark.parametrize(
    ("sizes", "options", "n_launches"),
    [
        # Fetch, product, forward, back, the small parameters' step, product.
        ((8, 16, 3), {"optimizer": "sgd"}, 6),
        # And the wide weights' step; with a look ahead, one more before it.
        ((8, 16, 3), {"optimizer": "momentum"}, 7),
        ((8, 16, 3), {"optimizer": "nesterov"}, 8),
        ((8, 16, 3), {"optimizer": "adam"}, 7),
        # Another wide layer: pass, product; product back, product and step, pass, biases' step; and
        # that of the first layer's biases.
        ((8, 16, 12, 3), {"optimizer": "adam", "dropout": 0.5}, 14),
        # Fetch, the dot products beside the first product, the samples, product, biases.
        ((8, 16, 3), {"optimizer": "sgd", "batch_size": 1}, 6),
    ],
    ids=str,
)
def test_how_many_launches_a_recording_has(
    double: Backend,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, ...],
    options: dict[str, Any],
    n_launches: int,
) -> None:
    found: set[int] = set()
    launch = fake_captures.Graph.launch

    def counted(self: Any, stream: Any = None) -> None:
        found.add(len(self._nodes))
        launch(self, stream)

    monkeypatch.setattr(fake_captures.Graph, "launch", counted)
    train(Network(sizes, device=double), *samples(rng, sizes[0], sizes[-1]), **options)
    assert found == {n_launches}


def test_nothing_crosses_in_a_recorded_step(
    double: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = RecordedTrainer.learn

    def watched(self: Any, *arguments: Any, **named: Any) -> None:
        with fake_cuda.no_crossings():
            learn(self, *arguments, **named)

    monkeypatch.setattr(RecordedTrainer, "learn", watched)
    X, T = samples(rng, 4, 2)
    for options in OPTIONS.values():
        train(Network((4, 5, 6, 2), device=double), X, T, optimizer="adam", **options)


@pytest.mark.usefixtures("no_room")
def test_streamed_samples(gpu: Backend, rng: np.random.Generator) -> None:
    assert_trains_alike(gpu, rng, optimizer="adam", sample_weight=np.linspace(0, 2, 50))


def test_samples_that_count_nothing_teach_nothing(gpu: Backend, rng: np.random.Generator) -> None:
    """A whole step of them does not count for Adam either, on any device."""
    weights = np.ones(50)
    weights[16:32] = 0
    for first in (0, 16):
        weights = np.roll(weights, first)
        assert_trains_alike(gpu, rng, optimizer="adam", sample_weight=weights, shuffle=False)


def test_evaluation_between_epochs_does_not_disturb(gpu: Backend, rng: np.random.Generator) -> None:
    """It takes more samples at a time, so that the network's work arrays are made anew."""
    X = rng.uniform(-1, 1, (500, 7))
    assert_trains_alike(gpu, rng, optimizer="adam", validation_data=(X, np.zeros((500, 3))))


class Asks(gpunn.Callback):
    """Predicts in the middle of an epoch, more samples at a time than a step has."""

    def on_train_begin(self, network: Network, n_epochs: int, n_samples: int) -> None:
        self._network = network

    def on_step_end(self, n_samples: int) -> None:
        self._network.predict(np.zeros((300, self._network.n_inputs)))


def test_predictions_between_steps_do_not_disturb(gpu: Backend, rng: np.random.Generator) -> None:
    assert_trains_alike(gpu, rng, optimizer="adam", callbacks=[Asks()])


class Changes(gpunn.Callback):
    """Changes an optimizer's numbers between epochs, as a user may."""

    def __init__(self, rule: Any) -> None:
        self._rule = rule

    def on_epoch_end(self, network: Network, record: Any) -> None:
        self._rule.weight_decay, self._rule.momentum = 0.1, 0.5


def test_numbers_that_change_between_epochs(gpu: Backend, rng: np.random.Generator) -> None:
    X, T = samples(rng, 7, 3)
    networks = [Network((7, 9, 3), dtype="float64", device=d) for d in (make_backend("cpu"), gpu)]
    for network in networks:
        rule = Momentum(0.9)
        train(network, X, T, optimizer=rule, callbacks=[Changes(rule)])
    assert_same(*networks, 150)


class Halved(Adam):
    """A rule of a user's own, whose steps depend on what it does in Python."""

    def update(self, index: int, layer: Any, delta: Any, inputs: Any) -> None:
        if self.n_steps % 2:
            super().update(index, layer, delta, inputs)


def test_rules_of_others_are_not_recorded(
    double: Backend, rng: np.random.Generator, launches: list[str]
) -> None:
    assert_trains_alike(double, rng, optimizer=Halved())
    assert launches == []


class Own(SGD):
    """A rule of a user's own that may be recorded, without CUDA for it: biases stay as they are."""

    def step_numbers(self, learning_rate: Any, n_rows: Any, step: Any) -> tuple[Any, ...]:
        return super().step_numbers(learning_rate, n_rows, step)

    def update(self, index: int, layer: Any, delta: Any, inputs: Any) -> None:
        super().update(index, layer._replace(biases=None), delta, inputs)


def test_a_rule_without_cuda_of_its_own_is_recorded_without_passes(
    double: Backend, rng: np.random.Generator, launches: list[str]
) -> None:
    assert_trains_alike(double, rng, optimizer=Own())
    assert launches


def test_a_network_whose_layers_are_replaced_trains_the_new_ones(
    double: Backend, rng: np.random.Generator
) -> None:
    X, T = samples(rng, 7, 3)
    one, other = (Network((7, 6, 5, 3), dtype="float64", device=double) for _ in "ab")
    train(one, X, T, optimizer="adam")
    for network in (one, other):
        twin = Network((7, 6, 5, 3), dtype="float64", device=double, seed=5)
        network.layers[:] = twin.layers
        train(network, X, T, optimizer="adam")
    for name, values in one.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], values)


def test_a_training_is_resumed_within_an_epoch(
    gpu: Backend, rng: np.random.Generator, tmp_path: Any
) -> None:
    X, T = samples(rng, 7, 3)
    whole, resumed = (Network((7, 9, 3), dtype="float64", device=gpu) for _ in "ab")
    train(whole, X, T, optimizer="adam", dropout=0.2)

    class StopError(Exception):
        pass

    class Stops(gpunn.Callback):
        steps = 0

        def on_step_end(self, n_samples: int) -> None:
            self.steps += 1
            if self.steps == 7:
                raise StopError

    checkpoints = Checkpoints(tmp_path, every="1 step")
    with pytest.raises(StopError):
        train(
            resumed, X, T, optimizer="adam", dropout=0.2, checkpoints=checkpoints,
            callbacks=[Stops()],
        )  # fmt: skip
    again = Network((7, 9, 3), dtype="float64", device=gpu)
    train(
        again,
        X,
        T,
        optimizer="adam",
        dropout=0.2,
        checkpoints=Checkpoints(tmp_path, resume=True, every="1 step"),
    )
    for name, values in whole.parameters().items():
        np.testing.assert_array_equal(again.parameters()[name], values)


def test_the_same_run_gives_the_same_bits(gpu: Backend, rng: np.random.Generator) -> None:
    X, T = samples(rng, 7, 3)
    one, other = (Network((7, 40, 3), device=gpu) for _ in "ab")
    for network in (one, other):
        train(network, X, T, optimizer="adam", dropout=0.2)
    for name, values in one.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], values)


def test_where_recording_fails_steps_are_done_call_by_call(
    double: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any, mode: Any = None) -> None:
        raise RuntimeError("cudaErrorStreamCaptureUnsupported: a test says so")

    X, T = samples(rng, 7, 3)
    one, other = (
        Network((7, 9, 3), dtype="float64", device=d) for d in (make_backend("cpu"), double)
    )
    train(one, X, T, optimizer="adam")
    monkeypatch.setattr("fake_streams.Stream.begin_capture", refuse)
    with pytest.warns(DeviceWarning, match="recording one failed") as told:
        fit(other, X, T, epochs=3, batch_size=16, learning_rate=0.1, seed=3, optimizer="adam")
    assert len(told) == 1
    assert_same(one, other, 150)


def test_the_estimators_steps_are_recorded(
    double: Backend, rng: np.random.Generator, launches: list[str], installed_double: Any
) -> None:
    X, y = rng.uniform(-1, 1, (60, 4)), rng.integers(0, 2, 60)  # in float64
    found = []
    for device in ("cpu", "cuda"):
        model = gpunn.MLPClassifier((5,), max_iter=3, batch_size=20, random_state=0, device=device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X, y)
        found.append((model.loss_curve_, model.coefs_))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-12)
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    assert launches


def test_nothing_is_collected_while_a_step_is_recorded(
    double: Backend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training whose recordings lie in a circle is given up late, perhaps in another's."""
    X, T = samples(rng, 7, 3)
    held: list[Any] = []
    make, end = type(double).make_recorder, fake_streams.Stream.end_capture

    def circle(self: Any, shape: Any) -> Any:
        recorder = make(self, shape)
        recorder.itself = recorder
        held.append(recorder)
        return recorder

    def end_late(self: Any) -> Any:
        # The recorders of earlier trainings go, and Python may look at any time.
        del held[:-1]
        if gc.isenabled():
            gc.collect()
        return end(self)

    monkeypatch.setattr(type(double), "make_recorder", circle)
    monkeypatch.setattr(fake_streams.Stream, "end_capture", end_late)
    for _ in range(3):
        train(Network((7, 9, 3), device=double), X, T, optimizer="adam")
