"""Elementwise kernels of the double of CuPy, which are run on the host.

`ElementwiseKernel` writes the same kernel as CuPy's around the same operation, and refuses what
CuPy refuses: other types, other shapes, a loop of unknown size. It refuses as well what a GPU would
do wrong in silence: indices out of range, writing beside an array, and output that overlaps input.
"""

import ctypes
import math
import re
from pathlib import Path
from typing import Any

import fake_compiler
import numpy as np
from fake_arrays import cast_scalar, check_device, empty, ndarray, same_memory, submit, use_of
from fake_captures import Use, note_loaded
from fake_compiler import C_TYPES, HOST_FUNCTIONS, compile_kernel, fenced
from fake_streams import current_device

HERE = Path(__file__).parent
# What stands before a kernel: on the host, and for nvcc.
HOST_PREAMBLE = (HERE / "fake_elementwise.h").read_text() + HOST_FUNCTIONS
CUDA_PREAMBLE = (HERE / "real_elementwise.h").read_text()


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
        self.ctype = kind if self.dtype is None else C_TYPES[self.dtype.name]

    def resolve(self, types: dict[str, np.dtype[Any]]) -> np.dtype[Any]:
        return types[self.ctype] if self.dtype is None else self.dtype


def _parameters(text: str, const: bool) -> list[_Parameter]:
    return [_Parameter(part, const) for part in text.split(",")] if text else []


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
        self._loaded: set[Any] = set()

    def __call__(self, *args: Any, size: int = -1) -> Any:
        n_in = len(self.in_params)
        if len(args) not in (n_in, len(self.params)):
            raise TypeError(
                f"Wrong number of arguments for {self.name!r}. It must be either {n_in} or "
                f"{len(self.params)} (with outputs), but given {len(args)}."
            )
        for argument in args:
            if isinstance(argument, ndarray):
                check_device(argument)
            else:
                cast_scalar(argument, np.dtype(object))
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
        note_loaded(self._loaded, (*types.items(), *scalars, current_device()), self.name)
        fake_compiler.kernel_texts[self._text(types, scalars)] = self.name
        function = self._function(types, scalars)
        numbers = [
            cast_scalar(argument, parameter.resolve(types)) if scalar else None
            for parameter, argument, scalar in zip(self.params, arguments, scalars, strict=True)
        ]

        def run(uses: list[Use]) -> None:
            self._run(function, numbers, uses, shape)

        n_in = len(self.in_params)
        submit(
            [
                use_of(argument, index >= n_in)
                for index, argument in enumerate(arguments)
                if isinstance(argument, ndarray)
            ],
            run,
        )

    def _run(
        self, function: Any, numbers: list[Any], uses: list[Use], shape: tuple[int, ...]
    ) -> None:
        """Run the compiled kernel. Where there is no number, an argument is the next use."""
        values = iter(uses)
        cells = [
            _array_cell(next(values).values, None if parameter.raw else shape)
            if number is None
            else number
            for parameter, number in zip(self.params, numbers, strict=True)
        ]
        pointers = (ctypes.c_void_p * len(cells))(
            *(c.ctypes.data if isinstance(c, np.ndarray) else ctypes.addressof(c) for c in cells)
        )
        wrong = _OutOfRange()
        with fenced([(use.memory, use.values) for use in uses]):
            failed = function(pointers, ctypes.c_ssize_t(math.prod(shape)), ctypes.byref(wrong))
        if failed:
            raise IndexError(
                f"{self.name}: index {wrong.index} of {wrong.name.decode()} is out of range for "
                f"size {wrong.size}"
            )
        arrays = [p for p, number in zip(self.params, numbers, strict=True) if number is None]
        for parameter, use in zip(arrays, uses, strict=True):
            if use.memory.damaged():
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
        return getattr(compile_kernel(source), f"launch_{char}")

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
            f"typedef {C_TYPES[dtype.name]} {letter};\n" for letter, dtype in sorted(types.items())
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
            if p.raw or q.raw or index >= n_in or not same_memory(a, b):
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


def _array_cell(array: Any, shape: tuple[int, ...] | None) -> _Argument:
    """Describe an array, broadcast to the loop's shape unless it is a raw one."""
    values = array if shape is None else np.broadcast_to(array, shape)
    if array.flags.c_contiguous and values.shape == array.shape:
        values = array.reshape(-1)  # as CuPy's reduce_dims, for speed
    cell = _Argument(values.ctypes.data, values.size, values.ndim)
    cell.dims[: values.ndim] = values.shape
    cell.dims[8 : 8 + values.ndim] = values.strides
    return cell
