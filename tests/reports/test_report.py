"""The report: what stands in it is true, and strangers' text in it does nothing."""

import json
import re
from html import unescape

import numpy as np
import pytest

import gpunn
from gpunn import History, Network, cli
from gpunn.errors import DataError, OutputError, ParameterError
from gpunn.reports.findings import find
from gpunn.reports.importance import importance_of
from gpunn.reports.past import history_of
from gpunn.reports.samples import SomeRows, WorstRows
from gpunn.training.callbacks import EpochRecord

pytest.importorskip("jinja2", reason="Jinja2 is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "$\\frac$", "$x^2$ ]]> -->",
    "a\nb\x00\x1b[31m", "\ud800", "日本語", "{{ 7 * 7 }}",
    "</svg></style><script>alert(3)</script>", "&lt;b&gt;", "\u202eevil", "",
)  # fmt: skip


def classifier(n_inputs=5, n_outputs=3, **options):
    return Network(
        [n_inputs, 6, n_outputs],
        hidden_activation="tanh",
        output_activation="softmax",
        loss="cross_entropy",
        device="cpu",
        initializer="standard_normal",
        **options,
    )


@pytest.fixture
def samples(rng):
    """Inputs and class numbers, many of which a network gets wrong."""
    return rng.normal(size=(400, 5)).astype("float32"), rng.integers(0, 3, 400)


def words(page):
    """Return what a reader sees of a page, but for what stands in figures."""
    page = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def sections(page):
    return re.findall(r'<section id="([\w-]+)">', page)


# What stands in it.


def test_a_report_of_classes_says_what_evaluate_says(samples):
    network = classifier()
    network.class_labels = ["iris", "rose", "lily"]
    page = gpunn.report(network, None, *samples, title="flowers").html
    found = gpunn.evaluate(network, *samples)
    predicted = found.outputs.argmax(axis=1)
    said = words(page)
    assert f"accuracy {found.accuracy:.4f}" in said
    assert f"loss {found.loss:.6f} samples 400" in said
    for k, name in enumerate(network.class_labels):
        n, right, answers = (
            np.count_nonzero(mask)
            for mask in (samples[1] == k, (samples[1] == k) & (predicted == k), predicted == k)
        )
        assert f"{name} {n} {right} {right / n:.4f} {right / answers:.4f}" in said
    wrong = np.flatnonzero(predicted != samples[1])
    surest = wrong[found.outputs.max(axis=1)[wrong].argsort()[::-1]][:24]
    cards = [int(n) for n in re.findall(r"sample (\d+) , truly", said)]
    assert cards == surest.tolist()
    assert "flowers" in said
    assert sections(page) == [
        "training", "classes", "mistakes", "calibration", "importance", "hidden",
    ]  # fmt: skip


def test_a_report_of_pictures_shows_them(rng):
    network = classifier(64, 4)
    X, y = rng.random((50, 64)), rng.integers(0, 4, 50)
    page = gpunn.report(network, None, X, y).html
    assert sections(page)[-2:] == ["hidden", "looks-for"]
    assert "importance" not in sections(page)
    n_wrong = np.count_nonzero(network.predict(X).argmax(axis=1) != y)
    assert page.count('<img src="data:image/png;base64,') == min(24, n_wrong)


def test_a_report_of_numbers_has_them_in_their_units(rng):
    network = Network([5, 6, 2], output_activation="identity", device="cpu")
    network.output_scaling = gpunn.Scaling([10.0, 20.0], [100.0, -5.0])
    network.training_record = {"targets": ["price", "area"]}
    X, y = rng.normal(size=(60, 5)), rng.normal(size=(60, 2))
    page = gpunn.report(network, None, X, y).html
    errors = np.sqrt(np.square(network.predict(X) - y).mean(axis=0)) * [10, 20]
    r2 = 1 - np.square(network.predict(X) - y).sum(axis=0) / np.square(y - y.mean(axis=0)).sum(
        axis=0
    )
    for name, one_r2, rmse in zip(("price", "area"), r2, errors, strict=True):
        said = re.search(rf"{name} (\S+) (\S+)", words(page))
        assert [float(text) for text in said.groups()] == pytest.approx([one_r2, rmse], rel=1e-3)
        assert f"predicted {name}" in page
    assert sections(page) == ["training", "numbers", "importance", "hidden"]


def test_what_cannot_be_judged_is_refused(samples):
    network, (X, y) = classifier(), samples
    with pytest.raises(DataError, match="no class, or for several"):
        gpunn.report(network, None, X, np.ones((400, 3)))
    network.load_parameters({k: v * np.nan for k, v in network.parameters().items()})
    for given in ((X, y), ()):
        with pytest.raises(DataError, match="NaN or infinite"):
            gpunn.report(network, None, *given)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["file"], "network must be a gpunn.Network, got 'file'; a file is read with"),
        ([None], "network must be a gpunn.Network, got None"),
        ([classifier(), np.zeros((4, 5)), [0] * 4], "history must be a gpunn.History or None"),
        ([classifier(), None, gpunn.Stream([], 4)], "arrays and no Stream"),
    ],
)
def test_arguments_of_another_type_are_refused(arguments, says):
    with pytest.raises(gpunn.GpunnError, match=re.escape(says)):
        gpunn.report(*arguments)


def test_a_history_of_another_training_comes_without_the_record(rng):
    network = classifier()
    X, y = rng.normal(size=(30, 5)), rng.integers(0, 3, 30)
    history = gpunn.fit(network, X, y, epochs=2, batch_size=10)
    epochs = [vars(record) for record in history.epochs]
    network.training_record = {"data": "flowers", "command": "gpunn train x", "history": epochs}
    for given in (None, history):
        assert "gpunn train x" in gpunn.report(network, given).html
    other = gpunn.fit(classifier(), X, y, epochs=3, batch_size=10)
    said = words(gpunn.report(network, other).html)
    assert "gpunn train x" not in said
    assert "flowers" not in said
    assert "epochs 3" in said


@pytest.mark.parametrize(
    ("best", "restored", "says"),
    [
        (1, True, "1 (its weights were kept)"),
        (1, False, "1 (the last weights were kept)"),
        (2, False, "2, the last one"),
    ],
)
def test_a_report_says_which_weights_were_kept(best, restored, says):
    epochs = [gpunn.training.EpochRecord(k, 0.5, 0.6, 0.7, 0.1, 1.0) for k in (1, 2)]
    history = gpunn.History(epochs, best_epoch=best, restored_best=restored)
    said = words(gpunn.report(classifier(), history).html)
    assert f"best epoch in validation {says}" in said
    assert "ended after all epochs" in said


def test_one_sample_and_no_hidden_layer(rng):
    network = Network([5, 3], output_activation="softmax", loss="cross_entropy", device="cpu")
    page = gpunn.report(network, gpunn.History(), rng.normal(size=(1, 5)), [0], title=None).html
    assert "importance" not in sections(page)
    assert "Hidden units" not in page
    assert "samples 1 " in words(page)
    assert "samples 1 " in words(gpunn.report(network, None, rng.normal(size=5), [0]).html)


def test_numbers_that_are_all_the_same_have_no_importance(rng):
    network = Network([3, 1], output_activation="identity", device="cpu")
    page = gpunn.report(network, None, rng.normal(size=(30, 3)), np.full((30, 1), 0.1)).html
    assert "R² - " in words(page)
    assert "importance" not in sections(page)


def test_a_network_with_one_output_is_about_numbers(rng):
    network = Network([5, 4, 1], device="cpu")
    X, y = rng.normal(size=(60, 5)), rng.random((60, 1))
    said = words(gpunn.report(network, None, X, y).html)
    rmse = np.sqrt(np.square(network.predict(X) - y).mean())
    assert float(re.search(r"RMSE (\S+)", said)[1]) == pytest.approx(rmse, rel=1e-4)


def test_a_constant_target_has_no_part_in_the_importance(rng):
    network = Network([2, 2], output_activation="identity", device="cpu")
    network.output_scaling = gpunn.Scaling()
    X = rng.normal(size=(300, 2)).astype("float32")
    y = np.column_stack([network.predict(X)[:, 0], np.full(300, 7.3, "float32")])
    found = importance_of(network, X, y)
    assert 0 < found.means.max() < 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.97, "1 min 0 s"), (119.7, "2 min 0 s"), (100_000, "27 h 46 min")],
)
def test_times_are_rounded_before_they_are_divided(seconds, text):
    network = classifier()
    network.training_record = {"seconds": seconds}
    assert f"time {text}" in words(gpunn.report(network).html)


def test_the_command_keeps_its_spaces():
    network = classifier()
    network.training_record = {"command": "gpunn train 'a  b.csv' " + "--ignore x " * 300}
    assert "gpunn train &#39;a  b.csv&#39;" in gpunn.report(network).html
    assert words(gpunn.report(network).html).count("--ignore") == 300


def test_a_report_without_samples_says_so():
    page = gpunn.report(classifier()).html
    assert "No data were given" in words(page)
    assert sections(page) == ["training", "hidden"]


def test_a_report_draws_the_history_with_its_best_epoch():
    records = [EpochRecord(k, 1 / k, 1.1 / k, 0.1 * k, 0.1, 1.0) for k in range(1, 6)]
    page = gpunn.report(classifier(), History(records, best_epoch=3)).html
    assert {"best epoch", "validation", "accuracy", "loss"} <= set(re.findall(r">([\w ]+)<", page))
    assert "best epoch in validation 3" in words(page)


def test_a_report_reads_what_the_network_says_of_its_training():
    network = classifier()
    epochs = [{"train_loss": 0.5, "validation_loss": None}, {"train_loss": 0.25}]
    network.training_record = {
        "history": epochs, "command": "gpunn train x.csv --target 'a b'", "device": "cuda:1",
        "samples_per_second": 1234567.8, "seconds": 75.0,
    }  # fmt: skip
    said = words(gpunn.report(network).html)
    for text in ("gpunn train x.csv --target 'a b'", "cuda:1", "1,234,568", "1 min 15 s"):
        assert text in said
    assert "epochs 2" in said


# What it is made from.


def test_some_rows_are_as_likely_to_come_from_each_part():
    rows = SomeRows(1000)
    for start in range(0, 10_000, 500):
        numbers = np.arange(start, start + 500)
        rows.show(numbers, 2 * numbers)
    kept, doubled = rows.columns
    assert len(set(kept.tolist())) == 1000
    np.testing.assert_array_equal(doubled, 2 * kept)
    # Each fifth has 200 on average, with a standard deviation below 13.
    assert np.abs(np.bincount(kept // 2000) - 200).max() < 4 * 13


def test_worst_rows_are_the_largest_of_all_parts(rng):
    sizes, rows = rng.random(90), WorstRows(7)
    for part in np.split(sizes, 9):
        rows.show(part, part * 10)
    np.testing.assert_array_equal(rows.columns[0], np.sort(sizes)[::-1][:7] * 10)


def test_samples_may_come_in_parts(samples):
    network, (X, y) = classifier(), samples
    whole = find(network, [(X, y, np.arange(400))])
    cut = [slice(150), slice(150, None)]
    parts = find(network, [(X[rows], y[rows], np.arange(400)[rows]) for rows in cut])
    np.testing.assert_array_equal(parts.confusion.matrix(), whole.confusion.matrix())
    np.testing.assert_array_equal(parts.mistakes.numbers, whole.mistakes.numbers)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    np.testing.assert_allclose(parts.calibration.accuracies, whole.calibration.accuracies)


def all_of(network, samples):
    return find(network, [(*samples, np.arange(len(samples[1])))])


def test_calibration_is_the_loop_of_its_definition(samples):
    network, (X, y) = classifier(), samples
    outputs, calibration = network.predict(X), all_of(network, samples).calibration
    sure, right = outputs.max(axis=1), outputs.argmax(axis=1) == y
    error = 0.0
    for low in range(10):
        inside = (sure >= low / 10) & (sure < (low + 1) / 10)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert calibration.error == pytest.approx(error, rel=1e-5)


def test_confusion_has_every_pair(samples):
    network, (X, y) = classifier(), samples
    confusion, predicted = all_of(network, samples).confusion, network.predict(X).argmax(axis=1)
    expected = np.zeros((3, 3), int)
    for true, answer in zip(y, predicted, strict=True):
        expected[true, answer] += 1
    np.testing.assert_array_equal(confusion.matrix(), expected)
    np.testing.assert_array_equal(confusion.samples, expected.sum(axis=1))
    np.testing.assert_array_equal(confusion.answers, expected.sum(axis=0))
    np.testing.assert_array_equal(confusion.right, expected.diagonal())
    mistakes = confusion.mistakes()
    assert [n for _, _, n in mistakes] == sorted((expected[t, p] for t, p, _ in mistakes))[::-1]
    assert sum(n for _, _, n in mistakes) == expected.sum() - expected.trace()


def test_the_column_that_decides_is_the_important_one(rng):
    network = Network([3, 1], output_activation="identity", device="cpu")
    network.load_parameters({"layers.0.weight": [[0, 2, 0]], "layers.0.bias": [0]})
    network.feature_names = ["noise", "decides", "idle"]
    X = rng.normal(size=(200, 3))
    found = importance_of(network, X, 2 * X[:, 1:2])
    assert found.names[0] == "decides"
    # Of a shuffled column nothing is predicted: R^2 falls from 1 to -1 on average.
    assert found.means[0] == pytest.approx(2, abs=0.3)
    np.testing.assert_allclose(found.means[1:], 0, atol=1e-9)


def test_words_of_a_column_are_shuffled_together(tmp_path, rng):
    words_of_column = rng.choice(["red", "green", "blue"], 120)
    rows = [f"{word},{rng.random():.3f},{'ab'[word == 'red']}" for word in words_of_column]
    (tmp_path / "t.csv").write_text("colour,size,answer\n" + "\n".join(rows))
    options = ["--target", "answer", "--out", str(tmp_path / "m"), "--quiet", "--device", "cpu"]
    assert cli.main(["train", str(tmp_path / "t.csv"), *options]) == 0
    network = Network.load(tmp_path / "m", "cpu")
    X = np.zeros((60, 4), "float32")
    X[np.arange(60), rng.integers(0, 3, 60)] = 1
    X[:, 3] = rng.random(60)
    X = network.scaling.apply(X, "float32")
    found = importance_of(network, X, network.predict(X).argmax(axis=1))
    assert found.names == ["colour", "size"]
    assert found.means[0] > 0.2


@pytest.mark.parametrize(
    "record",
    [{}, {"history": None}, {"history": []}, {"history": [1]}, {"history": "x"}, {"history": {}}],
)
def test_a_record_without_epochs_makes_no_history(record):
    assert history_of(record) is None


def test_what_is_no_number_in_a_record_is_nan():
    epochs = [{"train_loss": None, "seconds": "x", "validation_loss": True}, {}]
    history = history_of({"history": epochs, "best_epoch": 3, "stopped": "a\nb", "seconds": []})
    assert np.isnan(history.train_loss).all()
    assert np.isnan([history.seconds, *history.validation_loss]).all()
    assert (history.best_epoch, history.stopped) == (None, "a b")


# Strangers' text.


def hostile_network(n_classes):
    network = classifier(20, n_classes)
    network.class_labels = [f"{HOSTILE[k % len(HOSTILE)]}{k or ''}" for k in range(n_classes)]
    network.feature_names = [f"{HOSTILE[k % len(HOSTILE)]}{k}" for k in range(20)]
    nan = float("nan")
    network.training_record = {
        "history": [
            {"train_loss": nan, "validation_accuracy": float("inf")},
            {"train_loss": "x", "validation_accuracy": 0.5},
            {"train_loss": 1e400, "validation_loss": []},
        ],
        "command": HOSTILE[0], "data": HOSTILE[1], "stopped": HOSTILE[8], "best_epoch": 99,
        "settings": {"optimizer": HOSTILE[0], "loss": [1]}, "seconds": nan, "recipe": HOSTILE[2],
        "samples_per_second": "fast", "train_samples": {"a": 1}, "seed": HOSTILE[3],
    }  # fmt: skip
    return network


@pytest.mark.parametrize("n_classes", [12, 10_000])
def test_a_hostile_model_is_shown_and_does_nothing(n_classes, rng, tmp_path, browser):
    network = hostile_network(n_classes)
    X, y = rng.normal(size=(300, 20)), rng.integers(0, n_classes, 300)
    with pytest.warns(UserWarning, match="these inputs have none"):
        made = gpunn.report(network, None, X, y, title=HOSTILE[0])
    made.save(tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 20e6
    assert "<script" not in made.html
    heard = []
    page = browser.new_page()
    for event in ("console", "pageerror", "dialog", "popup", "request"):
        page.on(event, lambda what, event=event: heard.append((event, str(what))))
    page.goto((tmp_path / "report.html").as_uri())
    assert page.inner_text("h1") == HOSTILE[0]
    assert HOSTILE[0] in page.inner_text("pre")
    shown = page.inner_text("#classes")
    for name in ("{{ 7 * 7 }}", "&lt;b&gt;", "日本語"):
        assert name in shown
    assert page.evaluate("document.querySelectorAll('script, img[onerror]').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
    assert [what for what in heard if what[0] != "request" or "data:" not in what[1]][1:] == []


# The command.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    options = ["--hidden", "8", "--epochs", "2", "--device", "cpu", "--quiet"]
    options += ["--val-fraction", "0.1", "--out", str(folder / "m"), "--report"]
    assert cli.main(["train", "digits", *options, str(folder / "of_training.html")]) == 0
    return folder


def test_train_writes_the_report_that_the_command_writes_later(trained, tmp_path, capsys):
    later = tmp_path / "later.html"
    options = ["--out", str(later), "--device", "cpu", "--json"]
    assert cli.main(["report", str(trained / "m"), "digits", *options]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 359
    at_once = (trained / "of_training.html").read_text("utf-8")
    assert words(later.read_text("utf-8")) == words(at_once)
    assert "gpunn train digits --hidden 8 --epochs 2" in words(at_once)
    assert "Measured on digits, the test part" in words(at_once)


def test_a_report_needs_no_data(trained, tmp_path, capsys):
    out = tmp_path / "alone.html"
    assert cli.main(["report", str(trained / "m"), "--out", str(out), "--device", "cpu"]) == 0
    assert "No data were given" in words(out.read_text("utf-8"))
    assert f"wrote {out}" in capsys.readouterr().out


def test_bad_input_leaves_the_page_that_is_there(trained, tmp_path, capsys):
    out = tmp_path / "page.html"
    out.write_text("old")
    (tmp_path / "t.csv").write_text("1,2\n3,4\n")
    assert cli.main(["report", str(trained / "m"), str(tmp_path / "t.csv"), "--out", str(out)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert out.read_text() == "old"


@pytest.mark.parametrize(
    "command",
    [
        ("report", "m", "--out", "m"),
        ("report", "m", "t.csv", "--out", "t.csv"),
        ("draw", "m", "--out", "./m"),
        ("backquery", "m", "--out", "m"),
        ("predict", "m", "t.csv", "--out", "t.csv"),
        ("train", "t.csv", "--out", "t.csv"),
        ("train", "t.csv", "--out", "n", "--report", "n"),
        ("train", "t.csv", "--out", "n", "--report", "t.csv"),
        ("train", "t.csv", "--out", "n", "--sample-weight", "w.npy", "--report", "w.npy"),
        ("train", "t.csv", "--sample-weight", "w.npy", "--out", "w.npy"),
    ],
)
def test_no_file_is_written_over_one_that_is_read(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    classifier(64, 2).save("m")
    (tmp_path / "t.csv").write_text("1,2\n3,4\n" * 20)
    np.save("w.npy", np.ones(40))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert cli.main(command) == 2
    assert "it would replace" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_model_may_have_the_name_of_a_known_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--epochs", "1", "--hidden", "2", "--device", "cpu", "--quiet"]
    assert cli.main(["train", "digits", "--out", "digits", *options]) == 0
    assert cli.main(["report", "digits", "--out", "report.html", "--device", "cpu"]) == 0


def test_wrong_arguments_are_refused(samples, tmp_path):
    network, (X, y) = classifier(), samples
    with pytest.raises(ParameterError, match="X and y together"):
        gpunn.report(network, None, X)
    with pytest.raises(DataError, match="no samples"):
        find(network, [])
    with pytest.raises(OutputError, match="cannot write"):
        gpunn.report(network).save(tmp_path / "no folder" / "x.html")
    made = gpunn.report(network, None, X, y)
    assert made._repr_html_().startswith("<iframe srcdoc=")
