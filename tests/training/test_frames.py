"""Data frames, series, tensors and lists: the same numbers as arrays, and names that are compared.

The other libraries are the real ones; a test of one that is not installed is skipped.
"""

import datetime
import decimal

import numpy as np
import pytest

from gpunn import Checkpoints, Network, Stream, ThreeLayerNetwork, evaluate, fit
from gpunn.errors import DataError, DeviceError, ModelFileError, OutputError, ParameterError

NAMES = ["age", "height", "weight", "shoe"]
OPTIONS = {"epochs": 2, "batch_size": 4}
RNG = np.random.default_rng(8)
X = RNG.normal(size=(23, 4))
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def make(device="cpu", **options):
    return Network([4, 6, 3], device=device, **{"dtype": "float64"} | options)


def fails(kind, function, *arguments, **options):
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def library(name):
    return pytest.importorskip(name, reason=f"{name} is not installed")


def pandas_frame(array=X, names=NAMES):
    return library("pandas").DataFrame(array, columns=names)


def polars_frame(array=X, names=NAMES):
    return library("polars").DataFrame(array, schema=list(names))


def arrow_table(array=X, names=NAMES):
    return library("pyarrow").table(dict(zip(names, array.T, strict=True)))


FRAMES = pytest.mark.parametrize("frame", [pandas_frame, polars_frame, arrow_table])


FORMS = {
    "pandas": lambda: (
        pandas_frame(),
        library("pandas").Series(Y, index=list("abcdefghijklmnopqrstuvw")),
    ),
    "pandas nullable": lambda: (
        pandas_frame().astype("Float64"),
        library("pandas").Series(Y, dtype="Int64"),
    ),
    "polars": lambda: (polars_frame(), library("polars").Series(Y)),
    "arrow": lambda: (arrow_table(), library("pyarrow").array(Y)),
    "arrow chunks": lambda: (arrow_table(), library("pyarrow").chunked_array([Y[:5], Y[5:]])),
    "torch": lambda: (library("torch").tensor(X, requires_grad=True), library("torch").tensor(Y)),
    "lists": lambda: (X.tolist(), Y.tolist()),
}
"""How each library writes inputs and class numbers."""


def same(one, other):
    for name, value in one.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], value)


# The same numbers.


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_bits_of_the_array(backend, dtype, form):
    inputs, labels = FORMS[form]()
    one, other = make(backend, dtype=dtype), make(backend, dtype=dtype)
    # Class numbers will do as weights.
    expected = fit(one, X, Y, validation_data=(X, Y), sample_weight=Y, **OPTIONS)
    held_out = (inputs, labels)
    got = fit(other, *held_out, validation_data=held_out, sample_weight=labels, **OPTIONS)
    same(one, other)
    assert got.train_loss == expected.train_loss
    assert got.epochs[-1].validation_loss == expected.epochs[-1].validation_loss
    np.testing.assert_array_equal(other.predict(inputs), one.predict(X))
    np.testing.assert_array_equal(evaluate(other, inputs, labels).outputs, one.predict(X))


@FRAMES
def test_a_frame_of_targets_is_one_of_arrays(frame):
    one, other = make(), make()
    targets = np.eye(3)[Y]
    fit(one, X, targets, **OPTIONS)
    fit(other, frame(), frame(targets, ["a", "b", "c"]), **OPTIONS)
    same(one, other)


def test_columns_of_several_kinds_are_the_numbers_that_they_show():
    pandas, polars = library("pandas"), library("polars")
    whole, truth = (X[:, 0] * 9).astype(int), X[:, 1] > 0
    array = np.column_stack([whole, truth, X[:, 2], X[:, 3] > 0])
    columns = {"age": whole, "height": truth, "weight": X[:, 2], "shoe": array[:, 3]}
    kinds = {"age": "Int64", "height": "boolean", "weight": "Float64", "shoe": "int8"}
    frame = pandas.DataFrame(columns)
    sparse = frame.astype({"shoe": pandas.SparseDtype("float64", 0.0)})
    category = frame.astype({"age": "category", "height": object, "weight": object})
    network, expected = make(), make().predict(array)
    network.feature_names = NAMES
    for given in (frame, frame.astype(kinds), sparse, category, polars.DataFrame(columns)):
        np.testing.assert_array_equal(network.predict(given), expected)
    np.testing.assert_array_equal(network.predict(frame.iloc[3]), expected[3])
    half = polars.DataFrame(columns).with_columns(
        polars.Series("weight", [decimal.Decimal(k) / 4 for k in range(23)])
    )
    array[:, 2] = np.arange(23) / 4
    np.testing.assert_array_equal(network.predict(half), network.predict(pandas_frame(array)))


def test_a_frame_without_columns_has_the_wrong_shape():
    frame = pandas_frame()[[]]
    assert "got (23, 0)" in fails(ValueError, make().predict, frame)


# What is no number.


def pandas_columns():
    pandas = library("pandas")
    missing = [1.0, None, *range(21)]
    return {
        "Int64": (pandas.array([1, None, *range(21)], dtype="Int64"), "row 1 has none"),
        "Float64": (pandas.array(missing, dtype="Float64"), "row 1 has none"),
        "boolean": (pandas.array([True, None, *[False] * 21], dtype="boolean"), "row 1 has none"),
        "object": (np.array([1, None, *range(21)], object), "row 1 has none"),
        "float": (np.array(missing, float), "row 1, column 'weight' is nan"),
        "words": (["Rome", *["Oslo"] * 22], "got 'Rome' in row 0"),
        "numbers and words": (np.array([1, "two\nlines", *range(21)], object), "in row 1"),
        "category": (pandas.Categorical(["Rome", *["Oslo"] * 22]), "got 'Rome' in row 0"),
        "day": (pandas.to_datetime(["2020-01-01"] * 23), "2020-01-01"),
        "zone": (pandas.to_datetime(["2020-01-01"] * 23).tz_localize("UTC"), "2020-01-01"),
        "time": (pandas.to_timedelta([5] * 23), "timedelta"),
        "complex": (np.full(23, 1j), "complex"),
        "huge": (np.array([10**400] * 23, object), "float64"),
        "sparse": (pandas.arrays.SparseArray([np.nan, *range(22)]), "row 0 has none"),
    }


def polars_columns():
    polars = library("polars")
    return {
        "int": (polars.Series([1, None, *range(21)]), "row 1 has none"),
        "float": (polars.Series([1.5, None, *range(21)], strict=False), "row 1 has none"),
        "bool": (polars.Series([True, None, *[False] * 21]), "row 1 has none"),
        "nan": (polars.Series([1.5, float("nan"), *[0.0] * 21]), "row 1, column 'weight' is nan"),
        "words": (polars.Series(["Rome"] * 23), "got 'Rome' in row 0"),
        "category": (polars.Series(["Rome"] * 23, dtype=polars.Categorical), "got 'Rome' in row 0"),
        "day": (polars.Series([datetime.date(2020, 1, 1)] * 23), "2020-01-01"),
        "lists": (polars.Series([[1.0, 2.0]] * 23), "in row 0"),
        "arrays": (polars.Series([[1.0]] * 23, dtype=polars.Array(polars.Float64, 1)), "lists"),
    }


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        *(("pandas", key) for key in (
            "Int64", "Float64", "boolean", "object", "float", "words", "numbers and words",
            "category", "day", "zone", "time", "complex", "huge", "sparse",
        )),
        *(("polars", key) for key in (
            "int", "float", "bool", "nan", "words", "category", "day", "lists", "arrays",
        )),
    ],
)  # fmt: skip
def test_a_column_that_is_no_number_is_named(kind, key):
    column, says = (pandas_columns() if kind == "pandas" else polars_columns())[key]
    if kind == "pandas":
        frame = pandas_frame()
        frame["weight"] = column
    else:
        frame = polars_frame().with_columns(column.alias("weight"))
    network = make()
    before = network.parameters()
    message = fails(DataError, fit, network, frame, Y, **OPTIONS)
    assert "column 'weight'" in message
    assert says in message
    assert network.feature_names is None
    np.testing.assert_array_equal(
        network.parameters()["layers.0.weight"], before["layers.0.weight"]
    )
    network.feature_names = NAMES
    if not message.startswith("inputs must be finite"):
        assert fails(DataError, network.predict, frame) == message


def test_labels_that_are_no_number_are_named():
    pandas = library("pandas")
    words = pandas.Series([*"abc"] * 7 + [*"ab"])
    assert "targets must hold numbers, got 'a' in row 0" in fails(
        DataError, fit, make(), X, words, **OPTIONS
    )
    missing = pandas.Series([None, *Y[1:]], dtype="Int64")
    assert "targets must have a number in each row, but row 0 has none" in fails(
        DataError, evaluate, make(), X, missing
    )
    assert "sample_weight must have a number" in fails(
        DataError, fit, make(), X, Y, sample_weight=missing, **OPTIONS
    )


def test_what_has_no_values_yet_or_few_is_refused():
    assert "collect()" in fails(DataError, make().predict, polars_frame().lazy())
    sparse = pytest.importorskip("scipy.sparse").csr_array(X)
    assert "toarray()" in fails(DataError, fit, make(), sparse, Y, **OPTIONS)


def test_tensors_that_numpy_cannot_read_are_refused():
    torch = library("torch")
    tensor = torch.tensor(X)
    for strange in (tensor.bfloat16(), tensor.to_sparse()):
        assert "X.to_dense().float()" in fails(DataError, make().predict, strange)
    assert "must be numbers" in fails(DataError, make().predict, tensor + 1j)
    assert "cpu()" in fails(DeviceError, make().predict, tensor.to("meta"))
    half = make(dtype="float32").predict(tensor.half())
    np.testing.assert_array_equal(half, make(dtype="float32").predict(X.astype("float16")))


# Names.


@FRAMES
def test_names_are_kept_compared_and_never_erased(frame, tmp_path):
    network = make()
    fit(network, frame(), Y, **OPTIONS)
    assert network.feature_names == NAMES
    moved, renamed = frame(X, NAMES[::-1]), frame(X, [*NAMES[:3], "hat"])
    longer = frame(np.column_stack([X, X]), [*NAMES, *"abcd"])
    before = network.parameters()["layers.0.weight"]
    for other, says in (
        (moved, "with 'age' as column 0, got 'shoe': X[network.feature_names]"),
        (renamed, "'shoe' missing and 'hat' unknown"),
        (longer, "'a', 'b', 'c', 'd' unknown"),
    ):
        for message in (
            fails(DataError, network.predict, other),
            fails(DataError, evaluate, network, other, Y),
            fails(DataError, network.loss_and_gradients, other, np.eye(3)[Y]),
            fails(DataError, fit, network, other, Y, **OPTIONS),
            fails(DataError, fit, network, frame(), Y, validation_data=(other, Y), **OPTIONS),
        ):
            assert says in message
    np.testing.assert_array_equal(network.parameters()["layers.0.weight"], before)
    with pytest.warns(UserWarning, match="these inputs have none"):
        fit(network, X, Y, **OPTIONS)
    assert network.feature_names == NAMES


def test_the_names_of_a_network_put_columns_in_order():
    network = make()
    fit(network, pandas_frame(), Y, **OPTIONS)
    for frame in (pandas_frame, polars_frame):
        moved = frame(X[:, ::-1], NAMES[::-1])
        np.testing.assert_array_equal(
            network.predict(moved[network.feature_names]), network.predict(frame())
        )


@pytest.mark.parametrize("frame", [pandas_frame, polars_frame])
def test_names_on_one_side_alone_are_a_warning_at_the_callers_line(frame):
    named, nameless = make(), make()
    fit(named, frame(), Y, **OPTIONS)
    fit(nameless, X, Y, **OPTIONS)
    for network, inputs, says in (
        (named, X, "these inputs have none"),
        (nameless, frame(), "was trained without"),
    ):
        for ask in (
            lambda: network.predict(inputs),  # noqa: B023
            lambda: evaluate(network, inputs, Y),  # noqa: B023
            lambda: network.loss_and_gradients(inputs, np.eye(3)[Y]),  # noqa: B023
        ):
            with pytest.warns(UserWarning, match=says) as caught:
                ask()
            assert [warning.filename for warning in caught] == [__file__]
    assert nameless.feature_names is None
    with pytest.warns(UserWarning, match="these inputs have none") as caught:
        fit(make(), frame(), Y, validation_data=(X, Y), **OPTIONS)
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match="was trained without"):
        fit(make(), X, Y, validation_data=(frame(), Y), **OPTIONS)


def test_a_training_that_is_refused_sets_no_names(tmp_path):
    network, frame = make(), pandas_frame()
    fit(make(), X, Y, checkpoints=Checkpoints(tmp_path / "other"), **OPTIONS)
    fails(DataError, fit, network, frame, Y + 3, **OPTIONS)
    fails(ParameterError, fit, network, frame, Y, epochs=0)
    there = Checkpoints(tmp_path / "other", resume=True)
    message = fails(ParameterError, fit, network, frame, Y, checkpoints=there, **OPTIONS)
    assert "feature names None there, ['age'" in message
    (tmp_path / "file").touch()
    nowhere = Checkpoints(tmp_path / "file" / "folder")
    fails((OutputError, NotADirectoryError), fit, network, frame, Y, checkpoints=nowhere, **OPTIONS)
    assert network.feature_names is None


def test_a_resumed_training_has_the_same_names(tmp_path):
    fit(make(), pandas_frame(), Y, checkpoints=Checkpoints(tmp_path), **OPTIONS)
    there = Checkpoints(tmp_path, resume=True)
    assert Network.load(there.paths()[0], "cpu").feature_names == NAMES
    network = make()
    fit(network, pandas_frame(), Y, checkpoints=there, **OPTIONS)
    assert network.feature_names == NAMES
    renamed = pandas_frame(X, [*NAMES[:3], "hat"])
    message = fails(ParameterError, fit, make(), renamed, Y, checkpoints=there, **OPTIONS)
    assert "feature names" in message


def test_names_that_are_not_words_are_none_and_a_mixture_is_refused():
    network = make()
    fit(network, pandas_frame(X, [3, 1, 4, 5]), Y, **OPTIONS)
    assert network.feature_names is None
    mixed = pandas_frame(X, ["age", 1, 4, 5])
    assert "'age' and 1" in fails(DataError, fit, network, mixed, Y, **OPTIONS)


def test_a_stream_of_frames_is_compared_chunk_by_chunk():
    frame, moved = pandas_frame(), pandas_frame(X[:, ::-1], NAMES[::-1])
    network, other = make(), make()
    fit(network, Stream([(frame[:9], Y[:9]), (frame[9:], Y[9:])]), **OPTIONS)
    fit(other, X, Y, **OPTIONS)
    same(network, other)
    assert network.feature_names == NAMES
    assert evaluate(network, Stream([(frame, Y)])).loss == evaluate(network, frame, Y).loss
    message = fails(DataError, fit, make(), Stream([(frame, Y), (moved, Y)]), **OPTIONS)
    assert "chunk 2 of the stream" in message
    assert "order" in message
    assert "chunk 1" in fails(DataError, evaluate, network, Stream([(moved, Y)]))


def test_the_classic_network_keeps_names_too():
    network = ThreeLayerNetwork(4, 3, 2, 0.3, device="cpu")
    frame = pandas_frame()
    for _, row in frame.iterrows():
        network.train(row, [0.9, 0.1])
    assert network.feature_names == NAMES
    np.testing.assert_array_equal(network.predict(frame.iloc[0]), network.predict(frame)[0])
    moved = frame[NAMES[::-1]]
    assert "order" in fails(DataError, network.train, moved, np.full((23, 2), 0.5))


# Names in files; they need no data frame.


@pytest.mark.parametrize("names", [NAMES, tuple(NAMES), np.array(NAMES), ["", "\ud800", "é\n", ""]])
def test_names_come_back_from_a_file(tmp_path, names):
    network = make()
    network.feature_names = names
    network.save(tmp_path / "m")
    assert Network.load(tmp_path / "m", "cpu").feature_names == list(names)


@pytest.mark.parametrize(
    "names", ["abcd", [*"abc"], [*"abcde"], [1, 2, 3, 4], [*"abc", None], {"a": 1}, 4, [["a"]] * 4]
)
def test_other_names_are_refused_and_not_taken_from_a_file(tmp_path, names, monkeypatch):
    network = make()
    network.feature_names = NAMES
    assert "list of 4 names" in fails(ParameterError, setattr, network, "feature_names", names)
    assert network.feature_names == NAMES
    header = network.header() | {"feature_names": names}
    monkeypatch.setattr(network, "header", lambda: header)
    network.save(tmp_path / "m")
    assert "list of 4 names" in fails(ModelFileError, Network.load, tmp_path / "m", "cpu")


def test_a_network_without_names_says_nothing_of_them(tmp_path):
    network = make()
    assert "feature_names" not in network.header()
    network.save(tmp_path / "m")
    assert b"feature_names" not in (tmp_path / "m").read_bytes()
