"""Weights of samples and classes, and dropout, as ``gpunn train`` takes them."""

import json

import numpy as np
import pytest

from gpunn import Network, cli, fit
from gpunn.data import datasets, files, load_dataset, load_digits
from gpunn.data.scaling import Scaling
from gpunn.optimizers import get_optimizer
from gpunn.recipes import Recipe
from gpunn.training.evaluation import evaluate

SMALL = ("--hidden", "8", "--epochs", "2", "--device", "cpu", "--quiet")
SEED = 4


@pytest.fixture
def train(capsys, tmp_path, monkeypatch):
    """Train in a folder of its own; return the model, and the JSON that was printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        assert cli.main(["train", *SMALL, "--json", "--out", "m", *map(str, arguments)]) == 0
        return Network.load("m", "cpu"), json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Train in vain; return the only line that was printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            status = cli.main(["train", *SMALL, *map(str, arguments)])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert err.startswith("gpunn")
        return err

    return run


def weights_by_row(n):
    """Return weights that differ from row to row."""
    return np.linspace(0.1, 3, n)


def labels_37(labels):
    return np.where(labels < 5, 3, 7)


def by_hand(rows, train_rows, validation=None, **options):
    """Return what `gpunn.fit` makes of the digits in a given order, with options of its own."""
    inputs, labels = rows
    recipe = Recipe(hidden=(8,))
    scaling = Scaling.to_range(0.0, 16.0, 0.0, 1.0, target_low=0.0, target_high=1.0)
    network = recipe.make_network(64, 10, device="cpu", seed=SEED)
    network.scaling = scaling
    X = scaling.apply(inputs, np.float32)
    held_out = None if validation is None else (X[validation], labels[validation])
    fit(
        network, X[train_rows], labels[train_rows], epochs=2, batch_size=32,
        optimizer=get_optimizer("adam", momentum=0.9, weight_decay=0.0), learning_rate=0.001,
        validation_data=held_out, seed=[SEED, 1], **options,
    )  # fmt: skip
    return network


def assert_same(network, other):
    for name, value in network.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], value)


def digits_in_parts():
    """Return the rows of the digits that are trained on, in order, found by their place."""
    digits = load_digits()
    places = np.arange(len(digits.labels))
    marked = datasets.replace(digits, sample_weight=places).split(0.2, SEED)
    np.testing.assert_array_equal(digits.labels[marked.sample_weight], marked.labels)
    np.testing.assert_array_equal(digits.inputs[marked.sample_weight], marked.inputs)
    return (digits.inputs, digits.labels), marked.sample_weight


def test_weights_of_samples_stay_with_their_samples(train):
    rows, chosen = digits_in_parts()
    weights = weights_by_row(len(rows[1]))
    np.save("w.npy", weights)
    network, _ = train("--sample-weight", "w.npy", "--seed", SEED)
    assert_same(by_hand(rows, chosen, sample_weight=weights[chosen]), network)
    assert network.training_record["settings"]["sample_weight"] == "w.npy"


def test_weights_of_samples_that_are_kept_back_are_left_out(train):
    rows, chosen = digits_in_parts()
    weights = weights_by_row(len(rows[1]))
    np.save("w.npy", weights)
    network, result = train("--sample-weight", "w.npy", "--seed", SEED, "--val-fraction", 0.25)
    order = np.random.default_rng([SEED, 2]).permutation(len(chosen))
    n = round(0.25 * len(chosen))
    kept_back, trained = chosen[np.sort(order[:n])], chosen[np.sort(order[n:])]
    expected = by_hand(rows, trained, kept_back, sample_weight=weights[trained])
    assert_same(expected, network)
    assert result["train_samples"] == len(trained)
    measured = evaluate(expected, *(expected.scaling.apply(rows[0][kept_back], np.float32),
                                    rows[1][kept_back]))  # fmt: skip
    assert result["validation_accuracy"] == pytest.approx(measured.accuracy)


@pytest.mark.parametrize(
    ("options", "class_weight", "recorded"),
    [
        (["balanced"], "balanced", "balanced"),
        (["3=2.5", "7=0"], {3: 2.5, 7: 0.0}, {"3": 2.5, "7": 0.0}),
    ],
)
def test_weights_of_classes_are_those_of_fit(train, options, class_weight, recorded):
    rows, chosen = digits_in_parts()
    given = [word for option in options for word in ("--class-weight", option)]
    network, _ = train(*given, "--seed", SEED)
    assert_same(by_hand(rows, chosen, class_weight=class_weight), network)
    assert network.training_record["settings"]["class_weight"] == recorded


def test_weights_of_classes_go_by_the_labels_in_the_data(train):
    digits = load_digits()
    np.save("X.npy", digits.inputs)
    np.save("y.npy", labels_37(digits.labels))
    by_class, _ = train("X.npy,y.npy", "--class-weight", "7=3")
    assert by_class.class_labels == [3, 7]
    np.save("w.npy", np.where(labels_37(digits.labels) == 7, 3, 1))
    by_sample, _ = train("X.npy,y.npy", "--sample-weight", "w.npy")
    assert_same(by_class, by_sample)
    # Both together multiply.
    both, _ = train("X.npy,y.npy", "--sample-weight", "w.npy", "--class-weight", "7=3")
    np.save("w.npy", np.where(labels_37(digits.labels) == 7, 9, 1))
    assert_same(both, train("X.npy,y.npy", "--sample-weight", "w.npy")[0])


def test_data_with_a_test_part_have_weights_for_the_training_part_alone(train, refused):
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (60, 4)).astype(np.uint8), np.arange(60) % 2
    np.savez("d.npz", x_train=X[:40], y_train=y[:40], x_test=X[40:], y_test=y[40:])
    np.save("w.npy", weights_by_row(40))
    assert train("d.npz", "--sample-weight", "w.npy")[1]["train_samples"] == 40
    np.save("w.npy", weights_by_row(60))
    assert "one weight for each of 40 samples" in refused("d.npz", "--sample-weight", "w.npy")


def test_a_recipe_of_so_many_samples_takes_as_many_weights(train, monkeypatch):
    from gpunn.cli import train_options

    nielsen = datasets.replace(train_options.RECIPES["nielsen"], n_train=500)
    monkeypatch.setitem(train_options.RECIPES, "nielsen", nielsen)
    weights = weights_by_row(1797)
    np.save("w.npy", weights)
    network, result = train("--recipe", "nielsen", "--sample-weight", "w.npy")
    assert result["train_samples"] == 500
    assert network.training_record["settings"]["sample_weight"] == "w.npy"


def test_dropout_is_that_of_fit(train):
    rows, chosen = digits_in_parts()
    network, _ = train("--dropout", 0.3, "--seed", SEED)
    assert_same(by_hand(rows, chosen, dropout=0.3), network)
    assert network.training_record["settings"]["dropout"] == 0.3


def test_what_is_not_given_changes_nothing(train):
    network, plain = train()
    settings = network.training_record["settings"]
    assert not {"dropout", "class_weight", "sample_weight"} & set(settings)
    np.save("w.npy", np.ones(1797))
    other, result = train(
        "--sample-weight", "w.npy", "--class-weight", "balanced", "--dropout", 0.1
    )
    assert list(result) == list(plain)
    assert list(other.training_record["settings"])[: len(settings)] == list(settings)
    assert_same(train("--dropout", 0)[0], network)


@pytest.mark.parametrize(
    ("options", "others", "said"),
    [
        (("--dropout", 0.2), ("--dropout", 0.3), "dropout"),
        (("--dropout", 0.2), (), "dropout"),
        (("--class-weight", "3=2"), ("--class-weight", "3=4"), "sample weights"),
        (("--class-weight", "3=2"), (), "sample weights"),
        (("--sample-weight", "w.npy"), ("--sample-weight", "v.npy"), "sample weights"),
    ],
)
def test_another_training_is_not_resumed(train, refused, options, others, said):
    np.save("w.npy", weights_by_row(1797))
    np.save("v.npy", weights_by_row(1797)[::-1])
    network, _ = train("--checkpoint", "ck", *options)
    line = refused("--checkpoint", "ck", "--resume", *others)
    assert "made for another training" in line
    assert said in line
    assert_same(train("--checkpoint", "ck", "--resume", *options)[0], network)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dropout", 1), "at least 0 and below 1, got '1'"),
        (("--dropout", -0.1), "at least 0"),
        (("--dropout", "nan"), "at least 0"),
        (("--dropout", 0.5, "--recipe", "rashid"), "--dropout does not go with --recipe rashid"),
        (("--class-weight", "even"), "expected balanced, or LABEL=WEIGHT"),
        (("--class-weight", "3"), "expected balanced, or LABEL=WEIGHT"),
        (("--class-weight", "three=3"), "no label three to train on"),
        (("--class-weight", "3=-1"), "LABEL=WEIGHT"),
        (("--class-weight", "3=nan"), "LABEL=WEIGHT"),
        (("--class-weight", "3=inf"), "LABEL=WEIGHT"),
        (("--class-weight", "12=2"), "no label 12 to train on; its labels are 0, 1, 2, 3, 4, 5"),
        (("--class-weight", "3=2", "--class-weight", "balanced"), "got both"),
        (("--class-weight", "3=2", "--class-weight", "3=4"), "two weights"),
        (("--sample-weight", "nowhere.npy"), "nowhere.npy"),
        (("--sample-weight", "text.npy"), "text.npy: expected numbers as weights, got the type <U"),
        (("--sample-weight", "none.npy"), "none.npy"),
        (("--sample-weight", "short.npy"), "one weight for each of 1,797 samples"),
        (("--sample-weight", "wide.npy"), "got shape (1797, 1)"),
        (("--sample-weight", "below.npy"), "at least 0, got -1.0 in row 5"),
        (("--sample-weight", "nan.npy"), "got nan in row 5"),
        (("--sample-weight", "inf.npy"), "got inf in row 5"),
        (("--sample-weight", "zero.npy"), "all weights are 0"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_wrong_weights_are_one_line(refused, options, said):
    with open("none.npy", "w") as file:
        file.write("1\n2\n")
    np.save("text.npy", np.full(1797, "one"))
    np.save("short.npy", np.ones(1796))
    np.save("wide.npy", np.ones((1797, 1)))
    np.save("zero.npy", np.zeros(1797))
    for name, value in (("below", -1), ("nan", np.nan), ("inf", np.inf)):
        np.save(f"{name}.npy", np.r_[np.ones(5), value, np.ones(1791)])
    assert said in refused(*options)


@pytest.fixture
def long_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    table = np.column_stack([np.arange(200) % 2, rng.normal(size=(200, 4))])
    np.savetxt("long.csv", table, fmt=["%d"] + ["%.6f"] * 4, delimiter=",")
    assert load_dataset("long.csv").n_features == 4
    monkeypatch.setattr(files, "TOO_LITTLE_TO_ASK", 1000)
    monkeypatch.setattr(files, "free_memory", lambda: 3000)
    return "long.csv"


def test_a_table_in_chunks_takes_dropout_but_no_weights(train, refused, long_table):
    np.save("w.npy", np.ones(200))
    for options in (("--sample-weight", "w.npy"), ("--class-weight", "balanced")):
        line = refused(long_table, *options)
        assert "read in chunks" in line
        assert "leave out --sample-weight and --class-weight" in line
    network, _ = train(long_table, "--dropout", 0.2)
    assert network.training_record["settings"]["dropout"] == 0.2


def test_mapped_samples_have_weights_too(train, monkeypatch):
    rng = np.random.default_rng(0)
    np.save("X.npy", rng.integers(0, 256, (300, 20)).astype(np.uint8))
    np.save("y.npy", np.arange(300) % 3)
    np.save("w.npy", weights_by_row(300))
    options = ("X.npy,y.npy", "--sample-weight", "w.npy", "--val-fraction", 0.1)
    network, _ = train(*options)
    monkeypatch.setattr(files, "TOO_LITTLE_TO_ASK", 1000)
    monkeypatch.setattr(files, "free_memory", lambda: 3000)
    assert_same(train(*options)[0], network)
