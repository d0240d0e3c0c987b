"""Machine code that outlives a process: the fused loops of the CPU, one small file each.

A file is named after everything that its content depends on, so that nothing in it is ever out of
date: the loop, its source, the packages that compiled it, the processor, and how long the head of
Python's objects is. It begins with a hash of the rest, by which damage is seen. A folder that
cannot be read or written is no error: the loops are then compiled in each process.
"""

import contextlib
import hashlib
import os
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path

from gpunn.backends import numba_layout

_SOURCES = (
    "numba_arrays.py",
    "numba_build.py",
    "numba_layout.py",
    "numba_loops.py",
    "numba_online.py",
    "numba_products.py",
    "numba_signatures.py",
)
_HASH = hashlib.sha256
_HASH_BYTES = 32


def folder() -> Path | None:
    """Return where the files are; None if there is no place for them."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given or Path.home() / ".cache") / "gpunn" / "loops"
    except RuntimeError:  # nobody's home is known
        return None


def read(name: str, processor: str) -> bytes | None:
    """Return a loop's machine code; None if it is not there, or damaged."""
    path = _path(name, processor)
    try:
        content = b"" if path is None else path.read_bytes()
    except OSError:
        return None
    expected, code = content[:_HASH_BYTES], content[_HASH_BYTES:]
    return code if expected == _HASH(code).digest() else None


def write(name: str, processor: str, code: bytes) -> str | None:
    """Keep a loop's machine code; return why that is not possible, or None.

    Other processes see the whole file or none.
    """
    path = _path(name, processor)
    if path is None:
        return "no home directory"
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(_HASH(code).digest() + code)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return f"{path.parent}: {error.strerror or error}"
    return None


def _path(name: str, processor: str) -> Path | None:
    place = folder()
    digest = _HASH(f"{_versions()} {processor}".encode()).hexdigest()[:16]
    return None if place is None else place / f"{name.replace(':', '_')}-{digest}.o"


@cache
def _versions() -> str:
    """Return what tells the loops and their compiler from others."""
    sources = [Path(__file__).with_name(name).read_bytes() for name in _SOURCES]
    packages = [metadata.version(name) for name in ("numba", "llvmlite", "numpy")]
    packages.append(f"head {numba_layout.HEAD}")  # builds of Python differ in that
    return " ".join([*packages, *(_HASH(source).hexdigest() for source in sources)])
