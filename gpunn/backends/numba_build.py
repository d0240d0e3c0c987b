"""Machine code for the fused loops of the CPU, made by Numba.

What comes out is an object file, as a compiler of C makes it for an extension of Python, without a
trace of Numba: to load it later takes LLVM alone, and half a second less than to import Numba.
"""

# Neither package says what its types are.
# mypy: ignore-errors

import re
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import cfunc, types

from gpunn.backends import numba_loops, numba_online, numba_products
from gpunn.backends.numba_arrays import OPTIONS
from gpunn.backends.numba_signatures import OBJECTS, PYTHON, SIGNATURES

_TYPES = {"a": types.intp, "n": types.intp, "x": types.float64}

_LOOPS = {
    name: getattr(module, name)
    for module in (numba_loops, numba_online, numba_products)
    for name in vars(module)
    if name in SIGNATURES
}

_WHOLE, _NUMBER, _OBJECT = ir.IntType(64), ir.DoubleType(), ir.IntType(8).as_pointer()


def build(name: str, code: str, symbol: str) -> bytes:
    """Compile a loop.

    Parameters
    ----------
    name : str
        A name in `SIGNATURES`, and what else the loop is made for, separated by colons, such as
        ``activate:sigmoid``.
    code : {"f", "d"}
        For float32 or float64.
    symbol : str
        What it is to be called in the object file.

    Returns
    -------
    bytes
        The object file of a function of Python's: what `PyMethodDef` calls ``METH_FASTCALL``. It
        takes the arrays themselves and works without the GIL.

    Raises
    ------
    RuntimeError
        If the loop would need something that is not there when it is loaded.
    """
    kind, *choices = name.split(":")
    loop = _LOOPS[kind](code, *choices)
    signature = types.intp(*(_TYPES[letter] for letter in SIGNATURES[kind]))
    for name_of_object, thing in OBJECTS.items():
        llvm.add_symbol(name_of_object, id(thing))  # Numba loads the loop, too
    compiled = cfunc(signature, nopython=True, **OPTIONS)(loop)
    return _machine_code(compiled, symbol, SIGNATURES[kind])


def _machine_code(compiled: Any, symbol: str, letters: str) -> bytes:
    """Return the object file of a function that Python can call, under that name."""
    module = llvm.parse_assembly(compiled.inspect_llvm())
    wrapper = llvm.parse_assembly(str(_wrapper(compiled.native_name, symbol, letters)))
    wrapper.triple, wrapper.data_layout = module.triple, module.data_layout
    module.link_in(wrapper)
    for function in module.functions:
        # Nobody else calls it. So LLVM sees that it raises nothing, and leaves out what Numba would
        # say of an error in Python.
        if not function.is_declaration and function.name != symbol:
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
    unknown = _called(module) - LIBM - {*PYTHON, *OBJECTS}
    if unknown:
        raise RuntimeError(f"{symbol} would call {sorted(unknown)}")
    return machine.emit_object(module)


def _wrapper(name: str, symbol: str, letters: str) -> ir.Module:
    """Return what takes Python's objects, lets go of the GIL, and calls a loop.

    It does what a C program does that Python calls by ``METH_FASTCALL``.
    """
    module = ir.Module()
    plain = [_NUMBER if letter == "x" else _WHOLE for letter in letters]
    loop = ir.Function(module, ir.FunctionType(_WHOLE, plain), name)
    kind = ir.FunctionType(_OBJECT, [_OBJECT, _OBJECT.as_pointer(), _WHOLE])
    function = ir.Function(module, kind, symbol)
    _, objects, n_objects = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    declared: dict[str, Any] = {}

    def call(name: str, result: Any, *arguments: Any) -> Any:
        if name not in declared:
            kind = ir.FunctionType(result, [argument.type for argument in arguments])
            declared[name] = ir.Function(module, kind, name)
        return builder.call(declared[name], arguments)

    nothing = ir.Constant(_OBJECT, None)
    with builder.if_then(builder.icmp_signed("!=", n_objects, _WHOLE(len(letters))), likely=False):
        call("PyErr_BadArgument", ir.IntType(32))
        builder.ret(nothing)
    values = []
    for place, letter in enumerate(letters):
        value = builder.load(builder.gep(objects, [_WHOLE(place)]))
        if letter == "a":
            value = builder.ptrtoint(value, _WHOLE)
        elif letter == "n":
            value = call("PyLong_AsSsize_t", _WHOLE, value)
        else:
            value = call("PyFloat_AsDouble", _NUMBER, value)
        values.append(value)
    failed = builder.icmp_signed("!=", call("PyErr_Occurred", _OBJECT), nothing)
    with builder.if_then(failed, likely=False):
        builder.ret(nothing)
    thread = call("PyEval_SaveThread", _OBJECT)
    done = builder.call(loop, values)
    call("PyEval_RestoreThread", ir.VoidType(), thread)
    builder.ret(call("PyLong_FromSsize_t", _OBJECT, done))
    return module


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
