"""What is in the page to draw on, and for which models there is none."""

import base64
import json
import re

import numpy as np
import pytest
from drawn_for import made

from gpunn import Network, Scaling, activations
from gpunn.data.tables.preparation import Column, Preparation
from gpunn.drawing import contents
from gpunn.drawing.page import draw_page
from gpunn.errors import ParameterError


def refusal(network):
    with pytest.raises(ParameterError) as caught:
        draw_page(network)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def told(page):
    """Return what a page is told of its network."""
    return json.loads(re.search(r'<script type="application/json".*?>(.*?)</script>', page)[1])


@pytest.mark.parametrize(("dtype", "code"), [("float32", "<f4"), ("float64", "<f8")])
def test_the_weights_are_in_the_page_bit_by_bit(dtype, code):
    network = made([64, 5, 3], dtype=dtype)
    layers = told(draw_page(network))["layers"]
    for name, expected in network.parameters().items():
        _, index, kind = name.split(".")
        raw = base64.b64decode(layers[int(index)][{"weight": "weights", "bias": "biases"}[kind]])
        np.testing.assert_array_equal(np.frombuffer(raw, code), expected.ravel())


def test_the_page_needs_and_names_nothing_else():
    page = draw_page(made([64, 5, 3]))
    assert not re.search(r"https?:|//[a-z]|\b(src|href)=|url\(|@import|import\(", page)
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "*" not in policy
    assert page.index(policy) < page.index("<style>") < page.index("<script")


def test_texts_of_a_model_cannot_end_the_script():
    network = made([64, 5, 3], record={"data": "</script><b>&amp;"})
    labels = ["</script><script>alert(1)</script>", "\u2028\u2029", "<!--"]
    network.class_labels = labels
    page = draw_page(network)
    assert told(page)["labels"] == labels
    assert told(page)["data"] == "</script><b>&amp;"
    assert page.count("<script") == page.count("</script>") == 2
    assert not re.search("[\u2028\u2029]", page)


def test_large_labels_stay_exact():
    network = made([64, 5, 3])
    network.class_labels = [2**63 - 1, -(2**63), 7]
    assert told(draw_page(network))["labels"] == [str(label) for label in network.class_labels]


@pytest.mark.parametrize(
    "record",
    [
        {"data": 3, "test_accuracy": "high"},
        {"data": None, "test_accuracy": float("nan"), "value_range": [0, float("inf")]},
        {"image_shape": {"rows": 8}, "pictures": [1], "data": ["x"], "test_accuracy": True},
    ],
)
def test_records_may_hold_anything(record):
    found = told(draw_page(made([64, 5, 3], record=record)))
    assert (found["data"], found["accuracy"]) == (None, None)
    assert found["picture"]["rows"] == found["picture"]["columns"] == 8


@pytest.mark.parametrize(
    ("n_inputs", "record"),
    [(60, {}), (49, {}), (65, {"image_shape": [8, 8]}), (4, {"image_shape": None})],
)
def test_inputs_that_are_no_pictures(n_inputs, record):
    assert refusal(made([n_inputs, 5, 3], record=record)) == (
        f"the model takes {n_inputs} numbers that are no pixels, so nothing can be drawn for it; "
        "use one that was trained on pictures"
    )


def test_columns_of_a_table_are_pixels_only_if_the_training_took_them_for_some():
    network = made([64, 5, 3])
    numbers = tuple(Column(f"pixel{k}", k + 1) for k in range(64))
    network.preparation = Preparation(numbers, (Column("label", 0),), 65)
    assert "numbers that are no pixels" in refusal(network)
    network.training_record = {"image_shape": [8, 8]}
    assert told(draw_page(network))["picture"]["rows"] == 8


def test_a_model_that_predicts_numbers():
    network = made([64, 5, 3])
    network.output_scaling = Scaling(2.0, 1.0)
    assert refusal(network).startswith("the model predicts numbers, and the page shows which class")
    assert refusal(made([64, 5, 1])).startswith("the model predicts numbers")


def test_an_activation_of_ones_own(monkeypatch):
    swish = activations.Activation(
        "swish", lambda z, scratch: None, lambda delta, a, scratch: None, np.array, True, "", ""
    )
    monkeypatch.setitem(activations.ACTIVATIONS, "swish", swish)
    network = Network([64, 5, 3], hidden_activation="swish", device="cpu")
    assert refusal(network) == (
        "the model has the activation 'swish', which the page cannot compute; use one with "
        "sigmoid, tanh, relu, identity, softmax"
    )
    monkeypatch.setitem(activations.ACTIVATIONS, "tanh", swish)
    assert "cannot compute" in refusal(Network([64, 5, 3], hidden_activation="tanh", device="cpu"))


def test_more_weights_than_a_phone_takes(monkeypatch):
    monkeypatch.setattr(contents, "LARGEST", 0.001)
    assert refusal(made([64, 5, 3])) == (
        "the model has 0.0 MiB of weights, but a page that a phone can open holds at most 0.001; "
        "train one with fewer hidden units"
    )
    monkeypatch.undo()
    most = Network([2**16, 63, 2], device="cpu")
    assert len(draw_page(most)) < 25e6
    message = refusal(Network([2**16, 65, 2], device="cpu"))
    assert message.startswith("the model has 16.3 MiB of weights, but")
