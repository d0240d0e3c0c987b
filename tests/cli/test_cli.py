"""The command line, as those who type it meet it."""

import csv
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from gpunn import Network, ThreeLayerNetwork, cli
from gpunn.backends.select import cuda_problem
from gpunn.cli import train as train_command
from gpunn.testing import require_gpu

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and limits")
SMALL = ("--hidden", "8", "--epochs", "2", "--device", "cpu")
COMMANDS = ("train", "evaluate", "predict", "backquery", "draw", "report", "parity", "info")


@pytest.fixture
def gpunn(capsys, tmp_path, monkeypatch):
    """Run a command in a folder of its own; return its exit status and both outputs."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(gpunn):
    """Run a command that must be refused with status 2 and one line; return the line."""

    def run(*arguments):
        status, out, err = gpunn(*arguments)
        assert status == 2
        assert len(err.splitlines()) == 1
        assert re.match(r"gpunn( \w+)?: error: .", err)
        assert "Traceback" not in out + err
        return err

    return run


def process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "gpunn", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train on the digits, all by default; return the finished process and the model's path."""
    folder = tmp_path_factory.mktemp("trained")
    done = process("train", cwd=folder)
    return done, folder / "digits.safetensors"


@pytest.fixture
def table(tmp_path):
    """Write a CSV file of two classes, 3 and 7, that four fractions tell apart."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([3, 7], 40))
    inputs = rng.normal(size=(80, 4)) + (labels == 7)[:, None] * 3 + 0.5
    path = tmp_path / "table.csv"
    np.savetxt(path, np.column_stack([labels, inputs]), fmt=["%d"] + ["%.6f"] * 4, delimiter=",")
    return path


# train


def test_train_without_options_learns_the_digits_and_says_what_is_next(trained):
    done, model = trained
    assert (done.returncode, done.stderr) == (0, "")
    assert float(re.search(r"test accuracy (0\.\d{4})", done.stdout)[1]) > 0.95
    assert "saved digits.safetensors" in done.stdout
    assert "gpunn evaluate digits.safetensors digits" in done.stdout
    assert done.stdout.count("training loss") == 20
    assert Network.load(model, "cpu").training_record["data"] == "digits"


def test_json_is_the_last_line_and_alone_on_standard_output(gpunn, tmp_path):
    status, out, err = gpunn("train", *SMALL, "--json", "--out", "m.safetensors")
    assert status == 0
    result = json.loads(out)
    assert len(out.splitlines()) == 1
    assert result["device"] == "cpu"
    assert result["layer_sizes"] == [64, 8, 10]
    assert result["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    assert result["epochs"] == 2
    assert result["train_samples"] + 359 == 1797
    assert result["samples_per_second"] == pytest.approx(2 * 1438 / result["seconds"])
    assert result["train_loss"] > 0
    assert 0 < result["test_accuracy"] <= 1
    assert result["model"] == "m.safetensors"
    assert "epoch   2/2" in err
    assert Network.load(tmp_path / "m.safetensors", "cpu").class_labels == list(range(10))


def test_quiet_prints_the_result_alone(gpunn):
    status, out, err = gpunn("train", *SMALL, "--quiet")
    assert (status, err) == (0, "")
    assert out.startswith("trained 2,876 samples")
    assert [line.split()[0] for line in out.splitlines()] == ["trained", "test", "saved"]
    said = gpunn("train", *SMALL)[1]
    assert "next:" in said
    assert "  gpunn draw digits.safetensors --out draw.html" in said
    status, out, err = gpunn("train", *SMALL, "--quiet", "--json")
    assert (status, err, len(out.splitlines())) == (0, "", 1)


def test_a_model_with_names_of_inputs_takes_files_without_a_word(gpunn):
    gpunn("train", *SMALL, "--out", "m")
    before = [gpunn(command, "m", "digits") for command in ("evaluate", "predict")]
    network = Network.load("m", "cpu")
    network.feature_names = [f"pixel {k}" for k in range(64)]
    network.save("m")
    for status, _, err in before:
        assert (status, err) == (0, "")
    assert [gpunn(command, "m", "digits") for command in ("evaluate", "predict")] == before


def test_the_same_seed_gives_the_same_model_and_another_does_not(gpunn):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        gpunn("train", *SMALL, "--seed", seed, "--out", name)
    a, b, c = (Network.load(name, "cpu").parameters()["layers.0.weight"] for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.mark.parametrize(
    ("recipe", "sizes"),
    [("rashid", [784, 200, 10]), ("nielsen", [784, 30, 10]), ("3blue1brown", [784, 16, 16, 10])],
)
def test_recipes_are_the_networks_of_their_books(gpunn, tmp_path, mnist_dir, recipe, sizes):
    from gpunn.data import read_idx

    images, labels = (read_idx(next(mnist_dir.glob(f"train-{kind}*"))) for kind in ("im", "la"))
    some = np.column_stack([labels[:600], images[:600].reshape(600, -1)])
    np.savetxt(tmp_path / "some.csv", some, fmt="%d", delimiter=",")
    options = ("--recipe", recipe, "--epochs", "1", "--device", "cpu", "--json")
    status, out, _ = gpunn("train", "some.csv", *options)
    assert status == 0
    assert json.loads(out)["layer_sizes"] == sizes
    assert json.loads(out)["model"] == f"some-{recipe}.safetensors"
    kind = ThreeLayerNetwork if recipe == "rashid" else Network
    network = kind.load(f"some-{recipe}.safetensors", "cpu")
    assert network.scaling.target_low == (0.01 if recipe == "rashid" else 0.0)
    assert network.training_record["image_shape"] == [28, 28]


def test_options_overrule_parts_of_a_recipe(gpunn):
    options = ("--hidden", "9", "--hidden", "7", "--activation", "tanh", "--lr", "0.5")
    gpunn("train", "--recipe", "nielsen", *options, "--epochs", "1", "--device", "cpu")
    network = Network.load("digits-nielsen.safetensors", "cpu")
    assert network.architecture.layer_sizes == (64, 9, 7, 10)
    assert network.architecture.hidden_activation == "tanh"
    settings = network.training_record["settings"]
    assert (settings["learning_rate"], settings["batch_size"]) == (0.5, 10)


def test_the_classic_recipe_has_one_hidden_layer(refused):
    assert "one sigmoid hidden layer" in refused(
        "train", "--recipe", "rashid", "--loss", "sum_of_squares"
    )
    assert "one --hidden" in refused(
        "train", "--recipe", "rashid", "--hidden", "4", "--hidden", "4"
    )


def test_early_stopping_ends_early_with_the_best_weights(gpunn):
    options = ("--early-stopping", "1", "--optimizer", "sgd", "--lr", "1", "--epochs", "300")
    status, out, _ = gpunn("train", "--hidden", "8", "--device", "cpu", *options)
    assert status == 0
    assert "validation: 144 of the samples are kept back" in out
    ended = (
        r"early stopping after \d+ whole epochs: the network has the weights of epoch \d+, the best"
    )
    assert re.search(ended, out)


def test_the_recipe_of_the_best_epoch_says_what_it_does_and_does_it(gpunn):
    options = ("--recipe", "nielsen", "--epochs", "3", "--device", "cpu")
    _, out, _ = gpunn("train", *options)
    assert "validation: on the test samples, and the best epoch is kept" in out
    accuracies = [float(text) for text in re.findall(r"validation accuracy ([\d.]+)", out)]
    assert len(accuracies) == 3
    tested = float(re.search(r"test accuracy ([\d.]+)", out)[1])
    assert tested == max(accuracies)


@pytest.mark.parametrize(
    ("schedule", "last"),
    [("cosine", 0.0), ("step", 0.01), ("exponential", 0.01), ("inverse-scaling", 3**-0.5)],
)
def test_schedules_reach_the_training(gpunn, schedule, last):
    options = ("--optimizer", "sgd", "--lr", "1e-3", "--schedule", schedule, "--warmup", "0.5")
    gpunn("train", "--hidden", "4", "--epochs", "3", "--batch-size", "1438", *options)
    network = Network.load("digits.safetensors", "cpu")
    rates = [record["learning_rate"] for record in network.training_record["history"]]
    assert rates[0] == 0.0
    shape = {"cosine": 0.25, "step": 0.01, "exponential": 0.01 ** (2 / 3), "inverse-scaling": last}
    assert rates[2] == pytest.approx(1e-3 * shape[schedule])


def test_a_table_of_fractions_keeps_its_labels(gpunn, table):
    assert gpunn("train", table, "--lr", "0.05", "--device", "cpu")[0] == 0
    assert Network.load("table.safetensors", "cpu").class_labels == [3, 7]
    status, out, _ = gpunn("evaluate", "table.safetensors", table, "--json")
    result = json.loads(out)
    assert (status, result["samples"]) == (0, 16)
    assert result["accuracy"] > 0.95
    assert [row["label"] for row in result["classes"]] == [3, 7]
    status, out, _ = gpunn("predict", "table.safetensors", table, "--json")
    assert set(json.loads(out)["predictions"]) == {3, 7}


def test_a_table_without_labels_can_be_predicted(gpunn, table):
    gpunn("train", table, "--epochs", "5", "--device", "cpu")
    with_labels = gpunn("predict", "table.safetensors", table, "--json")[1]
    unlabelled = np.loadtxt(table, delimiter=",")[:, 1:]
    np.savetxt("bare.csv", unlabelled, fmt="%.6f", delimiter=",")
    np.save("bare.npy", unlabelled)
    for name in ("bare.csv", "bare.npy"):
        status, out, _ = gpunn("predict", "table.safetensors", name, "--json")
        assert status == 0
        assert json.loads(out)["predictions"] == json.loads(with_labels)["predictions"]


# evaluate, predict, backquery, info


def test_evaluate_finds_the_accuracy_of_the_training(gpunn, trained):
    done, model = trained
    status, out, _ = gpunn("evaluate", model, "digits", "--json")
    result = json.loads(out)
    assert (status, result["samples"]) == (0, 359)
    assert f"test accuracy {result['accuracy']:.4f}" in done.stdout
    confusion = np.array(result["confusion_matrix"])
    assert confusion.sum() == 359
    assert confusion.trace() / 359 == pytest.approx(result["accuracy"])
    for row, counts in zip(result["classes"], confusion, strict=True):
        assert (row["samples"], row["right"]) == (counts.sum(), counts[row["label"]])
        assert row["recall"] == pytest.approx(row["right"] / row["samples"])


def test_evaluate_prints_a_table_and_the_confusion_matrix(gpunn, trained):
    status, out, err = gpunn("evaluate", trained[1], "digits", "--device", "cpu")
    assert (status, err) == (0, "")
    assert "digits, the test part: 359 samples" in out
    assert "confusion matrix (row: the true class" in out
    assert len(re.findall(r"^ +\d +\d+ +\d+ +\d\.\d{4} +\d\.\d{4}$", out, re.M)) == 10


def test_predictions_go_to_a_table(gpunn, trained, tmp_path):
    status, out, _ = gpunn("predict", trained[1], "digits", "--out", "p.csv")
    assert status == 0
    assert "wrote 1,797 predictions to p.csv" in out
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["prediction", *(f"output_{k}" for k in range(10))]
    outputs = np.array(rows[1:], float)
    np.testing.assert_array_equal(outputs[:, 1:].argmax(axis=1), outputs[:, 0])
    np.testing.assert_allclose(outputs[:, 1:].sum(axis=1), 1, atol=1e-5)


def test_backquery_draws_every_class(gpunn, trained, tmp_path):
    pytest.importorskip("matplotlib")
    status, out, _ = gpunn("backquery", trained[1], "--out", "classes.png", "--json")
    assert (status, json.loads(out)["classes"]) == (0, list(range(10)))
    assert json.loads(out)["method"] == "gradient"
    assert (tmp_path / "classes.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("method", ["inverse", "gradient"])
def test_backquery_takes_the_method_that_is_asked_for(gpunn, trained, tmp_path, method):
    pytest.importorskip("matplotlib")
    status, out, _ = gpunn(
        "backquery", trained[1], "--out", "classes.png", "--json", "--method", method
    )
    assert (status, json.loads(out)["method"]) == (0, method)
    assert (tmp_path / "classes.png").read_bytes().startswith(b"\x89PNG")


def test_backquery_needs_a_square_picture(refused, gpunn, tmp_path):
    pytest.importorskip("matplotlib")
    Network([5, 2], device="cpu").save(tmp_path / "m")
    assert "5 inputs are not the pixels" in refused("backquery", "m", "--out", "p.png")
    Network([64, 2], device="cpu").save(tmp_path / "m")
    line = refused("backquery", "m", "--out", "p.xyz")
    assert "p.xyz: no picture can have the ending .xyz; expected .png" in line


def test_info_says_what_is_here(gpunn):
    status, out, _ = gpunn("info")
    assert status == 0
    assert "packages" in out
    assert "device auto is" in out
    found = json.loads(gpunn("info", "--json")[1])
    assert found["versions"]["numpy"] == np.__version__


# Help.


@pytest.mark.parametrize("command", COMMANDS)
def test_help_mentions_every_option_with_what_it_does(gpunn, command):
    status, out, _ = gpunn(command, "--help")
    assert status == 0
    subparsers = next(a for a in cli.make_parser()._actions if hasattr(a, "_name_parser_map"))
    for action in subparsers.choices[command]._actions:
        assert action.help
        for option in action.option_strings:
            assert option in out


def test_the_first_help_names_every_command():
    done = process("--help")
    assert done.returncode == 0
    assert re.findall(r"^    (\w+)\b", done.stdout, re.M) == list(COMMANDS)
    assert process("--version").stdout.startswith("gpunn 0.")


def test_no_command_at_all_gets_the_help(gpunn):
    status, out, err = gpunn()
    assert (status, out) == (2, "")
    assert err == gpunn("--help")[1]
    assert "To begin, type gpunn train" in err


def test_every_command_has_an_example_that_is_true(gpunn):
    _, out, _ = gpunn("--help")
    examples = re.findall(r"^  gpunn (.*)$", out.partition("\nexamples:\n")[2], re.M)
    assert [example.split()[0] for example in examples] == list(COMMANDS)
    for example in examples:
        cli.make_parser().parse_args(example.split())
        assert f"example:\n  gpunn {example}\n" in gpunn(example.split()[0], "--help")[1]
    # One after the other they also run; parity takes a while and is tested elsewhere.
    pytest.importorskip("matplotlib")
    for example in examples:
        if not example.startswith("parity"):
            assert gpunn(*example.split())[0] == 0, example


@pytest.mark.parametrize(("columns", "widest"), [(60, 60), (100, 100), (300, 100)])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_no_wider_than_the_terminal_or_than_can_be_read(
    gpunn, monkeypatch, command, columns, widest
):
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = gpunn(*command.split(), "--help")
    assert [line for line in out.splitlines() if len(line) > widest] == []
    assert max(map(len, out.splitlines())) > min(widest, 90) / 2
    assert out.startswith("usage: gpunn ")


# Wrong use.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--json",), "COMMAND"),
        (("fly",), "fly"),
        (("train", "--speed", "9"), "gpunn train: error: unrecognized arguments: --speed "),
        (("train", "--device", "gpu"), "use 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        (("train", "--precision", "fp16"), "choose from"),
        (("train", "--device", "cpu", "--precision", "bf16"), "needs an NVIDIA GPU"),
        (("train", "--recipe", "cake"), "rashid"),
        (("train", "--hidden", "0"), "at least 1"),
        (("train", "--epochs", "many"), "whole number"),
        (("train", "--lr", "0"), "above 0"),
        (("train", "--lr", "nan"), "above 0"),
        (("train", "--momentum", "1"), "below 1"),
        (("train", "--optimizer", "adam", "--momentum", "0.5"), "--momentum"),
        (("train", "--val-fraction", "0.0001"), "--val-fraction"),
        (("train", "--early-stopping", "0"), "at least 1"),
        (("train", "--val-fraction", "0", "--early-stopping"), "samples to validate on"),
        (("train", "--loss", "mse"), "squared_error"),
        (("train", "nothing.csv"), "nothing.csv"),
        (("train", "nothing"), "digits, mnist"),
        (("train", "mnist", "--data-dir", "nowhere"), "nowhere"),
        (("train", "--out", "no/such/folder/m"), "no/such/folder"),
        (("train", "--out", "."), "is a folder"),
        (("evaluate", "nothing", "digits"), "no model file at nothing"),
        (("predict", "nothing", "digits"), "no model file"),
        (("backquery", "nothing"), "--out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_use_is_one_line_that_names_it(refused, arguments, said):
    assert said in refused(*arguments)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1,2,3\n0,5\n", "line 2"),
        ("1,2,3\n0,five,5\n", "'five'"),
        ("1,2,3\n0,nan,5\n", "line 2"),
        ("1.5,2,3\n0,4,5\n", "label"),
        ("", "no line of data"),
        ("1,2,3\n1,4,5\n", "at least two classes"),
    ],
)
def test_a_bad_table_is_one_line_that_says_where(refused, tmp_path, content, said):
    (tmp_path / "bad.csv").write_text(content)
    assert said in refused("train", "bad.csv")


def test_a_gpu_that_is_not_there_is_named_with_the_remedy(refused, trained):
    if cuda_problem() is None:
        pytest.skip("there is a usable GPU")
    for command in (
        ("train",),
        ("evaluate", trained[1], "digits"),
        ("predict", trained[1], "digits"),
    ):
        line = refused(*command, "--device", "cuda")
        assert "'cuda' cannot be used" in line
        assert "or use device 'cpu'" in line


def test_data_that_do_not_fit_the_model_are_refused(refused, trained, tmp_path, table):
    model = trained[1]
    for command in ("evaluate", "predict"):
        assert "64" in refused(command, model, table)
    rows = np.column_stack([[3, 11], np.ones((2, 64))])
    np.savetxt(tmp_path / "eleven.csv", rows, fmt="%d", delimiter=",")
    assert "sample 2 is 11, which is out of range" in refused("evaluate", model, "eleven.csv")
    np.save(tmp_path / "bad.npy", np.full((3, 64), np.nan))
    assert "sample 1 holds NaN" in refused("predict", model, "bad.npy")
    for shape in ((0, 64), (2, 0, 8), (0,)):
        np.save(tmp_path / "empty.npy", np.zeros(shape))
        assert "none of its dimensions may be 0" in refused("predict", model, "empty.npy")
    np.save(tmp_path / "text.npy", np.full((3, 64), "one"))
    assert "expected numbers, got <U3" in refused("predict", model, "text.npy")


def test_a_damaged_model_is_refused(refused, trained, tmp_path):
    (tmp_path / "half").write_bytes(trained[1].read_bytes()[:999])
    for arguments in (("evaluate", "half", "digits"), ("backquery", "half", "--out", "x.png")):
        assert "half is damaged" in refused(*arguments)


def test_a_diverging_training_ends_with_advice_and_saves_nothing(gpunn, tmp_path):
    options = ("--optimizer", "sgd", "--lr", "1e36", "--json")
    with np.errstate(all="ignore"):
        status, out, err = gpunn("train", *SMALL, *options)
    assert (status, out) == (1, "")
    assert "the training diverged: in epoch " in err
    assert "try a smaller --lr" in err
    assert not list(tmp_path.iterdir())


# Disks that are full, folders that vanish, Ctrl-C.

LIMITED = """
import resource, sys
from gpunn.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
sys.exit(main(sys.argv[1:]))
"""


@posix
@pytest.mark.parametrize("command", ["train", "predict", "backquery"])
def test_a_full_disk_loses_nothing_that_was_there(trained, tmp_path, command):
    arguments = {
        "train": ["train", *SMALL, "--quiet", "--hidden", "64"],
        "predict": ["predict", trained[1], "digits"],
        "backquery": ["backquery", trained[1]],
    }[command]
    out = tmp_path / "old.png"
    out.write_bytes(b"what was there")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, arguments), "--out", str(out)],
        capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"gpunn: error: cannot write {out}: ")
    assert "File too large" in done.stderr
    assert out.read_bytes() == b"what was there"
    assert [path.name for path in tmp_path.iterdir()] == ["old.png"]


def test_a_model_that_cannot_be_saved_there_is_rescued(refused, tmp_path, monkeypatch):
    folder = tmp_path / "vanishes"
    folder.mkdir()

    def fit(*arguments, **options):
        folder.rmdir()
        return original(*arguments, **options)

    original = train_command.fit
    monkeypatch.setattr(train_command, "fit", fit)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    line = refused("train", *SMALL, "--out", folder / "m.safetensors")
    rescued = re.search(r"the trained model is in (\S+) instead", line)[1]
    assert Network.load(rescued, "cpu").n_inputs == 64


@posix
def test_ctrl_c_saves_what_was_learnt(tmp_path):
    arguments = ["train", *SMALL, "--epochs", "1000000", "--out", "m.safetensors"]
    with subprocess.Popen(
        [sys.executable, "-m", "gpunn", *arguments],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        try:
            for line in running.stdout:
                if line.startswith("epoch"):
                    break
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert (running.returncode, err) == (130, "")
    assert "interrupted after" in out
    assert "saved m.safetensors" in out
    assert (
        Network.load(tmp_path / "m.safetensors", "cpu").training_record["stopped"] == "interrupted"
    )


def test_a_reader_that_has_had_enough_is_no_error(trained):
    command = f"{sys.executable} -m gpunn predict {trained[1]} digits | head -n 2"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""


@pytest.mark.gpu
def test_a_training_on_a_gpu_that_is_there(gpunn):
    require_gpu()
    status, out, _ = gpunn("train", "--device", "cuda", "--json")
    assert (status, json.loads(out)["device"]) == (0, "cuda:0")
    assert json.loads(out)["test_accuracy"] > 0.95
