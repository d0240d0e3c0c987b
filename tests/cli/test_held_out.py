"""What a training held out of one's own data is what the network is measured on later."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpunn import Network, cli
from gpunn.cli import train
from gpunn.cli.held_out import HeldOut, fingerprint_of
from gpunn.data import files
from gpunn.data.tables import long_table


@pytest.fixture
def gpunn(tmp_path, monkeypatch, capsys):
    """Return a function that runs a command there, and returns its JSON, and what else it said."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        assert cli.main([*map(str, arguments), "--device", "cpu", "--json"]) == 0
        out, said = capsys.readouterr()
        return json.loads(out), said

    return run


def flowers(rng, n=200):
    kinds = rng.integers(0, 3, n)
    rows = [f"{k + rng.normal():.3f},{'xyz'[rng.integers(3)]},{'abc'[k]}" for k in kinds]
    rows[7] = ",x,a"
    return "size,colour,kind\n" + "\n".join(rows) + "\n"


def numbers(rng):
    X = rng.normal(size=(150, 3))
    y = X.sum(axis=1) + 0.5 * rng.normal(size=150)
    return "\n".join(["y,a,b,c", *(f"{t},{a},{b},{c}" for t, (a, b, c) in zip(y, X, strict=True))])


def write_pictures(folder, rng):
    image = pytest.importorskip("PIL.Image")
    for label in ("left", "right"):
        Path(folder, label).mkdir(parents=True)
        for k in range(30):
            pixels = rng.integers(0, 120, (9, 9), np.uint8)
            pixels[:, slice(5) if label == "left" else slice(4, 9)] += 20
            image.fromarray(pixels).save(Path(folder, label, f"{k}.png"))


def write_data(kind, rng):
    """Write data, and return what names them, and what training needs to be told."""
    if kind == "pictures":
        write_pictures("pictures", rng)
        return "pictures", []
    if kind in ("classes", "long"):
        Path("t.csv").write_text(flowers(rng), "utf-8")
        return "t.csv", ["--target", "kind", "--missing", "drop"]
    if kind == "numbers":
        Path("t.csv").write_text(numbers(rng), "utf-8")
        return "t.csv", ["--task", "regression"]
    X, y = rng.normal(size=(90, 5)), rng.integers(0, 4, 90)
    if kind == "npz":
        np.savez("a.npz", X=X, y=y)
        return "a.npz", []
    np.save("X.npy", X)
    np.save("y.npy", y)
    return "X.npy,y.npy", []


KINDS = ["classes", "long", "numbers", "pictures", "npz", "npy"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_held_out_is_measured(gpunn, monkeypatch, rng, kind):
    if kind == "long":
        monkeypatch.setattr(files, "free_memory", lambda: 3000)
        monkeypatch.setattr(files, "TOO_LITTLE_TO_ASK", 0)
        monkeypatch.setattr(long_table, "free_memory", lambda: 3000)
    data, options = write_data(kind, rng)
    trained, said = gpunn("train", data, *options, "--epochs", 3, "--seed", 5, "--out", "m")
    n_test = int(re.search(r"(\d+) held out for testing", said)[1])
    assert ("they stay on the disk" in said) == (kind == "long")
    measured, said = gpunn("evaluate", "m", data)
    assert measured["samples"] == n_test
    name = "accuracy" if trained["test_accuracy"] is not None else "r2"
    assert measured[name] == pytest.approx(trained[f"test_{name}"], rel=1e-6)
    assert "caution" not in said
    reported, said = gpunn("report", "m", data, "--out", "r.html")
    assert reported["samples"] == n_test
    assert "the test part" in Path("r.html").read_text("utf-8")


def test_the_file_counts_and_not_its_name(gpunn, rng):
    data, options = write_data("classes", rng)
    trained, _ = gpunn("train", data, *options, "--epochs", 2, "--out", "m")
    shutil.move(data, "elsewhere.csv")
    measured, _ = gpunn("evaluate", "m", "elsewhere.csv")
    assert measured["accuracy"] == trained["test_accuracy"]
    with open("elsewhere.csv", "a", encoding="utf-8") as file:
        file.write("1.5,x,a\n")
    shutil.move("elsewhere.csv", data)
    measured, said = gpunn("evaluate", "m", data)
    assert measured["samples"] == 200
    accuracy = f"{trained['test_accuracy']:.4f}"
    assert "caution: the training had data of this name, which have changed since" in said
    assert f"looks better than it is; on those held out: accuracy {accuracy}" in said
    shutil.move(data, "other.csv")
    _, said = gpunn("evaluate", "m", "other.csv")
    assert "caution" not in said


def test_a_mistake_is_called_by_its_row(gpunn, rng):
    data, options = write_data("classes", rng)
    gpunn("train", data, *options, "--epochs", 1, "--out", "m", "--report", "r.html")
    lines = Path(data).read_text("utf-8").splitlines()
    cards = re.findall(
        r"<bdi>size</bdi></dt><dd><bdi>([^<]+)</bdi>.*?<bdi>row (\d+)</bdi>, truly <bdi>(.)</bdi>",
        Path("r.html").read_text("utf-8"),
        re.S,
    )
    assert len(cards) > 5
    for size, row, kind in cards:
        there = lines[int(row)].split(",")
        assert float(size) == pytest.approx(float(there[0]), abs=1e-3)
        assert kind == there[2]


def test_a_mistaken_picture_is_called_by_its_file(gpunn, rng):
    data, _ = write_data("pictures", rng)
    gpunn("train", data, "--epochs", 1, "--lr", 1e-9, "--out", "m", "--report", "r.html")
    cards = re.findall(
        r"<bdi>(\w+)/\d+\.png</bdi>, truly <bdi>(\w+)</bdi>", Path("r.html").read_text("utf-8")
    )
    assert cards
    assert all(folder == true for folder, true in cards)


@pytest.mark.parametrize(
    "said", [None, 3, [], {}, {"files": [], "seed": 0}, {"files": "", "seed": 0}, {"seed": "0"}]
)
def test_a_record_may_hold_anything(tmp_path, said):
    path = tmp_path / "a.npy"
    path.write_bytes(b"123")
    assert HeldOut.of_record({"held_out": said}, str(path)) is None
    right = fingerprint_of(str(path))
    for seed in (-1, "1", None, 1.5, True):
        assert HeldOut.of_record({"held_out": {"files": right, "seed": seed}}, str(path)) is None
    assert HeldOut.of_record({"held_out": {"files": right, "seed": 1}}, str(path)).seed == 1


def test_a_fingerprint_tells_files_apart(tmp_path, rng):
    path, noise = tmp_path / "f", bytearray(rng.bytes(2**20))
    path.write_bytes(noise)
    whole = fingerprint_of(str(path))
    assert fingerprint_of(str(shutil.copy(path, tmp_path / "g"))) == whole
    for change in (lambda: noise.__setitem__(2**19, noise[2**19] ^ 1), noise.pop):
        change()
        path.write_bytes(noise)
        assert fingerprint_of(str(path)) != whole
    assert fingerprint_of("digits") is None
    assert fingerprint_of(str(tmp_path / "nothing")) is None


def test_only_pictures_count_in_a_folder_of_them(gpunn, rng):
    data, _ = write_data("pictures", rng)
    shutil.move("pictures/left", "elsewhere")
    Path("pictures/left").symlink_to(Path("elsewhere").resolve())
    os.symlink("pictures", "link")
    trained, _ = gpunn("train", data, "--epochs", 2, "--out", "pictures/m")
    os.mkfifo("pictures/right/pipe")
    Path("pictures/.#foo").symlink_to("nowhere")
    measured, said = gpunn("evaluate", "pictures/m", data)
    assert (measured["samples"], measured["accuracy"]) == (12, trained["test_accuracy"])
    Path("elsewhere/3.png").rename("elsewhere/300.png")
    assert gpunn("evaluate", "pictures/m", data)[0]["samples"] == 60
    gpunn("train", "link", "--epochs", 2, "--out", "m")
    Path("elsewhere/4.png").unlink()
    measured, said = gpunn("evaluate", "m", "link")
    assert measured["samples"] == 59
    assert "caution: the training had data of this name" in said


def test_a_file_that_changes_while_it_is_learnt_is_another(gpunn, monkeypatch, rng):
    data, options = write_data("classes", rng)
    fit = train.fit

    def slow_fit(*arguments, **more):
        with open(data, "a", encoding="utf-8") as file:
            file.write("1.5,x,a\n")
        return fit(*arguments, **more)

    monkeypatch.setattr(train, "fit", slow_fit)
    gpunn("train", data, *options, "--epochs", 2, "--out", "m", "--report", "r.html")
    measured, said = gpunn("evaluate", "m", data)
    assert measured["samples"] == 200
    assert "which have changed since" in said
    assert "which have changed since" in Path("r.html").read_text("utf-8")


def test_a_network_that_is_trained_further_forgets_what_was_said_of_it(gpunn, rng):
    import gpunn as library

    gpunn("train", "digits", "--epochs", 2, "--out", "m")
    network = Network.load("m", "cpu")
    kept = {k: network.training_record[k] for k in ("image_shape", "value_range", "pictures")}
    library.fit(network, rng.random((20, 64)), rng.integers(0, 10, 20), epochs=3, batch_size=5)
    assert {k: v for k, v in network.training_record.items() if v is not None} == kept
    network.training_record["data"] = "flowers"
    network.load_parameters(network.parameters())
    assert "data" not in network.training_record
    page = library.report(network).html
    assert "There is no record of its epochs" in page
    assert "gpunn train" not in page


def test_a_report_that_fails_does_not_hide_the_model(gpunn, capsys):
    arguments = ["train", "digits", "--epochs", "1", "--out", "m", "--report", "/dev/full"]
    assert cli.main([*arguments, "--device", "cpu", "--quiet"]) != 0
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("gpunn: error: there is no report: cannot write /dev/full")
    assert said.endswith("the network itself is saved in m")
    assert Network.load("m", "cpu").training_record["epochs"] == 1


def test_a_report_is_in_the_result(gpunn):
    result, said = gpunn("train", "digits", "--epochs", 1, "--out", "m", "--report", "r.html")
    assert result["report"] == "r.html"
    assert "gpunn report" not in said


def test_weights_that_were_written_by_hand_have_no_training(gpunn, rng):
    data, options = write_data("classes", rng)
    gpunn("train", data, *options, "--epochs", 2, "--out", "m")
    network = Network.load("m", "cpu")
    weights = network.layers[0].weights
    weights += 0.01
    network.save("m")
    assert "held_out" in Network.load("m", "cpu").training_record
    assert gpunn("evaluate", "m", data)[0]["samples"] == 199
    gpunn("report", "m", "--out", "r.html")
    assert "gpunn train" not in Path("r.html").read_text("utf-8")
