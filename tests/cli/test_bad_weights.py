"""Networks whose training has diverged, and trainings that do."""

import numpy as np
import pytest

from gpunn import Network, cli

COMMANDS = {
    "evaluate": ["digits"],
    "predict": ["digits"],
    "report": ["digits", "--out", "r.html"],
    "draw": ["--out", "d.html"],
    "backquery": ["--method", "gradient", "--out", "b.png"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_weights_that_are_not_finite_are_refused(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    network = Network([64, 5, 10], output_activation="softmax", loss="cross_entropy", device="cpu")
    parameters = network.parameters()
    parameters["layers.1.weight"][3, 2] = np.nan
    network.load_parameters(parameters)
    network.save("m")
    assert cli.main([command, "m", *COMMANDS[command]]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the model's layers.1.weight has numbers that are NaN or infinite" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


@pytest.mark.parametrize("batch", ["1", "32"])
@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_a_training_that_diverges_says_one_line(tmp_path, capfd, activation, batch):
    options = ["--optimizer", "sgd", "--lr", "1e30", "--batch-size", batch, "--quiet"]
    options += ["--activation", activation, "--out", str(tmp_path / "m"), "--device", "cpu"]
    assert cli.main(["train", "digits", "--epochs", "2", *options]) == 1
    said = capfd.readouterr().err.splitlines()
    assert [line[:37] for line in said] == ["gpunn: error: the training diverged: "]
