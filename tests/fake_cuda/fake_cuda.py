"""A strict double of CuPy over host memory, for machines without a GPU.

It offers the part of CuPy's interface that gpunn uses, and no more, and it obeys CuPy's rules:
nothing converts silently to NumPy, host and device arrays do not mix, arrays belong to a device,
kernels check types, shapes and the loop's size as CuPy does. `ElementwiseKernel` compiles the
kernel's own source with the host's C++ compiler, so that the CUDA expressions themselves run.
`RawModule` does so for whole kernels, whose threads are then fibres; see ``fake_raw.h``.

Where a GPU would fail silently the double fails loudly: indices out of range, writing beside an
array, output that overlaps input, wrong leading dimensions, memory read before it was written
(fresh memory is NaN), results that depend on the order in which threads run, and crossings between
host and device where there must be none. Streams must wait for each other: see ``fake_streams.py``.

This module puts the parts together as the module ``cupy``, and tests take their names from it:
`load_cupy_backend` gives gpunn's CuPy backend over the double, `installed` puts the double in place
as ``cupy`` for a while, `crossings` counts crossings, `no_crossings` forbids them. The parts, each
over those before it:

- ``fake_errors``: CUDA's errors;
- ``fake_captures``: captures of graphs;
- ``fake_streams``: streams, events and pinned memory;
- ``fake_crossings``: between host and device;
- ``fake_memory``: devices, and allocations on them;
- ``fake_arrays``: arrays, and what makes them;
- ``fake_compiler``: from a kernel's source to a function on the host;
- ``fake_elementwise``, ``fake_raw``: kernels of both kinds;
- ``fake_products``, ``fake_cublas``: products of matrices, as CuPy calls cuBLAS;
- ``fake_cublas_library``: and as ctypes does;
- ``fake_nccl``: sums over the devices of several processes.

What a test changes, it changes in the part that reads it: ``fake_memory.DEVICE_BYTES``,
``fake_compiler.kernel_texts``.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import fake_memory
from fake_arrays import asarray, asnumpy, empty, ndarray, zeros
from fake_captures import Graph
from fake_compiler import CXX
from fake_crossings import CrossingError, crossings, no_crossings
from fake_cublas import CUBLASError, cublas, get_cublas_handle, library
from fake_elementwise import CUDA_PREAMBLE, ElementwiseKernel
from fake_errors import CUDARuntimeError
from fake_memory import Device, OutOfMemoryError, used_bytes
from fake_modules import make_module
from fake_nccl import nccl
from fake_raw import RawKernel, RawModule
from fake_streams import (
    Event,
    Stream,
    alloc_pinned_memory,
    current_device,
    get_current_stream,
    get_elapsed_time,
    synchronize_device,
)

__all__ = [
    "CUDA_PREAMBLE",
    "CXX",
    "MODULES",
    "CUBLASError",
    "CUDARuntimeError",
    "CrossingError",
    "Device",
    "ElementwiseKernel",
    "RawKernel",
    "RawModule",
    "crossings",
    "cupy",
    "forget_devices",
    "installed",
    "load_cupy_backend",
    "ndarray",
    "no_crossings",
    "zeros",
]


class _MemoryPool:
    def free_bytes(self) -> int:
        return 0

    def free_all_blocks(self, stream: Any = None) -> None:
        pass


def _device_properties(device: int) -> dict[str, Any]:
    if not 0 <= device < fake_memory.N_DEVICES:
        raise CUDARuntimeError(101)
    return {
        "name": b"Host memory in the place of a GPU",
        "totalGlobalMem": fake_memory.DEVICE_BYTES,
        **{"major": 9, "minor": 0},
    }


def _memory_info() -> tuple[int, int]:
    """Return the bytes that are free on the current device, and all of them."""
    total = fake_memory.DEVICE_BYTES
    return total - used_bytes(current_device()), total


runtime = make_module(
    "cupy.cuda.runtime",
    CUDARuntimeError=CUDARuntimeError,
    CUDA_R_32F=0,
    CUDA_R_64F=1,
    CUDA_R_16BF=14,
    getDeviceCount=lambda: fake_memory.N_DEVICES,
    getDeviceProperties=_device_properties,
    memGetInfo=_memory_info,
    driverGetVersion=lambda: 13000,
    runtimeGetVersion=lambda: 13000,
    deviceSynchronize=synchronize_device,
)
_device = make_module("cupy.cuda.device", Device=Device, get_cublas_handle=get_cublas_handle)
_memory = make_module("cupy.cuda.memory", OutOfMemoryError=OutOfMemoryError)
_cuda = make_module(
    "cupy.cuda",
    Device=Device,
    Event=Event,
    Graph=Graph,
    Stream=Stream,
    alloc_pinned_memory=alloc_pinned_memory,
    cublas=cublas,
    device=_device,
    memory=_memory,
    nccl=nccl,
    runtime=runtime,
    get_current_stream=get_current_stream,
    get_elapsed_time=get_elapsed_time,
)
cupy = make_module(
    "cupy",
    __version__="14.2.0",
    ElementwiseKernel=ElementwiseKernel,
    RawModule=RawModule,
    asarray=asarray,
    asnumpy=asnumpy,
    cuda=_cuda,
    empty=empty,
    get_default_memory_pool=_MemoryPool,
    ndarray=ndarray,
    zeros=zeros,
)
MODULES = (cupy, _cuda, cublas, _device, _memory, nccl, runtime)
PACKAGE = "gpunn.backends"
OVER_CUPY = (
    "cupy_backend", "cupy_batches", "cupy_blas", "cupy_elementwise", "cupy_formulas",
    "cublas_library", "cupy_hidden", "cupy_kernels", "cupy_online", "cupy_passes", "cupy_ranks",
    "cupy_recorder", "cupy_staging", "cupy_thin",
)  # fmt: skip
"""gpunn's modules that import CuPy when they are imported."""
CUBLAS_LIBRARY = make_module(f"{PACKAGE}.cublas_library", open_library=lambda: library)
"""In the place of gpunn's module that opens cuBLAS's library."""


def forget_devices() -> None:
    """Make gpunn.backends.select look again, if it is loaded."""
    devices = sys.modules.get("gpunn.backends.select")
    for function in list(vars(devices).values()) if devices else []:
        if hasattr(function, "cache_clear"):
            function.cache_clear()


@contextmanager
def installed() -> Iterator[ModuleType]:
    """Put the double in place as ``cupy``; afterwards all is as before.

    gpunn's modules that use CuPy are imported anew inside, over the double, and forgotten outside.
    """

    def concerned(name: str) -> bool:
        return name.split(".")[0] == "cupy" or name.removeprefix(f"{PACKAGE}.") in OVER_CUPY

    package = sys.modules.get(PACKAGE)
    before = {name: module for name, module in sys.modules.items() if concerned(name)}
    known = vars(package) if package else {}
    attributes = {name: known[name] for name in OVER_CUPY if name in known}
    for name in before:
        del sys.modules[name]
    sys.modules.update({module.__name__: module for module in (*MODULES, CUBLAS_LIBRARY)})
    forget_devices()
    try:
        yield cupy
    finally:
        for name in [name for name in sys.modules if concerned(name)]:
            del sys.modules[name]
        sys.modules.update(before)
        package = sys.modules.get(PACKAGE)
        for name in OVER_CUPY:
            if package is not None and hasattr(package, name):
                delattr(package, name)
            if package is not None and name in attributes:
                setattr(package, name, attributes[name])
        forget_devices()


@cache
def load_cupy_backend() -> ModuleType:
    """Return gpunn's CuPy backend as a module of another name, over the double.

    The module that users import stays as it is, over the real CuPy or not imported at all.
    """
    origin = importlib.util.find_spec(PACKAGE).submodule_search_locations[0]  # type: ignore
    spec = importlib.util.spec_from_file_location(
        "cupy_backend_over_host_memory", Path(origin) / "cupy_backend.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with installed():
        spec.loader.exec_module(module)
    return module
