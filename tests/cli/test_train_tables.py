"""Tables on the command line, as people have them: trained, measured and predicted."""

import csv
import json
import re

import numpy as np
import pytest

from gpunn import Network, cli
from gpunn.data import files, table_inputs
from gpunn.data.tables import csv_blocks, long_table


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command that ends well, in a folder of its own; return its lines."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, status=0):
        try:
            came = cli.main([*map(str, arguments), "--device", "cpu"])
        except SystemExit as end:
            came = end.code
        out, err = capsys.readouterr()
        assert came == status, err
        return out if status == 0 else err

    return run


@pytest.fixture
def result(run):
    """Run a command and return its JSON."""

    def result(*arguments):
        return json.loads(run(*arguments, "--json").splitlines()[-1])

    return result


@pytest.fixture
def refused(run):
    """Run a command that must be refused with status 2 and one line; return the line."""

    def refused(*arguments):
        line = run(*arguments, status=2)
        assert len(line.splitlines()) == 1
        assert re.match(r"gpunn( \w+)?: error: .", line)
        return line

    return refused


def write(name, text):
    with open(name, "w", newline="", encoding="utf-8") as file:
        file.write(text)
    return name


def flowers(delimiter=",", newline="\n", order=("size", "colour", "weight", "species")):
    """Return a table of 90 flowers whose species follows from size and colour."""
    rng = np.random.default_rng(0)
    lines = [delimiter.join(order)]
    for _ in range(90):
        size, colour = rng.uniform(1, 9), str(rng.choice(["red", "blue"]))
        species = "rose" if colour == "red" else ("iris" if size > 5 else "flax")
        row = {"size": f"{size:.3f}", "colour": colour, "weight": "7", "species": species}
        lines.append(delimiter.join(row[name] for name in order))
    return newline.join(lines) + newline


def diabetes():
    """Return scikit-learn's table of that name, the number to predict first."""
    data = pytest.importorskip("sklearn.datasets").load_diabetes()
    lines = [",".join(["progression", *data.feature_names])]
    lines += [
        ",".join(map(repr, [float(y), *map(float, x)]))
        for x, y in zip(data.data, data.target, strict=True)
    ]
    return "\n".join(lines) + "\n"


def test_words_are_learnt_told_and_given_back(run, result, tmp_path):
    data = write("flowers.csv", flowers())
    came = run("train", data, "--target", "species")
    assert "to learn: column 'species', as 3 classes (classification)" in came
    assert "words: in 1 column, with 2 inputs, one for each word" in came
    model = "flowers.safetensors"
    measured = result("evaluate", model, data)
    assert measured["accuracy"] > 0.95
    assert [row["label"] for row in measured["classes"]] == ["flax", "iris", "rose"]
    text = run("evaluate", model, data)
    assert re.search(r"^ rose +\d+ +\d+ +1\.0000", text, re.M)
    # The same columns in another order, with one more, and without the species.
    other = write("new.csv", "colour,weight,more,size\nred,7,x,2\nblue,7,y,2\nblue,7,x,8\n")
    assert result("predict", model, other)["predictions"] == ["rose", "flax", "iris"]
    assert run("predict", model, other).split()[-3:] == ["rose", "flax", "iris"]
    run("predict", model, other, "--out", "p.csv")
    rows = list(csv.reader((tmp_path / "p.csv").read_text().splitlines()))
    assert rows[0] == ["prediction", "output_flax", "output_iris", "output_rose"]
    assert [row[0] for row in rows[1:]] == ["rose", "flax", "iris"]
    network = Network.load(model, "cpu")
    assert network.class_labels == ["flax", "iris", "rose"]
    assert network.preparation.feature_names == ["size", "colour=blue", "colour=red", "weight"]


@pytest.mark.parametrize(("delimiter", "newline"), [(";", "\n"), ("\t", "\r\n"), ("|", "\n")])
def test_what_stands_between_fields_is_found_out(result, delimiter, newline):
    data = write("f.csv", flowers(delimiter, newline))
    assert result("train", data, "--target", -1, "--epochs", 300)["test_accuracy"] > 0.8


def test_fields_in_quotes_with_windows_line_ends(result, refused):
    rows = "".join(f'"{k % 2}","{k % 2 + 0.25}"\r\n' for k in range(40))
    data = write("quoted.csv", rows)
    assert result("train", data, "--out", "m")["test_accuracy"] == 1.0
    data = write("colons.csv", rows.replace(",", ":"))
    assert "is a quote missing, or one too many?" in refused("train", data)
    assert result("train", data, "--delimiter", ":", "--out", "m")["test_accuracy"] == 1.0
    assert result("evaluate", "m", data, "--delimiter", ":")["accuracy"] == 1.0
    assert len(result("predict", "m", data, "--delimiter", ":")["predictions"]) == 40
    assert "a delimiter is one character" in refused("train", data, "--delimiter", "ab")


def test_a_label_that_is_not_first_is_asked_for(refused):
    line = refused("train", write("f.csv", flowers()))
    assert "f.csv, line 2, column 'size': the label" in line
    assert "name what is to be learnt, such as --target species" in line
    assert "do you mean 'species'?" in refused("train", "f.csv", "--target", "Species")


def test_numbers_are_predicted_in_their_own_units(run, result, refused, tmp_path):
    data = write("diabetes.csv", diabetes())
    model = "diabetes.safetensors"
    came = result("train", data, "--loss", "mean_squared_error")
    assert (came["task"], came["layer_sizes"][-1], came["test_accuracy"]) == ("regression", 1, None)
    assert came["test_r2"] > 0.35
    assert 45 < came["test_rmse"] < 65
    said = run("train", data, "--epochs", 3)
    assert "as numbers (regression; --task classification is the other choice)" in said
    assert re.search(r"^test R\^2 -?\d+\.\d{4}, RMSE \d+\.\d+$", said, re.M)
    assert "gpunn draw" not in said
    result("train", data, "--task", "regression")
    new = write("new.csv", diabetes().rstrip("\n").rpartition("\n")[0])
    measured = result("evaluate", model, new)
    table = np.loadtxt(new, delimiter=",", skiprows=1)
    predicted = np.array(result("predict", model, new)["predictions"])
    truth = table[:, 0]
    error = np.square(predicted - truth)
    assert measured["rmse"] == pytest.approx(np.sqrt(error.mean()), rel=1e-5)
    assert measured["r2"] == pytest.approx(1 - error.mean() / truth.var(), rel=1e-5)
    network = Network.load(model, "cpu")
    X = network.scaling.apply(table[:, 1:], "float32")
    outputs = network.output_scaling.apply(network.predict(X), "float64")
    np.testing.assert_allclose(outputs[:, 0], predicted, rtol=1e-12)
    assert "accuracy" not in measured
    assert measured["targets"][0]["target"] == "progression"
    run("predict", model, data, "--out", "p.csv")
    assert (tmp_path / "p.csv").read_text().startswith("prediction\n")
    assert "is for classes, and here are numbers" in refused("train", data, "--recipe", "rashid")
    assert "choose squared_error" in refused("train", data, "--loss", "cross_entropy")
    assert "use --sample-weight" in refused("train", data, "--class-weight", "balanced")


def test_many_classes_are_said(run, refused):
    rows = "".join(f"{k % 150},{k}\n" for k in range(600))
    data = write("many.csv", "y,a\n" + rows)
    assert "as numbers (regression" in run("train", data, "--epochs", 1)
    said = run("train", data, "--epochs", 1, "--task", "classification")
    assert "150 are many; if they are quantities, predict them with --task regression" in said


def test_several_numbers_are_predicted_at_once(result, run, tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 2))
    rows = [f"{a:.4f},{b:.4f},{a + b:.4f},{100 * (a - b):.4f}" for a, b in x]
    data = write("two.csv", "a,b,sum,difference\n" + "\n".join(rows) + "\n")
    came = result("train", data, "--target", "sum", "--target", "difference", "--out", "m")
    assert came["layer_sizes"] == [2, 100, 2]
    assert came["test_r2"] > 0.95
    assert came["validation_accuracy"] is None
    measured = result("evaluate", "m", data)
    assert [row["target"] for row in measured["targets"]] == ["sum", "difference"]
    assert measured["targets"][1]["rmse"] > 10 * measured["targets"][0]["rmse"]
    first = result("predict", "m", data)["predictions"][0]
    assert np.allclose(first, [x[0].sum(), 100 * (x[0, 0] - x[0, 1])], rtol=0.3, atol=20)
    run("predict", "m", data, "--out", "p.csv", "--columns", "id,s,d")
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "id,s,d"
    assert np.allclose(list(map(float, lines[1].split(",")[1:])), first, rtol=1e-6)
    run("predict", "m", data, "--out", "p.csv")
    assert (tmp_path / "p.csv").read_text().startswith("sum,difference\n")


def test_what_is_missing_is_filled_as_in_the_training(run, result, refused):
    text = flowers()
    holes = text.replace("1.", ".", 1).replace("\n", "\n,red,7,rose\n", 3)
    data = write("holes.csv", holes)
    line = refused("train", data, "--target", "species")
    assert "line 2, column 'size': is missing" in line
    assert "--missing mean, zero or drop" in line
    said = run("train", data, "--target", "species", "--missing", "mean", "--out", "m")
    assert "missing: 3 fields of column 'size'; a number became the mean of its column" in said
    new = write("new.csv", "size,colour,weight\n,red,7\n,blue,\n")
    mean = Network.load("m", "cpu").preparation.columns[0].fill
    full = write("full.csv", f"size,colour,weight\n{mean!r},red,7\n{mean!r},blue,7\n")
    assert result("predict", "m", new)["predictions"] == result("predict", "m", full)["predictions"]
    run("train", data, "--target", "species", "--missing", "drop", "--out", "d")
    assert "line 2, column 'size': is missing" in refused("predict", "d", new)
    assert result("evaluate", "d", write("more.csv", holes + "1,red,7,rose\n"))["samples"] == 91


def test_new_words_and_missing_columns_are_refused_by_place(run, refused):
    data = write("f.csv", flowers())
    run("train", data, "--target", "species", "--epochs", 1, "--out", "m")
    new = write("n.csv", "size,colour,weight\n1,red,7\n2,violet,7\n")
    line = refused("predict", "m", new)
    assert "n.csv, line 3, column 'colour': 'violet' is not among the words that the model" in line
    assert "'blue', 'red'" in line
    new = write("n.csv", "size,color,weight\n1,red,7\n")
    assert "lacks column 'colour'; expected the columns" in refused("predict", "m", new)
    assert "found column 'color' instead" in refused("predict", "m", new)
    new = write("e.csv", "size,colour,weight\n1,red,7\n")
    assert "lacks column 'species'" in refused("evaluate", "m", new)
    new = write("e.csv", "size,colour,weight,species\n1,red,7,tulip\n")
    assert "'tulip' is not among the words that the model knows" in refused("evaluate", "m", new)


def test_names_and_texts_among_the_inputs_are_refused_by_name(run, refused):
    rows = "".join(f"{k % 2},{k % 7},name {k}\n" for k in range(40))
    data = write("names.csv", "y,a,name\n" + rows)
    line = refused("train", data)
    assert "column 'name' holds 40 different words in 40 rows" in line
    assert "--ignore name" in line
    assert "2 classes" in run("train", data, "--ignore", "name", "--epochs", 1)


def test_predictions_for_a_competition(run, refused, tmp_path):
    data = write("f.csv", flowers())
    run("train", data, "--target", "species", "--out", "m")
    new = write("n.csv", "Id,size,colour,weight\n0017,2,red,7\nx9,8,blue,7\n")
    run("predict", "m", new, "--out", "p.csv", "--columns", "Id,Species")
    assert (tmp_path / "p.csv").read_text() == "Id,Species\n0017,rose\nx9,iris\n"
    run("predict", "m", new, "--out", "p.csv", "--columns", "ImageId,Label")
    assert (tmp_path / "p.csv").read_text() == "ImageId,Label\n1,rose\n2,iris\n"
    assert "give --out FILE.csv" in refused("predict", "m", new, "--columns", "a,b")
    for wrong in ("a", "a,b,c", "a,"):
        line = refused("predict", "m", new, "--out", "p.csv", "--columns", wrong)
        assert "expected 2 names with commas between" in line


def test_classes_that_are_words_have_weights(run, refused):
    data = write("f.csv", flowers())
    options = ("train", data, "--target", "species", "--epochs", 2)
    run(*options, "--class-weight", "rose=3", "--out", "m")
    assert Network.load("m", "cpu").training_record["settings"]["class_weight"] == {"rose": 3.0}
    line = refused(*options, "--class-weight", "tulip=3")
    assert "has no label tulip to train on; its labels are flax, iris, rose" in line


def test_small_tables_are_gone_through_more_often(run):
    data = write("f.csv", flowers())
    options = ("train", data, "--target", "species")
    said = run(*options)
    assert "epoch 500/500" in said
    assert len(re.findall(r"^epoch", said, re.M)) == 100
    assert "epoch   3/3" in run(*options, "--epochs", 3)


def test_a_table_that_does_not_fit_is_learnt_as_in_memory(result, run, monkeypatch):
    lines = flowers().splitlines()
    text = "\n".join([lines[0], *lines[1:] * 4]) + "\n"
    holes = text.replace("\n", "\n,red,7,rose\n", 3)
    for data, options in ((text, ()), (holes, ("--missing", "mean"))):
        write("f.csv", data)
        train = ("train", "f.csv", "--target", "species", "--epochs", 60, *options)
        in_memory = result(*train, "--out", "a")
        with monkeypatch.context() as patch:
            patch.setattr(files, "TOO_LITTLE_TO_ASK", 1000)
            patch.setattr(files, "free_memory", lambda: 3000)
            patch.setattr(long_table, "free_memory", lambda: 3000)
            patch.setattr(csv_blocks, "BLOCK_BYTES", 500)
            in_chunks = result(*train, "--out", "b")
            assert result("evaluate", "b", "f.csv")["accuracy"] > 0.9
        assert in_memory["test_accuracy"] > 0.9
        assert in_chunks["test_accuracy"] > 0.9
        one, other = (Network.load(name, "cpu") for name in "ab")
        assert one.class_labels == other.class_labels
        assert one.preparation.feature_names == other.preparation.feature_names
        # Of other samples, held out at random, so only about the same.
        np.testing.assert_allclose(one.scaling.scale, other.scaling.scale, rtol=0.2)
        assert one.scaling.scale[3] == other.scaling.scale[3] == 0


def test_numbers_of_a_table_that_does_not_fit(result, monkeypatch):
    data = write("d.csv", diabetes())
    monkeypatch.setattr(files, "TOO_LITTLE_TO_ASK", 1000)
    monkeypatch.setattr(files, "free_memory", lambda: 3000)
    monkeypatch.setattr(long_table, "free_memory", lambda: 3000)
    came = result("train", data, "--out", "m", "--epochs", 60, "--val-fraction", 0.1)
    assert came["test_r2"] > 0.3
    assert result("evaluate", "m", data)["r2"] > 0.3


def test_a_frame_is_compared_with_the_columns_of_the_table(run):
    pandas = pytest.importorskip("pandas")
    data = write("f.csv", flowers())
    run("train", data, "--target", "species", "--epochs", 1, "--out", "m")
    network = Network.load("m", "cpu")
    names = ["size", "colour=blue", "colour=red", "weight"]
    X = np.ones((3, 4), np.float32)
    came = network.predict(pandas.DataFrame(X, columns=names))
    np.testing.assert_array_equal(came, network.predict(X))
    with pytest.raises(ValueError, match="in the order of the training, with 'size' as column 0"):
        network.predict(pandas.DataFrame(X, columns=names[::-1]))


def test_python_reads_a_table_as_the_command_line_does(run, result):
    data = write("f.csv", flowers())
    run("train", data, "--target", "species", "--epochs", 20, "--out", "m")
    network = Network.load("m", "cpu")
    new = write("n.csv", flowers(order=("colour", "weight", "size")))
    inputs = network.scaling.apply(table_inputs(new, network.preparation), network.dtype)
    said = [network.class_labels[k] for k in network.predict(inputs).argmax(axis=1)]
    assert said == result("predict", "m", new)["predictions"]
