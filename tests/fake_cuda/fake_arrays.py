"""Arrays of the double of CuPy, and what makes them.

They obey CuPy's rules: nothing converts silently to NumPy, host and device arrays do not mix, and
an array is used on the device that it belongs to.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from fake_captures import Run, Use
from fake_crossings import crossings
from fake_memory import Device, Memory
from fake_streams import begin_copy, current_device, get_current_stream


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

    def __init__(self, memory: Memory, values: Any) -> None:
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
            check_device(self)
            self._memory.uses.by(get_current_stream())
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
        check_device(target)
        check_device(value)
        while value.ndim and value.shape[0] == 1:
            value = value[0]
        if not same_memory(target, value) and np.may_share_memory(target._values, value._values):
            raise ValueError("assignment between overlapping device arrays is a race")
        submit([use_of(target, True), use_of(value)], _copy)

    def fill(self, value: Any) -> None:
        check_device(self)
        if isinstance(value, np.ndarray):
            if value.shape != ():
                raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
            value = value.item()
        if isinstance(value, ndarray):
            raise TypeError("fill with a device array is not in gpunn's part of CuPy")
        number = cast_scalar(value, self.dtype)

        def run(uses: list[Use]) -> None:
            uses[0].values[...] = number

        submit([use_of(self, True)], run)

    def copy(self, order: str = "C") -> "ndarray":
        check_device(self)
        result = empty(self.shape, self.dtype, order)
        submit([use_of(result, True), use_of(self)], _copy)
        return result

    def astype(self, dtype: Any, order: str = "K", *, copy: bool = True) -> "ndarray":
        dtype = _check_dtype(dtype)
        if order != "C":
            raise NotImplementedError("only order='C'")
        if not copy and self.dtype == dtype and self.flags.c_contiguous:
            return self
        check_device(self)
        result = empty(self.shape, dtype)
        submit([use_of(result, True), use_of(self)], _copy)
        return result

    def reshape(self, *shape: Any, order: str = "C") -> "ndarray":
        if order != "C":
            raise NotImplementedError("only order='C'")
        source = self if self.flags.c_contiguous else self.copy()
        return ndarray(source._memory, source._values.reshape(*shape))


def use_of(array: ndarray, written: bool = False) -> Use:
    return Use(array._memory, array._values, written)


def submit(uses: list[Use], run: Run) -> None:
    """Give work to the current stream."""
    get_current_stream()._submit(uses, run)


def _copy(uses: list[Use]) -> None:
    uses[0].values[...] = uses[1].values


def check_device(array: ndarray) -> None:
    """Refuse an array that is not on the current device."""
    here = current_device()
    if array.device.id != here:
        raise ValueError(
            f"The device where the array resides ({array.device.id}) is different from the "
            f"current device ({here}). Peer access is unavailable between these devices."
        )


def same_memory(a: ndarray, b: ndarray) -> bool:
    """Return whether two arrays are the same, element by element, and not only overlap."""
    return (a.data.ptr, a.shape, a.strides) == (b.data.ptr, b.shape, b.strides)


def cast_scalar(value: Any, dtype: np.dtype[Any]) -> Any:
    """Cast a Python or NumPy scalar as CuPy does, by assignment; refuse anything else."""
    if type(value) not in (bool, int, float, complex) and not isinstance(value, np.generic):
        raise TypeError(f"Unsupported type {type(value)}")
    cast = np.empty((), dtype)
    cast[()] = value
    return cast


def empty(shape: Any, dtype: Any = float, order: str = "C") -> ndarray:
    shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    dtype = _check_dtype(dtype)
    memory = Memory(math.prod(shape) * dtype.itemsize)
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
