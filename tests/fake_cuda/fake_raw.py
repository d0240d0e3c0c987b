"""Whole kernels of the double of CuPy: CUDA source whose threads are fibres on the host.

In a cooperative launch all blocks are there at once, in any other one they run one after the other;
``fake_raw.h`` has the grid. A launch is run twice, with threads and blocks in opposite orders, so
that a race shows as a difference. Shared memory has guards and begins as NaN, like all other
memory.
"""

import ctypes
import math
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import fake_compiler
import numpy as np
from fake_arrays import check_device, ndarray, submit, use_of
from fake_captures import Use, note_loaded
from fake_compiler import C_TYPES, HOST_FUNCTIONS, compile_kernel, fenced, preprocess
from fake_memory import GUARD, MOST_SHARED_BYTES_OPTIN, N_MULTIPROCESSORS, GuardedBytes
from fake_streams import current_device

GRID = Path(__file__).with_name("fake_raw.h")
MOST_FIBRES = 4096
MOST_THREADS = 1024
MOST_BLOCKS = (2**31 - 1, 2**16 - 1, 2**16 - 1)
MOST_SHARED_BYTES = 48 * 1024
STACK_BYTES = 2**16
# The compiler checks each address that is used, and calls back into fake_raw.h.
FLAGS = ("-fsanitize=alignment,null",)

_SHARED = r"extern __shared__ (?:__align__\(\d+\) )?(\w+(?: \w+)*) (\w+)\[\];"
_KERNEL = r'extern "C" __global__ void [^{;]*?\b(\w+)\(([^)]*)\) ?\{'
VECTORS = {
    **{"float2": "float", "float4": "float", "double2": "double"},
    **{"uint2": "unsigned int", "uint4": "unsigned int"},
    **{"ushort2": "unsigned short", "ushort4": "unsigned short"},
}
"""What the members of CUDA's vectors are."""


class RawModule:
    def __init__(
        self,
        code: str,
        *,
        options: tuple[str, ...] = (),
        enable_cooperative_groups: bool = False,
    ) -> None:
        if type(options) is not tuple or not set(options) <= {"--std=c++17", "--use_fast_math"}:
            raise NotImplementedError(f"options {options!r}")
        self._code, self._cooperative = code, enable_cooperative_groups
        # A function's attributes are the module's, whoever gets the function from it.
        self._shared_limits: dict[str, int] = {}
        self._loaded: set[Any] = set()

    def get_function(self, name: str) -> "RawKernel":
        return RawKernel(self._code, name, self._cooperative, self._shared_limits, self._loaded)


class _RawParameter(NamedTuple):
    """One parameter of a kernel: ``const float* x`` or ``int n``."""

    name: str
    const: bool
    ctype: str
    pointer: bool
    dtype: np.dtype[Any]


def _dtypes(code: str) -> dict[str, np.dtype[Any]]:
    """Return the dtype of each type that a parameter, or what it points to, may have."""
    dtypes = {ctype: np.dtype(dtype) for dtype, ctype in C_TYPES.items()}
    dtypes["unsigned"] = dtypes["unsigned int"]
    dtypes |= {vector: dtypes[number] for vector, number in VECTORS.items()}
    for old, new in re.findall(r"typedef (\w+(?: \w+)*) (\w+);", code):
        if old in dtypes:
            dtypes[new] = dtypes[old]
    return dtypes


@cache
def _signatures(code: str) -> dict[str, list[_RawParameter]]:
    """Return the parameters of each kernel of a source, which is written plainly."""
    code = re.sub(r"\s+", " ", preprocess(re.sub("//.*", "", code)))
    if "__shared__" in re.sub(_SHARED, "", code):
        raise RuntimeError("static shared memory cannot be watched: use dynamic shared memory")
    dtypes = _dtypes(code)
    kernels = re.findall(_KERNEL, code)
    return {name: _parameters(texts.split(","), dtypes) for name, texts in kernels}


def _parameters(texts: list[str], dtypes: dict[str, np.dtype[Any]]) -> list[_RawParameter]:
    parameters = []
    for text in texts:
        match = re.fullmatch(
            r"(const )?((?:unsigned |signed |long )?\w+) ?(\*?) ?(?:__restrict__ )?(\w+)",
            text.strip(),
        )
        assert match is not None, f"not a plain parameter: {text}"
        const, ctype, star, parameter = match.groups()
        parameters.append(_RawParameter(parameter, bool(const), ctype, bool(star), dtypes[ctype]))
    return parameters


class _Launch(ctypes.Structure):
    """A launch as ``fake_raw.h`` takes it."""

    _fields_ = (
        ("arguments", ctypes.c_void_p),
        ("shared", ctypes.c_void_p),
        ("stacks", ctypes.c_void_p),
        ("grid", ctypes.c_int * 3),
        ("n_threads", ctypes.c_int),
        ("shared_bytes", ctypes.c_int),
        ("cooperative", ctypes.c_int),
        ("backwards", ctypes.c_int),
    )


class _Size(NamedTuple):
    """How large a launch is."""

    grid: tuple[int, int, int]
    n_threads: int
    shared_bytes: int


class RawKernel:
    """A kernel of a module.

    It is run twice, with the threads in one order and in the other: if anything differs, they race.
    """

    def __init__(
        self,
        code: str,
        name: str,
        cooperative: bool,
        shared_limits: dict[str, int],
        loaded: set[Any],
    ) -> None:
        self.code, self.name = code, name
        if name not in _signatures(code):
            raise RuntimeError("CUDA_ERROR_NOT_FOUND: named symbol not found")
        self.parameters = _signatures(code)[name]
        self._cooperative = cooperative
        self._shared_limits = shared_limits
        self._loaded = loaded

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
        size = self._size(grid, block, shared_mem)
        if len(args) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments, got {len(args)}")
        cells = [self._cell(*pair) for pair in zip(self.parameters, args, strict=True)]
        arrays = [
            (parameter, argument)
            for parameter, argument in zip(self.parameters, args, strict=True)
            if isinstance(argument, ndarray)
        ]
        self._check_overlaps(arrays)
        note_loaded(self._loaded, (self.name, current_device()), self.name)
        fake_compiler.kernel_texts[self.code] = self.name
        parameters = [parameter for parameter, _ in arrays]

        def run(uses: list[Use]) -> None:
            # The cells must live until the kernel has run, which reads its arguments from them.
            pointers = (ctypes.c_void_p * len(cells))(*(cell.ctypes.data for cell in cells))
            self._run_both_ways(pointers, size, parameters, uses)

        submit([use_of(argument, not p.const) for p, argument in arrays], run)

    def _size(self, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int) -> _Size:
        """Refuse what a GPU refuses, and what the double cannot do."""
        if not 1 <= len(grid) <= 3 or set(block[1:]) - {1}:
            raise NotImplementedError("blocks of more than one dimension")
        blocks = (*grid, 1, 1)[:3]
        if not all(0 < n <= most for n, most in zip(blocks, MOST_BLOCKS, strict=True)):
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        if not 0 < block[0] <= MOST_THREADS or shared_mem < 0:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        if shared_mem > max(MOST_SHARED_BYTES, self.max_dynamic_shared_size_bytes):
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        if self._cooperative:
            self._check_cooperative(math.prod(grid), block[0])
        return _Size(blocks, block[0], shared_mem)

    @staticmethod
    def _check_cooperative(n_blocks: int, n_threads: int) -> None:
        """Refuse blocks that cannot all be there at once."""
        if n_blocks * n_threads > MOST_FIBRES:
            raise NotImplementedError(f"more than {MOST_FIBRES} threads")
        if n_blocks > N_MULTIPROCESSORS:
            raise RuntimeError("CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: too many blocks")

    @staticmethod
    def _check_overlaps(arrays: list[tuple[_RawParameter, ndarray]]) -> None:
        """Refuse arrays that overlap, unless the kernel only reads both."""
        for index, (p, a) in enumerate(arrays):
            for q, b in arrays[:index]:
                if not (p.const and q.const) and np.may_share_memory(a._values, b._values):
                    raise ValueError(f"{q.name} and {p.name} overlap, which is a race on a GPU")

    def _run_both_ways(
        self, pointers: Any, size: _Size, parameters: list[_RawParameter], uses: list[Use]
    ) -> None:
        """Run the kernel in both orders of its threads, from the same memory; compare the bits."""
        written = list({id(use.memory): use.memory for use in uses if use.written}.values())
        before = [memory.bytes.copy() for memory in written]
        after = []
        for backwards in (False, True):
            for memory, values in zip(written, before, strict=True):
                memory.bytes[...] = values
            with fenced([(use.memory, use.values) for use in uses]):
                self._launch(pointers, size, backwards)
            for parameter, use in zip(parameters, uses, strict=True):
                if use.memory.damaged():
                    raise IndexError(f"{self.name} wrote outside of {parameter.name}")
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
        check_device(argument)
        if argument.dtype != parameter.dtype:
            raise TypeError(f"{parameter.name} must be {parameter.dtype}, got {argument.dtype}")
        if not argument.flags.c_contiguous:
            raise ValueError(f"{parameter.name} is not contiguous, but the kernel gets its address")
        return np.array(argument.data.ptr, np.uintp)

    def _launch(self, pointers: Any, size: _Size, backwards: bool) -> None:
        n_shared = math.prod(size.grid) if self._cooperative else 1
        shared = [GuardedBytes(size.shared_bytes) for _ in range(n_shared)]
        addresses = (ctypes.c_void_p * n_shared)(*(m.bytes.ctypes.data + GUARD for m in shared))
        launch = _Launch(
            *(ctypes.addressof(pointers), ctypes.addressof(addresses), _stacks().ctypes.data),
            *(size.grid, size.n_threads, size.shared_bytes, self._cooperative, backwards),
        )
        function, bytes_type = self._function(), np.dtype("u1")
        with fenced([(m, m.view((size.shared_bytes,), bytes_type)) for m in shared]):
            problem = function(ctypes.byref(launch))
        if problem:
            raise RuntimeError(f"{self.name}: {problem.decode()}")
        if any(memory.damaged() for memory in shared):
            raise IndexError(f"{self.name} wrote outside of its shared memory")

    def _function(self) -> Any:
        function = getattr(_compile_kernels(self.code), f"launch_{self.name}")
        function.restype = ctypes.c_char_p
        return function


@cache
def _compile_kernels(code: str) -> ctypes.CDLL:
    """Return the library of a source: one for all its kernels, since compiling takes longest."""
    launches = [
        f'extern "C" const char* launch_{name}(const Launch* what)\n'
        f"{{ return launch(what, [] {{ {name}({_arguments(parameters)}); }}); }}\n"
        for name, parameters in _signatures(code).items()
    ]
    code = re.sub(_SHARED, r"\1* \2 = (\1*)shared_memory;", code)
    return compile_kernel("".join([GRID.read_text(), HOST_FUNCTIONS, code, *launches]), *FLAGS)


def _arguments(parameters: list[_RawParameter]) -> str:
    return ", ".join(
        f"*({p.ctype}{'*' if p.pointer else ''}*)arguments[{index}]"
        for index, p in enumerate(parameters)
    )


@cache
def _stacks() -> Any:
    """Return the memory of the fibres' stacks, of which only what they use is ever there."""
    return np.empty(MOST_FIBRES * STACK_BYTES, np.uint8)
