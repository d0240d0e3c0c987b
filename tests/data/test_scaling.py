"""Scaling of inputs and encoding of labels, against what the formulas say by hand."""

import json
import tracemalloc

import numpy as np
import pytest

from gpunn.data.scaling import Scaling
from gpunn.errors import DataError, ModelFileError, ParameterError, ShapeError


@pytest.fixture
def table():
    values = np.random.default_rng(7).normal(50.0, 9.0, (300, 4))
    values[:, 2] = 0.1  # constant, and not a sum of powers of two
    return values


SCALINGS = [
    Scaling.identity(),
    Scaling.to_range(0, 255, 0.01, 1.0, target_low=0.01, target_high=0.99),
    Scaling([0.1, 1 / 3], 7.0),
    Scaling(-2.0, [1e-300, 1e300]),
    Scaling.standard([[1.0, 2.0], [3.0, 2.0]], target_low=-1),
]


def test_the_textbooks_scaling_of_pixels_by_hand():
    scaling = Scaling.to_range(0, 255, 0.01, 1.0, target_low=0.01, target_high=0.99)
    scaled = scaling.apply(np.array([[0, 51, 255]], np.uint8), "float64")
    np.testing.assert_allclose(scaled, [[0.01, 0.208, 1.0]], rtol=0, atol=4e-16)
    expected = [[0.01, 0.01, 0.99], [0.99, 0.01, 0.01]]
    np.testing.assert_array_equal(scaling.encode_labels([2, 0], 3, "float64"), expected)


@pytest.mark.parametrize("source", ["uint8", "int8", "int64", "uint64", "bool", "float16", ">f4"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_apply_takes_any_numbers_and_rounds_once(source, dtype):
    inputs = np.arange(12).reshape(3, 4).astype(source)
    kept = inputs.copy()
    scaled = Scaling([0.1, 0.2, 0.3, 0.4], 1 / 3).apply(inputs, dtype)
    expected = inputs.astype("float64") * [0.1, 0.2, 0.3, 0.4] + 1 / 3
    np.testing.assert_array_equal(scaled, expected.astype(dtype))
    assert scaled.dtype == dtype
    assert scaled.flags.c_contiguous
    np.testing.assert_array_equal(inputs, kept)


@pytest.mark.parametrize("scaling", [Scaling(), Scaling(2.0, 1.0)])
def test_apply_returns_a_new_array_even_of_strided_inputs(scaling):
    inputs = np.arange(24.0).reshape(4, 6)
    for view in (inputs, inputs.T, inputs[::-2, ::3], inputs[:0], inputs[:, :0]):
        scaled = scaling.apply(view, "float64")
        np.testing.assert_array_equal(scaled, view * scaling.scale + scaling.shift)
        assert scaled.flags.c_contiguous
        assert not np.shares_memory(scaled, inputs)


def test_apply_over_many_blocks_equals_the_formula_at_once():
    inputs = np.random.default_rng(0).integers(0, 256, (1000, 784), np.uint8)
    scaling = Scaling.standard(inputs)
    expected = inputs * scaling.scale + scaling.shift
    np.testing.assert_array_equal(scaling.apply(inputs, "float64"), expected)


@pytest.mark.parametrize("make", [lambda x: Scaling.to_range(0, 255), Scaling.standard])
def test_eight_bit_images_are_never_copied_to_float64_as_a_whole(make):
    inputs = np.random.default_rng(0).integers(0, 256, (8000, 784), np.uint8)
    tracemalloc.start()
    make(inputs).apply(inputs, "float32")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < inputs.size * 4 + 8 * 2**20


def test_large_offsets_keep_their_accuracy_in_float32():
    inputs = 1e6 + np.arange(5.0)[:, None]
    scaled = Scaling.standard(inputs).apply(inputs, "float32")
    np.testing.assert_allclose(scaled[:, 0], (np.arange(5) - 2) / np.sqrt(2), rtol=1e-6, atol=1e-7)


def test_per_feature_reaches_both_ends_and_maps_constants_to_the_low_end(table):
    scaled = Scaling.per_feature(table, -1.0, 2.0).apply(table, "float64")
    np.testing.assert_allclose(scaled.min(axis=0), -1.0, atol=1e-13)
    np.testing.assert_allclose(scaled.max(axis=0)[[0, 1, 3]], 2.0, atol=1e-13)
    np.testing.assert_array_equal(scaled[:, 2], -1.0)


def test_standard_gives_mean_0_and_variance_1_and_maps_constants_to_0(table):
    scaled = Scaling.standard(table).apply(table, "float64")
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(scaled.var(axis=0)[[0, 1, 3]], 1.0, atol=1e-12)
    np.testing.assert_array_equal(scaled[:, 2], 0.0)


@pytest.mark.parametrize("make", [Scaling.per_feature, Scaling.standard])
def test_a_spread_too_small_to_divide_by_counts_as_constant(make):
    inputs = [[0.0], [5e-324]]
    np.testing.assert_array_equal(make(inputs).apply(inputs, "float64"), 0.0)


def test_eight_bit_features_do_not_wrap_around():
    inputs = np.array([[0, 255], [255, 0]], np.uint8)
    np.testing.assert_array_equal(Scaling.per_feature(inputs).scale, 1 / 255)
    signed = np.array([[-128], [127]], np.int8)
    np.testing.assert_array_equal(
        Scaling.per_feature(signed).apply(signed, "float32"), [[0.0], [1.0]]
    )


@pytest.mark.parametrize("make", [Scaling.per_feature, Scaling.standard])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scalings_are_not_made_from_values_that_are_not_finite(make, bad, table):
    table[17, 1] = bad
    with pytest.raises(DataError, match="feature 1 "):
        make(table)


@pytest.mark.parametrize("make", [Scaling.per_feature, Scaling.standard])
@pytest.mark.parametrize("bad", [[1.0, 2.0], np.zeros((0, 3)), np.zeros((3, 0)), [["a", "b"]]])
def test_scalings_are_not_made_from_the_wrong_shape_or_type(make, bad):
    with pytest.raises(ShapeError):
        make(bad)


def test_apply_refuses_another_number_of_features_and_other_ranks():
    scaling = Scaling.per_feature([[0.0, 1.0], [1.0, 3.0]])
    assert scaling.n_features == 2
    with pytest.raises(ShapeError, match="3 features, but this scaling was made for 2"):
        scaling.apply(np.zeros((5, 3)), "float32")
    # One column would broadcast against two scales, and must not.
    with pytest.raises(ShapeError, match="1 features"):
        scaling.apply(np.zeros((5, 1)), "float32")
    for bad in (np.zeros(3), np.zeros((2, 2, 2)), np.array([["1"]]), np.zeros((1, 1), complex)):
        with pytest.raises(ShapeError):
            Scaling.identity().apply(bad, "float32")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", [[1, 0, 2], np.array([1, 0, 2], np.uint8), [1.0, 0.0, 2.0]])
def test_labels_become_rows_of_low_and_high(labels, dtype):
    targets = Scaling.identity(target_low=-1, target_high=1).encode_labels(labels, 3, dtype)
    np.testing.assert_array_equal(targets, [[-1, 1, -1], [1, -1, -1], [-1, -1, 1]])
    assert targets.dtype == dtype
    assert targets.flags.c_contiguous


def test_no_labels_and_boolean_labels():
    assert Scaling().encode_labels([], 3, "float32").shape == (0, 3)
    np.testing.assert_array_equal(Scaling().encode_labels([True, False], 2, "f4"), [[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3], "0 to 2, got 3 at position 2"),
        ([0, -1], "got -1 at position 1"),
        ([0.5], "got 0.5 at position 0"),
        ([0.0, np.nan], "got nan at position 1"),
        ([0.0, np.inf], "got inf at position 1"),
        (["cat"], "'cat'.* at position 0"),
        (np.array([2**64 - 1], np.uint64), "got 18446744073709551615"),
        ([None], "got None"),
    ],
)
def test_bad_labels_are_named_with_their_position(labels, message):
    with pytest.raises(DataError, match=message):
        Scaling().encode_labels(labels, 3, "float32")


def test_labels_of_two_dimensions_are_refused():
    with pytest.raises(ShapeError, match="n_samples"):
        Scaling().encode_labels([[0], [1]], 3, "float32")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Scaling(np.nan),
        lambda: Scaling(1.0, [0.0, np.inf]),
        lambda: Scaling(target_low=1.0, target_high=1.0),
        lambda: Scaling(target_high=np.inf),
        lambda: Scaling.to_range(3, 3),
        lambda: Scaling.to_range(4, 3),
        lambda: Scaling.to_range(0, np.inf),
        lambda: Scaling.to_range(0, 1, 0, np.nan),
        lambda: Scaling.per_feature([[0.0], [1.0]], high=np.inf),
    ],
)
def test_impossible_numbers_are_parameter_errors(make):
    with pytest.raises(ParameterError):
        make()


@pytest.mark.parametrize(
    "coefficients", [([1.0, 2.0], [1.0]), ([[1.0]], 0.0), ([], 0.0), (1.0, np.zeros((2, 2)))]
)
def test_coefficients_that_do_not_fit_are_shape_errors(coefficients):
    with pytest.raises(ShapeError):
        Scaling(*coefficients)


def test_a_scaling_cannot_be_changed():
    values = np.ones(3)
    scaling = Scaling(values)
    values[0] = 5.0
    assert scaling == Scaling(np.ones(3))
    with pytest.raises(ValueError, match="read-only"):
        scaling.scale[0] = 2.0
    with pytest.raises(AttributeError):
        scaling.shift = 1.0


def test_equality_and_hash():
    for i, first in enumerate(SCALINGS):
        for j, second in enumerate(SCALINGS):
            assert (first == second) == (i == j)
    assert Scaling(1) == Scaling(1.0)
    assert Scaling(2.0) != Scaling([2.0, 2.0])
    assert Scaling([1.0, 2.0]) != Scaling([1.0, 2.0, 3.0])
    assert Scaling() != "scaling"
    assert hash(Scaling([1.0, -0.0])) == hash(Scaling([1.0, 0.0]))


@pytest.mark.parametrize("scaling", SCALINGS, ids=Scaling.describe)
def test_a_dict_goes_through_json_and_back_to_the_bit(scaling):
    assert Scaling.from_dict(json.loads(json.dumps(scaling.to_dict()))) == scaling


GOOD = Scaling([1.0, 2.0], 0.5).to_dict()


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        "scale",
        {},
        {**GOOD, "extra": 1},
        {key: GOOD[key] for key in ("scale", "shift", "target_low")},
        *({**GOOD, "scale": bad} for bad in ("1", None, True, [], [True], ["1"], [[1.0]], {})),
        *({**GOOD, "scale": bad} for bad in ([1.0, None], [np.nan, 1.0], float("inf"), 10**400)),
        {**GOOD, "scale": [10**400, 1]},
        {**GOOD, "shift": [1.0, 2.0, 3.0]},
        {**GOOD, "target_low": [0.0]},
        {**GOOD, "target_low": float("nan")},
        {**GOOD, "target_low": 2.0},
        {**GOOD, "target_high": False},
        {**GOOD, 5: 1},
    ],
)
def test_hostile_dicts_are_model_file_errors(bad):
    with pytest.raises(ModelFileError) as caught:
        Scaling.from_dict(bad)
    assert "\n" not in str(caught.value)


def test_descriptions_are_one_line_for_a_person():
    assert Scaling.identity().describe() == "inputs as they are; targets 0 and 1"
    mnist = Scaling.to_range(0, 255, 0.01, 1.0, target_low=0.01, target_high=0.99)
    assert mnist.describe() == "inputs * 0.00388235 + 0.01; targets 0.01 and 0.99"
    described = Scaling.per_feature(np.eye(4)).describe()
    assert described == "4 features, each with its own scale and shift; targets 0 and 1"
