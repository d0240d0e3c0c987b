"""Whether parity tells a device that computes something else from one that only rounds otherwise.

The device with a fault is gpunn's own CuPy backend over the double, with one thing wrong in it.
"""

import dataclasses
import json
import signal

import numpy as np
import pytest

import gpunn
from gpunn import Network, cli
from gpunn.activations import ACTIVATIONS
from gpunn.backends.numpy_backend import NumpyBackend
from gpunn.errors import DeviceError, ParameterError
from gpunn.losses import LOSSES
from gpunn.optimizers import OPTIMIZERS
from gpunn.parity import Case, choose_devices, compare, compare_network, standard_cases
from gpunn.parity.checks import Growth, Reading, checks_of_epochs, checks_of_steps, growth_of
from gpunn.parity.comparison import DRAWS, MOST_DRAWS
from gpunn.parity.random_rounding import RandomRoundingBackend
from gpunn.testing import assert_parity

# Square, so that a swapped transpose fits.
CASE = Case((64, 64, 10), epochs=1)
KINDS = {
    "batches": CASE,
    "online": dataclasses.replace(CASE, batch_size=1),
    "momentum": dataclasses.replace(CASE, optimizer="momentum"),
    "adam": dataclasses.replace(CASE, optimizer="adam", learning_rate=0.001),
}


@pytest.fixture(scope="module")
def digits():
    data = gpunn.load_dataset("digits")
    return data.inputs[:100] / 16, data.labels[:100]


# Faults: the backend with one thing wrong in it, wherever a training may meet it.


def wrong_derivative(base):
    def wrong(activation):
        return dataclasses.replace(activation, cuda_derivative="a * (T(1) - a) * T(1.01)")

    class Backend(base):
        def activation_backward(self, delta, a, activation):
            super().activation_backward(delta, a, wrong(activation))

        def make_sequencer(self, n_rows, model):
            hidden = model.hidden._replace(activation=wrong(model.hidden.activation))
            return super().make_sequencer(n_rows, model._replace(hidden=hidden))

        def make_batch_learner(self, batch_size, model):
            hidden = model.hidden._replace(activation=wrong(model.hidden.activation))
            return super().make_batch_learner(batch_size, model._replace(hidden=hidden))

    return Backend


def dropped_bias(base):
    class Backend(base):
        def activate(self, z, bias, activation):
            super().activate(z, None, activation)

        def make_sequencer(self, n_rows, model):
            hidden = model.hidden._replace(biases=None)
            return super().make_sequencer(n_rows, model._replace(hidden=hidden))

        def make_batch_learner(self, batch_size, model):
            hidden = model.hidden._replace(biases=None)
            return super().make_batch_learner(batch_size, model._replace(hidden=hidden))

    return Backend


def swapped_transpose(base):
    class Backend(base):
        def _gemm(self, a, b, out, transpose_a, transpose_b, alpha, beta):
            if b.shape == (64, 64):
                transpose_b = not transpose_b
            super()._gemm(a, b, out, transpose_a, transpose_b, alpha, beta)

    return Backend


def weight_off_at_the_start(base):
    class Backend(base):
        def asarray(self, host, dtype=None):
            if host.shape == (64, 64):
                host = host.copy()
                host[3, 5] += 1e-3
            return super().asarray(host, dtype)

    return Backend


def weight_off_after_an_update(base):
    class Backend(base):
        def _gemm(self, a, b, out, transpose_a, transpose_b, alpha, beta):
            super()._gemm(a, b, out, transpose_a, transpose_b, alpha, beta)
            if transpose_a and out.shape == (64, 64):
                out._values[3, 5] += 1e-3

    return Backend


def wrong_learning_rate(base):
    class Learner:
        def __init__(self, right):
            self.right = right

        def learn(self, *arrays, scale, **options):
            self.right.learn(*arrays, scale=scale * 1.001, **options)

    class Backend(base):
        def _gemm(self, a, b, out, transpose_a, transpose_b, alpha, beta):
            alpha = alpha * 1.001 if alpha < 0 else alpha
            super()._gemm(a, b, out, transpose_a, transpose_b, alpha, beta)

        def adam_update(self, *arrays_and_step):
            *arrays, step = arrays_and_step
            if isinstance(step.size, float):  # that of a recorded step is on the device
                step = step._replace(size=step.size * 1.001)
            super().adam_update(*arrays, step)

        def make_batch_learner(self, *arguments, **options):
            right = super().make_batch_learner(*arguments, **options)
            return right and Learner(right)

        def make_recorder(self, shape):
            recorder = super().make_recorder(shape)
            begin = recorder.begin_epoch

            def begin_wrongly(source, first_step):
                # What scales the deltas, or of Adam the step itself.
                numbers = source.numbers.copy()
                numbers[:, int(shape.n_numbers > 4)] *= 1.001
                begin(source._replace(numbers=numbers), first_step)

            recorder.begin_epoch = begin_wrongly
            return recorder

    return Backend


def dropped_sample(base):
    class Backend(base):
        def _gemm(self, a, b, out, transpose_a, transpose_b, alpha, beta):
            if transpose_a and a.shape[0] > 1:
                a, b = a[:-1], b[:-1]
            super()._gemm(a, b, out, transpose_a, transpose_b, alpha, beta)

    return Backend


def product_in_tf32(base):
    class Backend(base):
        def _gemm(self, *arguments):
            self.precision = "tf32"
            super()._gemm(*arguments)
            self.precision = "fp32"

    return Backend


FAULTS = (
    wrong_derivative,
    dropped_bias,
    swapped_transpose,
    weight_off_at_the_start,
    weight_off_after_an_update,
    wrong_learning_rate,
    dropped_sample,
    product_in_tf32,
)
FAULTY_TRAININGS = [(fault, kind) for fault in FAULTS for kind in ("batches", "online")]
FAULTY_TRAININGS += [(wrong_learning_rate, "momentum"), (wrong_learning_rate, "adam")]


@pytest.fixture(scope="module")
def table():
    """Collect what caught each fault, and print it in the end; -s shows it."""
    lines = [f"{'fault':<28}{'training':<10}{'caught by':<32}{'difference':>11}{'tolerance':>11}"]
    yield lines
    print("", *lines, sep="\n")


@pytest.mark.parametrize(("fault", "kind"), FAULTY_TRAININGS)
def test_a_fault_is_caught(fault, kind, double, digits, table):
    comparison = compare(KINDS[kind], *digits, device=fault(type(double))(0))
    caught = [check for check in comparison.checks if not check.ok]
    assert caught
    assert not comparison.ok
    first = caught[0]
    when = first.stage if first.stage == "start" else f"{first.stage} {first.number}"
    table.append(
        f"{fault.__name__.replace('_', ' '):<28}{kind:<10}{f'{first.name}, {when}':<32}"
        f"{first.difference:>11.1e}{first.tolerance:>11.1e}"
    )
    # Not by a hair: what only just fails here would pass on other data.
    assert max(check.share for check in caught) > 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_device_without_a_fault_agrees(kind, dtype, double, digits):
    case = dataclasses.replace(KINDS[kind], dtype=dtype)
    comparison = compare(case, *digits, device=double)
    assert comparison.ok, [check for check in comparison.checks if not check.ok]
    assert comparison.device == f"cuda:0 {dtype}"
    # It was another device: not everything is equal to the bit.
    assert 0 < comparison.share("step") <= 1


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_reduced_precision_agrees_where_it_is_asked_for(precision, double, digits):
    device = type(double)(0, precision)
    comparison = compare(CASE, *digits, device=device)
    assert comparison.ok, [check for check in comparison.checks if not check.ok]
    # And it does round: what it makes of a float32 device's tolerance is a fault.
    strict = compare(CASE, *digits, device=double)
    loose, tight = (max(c.tolerance for c in x.checks[1:5]) for x in (comparison, strict))
    assert loose > 10 * tight


# Trainings with random rounding: more of them where the first few do not explain a difference.


@pytest.fixture
def draws(monkeypatch):
    """The seeds of the trainings with random rounding that there have been."""
    seeds = []

    class Counted(RandomRoundingBackend):
        def __init__(self, arithmetic, seed):
            seeds.append(seed)
            super().__init__(arithmetic, seed)

    monkeypatch.setattr("gpunn.parity.comparison.RandomRoundingBackend", Counted)
    return seeds


# After four steps one output that ReLU cuts off is 5e-4 above 0 in bf16, and 9e-5 below in float32.
KINK = Case(
    (64, 32, 10), "tanh", output_activation="relu", loss="sum_of_squares", learning_rate=0.01
)


@pytest.fixture(scope="module")
def samples_at_a_kink():
    data = gpunn.load_dataset("digits")
    some = np.random.default_rng(0).permutation(len(data.labels))[:200]
    return data.inputs[some] / 16, data.labels[some]


def test_a_kink_that_the_first_draws_did_not_cross_is_no_fault(double, samples_at_a_kink, draws):
    result = compare(KINK, *samples_at_a_kink, device=type(double)(0, "bf16"))
    assert result.ok, [check for check in result.checks if not check.ok]
    assert result.share("epoch") < 0.9
    assert DRAWS < len(draws) < MOST_DRAWS
    assert draws == list(range(len(draws)))


def wrong_after_four_steps(base, factor=0.5):
    """What no check of the first steps can see: from the fifth on, another rate."""

    class Backend(base):
        def make_recorder(self, shape):
            recorder = super().make_recorder(shape)
            begin = recorder.begin_epoch

            def begin_wrongly(source, first_step):
                numbers = source.numbers.copy()
                numbers[4:, int(shape.n_numbers > 4)] *= factor
                begin(source._replace(numbers=numbers), first_step)

            recorder.begin_epoch = begin_wrongly
            return recorder

    return Backend


def test_no_number_of_draws_explains_a_fault(double, samples_at_a_kink, draws):
    device = wrong_after_four_steps(type(double))(0, "bf16")
    result = compare(KINK, *samples_at_a_kink, device=device)
    assert len(draws) == MOST_DRAWS
    assert max(result.share("start"), result.share("step")) < 1
    assert result.share("epoch") > 3


def test_a_device_that_diverges_is_wrong(double, samples_at_a_kink):
    device = wrong_after_four_steps(type(double), np.nan)(0, "bf16")
    result = compare(KINK, *samples_at_a_kink, device=device)
    assert not result.ok
    assert {(check.name, check.number) for check in result.checks if not check.ok} >= {
        ("loss", 1),
        ("weights", 1),
    }


class Interrupted(NumpyBackend):
    """The CPU, where Ctrl-C comes in some step."""

    def __init__(self, step):
        super().__init__()
        self.steps_to_go = step

    def loss_backward(self, *arguments):
        self.steps_to_go -= 1
        if self.steps_to_go == 0:
            signal.raise_signal(signal.SIGINT)
        super().loss_backward(*arguments)


# In one of the first steps, and after an epoch.
@pytest.mark.parametrize("step", [4, 16])
def test_ctrl_c_ends_a_comparison(step, double, digits):
    backend = Interrupted(step)
    with pytest.raises(KeyboardInterrupt):
        compare(dataclasses.replace(CASE, epochs=3), *digits, device=double, against=backend)
    assert backend.steps_to_go == 0


def test_no_more_is_drawn_where_nothing_is_wrong_or_something_is_already(double, digits, draws):
    assert compare(CASE, *digits, device=double).ok
    assert draws == list(range(DRAWS))
    assert not compare(CASE, *digits, device=swapped_transpose(type(double))(0)).ok
    assert draws == [*range(DRAWS), *range(DRAWS)]


def test_a_gpu_agrees(device, digits):
    if device == "cpu":
        pytest.skip("the CPU is what it is compared with")
    for case in standard_cases(64, 10):
        comparison = compare(case, *digits, device=device)
        assert comparison.ok, (case.name, [c for c in comparison.checks if not c.ok])


def test_the_standard_cases_are_every_activation_and_every_error_both_ways():
    cases = standard_cases(64, 10)
    for batched in (True, False):
        some = [case for case in cases if (case.batch_size > 1) == batched]
        assert {case.hidden_activation for case in some} == set(ACTIVATIONS)
        assert {(case.loss, case.output_activation) for case in some} == {
            (loss.name, activation)
            for loss in LOSSES.values()
            for activation in ACTIVATIONS
            if loss.required_activation in (None, activation)
        }
    assert {case.optimizer for case in cases} == set(OPTIMIZERS)
    assert len({case.name for case in cases}) == len(cases)


def test_float32_is_compared_with_float64_from_the_same_weights(digits):
    comparison = compare(CASE, *digits, against="float64")
    first = comparison.checks[0]
    assert (first.name, first.difference, first.tolerance) == ("initial weights", 0.0, 0.0)
    assert comparison.ok
    assert [comparison.device, comparison.against] == ["cpu float32", "cpu float64"]
    stages = [(check.stage, check.number) for check in comparison.checks]
    assert list(dict.fromkeys(stages)) == [
        ("start", 0),
        *(("step", n) for n in (1, 2, 3, 4)),
        ("epoch", 1),
    ]
    names = {check.name for check in comparison.checks}
    assert names == {
        *("initial weights", "outputs", "loss", "gradients"),
        *("weights", "predictions", "accuracy"),
    }


def test_tolerances_are_sharp_enough_to_mean_something(digits):
    comparison = compare(CASE, *digits, against="float64")
    for check in comparison.checks:
        if check.name in ("outputs", "gradients", "weights", "loss"):
            # The smallest fault that they must tell from rounding is a part in a thousand.
            assert check.tolerance < 1e-3, check
    assert comparison.share("start") > 1e-3


def test_a_single_output_has_no_classes(digits):
    X, y = digits
    case = Case((64, 8, 1), output_activation="identity", loss="squared_error", epochs=1)
    comparison = compare(
        dataclasses.replace(case, learning_rate=0.01), X, y / 10, against="float64"
    )
    assert comparison.ok
    assert "accuracy" not in {check.name for check in comparison.checks}


# Checks.


def reading(name, values, stage="start"):
    return [Reading(name, stage, 1, {name: np.array(values, np.float64)})]


NO_TARGETS = np.zeros((3, 1))


def test_numbers_are_held_to_their_own_bounds():
    one, other = reading("weights", [1.0, 4.0]), reading("weights", [1.1, 4.1])
    (check,) = checks_of_steps(NO_TARGETS, one, other, reading("weights", [0.2, 0.05]))
    # The second is the worse one, off by 0.1 where 0.05 is allowed, of a largest number of 4.
    assert not check.ok
    np.testing.assert_allclose([check.difference, check.tolerance], [0.1 / 4, 0.05 / 4])
    assert checks_of_steps(NO_TARGETS, one, other, reading("weights", [0.2, 0.2]))[0].ok


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_wrong(wrong):
    one, other = reading("weights", [1.0, 4.0]), reading("weights", [1.0, wrong])
    (check,) = checks_of_steps(NO_TARGETS, one, other, reading("weights", [0.2, 0.2]))
    assert not check.ok
    assert not checks_of_epochs(NO_TARGETS, [Growth(0.5, 0.5)], one, other)[0].ok


def test_initial_weights_must_be_equal_to_the_bit():
    one = reading("initial weights", [1.0])
    other = reading("initial weights", [np.nextafter(1.0, 2.0)])
    assert not checks_of_steps(NO_TARGETS, one, other, reading("initial weights", [0.0]))[0].ok
    assert checks_of_steps(NO_TARGETS, one, one, reading("initial weights", [0.0]))[0].ok


def test_only_a_tie_may_be_classed_differently():
    T = np.eye(3)[:2]
    one = reading("outputs", [[0.6, 0.3, 0.1], [0.2, 0.45, 0.35]])
    other = reading("outputs", [[0.6, 0.3, 0.1], [0.2, 0.35, 0.45]])
    bounds = reading("outputs", np.full((2, 3), 0.2))
    _, predictions, accuracy = checks_of_steps(T, one, other, bounds)
    assert (predictions.difference, predictions.tolerance, predictions.ok) == (0.5, 1.0, True)
    assert (accuracy.difference, accuracy.ok) == (0.5, True)
    tight = reading("outputs", np.full((2, 3), 0.04))
    _, predictions, accuracy = checks_of_steps(T, one, other, tight)
    assert (predictions.tolerance, predictions.ok) == (0.0, False)
    assert not accuracy.ok


def test_epochs_are_held_to_the_growth_of_random_errors():
    one, exact = reading("weights", [3.0, 4.0], "epoch"), reading("weights", [3.0, 4.0], "epoch")
    grown = Growth()
    for off in ([0.01, 0.0], [0.04, -0.03], [0.0, 0.02]):
        draw = reading("weights", np.add([3.0, 4.0], off), "epoch")
        grown = grown.or_more(*growth_of(draw, exact))
    # The 2-norm and the largest of all, of the second.
    np.testing.assert_allclose(grown, [0.05, 0.04])
    other = reading("weights", [3.1, 4.0], "epoch")
    (check,) = checks_of_epochs(NO_TARGETS, [grown.times(4.0)], one, other)
    # 2-norms over the 2-norm of the weights, 5.
    np.testing.assert_allclose([check.difference, check.tolerance], [0.1 / 5, 4 * 0.05 / 5])
    assert check.ok


# Devices.


def test_without_a_second_device_it_says_so_and_offers_one_that_is_always_there(monkeypatch):
    monkeypatch.setattr("gpunn.backends.select._cupy_problem", lambda: "no driver")
    for device in (None, "cuda", "cuda:1"):
        with pytest.raises(DeviceError, match=r"no second device: .*no driver.*--against float64"):
            choose_devices(device)
    with pytest.raises(ParameterError, match="both devices are cpu"):
        choose_devices("cpu")
    tested, against = choose_devices(None, "float64")
    assert (tested.name, against) == ("cpu", "float64")


def test_by_default_the_best_gpu_is_compared_with_the_cpu(installed_double):
    tested, against = choose_devices()
    assert (tested.name, against.name) == ("cuda:0", "cpu")
    tested, against = choose_devices("cuda:1", "cuda:0", "tf32")
    assert (tested.name, tested.precision, against.name) == ("cuda:1", "tf32", "cuda:0")
    # The very same GPU, in another precision, is a second device.
    assert choose_devices("cuda:0", "cuda:0", "bf16")[0].precision == "bf16"
    with pytest.raises(ParameterError, match="both devices are cuda:0"):
        choose_devices("cuda", "cuda:0")


def test_float64_with_itself_is_nothing_to_compare(digits):
    case = dataclasses.replace(CASE, dtype="float64")
    with pytest.raises(ParameterError, match="nothing to compare"):
        compare(case, *digits, against="float64")


# A network as it is.


def test_a_trained_network_computes_the_same_elsewhere(backend, digits):
    X, y = digits
    network = Network([64, 12, 10], hidden_activation="tanh", device=backend)
    gpunn.fit(network, X, y, epochs=2, learning_rate=0.1)
    before = network.parameters()
    assert_parity(network, X, y)
    assert [check.name for check in compare_network(network, X, y)] == [
        *("outputs", "predictions", "accuracy", "loss", "gradients")
    ]
    if backend.name != "cpu":
        assert_parity(network, X, y, against="cpu")
    for name, array in network.parameters().items():
        np.testing.assert_array_equal(array, before[name])


def test_assert_parity_names_what_differs(double, digits):
    network = Network([64, 64, 10], device=swapped_transpose(type(double))(0))
    with pytest.raises(AssertionError, match=r"differs from float64\noutputs: relative diff.*tol"):
        assert_parity(network, *digits)


def test_an_activation_of_ones_own_has_bounds_too(digits, monkeypatch):
    def leaky(z, scratch):
        np.multiply(z, 0.01, out=scratch)
        np.maximum(z, scratch, out=z)

    def leaky_backward(delta, a, scratch):
        np.multiply(delta, 0.01, out=scratch)
        np.copyto(delta, scratch, where=a < 0)

    record = dataclasses.replace(
        ACTIVATIONS["relu"], name="leaky", forward=leaky, backward=leaky_backward
    )
    monkeypatch.setitem(ACTIVATIONS, "leaky", record)
    assert compare(
        dataclasses.replace(CASE, hidden_activation="leaky"), *digits, against="float64"
    ).ok


# The command.


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = cli.main(["parity", *arguments])
        return status, *capsys.readouterr()

    return run


def test_everything_agrees_with_float64_without_a_gpu(run, tmp_path):
    status, out, err = run("--against", "float64", "--json", "--out", "chart.png")
    assert status == 0
    result = json.loads(out.splitlines()[-1])
    assert result["ok"] is True
    assert result["precision"] == "fp32"
    assert set(result["devices"]) == {"tested", "reference"}
    assert {"gpunn", "python", "numpy", "scipy"} <= set(result["versions"])
    assert len(result["cases"]) == len(standard_cases(64, 10))
    for case in result["cases"]:
        assert case["ok"] is True
        assert set(case["checks"][0]) == {
            *("name", "stage", "number", "difference", "tolerance", "ok")
        }
    assert err.startswith("running on cpu")
    assert "cpu, float64" in err.splitlines()[0]
    assert (tmp_path / "chart.png").stat().st_size > 10_000


def test_a_gpu_that_agrees_is_status_0(run, installed_double):
    status, out, _ = run("--activation", "relu", "--mode", "batch")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith("running on cuda:0")
    # Float32 and float64.
    assert lines[-1] == "2 of 2 trainings agree within tolerance"


def test_a_gpu_that_differs_is_status_1(run, installed_double, monkeypatch):
    from gpunn.backends.cupy_backend import CupyBackend

    right = CupyBackend.sum_rows

    def wrong(self, a, out, *, alpha=1.0, beta=0.0):
        right(self, a, out, alpha=1.05 * alpha, beta=beta)

    monkeypatch.setattr(CupyBackend, "sum_rows", wrong)
    status, out, _ = run("--activation", "relu", "--mode", "batch", "--precision", "tf32")
    assert status == 1
    assert "0 of 1 trainings agree" in out
    assert "gradients        at the start  difference" in out
    status, out, _ = run("--activation", "relu", "--mode", "batch", "--json")
    assert (status, json.loads(out)["ok"]) == (1, False)


def test_no_second_device_is_status_2_and_one_line(run, monkeypatch):
    monkeypatch.setattr("gpunn.backends.select._cupy_problem", lambda: "no driver")
    status, out, err = run()
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "no second device" in err
    assert "gpunn parity --against float64" in err


def test_restrictions_that_leave_nothing_are_refused(run):
    status, _, err = run("--against", "float64", "--activation", "relu", "--loss", "absolute_error")
    assert status == 2
    assert "no training is left" in err


def test_other_data_can_be_used(run, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([3, 7], 40))
    inputs = rng.normal(size=(80, 4)) + (labels == 7)[:, None]
    np.savetxt(
        "table.csv", np.column_stack([labels, inputs]), fmt=["%d"] + ["%.6f"] * 4, delimiter=","
    )
    status, out, _ = run("table.csv", "--against", "float64", "--activation", "sigmoid")
    assert status == 0
    assert "4-32-2 sigmoid" in out


def test_the_cpu_is_not_compared_with_itself_in_tests():
    with pytest.raises(ParameterError, match="nothing to compare"):
        choose_devices(NumpyBackend(), NumpyBackend())
