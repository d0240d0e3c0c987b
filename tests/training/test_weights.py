"""Weights of samples and of classes, and dropout, in `gpunn.fit`."""

import fake_cuda
import numpy as np
import pytest
from kill import Kill, Killed

import gpunn
from gpunn import Checkpoints, Network, Stream, fit
from gpunn.errors import DataError, ParameterError, ShapeError
from gpunn.training.steps import StepTrainer
from gpunn.training.weights import SampleWeights

RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(60, 6)), RNG.integers(0, 3, 60)
W = RNG.uniform(0, 3, 60)
FIT = {"epochs": 3, "batch_size": 16, "optimizer": "momentum", "learning_rate": 0.05, "seed": 2}


def make(device="cpu", sizes=(6, 8, 7, 3), **options):
    return Network(
        sizes,
        output_activation="softmax",
        loss="cross_entropy",
        dtype="float64",
        device=device,
        seed=1,
        **options,
    )


def trained(network, **options):
    history = fit(network, X, Y, **FIT | options)
    return network.parameters(), history


def assert_equal(one, other):
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_a_step_by_hand(backend):
    network = make(backend, sizes=(6, 3))
    start = network.parameters()
    outputs = network.predict(X[:4])
    fit(
        network, X[:4], Y[:4], epochs=1, batch_size=4, learning_rate=0.5, sample_weight=W[:4],
        shuffle=False,
    )  # fmt: skip
    delta = W[:4, np.newaxis] * (outputs - np.eye(3)[Y[:4]])
    got = network.parameters()
    # Products of at most 6 numbers of about 1; 1e-14 is 45 roundings.
    np.testing.assert_allclose(
        got["layers.0.weight"], start["layers.0.weight"] - 0.5 / 4 * delta.T @ X[:4], atol=1e-14
    )
    np.testing.assert_allclose(got["layers.0.bias"], -0.5 / 4 * delta.sum(axis=0), atol=1e-14)


def test_the_training_loss_is_the_weighed_one():
    network = make()
    losses = [gpunn.evaluate(network, X[k : k + 1], Y[k : k + 1]).loss for k in range(60)]
    _, history = trained(network, epochs=1, batch_size=60, sample_weight=W)
    assert history.train_loss[0] == pytest.approx(np.mean(W * losses), rel=1e-14)


@pytest.mark.parametrize("options", [{}, {"batch_size": 1, "optimizer": "sgd"}])
def test_weights_of_one_change_nothing_but_rounding(options):
    plain, _ = trained(make(), **options)
    ones, _ = trained(make(), **options, sample_weight=np.ones(60))
    for name, array in plain.items():
        np.testing.assert_allclose(ones[name], array, rtol=1e-9, atol=1e-12)


def test_a_weight_of_two_counts_as_a_sample_that_is_there_twice():
    weighed, twice = make(), make()
    step = FIT | {"epochs": 1, "batch_size": 61, "shuffle": False, "optimizer": "sgd"}
    weights = np.where(np.arange(60) == 7, 2.0, 1.0)
    fit(weighed, X, Y, **step | {"learning_rate": 0.6}, sample_weight=weights)
    # The mean is over 61 samples there, and over 60 here.
    step["learning_rate"] = 0.61
    fit(twice, np.vstack([X, X[7:8]]), np.append(Y, Y[7]), **step)
    for name, array in twice.parameters().items():
        np.testing.assert_allclose(weighed.parameters()[name], array, rtol=1e-12, atol=1e-14)


def test_samples_of_no_weight_teach_nothing():
    one, _ = trained(make(), sample_weight=(Y != 1) * 1.0)
    other = X.copy()
    other[Y == 1] = 100.0
    network = make()
    fit(network, other, Y, **FIT, sample_weight=(Y != 1) * 1.0)
    assert_equal(network.parameters(), one)


def test_classes_by_number_and_balanced():
    by_number, _ = trained(make(), class_weight={0: 2.0, 2: 0.5})
    factors = np.array([2.0, 1.0, 0.5])
    assert_equal(trained(make(), sample_weight=factors[Y])[0], by_number)
    both, _ = trained(make(), sample_weight=W, class_weight={0: 2.0, 2: 0.5})
    assert_equal(trained(make(), sample_weight=W * factors[Y])[0], both)
    balanced, _ = trained(make(), class_weight="balanced")
    counts = np.bincount(Y)
    assert_equal(trained(make(), sample_weight=(60 / (3 * counts))[Y])[0], balanced)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sample_weight": np.ones(59)}, ShapeError, r"\(60,\), one for each, got \(59,\)"),
        ({"sample_weight": np.where(Y, 1.0, np.nan)}, DataError, "finite and at least 0, got nan"),
        ({"sample_weight": -W}, DataError, "finite and at least 0, got -"),
        ({"sample_weight": ["a"] * 60}, DataError, "must be numbers"),
        ({"sample_weight": np.zeros(60)}, DataError, "all weights are 0"),
        ({"class_weight": "even"}, ParameterError, "'balanced' or a dict.*got 'even'"),
        ({"class_weight": {3: 1.0}}, ParameterError, "weight for 3: .* from 0 to 2"),
        ({"class_weight": {"a": 1.0}}, ParameterError, "weight for 'a'"),
        ({"class_weight": {1: -1.0}}, DataError, "at least 0"),
        ({"class_weight": np.ones(3)}, ParameterError, "'balanced' or a dict"),
        ({"sample_weight": [1, [2, 3]]}, ShapeError, "must be a list of numbers"),
        ({"sample_weight": np.ma.masked_less(W, 1)}, DataError, "masked values"),
        ({"sample_weight": np.full(60, 1e308), "class_weight": {0: 9.0}}, DataError, "fit float64"),
        ({"dropout": 1.0}, ParameterError, "at least 0 and below 1, got 1.0"),
        ({"dropout": "half"}, ParameterError, "got 'half'"),
    ],
)
def test_bad_weights_and_rates_are_said_in_a_line_and_nothing_is_trained(options, error, message):
    network = make()
    before = network.parameters()
    with pytest.raises(error, match=message):
        fit(network, X, Y, **FIT, **options)
    assert_equal(network.parameters(), before)


def test_weights_must_fit_the_networks_dtype():
    network = Network([6, 4, 3], dtype="float32", device="cpu")
    for factor, message in ((1e39, "must fit float32"), (1e-60, "all weights are 0")):
        with pytest.raises(DataError, match=message):
            fit(network, X, Y, **FIT, sample_weight=np.full(60, factor))


def test_class_weights_need_class_numbers():
    with pytest.raises(ParameterError, match=r"class_weight needs y as class numbers.*argmax"):
        fit(make(), X, np.eye(3)[Y], **FIT, class_weight="balanced")
    network = Network([6, 4, 1], dtype="float64", device="cpu")
    with pytest.raises(ParameterError, match="targets of 1 outputs: give sample_weight"):
        fit(network, X, Y == 1, **FIT, class_weight={1: 2.0})


def test_a_stream_has_no_weights():
    with pytest.raises(ParameterError, match="samples as arrays, got a Stream"):
        fit(make(), Stream([(X, Y)]), **FIT, class_weight="balanced")


def test_but_dropout():
    network, resident = make(), make()
    fit(network, Stream([(X, Y)], buffer_rows=60), **FIT, dropout=0.3)
    fit(resident, X, Y, **FIT, dropout=0.3)
    assert_equal(network.parameters(), resident.parameters())


def test_dropout_is_drawn_from_the_seed_and_leaves_the_orders_as_they_are():
    one, history = trained(make(), dropout=0.5)
    assert_equal(trained(make(), dropout=0.5)[0], one)
    other, _ = trained(make(), dropout=0.5, seed=3)
    assert not np.array_equal(one["layers.0.weight"], other["layers.0.weight"])
    without, plain = trained(make())
    assert not np.array_equal(one["layers.0.weight"], without["layers.0.weight"])
    assert history.train_loss[0] > plain.train_loss[0] / 2


@pytest.mark.parametrize("options", [{"dropout": 0.4}, {"sample_weight": W}])
def test_the_same_on_all_devices(gpu, options):
    on_gpu, _ = trained(make(gpu), **options)
    on_cpu, _ = trained(make(), **options)
    for name, array in on_cpu.items():
        np.testing.assert_allclose(on_gpu[name], array, rtol=1e-9, atol=1e-12)


def test_a_step_with_weights_and_dropout_crosses_nothing(double):
    network = make(double)
    optimizer = gpunn.SGD()
    optimizer.prepare(network)
    inputs, targets = network.as_samples(X, np.eye(3)[Y])
    trainer = StepTrainer(
        network, optimizer, 60, 20, weights=SampleWeights(W), dropout_rate=0.2, penalty=0.1
    )
    keys = np.random.default_rng(0).integers(2**32, size=trainer.keys_shape, dtype=np.uint32)
    trainer.begin_epoch(None, keys, 0, lambda first: 0.1)
    row_losses = double.zeros((20,), np.float64)
    trainer.learn(inputs[:20], targets[:20], 0.1, row_losses=row_losses)
    with fake_cuda.no_crossings():
        for start in (20, 40):
            rows = slice(start, start + 20)
            trainer.learn(inputs[rows], targets[rows], 0.1, row_losses=row_losses)


@pytest.mark.parametrize("n_steps", [1, 4, 6, 11])
def test_a_resumed_training_has_the_same_bits(tmp_path, n_steps):
    options = {"dropout": 0.3, "sample_weight": W, "class_weight": "balanced"}
    whole, history = trained(make(), **options)
    folder = tmp_path / "checkpoints"
    with pytest.raises(Killed):
        trained(
            make(), **options, callbacks=[Kill(n_steps)], checkpoints=Checkpoints(folder, "2 steps")
        )
    resumed, again = trained(
        make(), **options, checkpoints=Checkpoints(folder, "2 steps", resume=True)
    )
    assert_equal(resumed, whole)
    assert again.train_loss == history.train_loss
    for changed in ({"dropout": 0.2}, {"sample_weight": W + 1}):
        with pytest.raises(ParameterError, match=next(iter(changed)).replace("_", " ")):
            trained(make(), **options | changed, checkpoints=Checkpoints(folder, resume=True))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (gpunn.ThreeLayerNetwork(6, 4, 3, 0.1, device="cpu"), "textbook's rule has no dropout"),
        (Network([6, 3], device="cpu"), "hidden units, and this network has none"),
        (Network([6, 4, 3], hidden_activation="softmax", device="cpu"), "not for softmax"),
    ],
)
def test_where_no_unit_can_sit_out_dropout_is_refused_before_anything_is_written(
    tmp_path, network, message
):
    folder = tmp_path / "checkpoints"
    with pytest.raises(ParameterError, match=message):
        fit(network, X, Y, **FIT, dropout=0.2, checkpoints=Checkpoints(folder))
    assert not folder.exists()
