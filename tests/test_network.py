"""The network apart from its training: how it is made, what goes in and what comes out."""

import fake_cuda
import numpy as np
import pytest

import gpunn.network
from gpunn import SGD, Adam, Momentum, Network, ThreeLayerNetwork
from gpunn.errors import DataError, DeviceError, ParameterError, ShapeError
from gpunn.initializers import INITIALIZERS
from gpunn.network.climb import PULL, SMOOTHNESS, Field, climb
from gpunn.network.layers import Dropout

pytestmark = pytest.mark.usefixtures("several_threads")

ACTIVATIONS = {
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "identity": lambda z: z,
    "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
}


def fails(kind, function, *arguments, **options):
    """Return the message of the error that must come, and must be one line."""
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def forward(network, X):
    """Return the outputs in float64, and how far a network may be from them by rounding."""
    eps = np.finfo(network.dtype).eps
    parameters, a, error = network.parameters(), np.asarray(X, np.float64), 0.0
    names = [network.architecture.hidden_activation] * (len(network.layers) - 1)
    for i, name in enumerate([*names, network.architecture.output_activation]):
        W = parameters[f"layers.{i}.weight"].astype(np.float64)
        b = parameters.get(f"layers.{i}.bias", np.zeros(1)).astype(np.float64)
        # A sum of K products and a bias is off by at most (K + 2) eps times its absolute terms.
        size = np.abs(a) @ np.abs(W).T + np.abs(b)
        error = error @ np.abs(W).T if i else 0.0
        error = error + (W.shape[1] + 2) * eps * size
        # No activation is steeper than 1; exp, tanh and a division add a few roundings.
        a = ACTIVATIONS[name](a @ W.T + b)
        error = error + 8 * eps * (1 + np.abs(a))
    return a, error


@pytest.fixture
def network(backend, dtype):
    return Network([5, 4, 3], dtype=dtype, device=backend, seed=1, initializer="standard_normal")


@pytest.fixture
def X():
    return np.random.default_rng(2).normal(size=(9, 5))


# Making a network.


@pytest.mark.parametrize("sizes", [[], [5], [0, 1], [3, -1], [3, 2.0], "784", 784, None, [3, None]])
def test_layer_sizes_must_be_whole_numbers_above_zero(sizes):
    assert "layer_sizes" in fails(ParameterError, Network, sizes, device="cpu")


def test_a_layer_that_no_memory_holds_is_refused():
    assert "use fewer units" in fails(ParameterError, Network, (64, 10**22, 10), device="cpu")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("biases", 1, "True or False"),
        ("biases", "yes", "True or False"),
        ("hidden_activation", "sigmod", "sigmoid, tanh, relu"),
        ("hidden_activation", ["tanh"], "unknown activation"),
        ("output_activation", None, "unknown activation"),
        ("loss", "mse", "squared_error, sum_of_squares"),
        ("loss", {}, "unknown loss"),
        ("loss", "cross_entropy", "output_activation='softmax'"),
        ("hidden_errors", "rashid", "gradient, textbook"),
        ("hidden_errors", None, "gradient, textbook"),
        ("initializer", "xavier", "normal, uniform"),
        ("initializer", ["normal"], "unknown initializer"),
        ("dtype", "float16", "'float32' or 'float64'"),
        ("dtype", None, "'float32' or 'float64'"),
        ("dtype", "words", "'float32' or 'float64'"),
        ("device", "gpu", "'auto', 'cpu', 'cuda' or 'cuda:N'"),
        ("device", 0, "'auto', 'cpu', 'cuda' or 'cuda:N'"),
        ("seed", -1, "seed"),
        ("seed", "lucky", "seed"),
    ],
)
def test_an_option_that_is_not_allowed_is_named(option, value, said):
    options = {"device": "cpu", option: value}
    assert said in fails(ParameterError, Network, [3, 2, 2], **options)


def test_the_textbooks_rule_is_for_the_squared_error_and_knows_no_dropout():
    options = {"hidden_errors": "textbook", "device": "cpu"}
    message = fails(ParameterError, Network, [3, 2, 2], loss="absolute_error", **options)
    assert "'squared_error', got 'absolute_error'" in message
    network = Network([3, 2, 2], **options)
    samples = network.as_samples(np.ones((1, 3)), np.ones((1, 2)))
    arguments = (*samples, lambda *_: None, np.zeros(1))
    assert "no dropout" in fails(
        ParameterError, network.step, *arguments, dropout=Dropout(0.5, [1])
    )


def test_binary_cross_entropy_needs_sigmoid_outputs():
    options = {"output_activation": "softmax", "loss": "binary_cross_entropy"}
    assert "'sigmoid'" in fails(ParameterError, Network, [3, 2], device="cpu", **options)


@pytest.mark.parametrize("rate", [0, -0.1, float("nan"), float("inf"), 10**400, "0.1", None])
def test_the_classic_network_needs_a_learning_rate_above_zero(rate):
    assert "learning_rate" in fails(ParameterError, ThreeLayerNetwork, 3, 2, 1, rate, device="cpu")


def test_numpy_numbers_do_as_arguments():
    network = ThreeLayerNetwork(np.int64(3), np.uint8(2), 1, np.float32(0.5), device="cpu")
    assert network.architecture.layer_sizes == (3, 2, 1)
    assert network.learning_rate == 0.5


def test_a_network_says_what_it_is(backend):
    network = Network([784, 16, 16, 10], hidden_activation="relu", device=backend)
    assert network.n_parameters == 13_002
    assert (network.n_inputs, network.n_outputs, network.dtype) == (784, 10, np.float32)
    assert repr(network) == (f"<Network 784-16-16-10, relu and sigmoid, float32 on {backend.name}>")
    assert ThreeLayerNetwork(784, 200, 10, 0.1, device=backend).n_parameters == 158_800


# First weights.

SPREADS = {
    "normal": 300**-0.5,
    "uniform": (300 * 3) ** -0.5,
    "uniform_half": 12**-0.5,
    "standard_normal": 1.0,
    "glorot_uniform": (2 / 700) ** 0.5,
    "he_normal": (2 / 300) ** 0.5,
}
BOUNDS = {"uniform": 300**-0.5, "uniform_half": 0.5, "glorot_uniform": (6 / 700) ** 0.5}


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers_have_the_spread_that_is_said(name):
    network = Network([300, 400], initializer=name, dtype="float64", device="cpu", seed=4)
    weights, biases = network.parameters().values()
    n = weights.size
    # A mean of n draws spreads by s / sqrt(n), a standard deviation by at most s / sqrt(2 n).
    assert abs(weights.mean()) < 5 * SPREADS[name] / n**0.5
    assert abs(weights.std() / SPREADS[name] - 1) < 5 / (2 * n) ** 0.5
    if name in BOUNDS:
        largest = np.abs(weights).max()
        assert BOUNDS[name] * (1 - 100 / n) < largest <= BOUNDS[name]
    if name == "standard_normal":
        assert abs(biases.std() - 1) < 5 / (2 * 400) ** 0.5
    else:
        assert not biases.any()


@pytest.mark.parametrize("name", INITIALIZERS)
def test_first_weights_are_the_same_bits_on_every_device(backend, dtype, name):
    options = {"initializer": name, "dtype": dtype, "seed": [7, 3]}
    here = Network([30, 20, 4], device=backend, **options).parameters()
    there = Network([30, 20, 4], device="cpu", **options).parameters()
    for key, value in there.items():
        assert here[key].dtype == dtype
        np.testing.assert_array_equal(here[key], value)


def test_float32_weights_are_the_float64_draws_rounded_once():
    single, double = (Network([9, 8, 7], dtype=d, device="cpu") for d in ("float32", "float64"))
    for name, value in double.parameters().items():
        np.testing.assert_array_equal(single.parameters()[name], value.astype(np.float32))


def test_the_textbooks_initial_weights_come_layer_by_layer_from_the_seed():
    generator = np.random.default_rng(11)
    network = ThreeLayerNetwork(6, 5, 2, 0.1, dtype="float64", device="cpu", seed=11)
    for n_out, n_in, name in ((5, 6, "layers.0.weight"), (2, 5, "layers.1.weight")):
        expected = generator.normal(0, n_in**-0.5, (n_out, n_in))
        np.testing.assert_array_equal(network.parameters()[name], expected)


def test_other_seeds_give_other_weights_and_global_state_is_left_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (Network([4, 3], device="cpu", seed=s).parameters() for s in (0, 1))
    assert not np.array_equal(first["layers.0.weight"], second["layers.0.weight"])
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


# Parameters in and out.


def test_parameters_go_round_and_are_copies(network, backend, X):
    parameters = network.parameters()
    assert {name: value.shape for name, value in parameters.items()} == {
        "layers.0.weight": (4, 5),
        "layers.0.bias": (4,),
        "layers.1.weight": (3, 4),
        "layers.1.bias": (3,),
    }
    twin = Network([5, 4, 3], dtype=network.dtype, device=backend, seed=99)
    twin.load_parameters({name: value.tolist() for name, value in parameters.items()})
    np.testing.assert_array_equal(twin.predict(X), network.predict(X))
    before = twin.predict(X)
    for value in parameters.values():
        value[...] = 0
    np.testing.assert_array_equal(network.predict(X), before)


@pytest.mark.parametrize(
    "change",
    [
        {"layers.0.bias": None},
        {"layers.2.weight": np.zeros((1, 1))},
        {"layers.1.bias": np.zeros((3, 1))},
        {"layers.1.weight": np.zeros((4, 3))},
        {"layers.1.bias": ["a", "b", "c"]},
        {"layers.1.weight": [[1, 2], [3]]},
    ],
)
def test_parameters_that_do_not_fit_change_nothing(network, change):
    before = network.parameters()
    given = {name: np.full_like(value, 7) for name, value in before.items()} | change
    fails(ShapeError, network.load_parameters, {k: v for k, v in given.items() if v is not None})
    for name, value in network.parameters().items():
        np.testing.assert_array_equal(value, before[name])


# The way forward.


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("output", ACTIVATIONS)
def test_outputs_are_those_of_the_formulas(backend, dtype, output, biases, X):
    network = Network(
        [5, 7, 6, 3],
        hidden_activation="tanh",
        output_activation=output,
        biases=biases,
        initializer="standard_normal",
        dtype=dtype,
        device=backend,
    )
    expected, error = forward(network, X.astype(dtype))
    predicted = network.predict(X)
    assert predicted.dtype == dtype
    assert (np.abs(predicted - expected) <= error).all()


def test_one_sample_is_a_row_in_and_a_row_out(network, X):
    alone = network.predict(X[3])
    assert alone.shape == (3,)
    expected, error = forward(network, X[3:4].astype(network.dtype))
    assert (np.abs(alone - expected[0]) <= error[0]).all()


def test_no_samples_give_no_outputs(network):
    outputs = network.predict(np.zeros((0, 5)))
    assert outputs.shape == (0, 3)
    assert outputs.dtype == network.dtype


@pytest.mark.parametrize(
    "shaped",
    [
        lambda X: X.tolist(),
        lambda X: X.astype(np.float64),
        lambda X: X.astype(np.int64),
        lambda X: np.asfortranarray(X),
        lambda X: np.repeat(X, 2, axis=1)[:, ::2],
        lambda X: X[::-1][::-1],
        lambda X: X.astype(">f8"),
    ],
    ids=["list", "float64", "int", "fortran", "strided", "reversed", "big-endian"],
)
def test_any_array_of_numbers_will_do_and_is_left_as_it_is(network, shaped):
    whole = np.arange(-10, 10).reshape(4, 5).astype(np.float32)
    given = shaped(whole)
    np.testing.assert_array_equal(network.predict(given), network.predict(whole))
    np.testing.assert_array_equal(np.asarray(given), whole)


def test_inputs_may_be_on_the_device_already(network, backend, X):
    on_device = backend.asarray(X, network.dtype)
    np.testing.assert_array_equal(network.predict(on_device), network.predict(X))
    np.testing.assert_array_equal(network.predict(on_device[2]), network.predict(X[2]))


def test_predictions_in_pieces_equal_those_at_once(network, monkeypatch):
    X = np.random.default_rng(0).normal(size=(50, 5)).astype(network.dtype)
    at_once, error = network.predict(X), forward(network, X)[1]
    monkeypatch.setattr(gpunn.network.forward, "_WORK_NUMBERS", 12 * 7)
    assert network.rows_at_once == 7
    # Another number of rows may sum in another order.
    assert (np.abs(network.predict(X) - at_once) <= 2 * error).all()


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 5, 1), (), (5, 1)])
def test_inputs_of_another_shape_are_refused(network, shape):
    assert f"(n, 5) for this network, got {shape}" in fails(
        ShapeError, network.predict, np.zeros(shape)
    )


@pytest.mark.parametrize("wrap", [np.asarray, lambda values: values], ids=["array", "list"])
@pytest.mark.parametrize("value", ["1", None, 1j])
def test_inputs_that_are_no_numbers_are_refused(network, value, wrap):
    assert "must be numbers" in fails(DataError, network.predict, wrap([[value] * 5]))


def test_ragged_inputs_are_refused(network):
    assert "rectangular" in fails(ShapeError, network.predict, [[1, 2, 3, 4, 5], [1]])


def test_inputs_on_another_device_are_refused(X):
    class OnSomeGPU:
        __cuda_array_interface__ = {}  # noqa: RUF012

    network = Network([5, 3], device="cpu")
    assert "the network is on cpu" in fails(DeviceError, network.predict, OnSomeGPU())


def test_samples_and_targets_must_be_as_many(network):
    message = fails(ShapeError, network.loss_and_gradients, np.zeros((3, 5)), np.zeros((2, 3)))
    assert "3 inputs and 2 targets" in message
    fails(ShapeError, network.loss_and_gradients, np.zeros((0, 5)), np.zeros((0, 3)))


# Running it backwards.


def plain_backquery(network, targets):
    inverse = {"sigmoid": lambda a: np.log(a / (1 - a)), "tanh": np.arctanh}
    signals = np.asarray(targets, np.float64)
    parameters = network.parameters()
    for i in reversed(range(len(network.layers))):
        last = i == len(network.layers) - 1
        kind = network.architecture.output_activation if last else "sigmoid"
        z = inverse[kind](signals) - parameters.get(f"layers.{i}.bias", 0.0)
        below = np.zeros(network.architecture.layer_sizes[i])
        for k, row in enumerate(parameters[f"layers.{i}.weight"]):
            below += z[k] * row
        below = below - below.min()
        signals = below / below.max() * 0.98 + 0.01
    return signals


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("output", ["sigmoid", "tanh"])
def test_backquery_is_the_loop_of_the_textbook(backend, biases, output):
    network = Network(
        [7, 6, 5, 3],
        output_activation=output,
        biases=biases,
        initializer="standard_normal",
        dtype="float64",
        device=backend,
    )
    targets = np.array([[0.99, 0.01, 0.01], [0.01, 0.01, 0.99]])
    backwards = network.backquery(targets)
    for row, target in zip(backwards, targets, strict=True):
        np.testing.assert_allclose(row, plain_backquery(network, target), rtol=0, atol=1e-12)
    assert backwards.min() == 0.01
    np.testing.assert_allclose(backwards.max(axis=1), 0.99, rtol=1e-15)
    np.testing.assert_allclose(network.backquery(targets[0]), backwards[0], rtol=0, atol=1e-13)


def test_backquery_of_equal_signals_is_grey(backend):
    network = ThreeLayerNetwork(4, 3, 2, 0.1, device=backend)
    equal = {name: np.ones_like(value) for name, value in network.parameters().items()}
    network.load_parameters(equal)
    np.testing.assert_array_equal(network.backquery([0.99, 0.01]), [0.5] * 4)


@pytest.mark.parametrize("targets", [[0.0, 1.0], [0.5, 1.5], [np.nan, 0.5]])
def test_backquery_refuses_targets_that_no_input_gives(backend, targets):
    network = ThreeLayerNetwork(4, 3, 2, 0.1, device=backend)
    assert "0.01 and 0.99" in fails(DataError, network.backquery, targets)
    fails(ShapeError, network.backquery, [0.5] * 3)
    fails(ShapeError, network.backquery, [[[0.5, 0.5]]])
    fails(DataError, network.backquery, ["a", "b"])


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "softmax"])
@pytest.mark.parametrize("sizes", [[5, 3], [5, 4, 3], [5, 4, 4, 3]])
def test_input_gradients_are_the_differences_of_the_loss(backend, activation, sizes, X):
    network = Network(
        sizes,
        hidden_activation=activation,
        initializer="standard_normal",
        dtype="float64",
        device=backend,
    )
    T, h = np.random.default_rng(3).random((9, 3)), 1e-6
    loss, gradients = network.loss_and_input_gradients(X, T)
    assert loss == network.loss_and_gradients(X, T)[0]
    for i in range(5):
        step = h * np.eye(5)[i]
        for row in range(9):
            up, down = (
                network.loss_and_gradients(X[row : row + 1] + d, T[row : row + 1])[0]
                for d in (step, -step)
            )
            # Central differences are off by h^2 and by the rounding of E, divided by h.
            assert gradients[row, i] == pytest.approx((up - down) / (2 * h), rel=0, abs=2e-9)


@pytest.mark.parametrize("hidden", ["relu", "tanh", "sigmoid"])
def test_a_climb_finds_inputs_that_are_answered_as_wanted(backend, hidden):
    network = Network(
        [16, 30, 4],
        hidden_activation=hidden,
        output_activation="softmax",
        loss="cross_entropy",
        device=backend,
        seed=3,
        initializer="standard_normal",
    )
    low, high = np.linspace(-0.5, 0, 16), np.full(16, 2.0)
    options = {"method": "gradient", "input_range": (low, high), "image_shape": (4, 4)}
    found = network.backquery(np.eye(4), **options)
    assert (found >= low.astype("float32")).all()
    assert (found <= high).all()
    # All began at one place, where no two classes can have more than half.
    assert network.predict(found).diagonal().min() > 0.5
    np.testing.assert_array_equal(network.backquery(np.eye(4)[1], **options), found[1])


def test_a_climb_minimises_the_loss_with_its_penalties():
    shape, target = (3, 4), np.zeros((1, 1))
    wanted = np.random.default_rng(4).random(12)

    def cost(x):
        picture = x.reshape(shape)
        rough = sum(np.square(np.diff(picture, axis=axis)).sum() for axis in (0, 1))
        pull = PULL / 2 * np.square(x - 0.1).sum()
        return 0.01 * np.square(x - wanted).sum() + pull + SMOOTHNESS / 2 * rough

    def loss(x, t):
        return 0.01 * np.square(x - wanted).sum(), 0.02 * (x - wanted)

    field = Field(np.full(12, 0.1), np.full(12, 0.8), shape)
    (found,) = climb(loss, target, field)
    assert 0.1 <= found.min() < found.max() <= 0.8
    # No other place is lower by more than the part at which a climb ends.
    for seed in range(300):
        other = np.clip(found + np.random.default_rng(seed).normal(0, 0.02, 12), 0.1, 0.8)
        assert cost(other) > cost(found) * (1 - 1e-3)
    assert cost(found) < 0.8 * min(cost(field.low), cost(np.clip(wanted, 0.1, 0.8)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "magic"}, "'inverse' or 'gradient', got 'magic'"),
        ({"method": "gradient", "input_range": (1, 0)}, "input_range must be"),
        ({"method": "gradient", "input_range": (0, np.inf)}, "input_range must be"),
        ({"method": "gradient", "input_range": 3}, "input_range must be"),
        ({"method": "gradient", "image_shape": (2, 3)}, "rows and columns of 5 pixels"),
        ({"method": "gradient", "image_shape": "ab"}, "rows and columns of 5 pixels"),
    ],
)
def test_backquery_refuses_other_options(options, words):
    network = Network([5, 4, 3], device="cpu")
    assert words in fails(ParameterError, network.backquery, [0.5] * 3, **options)


# A step of training, and the memory it works in.


@pytest.mark.parametrize("optimizer", [SGD(), Momentum(nesterov=True), Adam()], ids=repr)
def test_a_step_crosses_nothing_between_host_and_device(backend, optimizer, X):
    network = Network([5, 4, 4, 3], device=backend)
    inputs, targets = network.as_samples(X, np.full((9, 3), 0.5))
    row_losses = backend.zeros((9,), np.float64)
    optimizer.prepare(network)
    before = network.parameters()
    with fake_cuda.no_crossings():
        for _ in range(3):
            optimizer.begin_step(0.1)
            network.step(inputs, targets, optimizer.update, row_losses)
    assert all((value != before[name]).any() for name, value in network.parameters().items())


def test_the_classic_step_crosses_nothing_either(backend, X):
    network = ThreeLayerNetwork(5, 4, 3, 0.1, device=backend)
    inputs, targets = network.as_samples(X, np.full((9, 3), 0.5))
    row_losses, optimizer = backend.zeros((9,), np.float64), SGD()
    optimizer.prepare(network)
    optimizer.begin_step(0.1)
    with fake_cuda.no_crossings():
        network.step(inputs, targets, optimizer.update, row_losses)


def test_work_arrays_are_made_once_and_shared_by_smaller_batches(backend):
    network = Network([5, 4, 3], device=backend)
    whole = network._activations(8)
    assert network._activations(8) is whole
    part = network._activations(3)
    assert network._activations(3) is part
    for n_rows in range(1, 20):
        network._activations(n_rows % 8 or 8)
    assert network._activations(8) is whole
    part[0][...] = backend.asarray(np.full((3, 4), 5.0, np.float32))
    np.testing.assert_array_equal(backend.to_host(whole[0])[:3], np.full((3, 4), 5))
    assert len(network._activations._of) <= 9


def test_inputs_on_the_device_are_converted_there(gpu):
    network = Network([3, 4, 2], device=gpu)
    X = np.arange(12.0).reshape(4, 3)
    expected = network.predict(X)
    np.testing.assert_array_equal(network.predict(gpu.asarray(X)), expected)
    every_second = gpu.asarray(np.repeat(X, 2, axis=0))[::2]
    np.testing.assert_array_equal(network.predict(every_second), expected)
