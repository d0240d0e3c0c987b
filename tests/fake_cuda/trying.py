"""What the tests of the double share."""

from typing import Any

import fake_cuda
import pytest
from fake_cuda import cupy

needs_compiler = pytest.mark.skipif(fake_cuda.CXX is None, reason="no C++ compiler")


def ones(*shape: int, dtype: Any = "float32") -> Any:
    array = cupy.empty(shape, dtype)
    array.fill(1)
    return array
