"""Whole kernels of the double of CuPy: CUDA source whose threads are fibres on the host.

All blocks of a launch are there at once, as in a cooperative one; ``fake_raw.h`` has the grid. A
launch is run twice, with threads and blocks in opposite orders, so that a race shows as a
difference. Shared memory has guards and begins as NaN, like all other memory.
"""

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import fake_compiler
import numpy as np
from fake_arrays import check_device, ndarray
from fake_compiler import C_TYPES, HOST_FUNCTIONS, compile_kernel, fenced
from fake_memory import GUARD, MOST_SHARED_BYTES_OPTIN, N_MULTIPROCESSORS, Memory

GRID = Path(__file__).with_name("fake_raw.h")
MOST_FIBRES = 4096
MOST_THREADS = 1024
MOST_SHARED_BYTES = 48 * 1024
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
    dtypes = {ctype: np.dtype(dtype) for dtype, ctype in C_TYPES.items()}
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
        self._check_size(grid, block, shared_mem)
        if len(args) != len(self.parameters):
            raise TypeError(f"{self.name} takes {len(self.parameters)} arguments, got {len(args)}")
        # The cells must live until the kernel has run, which reads its arguments from them.
        cells = [self._cell(*pair) for pair in zip(self.parameters, args, strict=True)]
        arrays = [
            (parameter, argument)
            for parameter, argument in zip(self.parameters, args, strict=True)
            if isinstance(argument, ndarray)
        ]
        self._check_overlaps(arrays)
        fake_compiler.kernel_texts[self.code] = self.name
        pointers = (ctypes.c_void_p * len(cells))(*(cell.ctypes.data for cell in cells))
        self._run_both_ways(pointers, (grid[0], block[0]), shared_mem, arrays)

    def _check_size(self, grid: tuple[int, ...], block: tuple[int, ...], shared_mem: int) -> None:
        """Refuse what a GPU refuses, and what the double cannot do."""
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

    @staticmethod
    def _check_overlaps(arrays: list[tuple[_RawParameter, ndarray]]) -> None:
        """Refuse arrays that overlap, unless the kernel only reads both."""
        for index, (p, a) in enumerate(arrays):
            for q, b in arrays[:index]:
                if not (p.const and q.const) and np.may_share_memory(a._values, b._values):
                    raise ValueError(f"{q.name} and {p.name} overlap, which is a race on a GPU")

    def _run_both_ways(
        self,
        pointers: Any,
        size: tuple[int, int],
        shared_mem: int,
        arrays: list[tuple[_RawParameter, ndarray]],
    ) -> None:
        """Run the kernel in both orders of its threads, from the same memory; compare the bits."""
        written = list({id(a._memory): a._memory for p, a in arrays if not p.const}.values())
        before = [memory.bytes.copy() for memory in written]
        after = []
        for backwards in (False, True):
            for memory, values in zip(written, before, strict=True):
                memory.bytes[...] = values
            with fenced([array for _, array in arrays]):
                self._launch(pointers, size, shared_mem, backwards)
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
        check_device(argument)
        if argument.dtype != parameter.dtype:
            raise TypeError(f"{parameter.name} must be {parameter.dtype}, got {argument.dtype}")
        if not argument.flags.c_contiguous:
            raise ValueError(f"{parameter.name} is not contiguous, but the kernel gets its address")
        return np.array(argument.data.ptr, np.uintp)

    def _launch(
        self, pointers: Any, size: tuple[int, int], shared_mem: int, backwards: bool
    ) -> None:
        shared = [Memory(shared_mem) for _ in range(size[0])]
        addresses = (ctypes.c_void_p * size[0])(*(m.bytes.ctypes.data + GUARD for m in shared))
        function = self._function()
        with fenced([ndarray(m, m.view((shared_mem,), np.dtype("u1"))) for m in shared]):
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
        source = GRID.read_text() + HOST_FUNCTIONS + code + call
        function = compile_kernel(source).launch
        function.restype = ctypes.c_char_p
        return function


@cache
def _stacks() -> Any:
    """Return the memory of the fibres' stacks, of which only what they use is ever there."""
    return np.empty(MOST_FIBRES * STACK_BYTES, np.uint8)
