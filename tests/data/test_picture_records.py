"""What a network takes for a picture, by its record or by a guess that is said."""

import pytest

from gpunn.data.picture_records import picture_field


@pytest.mark.parametrize(
    ("record", "n_inputs", "shape", "is_guessed"),
    [
        ({}, 784, (28, 28), True),
        ({}, 63, None, False),
        ({}, 49, None, False),  # too few
        ({"image_shape": [4, 16]}, 64, (4, 16), False),
        ({"image_shape": [4, 16]}, 60, None, False),
        ({"image_shape": None, "value_range": [0.0, 1.0]}, 64, (8, 8), True),
        ({"image_shape": None, "value_range": [-1.0, 1.0]}, 64, (8, 8), True),
        ({"image_shape": [8, 8], "value_range": [-3.1, 2.8]}, 64, (8, 8), False),
        ({"image_shape": "x", "value_range": ["a", None]}, 64, (8, 8), True),
    ],
)
def test_a_size_is_said_or_guessed(record, n_inputs, shape, is_guessed):
    field = picture_field(record, n_inputs)
    assert (None if field is None else field.shape) == shape
    if field is not None:
        assert field.is_guessed == is_guessed
        assert (field.note is not None) == is_guessed


def test_a_guess_is_said():
    assert picture_field({}, 784).note == (
        "the model's file does not say what its 784 inputs are; they are taken for 28 x 28 pixels, "
        "because their number is a square"
    )
