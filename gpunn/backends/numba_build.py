"""Machine code for the fused loops of the CPU, made by Numba.

What comes out is an object file, as a compiler of C makes it, without a trace of Python or Numba:
to load it later takes LLVM alone, and a tenth of a second less than to import Numba.
"""

# Neither package says what its types are.
# mypy: ignore-errors

import re
from typing import Any

import llvmlite.binding as llvm
from numba import cfunc, types

from gpunn.backends import numba_loops
from gpunn.backends.numba_signatures import SIGNATURES

_TYPES = {"a": types.intp, "n": types.intp, "x": types.float64}


def build(name: str, code: str, symbol: str) -> bytes:
    """Compile a loop.

    Parameters
    ----------
    name : str
        Its function in `gpunn.backends.numba_loops`, and what else it is made for, separated by
        colons, such as ``activate:sigmoid``.
    code : {"f", "d"}
        For float32 or float64.
    symbol : str
        What it is to be called in the object file.

    Returns
    -------
    bytes
        The object file.

    Raises
    ------
    RuntimeError
        If the loop would need something that is not there when it is loaded.
    """
    kind, *choices = name.split(":")
    loop = getattr(numba_loops, kind)(code, *choices)
    signature = types.void(*(_TYPES[letter] for letter in SIGNATURES[kind]))
    compiled = cfunc(signature, nopython=True, **numba_loops.OPTIONS)(loop)
    return _machine_code(compiled, symbol)


def _machine_code(compiled: Any, symbol: str) -> bytes:
    """Return the object file of a function that C can call, under that name."""
    module = llvm.parse_assembly(compiled.inspect_llvm())
    for function in module.functions:
        if function.is_declaration:
            continue
        if function.name == compiled.native_name:
            function.name = symbol
        else:
            # Nobody else calls it. So LLVM sees that it raises nothing, and leaves out what Numba
            # would say of an error in Python.
            function.linkage = "internal"
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
    )
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    unknown = _called(module) - LIBM
    if unknown:
        raise RuntimeError(f"{symbol} would call {sorted(unknown)}")
    return machine.emit_object(module)


def _called(module: Any) -> set[str]:
    """Return what a module calls or reads that is not in it and that LLVM does not know."""
    names = {f.name for f in module.functions if f.is_declaration}
    text = "\n".join(line for line in str(module).splitlines() if not line.startswith("declare"))
    return {
        name
        for name in names
        if not name.startswith("llvm.") and re.search(rf'@"?{re.escape(name)}"?\b', text)
    }


LIBM = {"log", "logf", "log1p", "log1pf", "sqrt", "sqrtf", "memcpy", "memset", "memmove"}
"""What of C's own library a loop may call."""
