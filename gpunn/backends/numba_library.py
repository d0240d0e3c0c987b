"""The fused loops of the CPU as functions: from the files that keep them, or compiled.

Each loop is compiled when it is first wanted and kept; see `gpunn.backends.numba_cache`. To load
one takes LLVM (llvmlite) and a millisecond. Numba is imported only to compile.

A call releases the GIL, as calls of NumPy do.
"""

# llvmlite does not say what its types are.
# mypy: disable-error-code="no-untyped-call"

import ctypes
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from gpunn.backends import numba_cache, numba_layout
from gpunn.backends.numba_signatures import OBJECTS, PYTHON

INSTALL_NUMBA = "pip install 'gpunn[fast]'"

NOT_INSTALLED = "Numba is not installed"

SWITCH = "GPUNN_FAST"
"""The environment variable that leaves all to NumPy if it is 0."""

Loop = Callable[..., int]
"""It returns 0, and has done nothing, if its arrays are not what it is made for."""

CODES = "fd"

METH_FASTCALL = 0x80


class _PyMethodDef(ctypes.Structure):
    """What Python wants to know of a function in machine code; it must outlive the function."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_LOG = logging.getLogger("gpunn")


@cache
def loops_problem() -> str | None:
    """Say why there are no fused loops here; None if there are. Numba is not imported for that."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH} is 0"
    if any(importlib.util.find_spec(name) is None for name in ("numba", "llvmlite")):
        return NOT_INSTALLED
    if sys.implementation.name != "cpython" or not numba_layout.is_known():
        return f"not made for {sys.implementation.name} {sys.version.split()[0]}"
    return None


def _new_function(symbol: str, code: Any) -> Loop:
    """Return machine code as what Python calls a built-in function, which keeps it in memory."""
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    method = _PyMethodDef(symbol.encode(), code[symbol], METH_FASTCALL, None)
    function: Loop = make(ctypes.addressof(method), (code, method), None)
    return function


def nothing(*_: Any) -> int:
    """Stand in for a loop that is not there."""
    return 0


class Library:
    """All fused loops that this process has wanted so far."""

    def __init__(self) -> None:
        self._loops: dict[tuple[str, str], Loop] = {}
        self._lock = threading.Lock()
        self._linker: Any = None
        self._processor = ""
        self._announced = self._broken = False

    def __call__(self, name: str, code: str) -> Loop:
        """Return a loop for float32 ("f") or float64 ("d"); `nothing` for others, or without it.

        `name` is as in `gpunn.backends.numba_build.build`.
        """
        try:
            return self._loops[name, code]
        except KeyError:
            with self._lock:
                if (name, code) not in self._loops:
                    self._loops[name, code] = self._make(name, code)
                return self._loops[name, code]

    def _make(self, name: str, code: str) -> Loop:
        if self._broken or code not in CODES:
            return nothing
        try:
            if self._linker is None:
                self._start()
            symbol = f"{name}_{code}"
            machine_code = numba_cache.read(symbol, self._processor)
            if machine_code is None:
                machine_code = self._compile(name, code, symbol)
            return self._load(symbol, machine_code)
        except Exception as error:  # whatever a compiler raises: NumPy can do the same
            self._broken = True
            _LOG.warning(
                "gpunn's fused loops cannot be used, and NumPy does it all, which takes longer; "
                "GPUNN_FAST=0 hides this line: %s: %s",
                type(error).__name__,
                " ".join(str(error).split())[:300],
            )
            return nothing

    def _start(self) -> None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self._processor = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
        self._linker = llvm.create_lljit_compiler()

    def _compile(self, name: str, code: str, symbol: str) -> bytes:
        first, self._announced = not self._announced, True
        if first:
            _LOG.warning(
                "compiling gpunn's fused loops for this machine: some seconds, the first time"
            )
        from gpunn.backends.numba_build import build

        machine_code = build(name, code, symbol)
        reason = numba_cache.write(symbol, self._processor, machine_code)
        if reason is not None and first:
            _LOG.warning(
                "compiled loops cannot be kept, so each run compiles them again: %s; set "
                "XDG_CACHE_HOME to a folder that you may write to",
                reason,
            )
        return machine_code

    def _load(self, symbol: str, machine_code: bytes) -> Loop:
        import llvmlite.binding as llvm

        # With functions of C's library, such as log, from this process.
        builder = llvm.JITLibraryBuilder().add_object_img(machine_code).add_current_process()
        for name in PYTHON:
            address = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
            builder.import_symbol(name, address)
        for name, thing in OBJECTS.items():
            builder.import_symbol(name, id(thing))
        code = builder.export_symbol(symbol).link(self._linker, symbol)
        return _new_function(symbol, code)
