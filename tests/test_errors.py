"""What is said of an error in a message of one line."""

import errno

import pytest

from gpunn.errors import one_line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("first\n  second\tthird "), "first second third"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
        (OSError(errno.ENOSPC, "No space left on device", "model"), "No space left on device"),
        (OSError("without a number"), "without a number"),
        (OSError(), "OSError"),
        ("a text", "a text"),
    ],
)
def test_an_error_is_one_line(error, said):
    assert one_line(error) == said


def test_a_long_line_is_cut():
    assert one_line("x" * 300) == "x" * 300
    assert one_line("x" * 301) == "x" * 297 + "..."
    assert one_line("x" * 121, 120) == "x" * 117 + "..."
