"""The chart of `gpunn parity`: what is drawn where, also where a training is over the limit."""

import dataclasses
import math

import numpy as np
import pytest

from gpunn import cli
from gpunn.cli.parity_chart import family_of, heading_of, shares_of
from gpunn.errors import OutputError
from gpunn.parity.cases import standard_cases
from gpunn.parity.checks import Check
from gpunn.parity.comparison import Comparison
from gpunn.plots import figures, tolerances
from gpunn.plots.tolerances import Share, save_tolerances

pytest.importorskip("matplotlib")


def comparison(case, share=0.02):
    """Return a comparison whose weights have used that share of their tolerance after a step."""
    checks = [
        Check("initial weights", "start", 0, 0.0, 0.0, True),
        Check("weights", "step", 1, share * 1e-7, 1e-7, share <= 1),
        Check("outputs", "epoch", 2, 1e-8, 1e-6, True),
    ]
    return Comparison(case, "cuda:0 float32", "cpu float32", checks)


CASES = standard_cases(64, 10)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw shares; return the picture as numbers from 0 (black) to 1, and the figure."""

    def run(shares, heading="cuda:0 and cpu"):
        kept = []
        monkeypatch.setattr(tolerances, "save_figure", lambda figure, path: kept.append(figure))
        save_tolerances(tmp_path / "unused.png", shares, heading)
        figures.save_figure(kept[0], tmp_path / "chart.png")
        from matplotlib.image import imread

        return imread(tmp_path / "chart.png"), kept[0]

    return run


def texts(figure):
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def reds(picture):
    """Return how many points of a picture are clearly red."""
    red, green, blue = (picture[..., k] for k in range(3))
    return int(((red > 0.5) & (green < 0.3) & (blue < 0.3)).sum())


def test_every_standard_training_has_its_row():
    rows = [family_of(case) for case in CASES]
    assert [group for group, _ in dict.fromkeys(rows)].count("hidden activation") == 5
    assert {row for group, row in rows if group == "loss function"} == {
        "squared error", "sum of squares", "mean squared error", "absolute error",
        "binary cross entropy",
    }  # fmt: skip
    assert {row for group, row in rows if group == "optimizer"} == {"momentum", "nesterov", "adam"}
    assert {row for group, row in rows if group == "network"} == {
        "two hidden layers", "no biases", "batches of 10",
    }  # fmt: skip


def test_trainings_within_tolerance_have_no_fault_and_the_largest_has_its_number(drawn):
    comparisons = [comparison(case) for case in CASES]
    comparisons[3] = comparison(CASES[3], 0.87)
    picture, figure = drawn(list(shares_of(comparisons)), heading_of(comparisons))
    shown = texts(figure)
    assert "cuda:0 float32 and cpu float32\nall 60 trainings within tolerance" in shown
    assert "87 %" in shown
    assert {"in batches", "one sample at a time", "100 %", "sum of squares"} <= set(shown)
    assert not any("\u2717" in text or "tolerance:" in text for text in shown)
    assert reds(picture) == 0
    assert "over the limit" not in shown


def test_a_fault_stands_out_in_colour_sign_and_words(drawn):
    comparisons = [comparison(case) for case in CASES]
    comparisons[1] = comparison(CASES[1], 240)
    comparisons[2] = comparison(CASES[2], 4e4)
    picture, figure = drawn(list(shares_of(comparisons)), heading_of(comparisons))
    shown = texts(figure)
    assert "2 of 60 trainings DO NOT AGREE" in " ".join(shown)
    assert {"\u2717 tanh", "\u2717 relu", "sigmoid", "over the limit"} <= set(shown)
    assert "weights, step 1: 240 × tolerance" in shown
    assert "weights, step 1: over 1,000 × tolerance" in shown
    assert reds(picture) > 500
    # Nothing is cut off: the picture's edges are white.
    edges = (picture[0], picture[-1], picture[:, 0], picture[:, -1])
    assert all((np.asarray(edge)[:, :3] > 0.85).all() for edge in edges)


def test_what_must_not_differ_has_no_number(drawn):
    one = comparison(CASES[0])
    one.checks[0] = dataclasses.replace(one.checks[0], difference=1e-3, ok=False)
    (start, *_) = shares_of([one])
    assert start.share == math.inf
    assert "initial weights: must not differ" in texts(drawn([start])[1])


def test_predictions_may_be_wrong_though_few_differ():
    one = comparison(CASES[0])
    one.checks.append(Check("predictions", "epoch", 1, 0.01, 0.05, False))
    assert [share.share for share in shares_of([one])] == [0.0, pytest.approx(0.02), math.inf]


def test_two_number_types_are_told_apart():
    both = [comparison(CASES[0]), comparison(dataclasses.replace(CASES[0], dtype="float64"))]
    assert {share.what for share in shares_of(both)} >= {
        "weights, step 1, float32",
        "weights, step 1, float64",
    }


def test_one_training_makes_a_picture(drawn):
    picture, figure = drawn(list(shares_of([comparison(CASES[0])])))
    assert min(picture.shape[:2]) > 200
    assert "hidden activation" in texts(figure)


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    share = Share("in batches", "network", "no biases", "at the start", 0.5, "loss")
    with pytest.raises(OutputError, match="cannot write"):
        save_tolerances(tmp_path / "no" / "chart.png", [share], "")


def test_the_command_draws_its_chart(tmp_path, capsys):
    out = tmp_path / "chart.png"
    options = ["--against", "float64", "--activation", "relu", "--mode", "batch", "--out", str(out)]
    assert cli.main(["parity", *options]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
