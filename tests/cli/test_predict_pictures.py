"""Pictures of anyone's on the command line: predict, evaluate and train."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from gpunn import Network, Scaling, fit
from gpunn.cli import main
from gpunn.cli.console import Console
from gpunn.cli.pictures import read_pictures
from gpunn.data import DATA_DIR_VARIABLE, load_dataset

Image = pytest.importorskip("PIL.Image")

MNIST = Path(os.environ.get(DATA_DIR_VARIABLE) or "nowhere", "mnist")


def run(capsys, *arguments, status=0):
    """Return the lines that a command prints on standard output, and on standard error."""
    assert main([*map(str, arguments)]) == status
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


def refusal(capsys, *arguments):
    _, err = run(capsys, *arguments, status=2)
    return err[-1]


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


def bar(side, upright, *, ground=0, ink=255, at=0):
    """Return a square picture of a bar, which tells its class by its direction."""
    picture = np.full((side, side), ground, np.uint8)
    middle = slice(side // 2 - side // 10 + at, side // 2 + side // 10 + at)
    picture[(slice(side // 6, -side // 6), middle) if upright else (middle, slice(2, -2))] = ink
    return picture


@pytest.fixture
def model(tmp_path):
    """Return the file of a network that knows lying bars, 3, from upright ones, 8."""
    X = [bar(28, upright, at=at) for at in (-2, -1, 0, 1, 2) for upright in (False, True)]
    return train(tmp_path / "bars.safetensors", np.reshape(X, (10, 784)), [28, 28])


def train(path, X, image_shape, *, scaled=(0.0, 255.0), **record):
    network = Network([X.shape[1], 10, 2], device="cpu", seed=1)
    network.scaling = Scaling.to_range(*scaled, 0.01, 1.0)
    network.class_labels = [3, 8]
    y = np.arange(len(X)) % 2
    fit(network, network.scaling.apply(X, "float32"), y, epochs=40, batch_size=2, learning_rate=0.5)
    network.training_record = {"image_shape": image_shape, **record}
    network.save(path)
    return path


def test_one_picture_gives_one_label(model, tmp_path, capsys):
    for upright in (False, True):
        path = save(tmp_path / "mine.PNG", bar(300, upright, ground=240, ink=20))
        out, _ = run(capsys, "predict", model, path, "--device", "cpu")
        assert out[1:] == [
            "pictures: grey, inverted because the ground is light, ink fitted into 20 x 20 and "
            "centred in 28 x 28, as MNIST's are",
            "8" if upright else "3",
        ]


def test_a_folder_gives_a_line_for_each(model, tmp_path, capsys):
    save(tmp_path / "d/10.png", bar(28, True))
    save(tmp_path / "d/9.png", bar(100, False))
    save(tmp_path / "d/a b.png", bar(90, True, ground=255, ink=0))
    (tmp_path / "d/notes.txt").write_text("x")
    out, _ = run(capsys, "predict", model, tmp_path / "d", "--device", "cpu")
    assert out[1:] == [
        "pictures: grey, 1 of 3 inverted because the ground is light, ink fitted into 20 x 20 and "
        "centred in 28 x 28, as MNIST's are; 1 of 3 were 28 x 28 on a dark ground and stay as they "
        "are",
        "pictures: passed over what is none: notes.txt",
        "9.png: 3",
        "10.png: 8",
        "a b.png: 8",
    ]


def test_pictures_that_the_model_knows_stay_as_they_are(model, tmp_path, capsys):
    save(tmp_path / "d/1.png", bar(28, True))
    out, _ = run(capsys, "predict", model, tmp_path / "d", "--device", "cpu")
    assert out[1:] == ["pictures: grey, and as they are: 28 x 28 on a dark ground", "1.png: 8"]


def test_json_has_the_files(model, tmp_path, capsys):
    save(tmp_path / "d/1.png", bar(50, True))
    save(tmp_path / "d/2.png", bar(50, False))
    out, err = run(capsys, "predict", model, tmp_path / "d", "--json", "--device", "cpu")
    assert json.loads(out[-1]) == {
        "device": "cpu",
        "samples": 2,
        "predictions": [8, 3],
        "out": None,
        "files": ["1.png", "2.png"],
    }
    assert any(line.startswith("pictures: grey") for line in err)


def test_a_csv_file_has_the_files_first(model, tmp_path, capsys):
    save(tmp_path / "d/1.png", bar(50, True))
    save(tmp_path / "d/2, old.png", bar(50, False))
    table = tmp_path / "out.csv"
    arguments = ("predict", model, tmp_path / "d", "--out", table, "--device", "cpu")
    out, _ = run(capsys, *arguments)
    assert out[-1] == f"wrote 2 predictions to {table}"
    rows = list(csv.reader(table.read_text().splitlines()))
    assert rows[0] == ["file", "prediction", "output_3", "output_8"]
    assert [row[:2] for row in rows[1:]] == [["1.png", "8"], ["2, old.png", "3"]]
    assert all(0 < float(value) < 1 for row in rows[1:] for value in row[2:])
    run(capsys, *arguments, "--columns", "name,class")
    assert table.read_text().splitlines() == ["name,class", "1.png,8", '"2, old.png",3']


def test_a_folder_with_a_sub_folder_for_each_class(model, tmp_path, capsys):
    for k in range(3):
        save(tmp_path / f"d/3/{k}.png", bar(60 + k, False, ground=200, ink=10))
        save(tmp_path / f"d/8/{k}.png", bar(60 + k, k > 0, ground=200, ink=10))
    out, _ = run(capsys, "predict", model, tmp_path / "d", "--device", "cpu")
    assert out[2:] == ["3/0.png: 3", "3/1.png: 3", "3/2.png: 3", "8/0.png: 3", "8/1.png: 8",
                       "8/2.png: 8"]  # fmt: skip
    out, _ = run(capsys, "evaluate", model, tmp_path / "d", "--json", "--device", "cpu")
    result = json.loads(out[-1])
    assert (result["samples"], result["accuracy"]) == (6, 5 / 6)
    assert result["confusion_matrix"] == [[3, 0], [1, 2]]


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_pictures_without_labels(model, tmp_path, capsys, command):
    save(tmp_path / "d/1.png", bar(28, True))
    out = ["--out", tmp_path / "m"] if command == "train" else []
    before = [] if command == "train" else [model]
    message = refusal(capsys, command, *before, tmp_path / "d", *out, "--device", "cpu")
    assert "its pictures have no labels; expected a folder with a sub-folder of pictures" in message


def test_training_on_a_folder_and_using_the_model_on_such_pictures(tmp_path, capsys):
    for k in range(10):
        for word, upright in (("flat", False), ("tall", True)):
            save(tmp_path / f"d/{word}/{k}.png", bar(12, upright, ground=255, ink=20 * k, at=k % 2))
    model = tmp_path / "m.safetensors"
    out, _ = run(
        capsys, "train", tmp_path / "d", "--out", model, "--device", "cpu", "--hidden", 8,
        "--epochs", 40, "--batch-size", 4,
    )  # fmt: skip
    assert "pictures: grey, 12 x 12 pixels, and otherwise as they are" in out
    record = Network.load(model, "cpu").training_record
    assert (record["image_shape"], record["value_range"]) == ([12, 12], [0, 255])
    assert record["pictures"] == "as they are"
    # A light ground stays light, because that is what the model has learnt.
    out, _ = run(capsys, "predict", model, tmp_path / "d", "--device", "cpu")
    assert out[1:] == [f"{word}/{k}.png: {word}" for word in ("flat", "tall") for k in range(10)]
    out, _ = run(capsys, "evaluate", model, tmp_path / "d", "--json", "--device", "cpu")
    assert json.loads(out[-1])["accuracy"] == 1
    other = save(tmp_path / "other.png", bar(24, True))
    assert refusal(capsys, "predict", model, other, "--device", "cpu").endswith(
        f"{other}: has 24 x 24 pixels; expected 12 x 12, as the pictures that the model was "
        "trained on have, so resize it"
    )


def test_the_values_are_those_that_the_model_was_trained_on(tmp_path, capsys):
    X = [bar(28, upright, at=at) for at in (-1, 0, 1) for upright in (False, True)]
    X = np.reshape(X, (6, 784)) / 255 * 3 - 1
    model = train(tmp_path / "m", X, None, scaled=(-1, 2), value_range=[-1.0, 2.0], data="mine.npz")
    path = save(tmp_path / "mine.png", bar(200, True, ground=255, ink=0))
    out, _ = run(capsys, "predict", model, path, "--device", "cpu")
    assert out[-1] == "8"


def test_the_range_of_values_is_recorded(tmp_path, capsys):
    X = np.random.default_rng(0).uniform(0.25, 0.75, (20, 9))
    X[0, 0], X[19, 8], X[3, 3] = 0.0, 0.5, 1.0
    np.savez(tmp_path / "x.npz", X=X, y=np.arange(20) % 2)
    model = tmp_path / "m.safetensors"
    run(capsys, "train", tmp_path / "x.npz", "--out", model, "--device", "cpu", "--epochs", 1)
    low, high = Network.load(model, "cpu").training_record["value_range"]
    assert 0 <= low < 0.26
    assert 0.74 < high <= 1


def test_the_digits_that_come_with_gpunn_fill_their_field(tmp_path, capsys):
    X = np.random.default_rng(0).random((4, 64))
    path = save(tmp_path / "mine.png", bar(200, True, ground=255, ink=0))
    seen = {}
    for record in ({"value_range": [0.0, 16.0]}, {}):  # new and old files
        model = train(tmp_path / "m", X, [8, 8], data="digits", **record)
        network = Network.load(model, "cpu")
        seen[len(record)] = read_pictures(str(path), network, Console(as_json=False)).inputs
        assert capsys.readouterr().out == (
            "pictures: grey, inverted because the ground is light, ink fitted into 8 x 8 and "
            "centred in 8 x 8, as the digits' are\n"
        )
    np.testing.assert_array_equal(seen[0], seen[1])
    assert seen[0].max() == 16
    assert seen[0].reshape(8, 8).any(axis=1).all()


@pytest.mark.parametrize("n_inputs", [4, 13, 48])
def test_a_model_of_measurements_refuses_pictures(tmp_path, capsys, n_inputs):
    model = train(tmp_path / "m", np.random.default_rng(0).random((4, n_inputs)), None)
    path = save(tmp_path / "mine.png", bar(28, True))
    assert refusal(capsys, "predict", model, path, "--device", "cpu").endswith(
        f"{path}: is a picture, or a folder of them, but the model takes {n_inputs} numbers that "
        "are no pixels; use data like those that it was trained on"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a picture, or damaged"), (None, "nothing is on it, for all of it has the same")],
)
def test_bad_pictures_and_nothing_is_written(model, tmp_path, capsys, content, message):
    save(tmp_path / "d/1.png", bar(28, True))
    if content is None:
        save(tmp_path / "d/2.png", np.full((30, 30), 255))
    else:
        (tmp_path / "d/2.png").write_bytes(content)
    table = tmp_path / "out.csv"
    said = refusal(capsys, "predict", model, tmp_path / "d", "--out", table, "--device", "cpu")
    assert f"{tmp_path / 'd' / '2.png'}: {message}" in said
    assert not table.exists()
    assert "no such file" in refusal(capsys, "predict", model, tmp_path / "3.png")


def test_the_record_of_a_stranger_is_not_trusted(tmp_path, capsys):
    X = np.random.default_rng(0).random((4, 64))
    path = save(tmp_path / "mine.png", bar(28, True))
    for record in ({"value_range": ["a", 1]}, {"value_range": [1]}, {"pictures": 7}):
        model = train(tmp_path / "m", X, None, **record)
        run(capsys, "predict", model, path, "--device", "cpu")
    for shape in ([8], [0, 0], [6.4, 10], "ab", [-8, -8], [4, 16]):
        run(capsys, "predict", train(tmp_path / "m", X, shape), path)
    model = train(tmp_path / "m", X, [8, 9])
    assert "numbers that are no pixels" in refusal(capsys, "predict", model, path)


# --- digits ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    """Return MNIST's test digits, and a network trained on 5,000 others."""
    if not MNIST.is_dir():
        pytest.skip(f"{DATA_DIR_VARIABLE} names no folder with mnist in it")
    mnist = load_dataset("mnist")
    network = Network([784, 60, 10], device="cpu", seed=0)
    network.scaling = Scaling.to_range(0, 255, 0.01, 1.0)
    X = network.scaling.apply(mnist.inputs[:5000], "float32")
    fit(network, X, mnist.labels[:5000], epochs=10, batch_size=100, optimizer="adam",
        learning_rate=0.01)  # fmt: skip
    network.training_record = {"image_shape": [28, 28], "value_range": [0.0, 255.0]}
    return mnist.test_inputs[:200].reshape(-1, 28, 28), network


def predicted(capsys, folder, network, images):
    """Return what a command says of pictures in a folder, and what the network says of images."""
    network.save(folder / "m.safetensors")
    out, _ = run(capsys, "predict", folder / "m.safetensors", folder / "d", "--json")
    X = network.scaling.apply(images.reshape(-1, 784), "float32")
    return np.array(json.loads(out[-1])["predictions"]), network.predict(X).argmax(axis=1)


def test_saved_digits_are_the_very_same(digits, tmp_path, capsys):
    images, network = digits
    for k, image in enumerate(images[:50]):
        save(tmp_path / f"d/{k}.png", image)
    came, expected = predicted(capsys, tmp_path, network, images[:50])
    np.testing.assert_array_equal(came, expected)


def test_digits_on_paper_are_mostly_the_same(digits, tmp_path, capsys):
    images, network = digits
    rng = np.random.default_rng(1)
    for k, image in enumerate(images):
        large = Image.fromarray(image).resize((140, 140), Image.Resampling.LANCZOS)
        page = Image.new("L", (200, 300), 0)
        page.paste(large, (int(rng.integers(0, 60)), int(rng.integers(0, 160))))
        save(tmp_path / f"d/{k}.png", 230 - np.asarray(page) * 0.8)
    came, expected = predicted(capsys, tmp_path, network, images)
    # 94.5 % to 96.5 %, measured with four networks.
    assert (came == expected).mean() >= 0.9
