"""Kernels of the double of CuPy, compiled for the host and watched while they run.

The source that NVRTC would get is compiled with the host's C++ compiler, behind a preamble that
stands for CUDA. `kernel_texts` keeps the source of every kernel that was launched.
"""

import atexit
import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fake_memory import GuardedBytes

CXX = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
SANITIZE = os.environ.get("GPUNN_HOST_SANITIZE") == "1"
"""Whether AddressSanitizer watches kernels; its library must then have been loaded before Python.

It finds reading out of range, which guards cannot. The stacks of fibres are none that it knows.
"""

# No exceptions and no start files, nor headers where they can be spared: with them, parsing and
# linking would take most of the time of the tests. And no multiplication is fused with an addition,
# so that results do not depend on the host's processor. Compiling takes longer than running, so
# nothing is optimised, unless it is watched.
CXX_FLAGS = (
    *("-O1" if SANITIZE else "-O0", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off"),
    *("-fno-exceptions", "-fno-asynchronous-unwind-tables", "-nostdlib"),
)
if SANITIZE:
    CXX_FLAGS += ("-fsanitize=address", "--param", "asan-stack=0")

# What each of NumPy's dtypes is called in a kernel.
C_TYPES = {
    "float64": "double",
    "float32": "float",
    "int64": "long long",
    "int32": "int",
    "int16": "short",
    "int8": "signed char",
    "uint64": "unsigned long long",
    "uint32": "unsigned int",
    "uint16": "unsigned short",
    "uint8": "unsigned char",
    "bool": "bool",
}

# CUDA's functions of both types under one name, without <cmath>.
HOST_FUNCTIONS = "".join(
    f"static inline float {name}(float x) {{ return __builtin_{name}f(x); }}\n"
    f"static inline double {name}(double x) {{ return __builtin_{name}(x); }}\n"
    for name in ("exp", "log", "log1p", "expm1", "tanh", "sqrt", "fabs")
) + "".join(
    f"static inline {kind} pow({kind} x, {kind} y) {{ return __builtin_pow{end}(x, y); }}\n"
    for kind, end in (("float", "f"), ("double", ""))
)

kernel_texts: dict[str, str] = {}
"""The source of each kernel launched so far, without a preamble: text to name.

Who puts another dict here for a while, does so in this module, where it is looked up.
"""


def _build_folder() -> Path:
    """Return where libraries lie: the processes of one run of the tests share them."""
    if known := os.environ.get("GPUNN_HOST_BUILD"):
        return Path(known)  # It belongs to the process that began this one.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(tempfile.gettempdir()) / f"gpunn-host-cupy-{run}"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


BUILD = _build_folder()
# At once, so that whatever this process begins knows that the folder is not its own.
os.environ["GPUNN_HOST_BUILD"] = str(BUILD)


@cache
def preprocess(code: str) -> str:
    """Return the lines of a source that its ``#if`` choose, without comments and macros.

    Where there is no compiler nothing will run, and the source is returned as it is.
    """
    if CXX is None:
        return code
    command = [CXX, "-E", "-P", "-x", "c++", "-std=c++17", "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the kernel does not compile:\n{done.stderr}\n{code}")
    return done.stdout


@cache
def compile_kernel(source: str, *flags: str) -> ctypes.CDLL:
    """Return the library of a source, which is compiled once."""
    if CXX is None:
        raise RuntimeError("no C++ compiler")
    chosen = (*CXX_FLAGS, *flags)
    name = hashlib.sha256("\n".join((source, *chosen)).encode()).hexdigest()[:24]
    library = BUILD / f"{name}.so"
    if not library.exists():
        # Under a name of its own until it is whole. A process that ends takes the folder with it,
        # but not what others have loaded.
        library.parent.mkdir(exist_ok=True)
        text, part = (library.with_suffix(f".{os.getpid()}.{kind}") for kind in ("cpp", "part"))
        text.write_text(source)
        command = [CXX, *chosen, str(text), "-o", str(part), "-lm", "-lc"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the kernel does not compile:\n{done.stderr}\n{source}")
        part.replace(library)
    return ctypes.CDLL(str(library))


@contextmanager
def fenced(parts: list[tuple[GuardedBytes, Any]]) -> Iterator[None]:
    """Let AddressSanitizer forbid all memory around parts of it; NumPy's arrays are the parts."""
    if not SANITIZE:
        yield
        return
    sanitizer = ctypes.CDLL(None)
    poison, unpoison = (
        lambda address, size, function=function: function(
            ctypes.c_void_p(address), ctypes.c_size_t(size)
        )
        for function in (
            sanitizer.__asan_poison_memory_region,
            sanitizer.__asan_unpoison_memory_region,
        )
    )
    memories = {id(memory): memory for memory, _ in parts}.values()
    for memory in memories:
        poison(memory.bytes.ctypes.data, memory.bytes.nbytes)
    for _, values in parts:
        low, high = np.lib.array_utils.byte_bounds(values)
        unpoison(low, high - low)
    try:
        yield
    finally:
        for memory in memories:
            unpoison(memory.bytes.ctypes.data, memory.bytes.nbytes)
