"""Where cuBLAS itself is found: the very library that CuPy has loaded."""

import ctypes
import os
from typing import Any

import cupy


def open_library() -> Any:
    """Return cuBLAS for ctypes.

    CuPy's own functions refuse to be called while a step is recorded, which cuBLAS itself does not.

    Raises
    ------
    OSError
        If it is not there.
    """
    _ = cupy.cuda.cublas  # CuPy loads the library with its own functions
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    # By its name alone, so that the system gives the one that is loaded, wherever that came from.
    return ctypes.CDLL(f"cublas64_{major}.dll" if os.name == "nt" else f"libcublas.so.{major}")
