"""``gpunn draw``: the page is written whole or not at all, and refusals are one line."""

import json

import pytest

from gpunn import Network, Scaling
from gpunn.cli import main


@pytest.fixture
def model(tmp_path):
    network = Network([64, 10, 3], device="cpu")
    network.training_record = {"data": "digits", "image_shape": [8, 8]}
    network.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def run(capsys, *arguments, status=0):
    assert main(["draw", *map(str, arguments)]) == status
    return capsys.readouterr()


def test_a_page_is_written(model, tmp_path, capsys):
    page = tmp_path / "draw.html"
    done = run(capsys, model, "--out", page)
    size = f"{page.stat().st_size / 1000:.0f} kB"
    assert done.out == f"wrote {page} ({size}): open it in a browser, and draw\n"
    assert done.err == ""
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_json(model, tmp_path, capsys):
    page = tmp_path / "draw.html"
    done = run(capsys, model, "--out", page, "--json")
    expected = {"model": str(model), "out": str(page), "bytes": page.stat().st_size}
    assert json.loads(done.out) == expected


def test_refusals_are_one_line_and_leave_the_old_page(model, tmp_path, capsys):
    page = tmp_path / "draw.html"
    page.write_text("old")
    network = Network.load(model, "cpu")
    network.output_scaling = Scaling(1.0, 0.0)
    network.save(model)
    done = run(capsys, model, "--out", page, status=2)
    assert done.err.startswith(f"gpunn: error: {model}: the model predicts numbers, ")
    assert done.err.count("\n") == 1
    assert page.read_text() == "old"


@pytest.mark.parametrize(
    ("out", "says"), [("", "it is a folder"), ("none/draw.html", "does not exist; make it first")]
)
def test_a_place_that_cannot_be_written(model, tmp_path, capsys, out, says):
    done = run(capsys, model, "--out", tmp_path / out, status=2)
    assert says in done.err


def test_what_is_no_model(tmp_path, capsys):
    done = run(capsys, tmp_path / "none", "--out", tmp_path / "draw.html", status=2)
    assert (
        done.err
        == f"gpunn: error: no model file at {tmp_path / 'none'}; give the path of a saved network\n"
    )
    assert not (tmp_path / "draw.html").exists()
