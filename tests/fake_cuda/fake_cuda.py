"""A strict double of CuPy over host memory, for machines without a GPU.

It offers the part of CuPy's interface that gpunn uses, and no more, and it obeys CuPy's rules:
nothing converts silently to NumPy, host and device arrays do not mix, arrays belong to a device,
kernels check types, shapes and the loop's size as CuPy does. `ElementwiseKernel` compiles the
kernel's own source with the host's C++ compiler, so that the CUDA expressions themselves run.
`RawModule` does so for whole kernels, whose threads are then fibres; see ``fake_cuda.h``.

Where a GPU would fail silently the double fails loudly: indices out of range, writing beside an
array, output that overlaps input, wrong leading dimensions, memory read before it was written
(fresh memory is NaN), results that depend on the order in which threads run, and crossings between
host and device where there must be none. Streams must wait for each other: see ``fake_streams.py``.

`load_cupy_backend` gives gpunn's CuPy backend over the double, `installed` puts the double in
place as ``cupy`` for a while, `crossings` counts and forbids crossings, `kernel_texts` keeps the
source of every kernel that was launched.
"""

import atexit
import ctypes
import hashlib
import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from fake_streams import (
    Event,
    Stream,
    Uses,
    alloc_pinned_memory,
    begin_copy,
    get_current_stream,
    get_elapsed_time,
)
from fake_streams import current as _current
from fake_streams import current_device as _current_device

N_DEVICES = 2
DEVICE_BYTES = 8 * 2**30
GUARD = 256
"""Bytes on both sides of an allocation that nobody may write to."""

CXX = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
CXX_FLAGS = (
    *("-O1", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off"),
    *("-fno-exceptions", "-fno-asynchronous-unwind-tables", "-nostdlib"),
)

SANITIZE = os.environ.get("GPUNN_HOST_SANITIZE") == "1"
"""Whether AddressSanitizer watches kernels; its library must then have been loaded before Python.

It finds reading out of range, which guards cannot. The stacks of fibres are none that it knows.
"""
if SANITIZE:
    CXX_FLAGS += ("-fsanitize=address", "--param", "asan-stack=0")


# Crossings between host and device.


class CrossingError(AssertionError):
    """Something crossed between host and device where nothing may."""


class Crossings:
    """Counts the crossings, and forbids them on request."""

    def __init__(self) -> None:
        self.to_device = 0
        self.to_host = 0
        self._forbidden = 0

    def note(self, direction: str, what: str) -> None:
        setattr(self, direction, getattr(self, direction) + 1)
        if self._forbidden:
            raise CrossingError(f"{what} crosses ({direction})")

    @contextmanager
    def forbidden(self) -> Iterator[None]:
        self._forbidden += 1
        try:
            yield
        finally:
            self._forbidden -= 1


crossings = Crossings()


def no_crossings() -> Any:
    """Raise a `CrossingError` at the first crossing inside a ``with`` block."""
    return crossings.forbidden()


# Devices and their memory.


class CUDARuntimeError(RuntimeError):
    _TEXTS: ClassVar = {
        35: "cudaErrorInsufficientDriver: CUDA driver version is insufficient",
        100: "cudaErrorNoDevice: no CUDA-capable device is detected",
        101: "cudaErrorInvalidDevice: invalid device ordinal",
    }

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(self._TEXTS[status])


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,})")


class Device:
    def __init__(self, device: "int | Device | None" = None) -> None:
        self.id = _current_device() if device is None else int(device)
        self._stack: list[int] = []

    def __int__(self) -> int:
        return self.id

    @property
    def attributes(self) -> dict[str, int]:
        return {
            "CooperativeLaunch": 1,
            "MultiProcessorCount": N_MULTIPROCESSORS,
            "MaxSharedMemoryPerBlockOptin": MOST_SHARED_BYTES_OPTIN,
        }

    def __enter__(self) -> "Device":
        self._stack.append(_current_device())
        if not 0 <= self.id < N_DEVICES:
            self._stack.pop()
            raise CUDARuntimeError(101)
        _current.id = self.id
        return self

    def __exit__(self, *_: object) -> None:
        _current.id = self._stack.pop()


def _check_device(array: "ndarray") -> None:
    here = _current_device()
    if array.device.id != here:
        raise ValueError(
            f"The device where the array resides ({array.device.id}) is different from the "
            f"current device ({here}). Peer access is unavailable between these devices."
        )
    array._memory.uses.by(get_current_stream())


class _Memory:
    """An allocation: 0xFF bytes (NaN, or the index -1) with a guard on both sides."""

    live: ClassVar["weakref.WeakSet[_Memory]"] = weakref.WeakSet()

    def __init__(self, nbytes: int) -> None:
        self.device_id = _current_device()
        used = _used_bytes(self.device_id) if nbytes else 0
        if used + nbytes > DEVICE_BYTES:
            raise OutOfMemoryError(nbytes, used)
        self.nbytes = nbytes
        self.bytes = np.full(nbytes + 2 * GUARD, 0xFF, np.uint8)
        self.ptr = self.bytes.ctypes.data + GUARD if nbytes else 0
        self.uses = Uses()
        _Memory.live.add(self)

    def __del__(self) -> None:
        if hasattr(self, "uses"):
            self.uses.end(self.device_id)

    def damaged(self) -> bool:
        end = GUARD + self.nbytes
        return bool((self.bytes[:GUARD] != 0xFF).any() or (self.bytes[end:] != 0xFF).any())

    def view(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return np.ndarray(shape, dtype, self.bytes.data, GUARD)


def _used_bytes(device_id: int) -> int:
    return sum(memory.nbytes for memory in _Memory.live if memory.device_id == device_id)


class _Pointer:
    def __init__(self, ptr: int, device_id: int) -> None:
        self.ptr = ptr
        self.device_id = device_id


class _Flags:
    def __init__(self, flags: Any) -> None:
        self.c_contiguous: bool = flags.c_contiguous
        self.f_contiguous: bool = flags.f_contiguous


def _check_dtype(dtype: Any) -> np.dtype[Any]:
    result = np.dtype(dtype)
    if result.kind not in "biufc" or not result.isnative:
        raise ValueError(f"Unsupported dtype {result}")
    return result


def _refused(what: str) -> Callable[..., Any]:
    def refuse(self: "ndarray", *_: object) -> Any:
        raise TypeError(f"{what} on a device array: all arithmetic goes through the backend")

    return refuse


class ndarray:  # noqa: N801
    """An array on a device. It has no arithmetic: gpunn does all of that in its backend."""

    __slots__ = ("__weakref__", "_memory", "_values")
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]
    # Without these, Python would fall back to identity and to indexing.
    __eq__ = _refused("==")
    __ne__ = _refused("!=")
    __iter__ = _refused("iteration")

    def __init__(self, memory: _Memory, values: Any) -> None:
        self._memory = memory
        self._values = values

    shape = property(lambda self: self._values.shape)
    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    nbytes = property(lambda self: self._values.nbytes)
    itemsize = property(lambda self: self._values.itemsize)
    strides = property(lambda self: self._values.strides)
    flags = property(lambda self: _Flags(self._values.flags))
    device = property(lambda self: Device(self._memory.device_id))
    T = property(lambda self: ndarray(self._memory, self._values.T))

    @property
    def data(self) -> _Pointer:
        ptr = self._values.ctypes.data if self._memory.nbytes else 0
        return _Pointer(ptr, self._memory.device_id)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.data.ptr, False),
            "strides": None if self.flags.c_contiguous else self.strides,
            "version": 3,
            "stream": 1,
        }

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<device array {self.shape} {self.dtype} on device {self._memory.device_id}>"

    def __array__(self, *_: object, **__: object) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to "
            "construct a NumPy array explicitly."
        )

    # What waits for the device and brings something back.

    def _bring(self, what: str) -> Any:
        crossings.note("to_host", what)
        with self.device:
            self._memory.uses.by(get_current_stream())
            get_current_stream().synchronize()
        return self._values

    def get(self, stream: Any = None, order: str = "C", out: Any = None) -> Any:
        return self._bring("ndarray.get()").copy(order)

    def item(self) -> Any:
        return self._bring("ndarray.item()").item()

    def __bool__(self) -> bool:
        return bool(self._bring("bool(array)"))

    def __float__(self) -> float:
        return float(self._bring("float(array)"))

    def __int__(self) -> int:
        return int(self._bring("int(array)"))

    # What crosses without waiting.

    def set(self, arr: Any, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray) or arr.dtype != self.dtype:
            raise TypeError(f"{self.dtype} array cannot be set to {arr!r:.80}")
        if arr.shape != self.shape or not arr.flags.c_contiguous or not self.flags.c_contiguous:
            raise ValueError(f"cannot set {self.shape} to {arr.shape}: shapes or layouts differ")
        crossings.note("to_device", "ndarray.set()")
        if stream is None:
            _check_device(self)
        else:
            begin_copy(arr, stream, self._memory.uses)
        self._values[...] = arr

    # Views, copies, assignment.

    def __getitem__(self, key: Any) -> "ndarray":
        for part in key if isinstance(key, tuple) else (key,):
            if part is not Ellipsis and not isinstance(part, slice | int | np.integer):
                raise TypeError(f"only slices and whole numbers index device arrays, got {part!r}")
        if all(isinstance(part, int | np.integer) for part in np.atleast_1d(key).flat):
            key = (*key, Ellipsis) if isinstance(key, tuple) else (key, Ellipsis)
        return ndarray(self._memory, self._values[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        target = self[key]
        if not isinstance(value, ndarray):
            target.fill(value)
            return
        _check_device(target)
        _check_device(value)
        while value.ndim and value.shape[0] == 1:
            value = value[0]
        if not _same_memory(target, value) and np.may_share_memory(target._values, value._values):
            raise ValueError("assignment between overlapping device arrays is a race")
        target._values[...] = value._values

    def fill(self, value: Any) -> None:
        _check_device(self)
        if isinstance(value, np.ndarray):
            if value.shape != ():
                raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
            value = value.item()
        if isinstance(value, ndarray):
            raise TypeError("fill with a device array is not in gpunn's part of CuPy")
        self._values[...] = _scalar(value, self.dtype)

    def copy(self, order: str = "C") -> "ndarray":
        _check_device(self)
        result = empty(self.shape, self.dtype, order)
        result._values[...] = self._values
        return result

    def astype(self, dtype: Any, order: str = "K", *, copy: bool = True) -> "ndarray":
        dtype = _check_dtype(dtype)
        if order != "C":
            raise NotImplementedError("only order='C'")
        if not copy and self.dtype == dtype and self.flags.c_contiguous:
            return self
        _check_device(self)
        result = empty(self.shape, dtype)
        result._values[...] = self._values
        return result

    def reshape(self, *shape: Any, order: str = "C") -> "ndarray":
        if order != "C":
            raise NotImplementedError("only order='C'")
        source = self if self.flags.c_contiguous else self.copy()
        return ndarray(source._memory, source._values.reshape(*shape))


def _same_memory(a: ndarray, b: ndarray) -> bool:
    return (a.data.ptr, a.shape, a.strides) == (b.data.ptr, b.shape, b.strides)


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    dtype = _check_dtype(dtype)
    memory = _Memory(math.prod(shape) * dtype.itemsize)
    values = memory.view(shape if order == "C" else shape[::-1], dtype)
    return ndarray(memory, values if order == "C" else values.T)


def zeros(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    result = empty(shape, dtype, order)
    result._values[...] = 0
    return result


def asarray(
    a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False
) -> ndarray:
    if isinstance(a, ndarray):
        if dtype is not None and a.dtype != np.dtype(dtype):
            raise NotImplementedError("changing dtypes on the device is not in gpunn's part")
        return a
    crossings.note("to_device", "asarray of a host array")
    host = np.asarray(a, dtype)
    fortran = order in (None, "A", "K") and host.flags.f_contiguous and not host.flags.c_contiguous
    result = empty(host.shape, host.dtype, "F" if fortran or order == "F" else "C")
    result._values[...] = host
    return result


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
) -> Any:
    return a.get(order=order) if isinstance(a, ndarray) else np.asarray(a)


# Elementwise kernels.

_C_TYPES = {
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

_HOST_FUNCTIONS = "".join(
    f"static inline float {name}(float x) {{ return __builtin_{name}f(x); }}\n"
    f"static inline double {name}(double x) {{ return __builtin_{name}(x); }}\n"
    for name in ("exp", "log", "log1p", "expm1", "tanh", "sqrt", "fabs")
)

# What stands before the kernels on the host. The loop runs backwards: on a GPU no order of the
# indices may be relied on either. No headers, exceptions or start files: with them, parsing and
# linking would take most of the time of the tests.
HOST_PREAMBLE = (
    """
typedef __PTRDIFF_TYPE__ ptrdiff_t;
#define KERNEL static __attribute__((noinline))
#define CUPY_FOR(i, n) for (ptrdiff_t i = (n); i-- > 0;)
struct OutOfRange { const char* name; ptrdiff_t index; ptrdiff_t size; };
static OutOfRange out_of_range;
static void* escape[5];
[[noreturn]] __attribute__((noinline)) static void fail(OutOfRange what) {
  out_of_range = what;
  __builtin_longjmp(escape, 1);
}
struct Argument { void* data; ptrdiff_t size; ptrdiff_t ndim; ptrdiff_t dims[16]; };
struct CIndexer {
  ptrdiff_t n, at;
  ptrdiff_t size() const { return n; }
  void set(ptrdiff_t i) { at = i; }
  ptrdiff_t get() const { return at; }
};
template <typename T> class CArray {
  const Argument& a; const char* name;
public:
  CArray(const void* argument, const char* name_)
    : a(*static_cast<const Argument*>(argument)), name(name_) {}
  ptrdiff_t size() const { return a.size; }
  const T& operator[](ptrdiff_t index) const {
    if (index < 0 || index >= a.size) fail({name, index, a.size});
    ptrdiff_t offset = 0;
    for (ptrdiff_t d = a.ndim; d-- > 0;) {
      offset += index % a.dims[d] * a.dims[8 + d];
      index /= a.dims[d];
    }
    return *reinterpret_cast<const T*>(static_cast<const char*>(a.data) + offset);
  }
  T& operator[](ptrdiff_t index) {
    return const_cast<T&>(const_cast<const CArray&>(*this)[index]);
  }
};
"""
    + _HOST_FUNCTIONS
)

# The same for nvcc, in the terms of CuPy's own carray.cuh.
CUDA_PREAMBLE = """
#define KERNEL __global__
#define CUPY_FOR(i, n) \\
  for (ptrdiff_t i = static_cast<ptrdiff_t>(blockIdx.x) * blockDim.x + threadIdx.x; \\
       i < (n); i += static_cast<ptrdiff_t>(blockDim.x) * gridDim.x)
struct CIndexer {
  ptrdiff_t n, at;
  __device__ ptrdiff_t size() const { return n; }
  __device__ void set(ptrdiff_t i) { at = i; }
  __device__ ptrdiff_t get() const { return at; }
};
template <typename T> class CArray {
  T* data_; ptrdiff_t size_, shape_[2], strides_[2];
public:
  __device__ ptrdiff_t size() const { return size_; }
  __device__ const T& operator[](ptrdiff_t i) const {
    const ptrdiff_t offset = strides_[1] * (i % shape_[1]) + strides_[0] * (i / shape_[1]);
    return *reinterpret_cast<const T*>(reinterpret_cast<const char*>(data_) + offset);
  }
  __device__ T& operator[](ptrdiff_t i) {
    return const_cast<T&>(const_cast<const CArray&>(*this)[i]);
  }
};
"""

kernel_texts: dict[str, str] = {}
"""The source of each kernel launched so far, without a preamble: text to name."""


class _Parameter:
    """One parameter of a kernel: ``raw T x`` or ``float64 y``."""

    def __init__(self, text: str, const: bool) -> None:
        *words, kind, self.name = text.split()
        if words not in ([], ["raw"]):
            raise Exception(f'Unknown keyword "{words[0]}"')
        self.raw = words == ["raw"]
        self.const = "const " if const else ""
        # One letter stands for a type that the arguments decide.
        self.dtype = None if len(kind) == 1 else np.dtype(kind)
        self.ctype = kind if self.dtype is None else _C_TYPES[self.dtype.name]

    def resolve(self, types: dict[str, np.dtype[Any]]) -> np.dtype[Any]:
        return types[self.ctype] if self.dtype is None else self.dtype


def _parameters(text: str, const: bool) -> list[_Parameter]:
    return [_Parameter(part, const) for part in text.split(",")] if text else []


def _scalar(value: Any, dtype: np.dtype[Any]) -> Any:
    """Cast a Python or NumPy scalar as CuPy does, by assignment; refuse anything else."""
    if type(value) not in (bool, int, float, complex) and not isinstance(value, np.generic):
        raise TypeError(f"Unsupported type {type(value)}")
    cast = np.empty((), dtype)
    cast[()] = value
    return cast


def _decide_types(
    parameters: list[_Parameter], arguments: list[Any], n_in: int
) -> dict[str, np.dtype[Any]]:
    """Find out what each letter stands for, outputs first; mismatches are CuPy's errors."""
    pairs = list(zip(parameters, arguments, strict=True))
    types: dict[str, np.dtype[Any]] = {}
    for parameter, argument in pairs[n_in:] + pairs[:n_in]:
        if not isinstance(argument, ndarray):
            continue
        wanted = parameter.dtype
        if wanted is None:
            wanted = types.setdefault(parameter.ctype, argument.dtype)
        if wanted != argument.dtype:
            raise TypeError(f"Type is mismatched. {parameter.name} {argument.dtype} {wanted}")
    return types


class ElementwiseKernel:
    def __init__(
        self,
        in_params: str,
        out_params: str,
        operation: str,
        name: str = "kernel",
        reduce_dims: bool = True,
        preamble: str = "",
        no_return: bool = False,
        return_tuple: bool = False,
    ) -> None:
        if not re.fullmatch(r"[a-zA-Z_]\w*", name):
            raise ValueError(f'Invalid kernel name: "{name}"')
        self.in_params = _parameters(in_params, True)
        self.out_params = _parameters(out_params, False)
        self.params = self.in_params + self.out_params
        if "i" in [parameter.name for parameter in self.params]:
            raise ValueError("Can not use 'i' as a parameter name")
        self.operation = operation
        self.name = name
        self.preamble = preamble
        self.no_return = no_return
        self.return_tuple = return_tuple

    def __call__(self, *args: Any, size: int = -1) -> Any:
        n_in = len(self.in_params)
        if len(args) not in (n_in, len(self.params)):
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}. It must be either {n_in} or "
                f"{len(self.params)} (with outputs), but given {len(args)}."
            )
        for argument in args:
            if isinstance(argument, ndarray):
                _check_device(argument)
            else:
                _scalar(argument, np.dtype(object))
        shape = self._loop_shape(args, size)
        outputs = self._outputs(args, shape, size)
        arguments = [*args[:n_in], *outputs]
        types = _decide_types(self.params, arguments, n_in)
        if math.prod(shape):
            _check_overlaps(self.params, arguments, n_in)
            self._launch(arguments, types, shape)
        if self.no_return:
            return None
        return outputs[0] if len(outputs) == 1 and not self.return_tuple else tuple(outputs)

    def _loop_shape(self, args: tuple[Any, ...], size: int) -> tuple[int, ...]:
        shapes = [
            argument.shape
            for parameter, argument in zip(self.params, args, strict=False)
            if isinstance(argument, ndarray) and not parameter.raw
        ]
        if size != -1:
            if shapes:
                raise ValueError(
                    "Specified 'size' can be used only if all of the ndarray are 'raw'."
                )
            return (size,)
        if not shapes:
            raise ValueError("Loop size is undecided.")
        return np.broadcast_shapes(*shapes)

    def _outputs(self, args: tuple[Any, ...], shape: tuple[int, ...], size: int) -> list[ndarray]:
        n_in = len(self.in_params)
        if len(args) == n_in and self.out_params:
            if size == -1 and any(parameter.raw for parameter in self.out_params):
                raise ValueError("Output array size is Undecided")
            types = _decide_types(self.in_params, list(args), n_in)
            return [empty(shape, p.resolve(types)) for p in self.out_params]
        for parameter, argument in zip(self.out_params, args[n_in:], strict=True):
            if not isinstance(argument, ndarray):
                raise TypeError("Output arguments type must be cupy.ndarray")
            if not parameter.raw and argument.shape != shape:
                raise ValueError("Out shape is mismatched")
        return list(args[n_in:])

    def _launch(
        self, arguments: list[Any], types: dict[str, np.dtype[Any]], shape: tuple[int, ...]
    ) -> None:
        scalars = [not isinstance(argument, ndarray) for argument in arguments]
        kernel_texts[self._text(types, scalars)] = self.name
        function = self._function(types, scalars)
        cells = [
            _array_cell(argument, None if parameter.raw else shape)
            if isinstance(argument, ndarray)
            else _scalar(argument, parameter.resolve(types))
            for parameter, argument in zip(self.params, arguments, strict=True)
        ]
        pointers = (ctypes.c_void_p * len(cells))(
            *(c.ctypes.data if isinstance(c, np.ndarray) else ctypes.addressof(c) for c in cells)
        )
        wrong = _OutOfRange()
        with _fenced([argument for argument in arguments if isinstance(argument, ndarray)]):
            failed = function(pointers, ctypes.c_ssize_t(math.prod(shape)), ctypes.byref(wrong))
        if failed:
            raise IndexError(
                f"{self.name}: index {wrong.index} of {wrong.name.decode()} is out of range for "
                f"size {wrong.size}"
            )
        for parameter, argument in zip(self.params, arguments, strict=True):
            if isinstance(argument, ndarray) and argument._memory.damaged():
                raise IndexError(f"{self.name} wrote outside of {parameter.name}")

    def _function(self, types: dict[str, np.dtype[Any]], scalars: list[bool]) -> Any:
        """Return the compiled kernel; float32 and float64 are compiled together, to save time."""
        chars = {dtype.char for dtype in types.values()}
        char = chars.pop() if len(chars) == 1 and chars <= set("fd") else ""
        source = HOST_PREAMBLE
        for variant in "fd" if char else ("",):
            resolved = {letter: np.dtype(variant or dtype) for letter, dtype in types.items()}
            text = self._text(resolved, scalars) + self._entry(f"launch_{variant}", scalars)
            source += f"namespace kernel_{variant} {{\n{text}}}\n"
        return getattr(_compile(source), f"launch_{char}")

    def _text(self, types: dict[str, np.dtype[Any]], scalars: list[bool]) -> str:
        """Return the kernel as CuPy would write it, with its type letters resolved in place."""
        declared, references = [], []
        for parameter, scalar in zip(self.params, scalars, strict=True):
            name, kind = parameter.name, parameter.ctype
            if scalar:
                declared.append(f"{parameter.const}{kind} {name}")
            elif parameter.raw:
                declared.append(f"{parameter.const}CArray<{kind}> {name}")
            else:
                declared.append(f"{parameter.const}CArray<{kind}> _raw_{name}")
                references.append(f"{parameter.const}{kind} &{name} = _raw_{name}[_ind.get()];")
        newline = "\n"
        typedefs = "".join(
            f"typedef {_C_TYPES[dtype.name]} {letter};\n" for letter, dtype in sorted(types.items())
        )
        return f"""{typedefs}{self.preamble}
KERNEL void {self.name}({", ".join([*declared, "CIndexer _ind"])}) {{
  ;
  CUPY_FOR(i, _ind.size()) {{
    _ind.set(i);
    {newline.join(references)}
    {self.operation};
  }}
  ;
}}
"""

    def _entry(self, name: str, scalars: list[bool]) -> str:
        """Return the C function that ctypes calls."""
        passed = [
            f"*static_cast<const {parameter.ctype}*>(arguments[{index}])"
            if scalar
            else f'CArray<{parameter.ctype}>(arguments[{index}], "{parameter.name}")'
            for index, (parameter, scalar) in enumerate(zip(self.params, scalars, strict=True))
        ]
        return f"""
extern "C" int {name}(void** arguments, ptrdiff_t size, OutOfRange* wrong) {{
  if (__builtin_setjmp(escape)) {{ *wrong = out_of_range; return 1; }}
  {self.name}({", ".join([*passed, "CIndexer{size, 0}"])});
  return 0;
}}
"""


def _check_overlaps(parameters: list[_Parameter], arguments: list[Any], n_in: int) -> None:
    """Refuse an output that overlaps another argument, unless it is elementwise the same.

    CuPy's own elementwise kernels do not look: threads would read what others have written.
    """
    arrays = [
        (index, parameter, argument)
        for index, (parameter, argument) in enumerate(zip(parameters, arguments, strict=True))
        if isinstance(argument, ndarray)
    ]
    for index, p, a in arrays:
        for other, q, b in arrays:
            if other < max(n_in, index + 1) or not np.may_share_memory(a._values, b._values):
                continue
            if p.raw or q.raw or index >= n_in or not _same_memory(a, b):
                raise ValueError(f"{p.name} and {q.name} overlap, which is a race on a GPU")


class _OutOfRange(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("index", ctypes.c_ssize_t),
        ("size", ctypes.c_ssize_t),
    )


class _Argument(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_ssize_t),
        ("ndim", ctypes.c_ssize_t),
        ("dims", ctypes.c_ssize_t * 16),
    )


def _array_cell(array: ndarray, shape: tuple[int, ...] | None) -> _Argument:
    """Describe an array, broadcast to the loop's shape unless it is a raw one."""
    values = array._values if shape is None else np.broadcast_to(array._values, shape)
    if array._values.flags.c_contiguous and values.shape == array.shape:
        values = array._values.reshape(-1)  # as CuPy's reduce_dims, for speed
    cell = _Argument(values.ctypes.data, values.size, values.ndim)
    cell.dims[: values.ndim] = values.shape
    cell.dims[8 : 8 + values.ndim] = values.strides
    return cell


@contextmanager
def _fenced(arrays: list[ndarray]) -> Iterator[None]:
    """Let AddressSanitizer forbid all of the arrays' allocations but the arrays themselves."""
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
    memories = {id(array._memory): array._memory for array in arrays}.values()
    for memory in memories:
        poison(memory.bytes.ctypes.data, memory.bytes.nbytes)
    for array in arrays:
        low, high = np.lib.array_utils.byte_bounds(array._values)
        unpoison(low, high - low)
    try:
        yield
    finally:
        for memory in memories:
            unpoison(memory.bytes.ctypes.data, memory.bytes.nbytes)


# Whole kernels.

FAKE_CUDA = Path(__file__).with_name("fake_cuda.h")
MOST_FIBRES = 4096
MOST_THREADS = 1024
MOST_SHARED_BYTES = 48 * 1024
MOST_SHARED_BYTES_OPTIN = 227 * 1024
N_MULTIPROCESSORS = 6
STACK_BYTES = 2**16


class RawModule:
    def __init__(
        self,
        code: str,
        *,
        options: tuple[str, ...] = (),
        enable_cooperative_groups: bool = False,
    ) -> None:
        if type(options) is not tuple or options not in ((), ("--std=c++17",)):
            raise NotImplementedError(f"options {options!r}")
        self._code, self._cooperative = code, enable_cooperative_groups
        # A function's attributes are the module's, whoever gets the function from it.
        self._shared_limits: dict[str, int] = {}

    def get_function(self, name: str) -> "RawKernel":
        return RawKernel(self._code, name, self._cooperative, self._shared_limits)


class _RawParameter(NamedTuple):
    """One parameter of a kernel: ``const float* x`` or ``int n``."""

    name: str
    const: bool
    ctype: str
    pointer: bool
    dtype: np.dtype[Any]


def _signature(code: str, name: str) -> list[_RawParameter]:
    """Return the parameters of a kernel whose source is written plainly."""
    code = re.sub("//.*", "", code)
    found = re.search(rf'extern "C" __global__ void [^{{;]*\b{name}\(([^)]*)\)', code)
    if found is None:
        raise RuntimeError("CUDA_ERROR_NOT_FOUND: named symbol not found")
    dtypes = {ctype: np.dtype(dtype) for dtype, ctype in _C_TYPES.items()}
    dtypes |= {new: dtypes[old] for old, new in re.findall(r"typedef (\w+) (\w+);", code)}
    parameters = []
    for text in found[1].split(","):
        match = re.fullmatch(r"(const )?((?:long |unsigned )?\w+)(\*?) (\w+)", text.strip())
        assert match is not None, f"not a plain parameter: {text}"
        const, ctype, star, parameter = match.groups()
        parameters.append(_RawParameter(parameter, bool(const), ctype, bool(star), dtypes[ctype]))
    return parameters


class RawKernel:
    """A kernel whose blocks all run at once, as in a cooperative launch.

    It is run twice, with the threads in one order and in the other: if anything differs, they race.
    """

    def __init__(
        self, code: str, name: str, cooperative: bool, shared_limits: dict[str, int]
    ) -> None:
        self.code, self.name = code, name
        self.parameters = _signature(code, name)
        self._cooperative = cooperative
        self._shared_limits = shared_limits

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._shared_limits.get(self.name, MOST_SHARED_BYTES)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, value: int) -> None:
        if not 0 <= value <= MOST_SHARED_BYTES_OPTIN:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self._shared_limits[self.name] = value

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0
    ) -> None:
        if len(grid) != 1 or len(block) != 1:
            raise NotImplementedError("only one dimension")
        if grid[0] != 1 and not self._cooperative:
            raise NotImplementedError("blocks that need not run at once")
        if grid[0] * block[0] > MOST_FIBRES:
            raise NotImplementedError(f"more than {MOST_FIBRES} threads")
        if grid[0] > N_MULTIPROCESSORS:
            raise RuntimeError("CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: too many blocks")
        if not (grid[0] > 0 and 0 < block[0] <= MOST_THREADS and shared_mem >= 0):
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        if shared_mem > max(MOST_SHARED_BYTES, self.max_dynamic_shared_size_bytes):
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        if len(args) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments, got {len(args)}")
        cells = [self._cell(*pair) for pair in zip(self.parameters, args, strict=True)]
        arrays = [
            (parameter, argument)
            for parameter, argument in zip(self.parameters, args, strict=True)
            if isinstance(argument, ndarray)
        ]
        for index, (p, a) in enumerate(arrays):
            for q, b in arrays[:index]:
                if not (p.const and q.const) and np.may_share_memory(a._values, b._values):
                    raise ValueError(f"{q.name} and {p.name} overlap, which is a race on a GPU")
        kernel_texts[self.code] = self.name
        pointers = (ctypes.c_void_p * len(cells))(*(cell.ctypes.data for cell in cells))
        written = list({id(a._memory): a._memory for p, a in arrays if not p.const}.values())
        before = [memory.bytes.copy() for memory in written]
        after = []
        for backwards in (False, True):
            for memory, values in zip(written, before, strict=True):
                memory.bytes[...] = values
            with _fenced([array for _, array in arrays]):
                self._launch(pointers, (grid[0], block[0]), shared_mem, backwards)
            for p, a in arrays:
                if a._memory.damaged():
                    raise IndexError(f"{self.name} wrote outside of {p.name}")
            after.append([memory.bytes.copy() for memory in written])
        if not all(map(np.array_equal, *after)):
            raise RuntimeError(f"{self.name}: the result depends on the order of the threads")

    @staticmethod
    def _cell(parameter: _RawParameter, argument: Any) -> Any:
        """Return what is copied to the kernel; CuPy would take anything, of any size."""
        if not parameter.pointer or not isinstance(argument, ndarray):
            wanted = np.dtype(np.intp) if parameter.pointer else parameter.dtype
            if not isinstance(argument, np.generic) or argument.dtype != wanted:
                raise TypeError(f"{parameter.name} must be {wanted}, got {argument!r}")
            if parameter.pointer and argument != 0:
                raise TypeError(f"{parameter.name} is an address that no array has")
            return np.array(argument)
        _check_device(argument)
        if argument.dtype != parameter.dtype:
            raise TypeError(f"{parameter.name} must be {parameter.dtype}, got {argument.dtype}")
        if not argument.flags.c_contiguous:
            raise ValueError(f"{parameter.name} is not contiguous, but the kernel gets its address")
        return np.array(argument.data.ptr, np.uintp)

    def _launch(
        self, pointers: Any, size: tuple[int, int], shared_mem: int, backwards: bool
    ) -> None:
        shared = [_Memory(shared_mem) for _ in range(size[0])]
        addresses = (ctypes.c_void_p * size[0])(*(m.bytes.ctypes.data + GUARD for m in shared))
        function = self._function()
        with _fenced([ndarray(m, m.view((shared_mem,), np.dtype("u1"))) for m in shared]):
            problem = function(pointers, *size, addresses, _stacks().ctypes, int(backwards))
        if problem:
            raise RuntimeError(f"{self.name}: {problem.decode()}")
        if any(memory.damaged() for memory in shared):
            raise IndexError(f"{self.name} wrote outside of its shared memory")

    def _function(self) -> Any:
        code = re.sub(
            r"extern __shared__ (\w+) (\w+)\[\];", r"\1* \2 = (\1*)shared_memory;", self.code
        )
        passed = ", ".join(
            f"*({p.ctype}{'*' if p.pointer else ''}*)arguments[{index}]"
            for index, p in enumerate(self.parameters)
        )
        call = f"static void call_kernel() {{ {self.name}({passed}); }}\n"
        source = FAKE_CUDA.read_text() + _HOST_FUNCTIONS + code + call
        function = _compile(source).launch
        function.restype = ctypes.c_char_p
        return function


@cache
def _stacks() -> Any:
    """Return the memory of the fibres' stacks, of which only what they use is ever there."""
    return np.empty(MOST_FIBRES * STACK_BYTES, np.uint8)


@cache
def _build_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="gpunn-host-cupy-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@cache
def _compile(source: str) -> ctypes.CDLL:
    if CXX is None:
        raise RuntimeError("no C++ compiler")
    stem = _build_folder() / hashlib.sha256(source.encode()).hexdigest()[:24]
    stem.with_suffix(".cpp").write_text(source)
    library = str(stem.with_suffix(".so"))
    command = [CXX, *CXX_FLAGS, str(stem.with_suffix(".cpp")), "-o", library, "-lm", "-lc"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the kernel does not compile:\n{done.stderr}\n{source}")
    return ctypes.CDLL(library)


# cuBLAS.


class CUBLASError(RuntimeError):
    pass


class _Handle:
    def __init__(self) -> None:
        # Neither is what gpunn needs, so that it has to set both.
        self.math_mode = cublas.CUBLAS_TENSOR_OP_MATH
        self.pointer_mode = cublas.CUBLAS_POINTER_MODE_DEVICE


_HANDLE_BASE = 7000


def get_cublas_handle() -> int:
    return _HANDLE_BASE + _current_device()


@cache
def _handle_of(device_id: int) -> _Handle:
    return _Handle()


def _handle(handle: int) -> _Handle:
    if handle != get_cublas_handle():
        raise CUBLASError("CUBLAS_STATUS_NOT_INITIALIZED")
    return _handle_of(_current_device())


def _matrix(name: str, ptr: int, shape: tuple[int, int], leading: int, dtype: Any) -> Any:
    """Return the column-major matrix at an address, if it lies within one allocation."""
    rows, columns = shape
    itemsize = np.dtype(dtype).itemsize
    if rows * columns == 0:
        return np.zeros(shape, dtype)
    extent = (leading * (columns - 1) + rows) * itemsize
    for memory in _Memory.live:
        if memory.ptr <= ptr and ptr + extent <= memory.ptr + memory.nbytes:
            if memory.device_id != _current_device():
                raise CUBLASError(f"{name} lies on device {memory.device_id}")
            memory.uses.by(get_current_stream())
            offset = GUARD + ptr - memory.ptr
            return np.ndarray(
                shape, dtype, memory.bytes.data, offset, (itemsize, leading * itemsize)
            )
    raise CUBLASError(f"{name}: the matrix does not lie within an allocation")


class _ComputeType(NamedTuple):
    """What a product is computed in."""

    number: int
    dtype: Any
    ctype: Any
    dropped_bits: int
    """Bits of the factors' significands that are rounded away."""


_COMPUTE_TYPES = {
    68: _ComputeType(0, np.float32, ctypes.c_float, 0),
    70: _ComputeType(1, np.float64, ctypes.c_double, 0),
    75: _ComputeType(0, np.float32, ctypes.c_float, 16),
    77: _ComputeType(0, np.float32, ctypes.c_float, 13),
}


def _rounded(matrix: Any, dropped_bits: int) -> Any:
    """Return float32 numbers with fewer bits, rounded to the nearest, ties to even."""
    if not dropped_bits:
        return matrix
    bits = matrix.view(np.uint32)
    half = (1 << (dropped_bits - 1)) - 1 + (bits >> dropped_bits & 1)
    rounded = (bits + half.astype(np.uint32)) >> dropped_bits << dropped_bits
    return np.where(np.isfinite(matrix), rounded.astype(np.uint32).view(np.float32), matrix)


def _gemm_ex(
    handle: int,
    transa: int,
    transb: int,
    m: int,
    n: int,
    k: int,
    alpha: int,
    A: int,
    Atype: int,
    lda: int,
    B: int,
    Btype: int,
    ldb: int,
    beta: int,
    C: int,
    Ctype: int,
    ldc: int,
    computeType: int,
    algo: int,
) -> None:
    state = _handle(handle)
    if state.math_mode != cublas.CUBLAS_DEFAULT_MATH:
        raise CUBLASError("products must not depend on who set the math mode before")
    if state.pointer_mode != cublas.CUBLAS_POINTER_MODE_HOST:
        raise CUBLASError("alpha and beta lie on the host, but the pointer mode is DEVICE")
    compute = _COMPUTE_TYPES.get(computeType)
    if compute is None or not Atype == Btype == Ctype == compute.number or algo != -1:
        raise CUBLASError("CUBLAS_STATUS_NOT_SUPPORTED")
    shape_a, shape_b = ((m, k), (k, n))
    shape_a = shape_a[::-1] if transa else shape_a
    shape_b = shape_b[::-1] if transb else shape_b
    for leading, rows in ((lda, shape_a[0]), (ldb, shape_b[0]), (ldc, m)):
        if leading < max(1, rows) or min(m, n, k) < 0:
            raise CUBLASError("CUBLAS_STATUS_INVALID_VALUE")
    dtype = compute.dtype
    a, b = _matrix("A", A, shape_a, lda, dtype), _matrix("B", B, shape_b, ldb, dtype)
    c = _matrix("C", C, (m, n), ldc, dtype)
    if any(x.size and c.size and np.may_share_memory(x, c) for x in (a, b)):
        raise CUBLASError("C overlaps A or B")
    a, b = (_rounded(x, compute.dropped_bits) for x in (a, b))
    factor = compute.ctype.from_address(alpha).value
    factor_c = compute.ctype.from_address(beta).value
    product = (a.T if transa else a) @ (b.T if transb else b) if factor else 0
    scaled = np.asarray(product, dtype) * np.asarray(factor, dtype)
    # With beta == 0, BLAS does not read C at all: there may be NaN in it.
    c[...] = scaled if factor_c == 0 else scaled + np.asarray(factor_c, dtype) * c


def _module(name: str, **names: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, is_package=True)
    module.__path__ = []
    module.__dict__.update(names)
    return module


cublas = _module(
    "cupy.cuda.cublas",
    CUBLAS_OP_N=0,
    CUBLAS_OP_T=1,
    CUBLAS_DEFAULT_MATH=0,
    CUBLAS_TENSOR_OP_MATH=1,
    CUBLAS_GEMM_DEFAULT=-1,
    CUBLAS_COMPUTE_32F=68,
    CUBLAS_COMPUTE_64F=70,
    CUBLAS_COMPUTE_32F_FAST_16BF=75,
    CUBLAS_COMPUTE_32F_FAST_TF32=77,
    CUBLAS_POINTER_MODE_HOST=0,
    CUBLAS_POINTER_MODE_DEVICE=1,
    CUBLASError=CUBLASError,
    gemmEx=_gemm_ex,
    getMathMode=lambda handle: _handle(handle).math_mode,
    setMathMode=lambda handle, mode: setattr(_handle(handle), "math_mode", mode),
    getPointerMode=lambda handle: _handle(handle).pointer_mode,
    setPointerMode=lambda handle, mode: setattr(_handle(handle), "pointer_mode", mode),
)

# The module itself.


class _MemoryPool:
    def free_bytes(self) -> int:
        return 0

    def free_all_blocks(self, stream: Any = None) -> None:
        pass


def _device_properties(device: int) -> dict[str, Any]:
    if not 0 <= device < N_DEVICES:
        raise CUDARuntimeError(101)
    return {
        "name": b"Host memory in the place of a GPU",
        "totalGlobalMem": DEVICE_BYTES,
        **{"major": 9, "minor": 0},
    }


runtime = _module(
    "cupy.cuda.runtime",
    CUDARuntimeError=CUDARuntimeError,
    CUDA_R_32F=0,
    CUDA_R_64F=1,
    getDeviceCount=lambda: N_DEVICES,
    getDeviceProperties=_device_properties,
    memGetInfo=lambda: (DEVICE_BYTES - _used_bytes(_current_device()), DEVICE_BYTES),
    driverGetVersion=lambda: 13000,
    runtimeGetVersion=lambda: 13000,
    deviceSynchronize=lambda: get_current_stream().synchronize(),
)
_device = _module("cupy.cuda.device", Device=Device, get_cublas_handle=get_cublas_handle)
_memory = _module("cupy.cuda.memory", OutOfMemoryError=OutOfMemoryError)
_cuda = _module(
    "cupy.cuda",
    Device=Device,
    Event=Event,
    Stream=Stream,
    alloc_pinned_memory=alloc_pinned_memory,
    cublas=cublas,
    device=_device,
    memory=_memory,
    runtime=runtime,
    get_current_stream=get_current_stream,
    get_elapsed_time=get_elapsed_time,
)
cupy = _module(
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
MODULES = (cupy, _cuda, cublas, _device, _memory, runtime)
PACKAGE = "gpunn.backends"
OVER_CUPY = (
    "cupy_backend", "cupy_batches", "cupy_blas", "cupy_elementwise", "cupy_formulas",
    "cupy_kernels", "cupy_online", "cupy_staging",
)  # fmt: skip
"""gpunn's modules that import CuPy when they are imported."""


def forget_devices() -> None:
    """Make gpunn.backends.select look again, if it is loaded."""
    devices = sys.modules.get("gpunn.backends.select")
    for function in list(vars(devices).values()) if devices else []:
        if hasattr(function, "cache_clear"):
            function.cache_clear()


@contextmanager
def installed() -> Iterator[types.ModuleType]:
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
    sys.modules.update({module.__name__: module for module in MODULES})
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
def load_cupy_backend() -> types.ModuleType:
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
