"""The kernels of activations and losses, made from the CUDA expressions in their records.

One launch a formula. This module must only be imported when a GPU is asked for; see
`gpunn.backends.select`.
"""

from functools import cache
from typing import Any

import cupy

from gpunn.activations import SOFTMAX, Activation
from gpunn.backends.cupy_elementwise import Kept
from gpunn.errors import ParameterError
from gpunn.losses import Loss

# The row formulas below use one thread a row: output layers are narrow, and a fixed order of
# additions keeps results the same from run to run.

_SOFTMAX_ROW = """
    T largest = row[0];
    for (int k = 1; k < n_columns; ++k) { if (!(row[k] <= largest)) largest = row[k]; }
    T total = T(0);
    for (int k = 0; k < n_columns; ++k) { row[k] = exp(row[k] - largest); total += row[k]; }
    for (int k = 0; k < n_columns; ++k) { row[k] /= total; }
"""

_SOFTMAX_BACKWARD_ROW = """
    T mean = T(0);
    for (int k = 0; k < n_columns; ++k) { mean += delta[k] * a[k]; }
    for (int k = 0; k < n_columns; ++k) { delta[k] = (delta[k] - mean) * a[k]; }
"""


@cache
def activate_kernel(activation: Activation, biases: bool, rounded: bool) -> Any:
    """Return what makes a of z, number by number, perhaps with a bias for each column."""
    kept = Kept.of(rounded)
    return cupy.ElementwiseKernel(
        f"{kept.number} bias" if biases else "",
        f"{kept.type} z",
        f"const T x = {kept.load}(z){' + bias' if biases else ''}; "
        f"z = {kept.store}({activation.cuda_forward});",
        f"gpunn_activate_{activation.name}",
        preamble=kept.preamble,
    )


@cache
def softmax_kernel(biases: bool) -> Any:
    """Return what makes softmax of rows of z, with a thread for each row."""
    add = "for (int k = 0; k < n_columns; ++k) { row[k] += bias[k]; }" if biases else ""
    return cupy.ElementwiseKernel(
        "raw T bias, int32 n_columns" if biases else "int32 n_columns",
        "raw T z",
        f"T* row = &z[(ptrdiff_t)i * n_columns]; {add} {_SOFTMAX_ROW}",
        "gpunn_activate_softmax",
    )


@cache
def backward_kernel(activation: Activation, rounded: bool) -> Any:
    """Return what multiplies delta by the derivative, number by number."""
    kept = Kept.of(rounded)
    return cupy.ElementwiseKernel(
        f"{kept.type} activation",
        f"{kept.type} delta",
        f"const T a = {kept.load}(activation); "
        f"delta = {kept.store}({kept.load}(delta) * ({activation.cuda_derivative}));",
        f"gpunn_backward_{activation.name}",
        preamble=kept.preamble,
    )


@cache
def softmax_backward_kernel() -> Any:
    """Return what multiplies rows of delta by softmax's Jacobian."""
    return cupy.ElementwiseKernel(
        "raw T activations, int32 n_columns",
        "raw T deltas",
        f"""
        const T* a = &activations[(ptrdiff_t)i * n_columns];
        T* delta = &deltas[(ptrdiff_t)i * n_columns];
        {_SOFTMAX_BACKWARD_ROW}
        """,
        "gpunn_backward_softmax",
    )


def _fused_row(activation: Activation, loss: Loss) -> str:
    """Value from z, then the activation, then dE/dz, for one row of a cross-entropy."""
    forward = (
        _SOFTMAX_ROW
        if activation is SOFTMAX
        else f"""
        for (int k = 0; k < n_columns; ++k) {{
            const T x = row[k]; row[k] = {activation.cuda_forward};
        }}"""
    )
    log_sum = """
        T top = row[0];
        for (int k = 1; k < n_columns; ++k) { if (!(row[k] <= top)) top = row[k]; }
        T sum = T(0);
        for (int k = 0; k < n_columns; ++k) { sum += exp(row[k] - top); }
        const T log_sum = top + log(sum);
        T t_sum = T(0);
        for (int k = 0; k < n_columns; ++k) { t_sum += target[k]; }
    """
    return f"""
        {log_sum if activation is SOFTMAX else ""}
        for (int k = 0; k < n_columns; ++k) {{
            const T x = row[k]; const T t = target[k];
            error += {loss.cuda_value};
        }}
        {forward}
        for (int k = 0; k < n_columns; ++k) {{
            const T a = row[k]; const T t = target[k];
            row[k] = {loss.cuda_derivative};
        }}
    """


def _elementwise_row(activation: Activation, loss: Loss) -> str:
    """Activation, value and dE/dz in one pass over a row."""
    return f"""
        for (int k = 0; k < n_columns; ++k) {{
            const T x = row[k]; const T t = target[k];
            const T a = {activation.cuda_forward};
            error += share * ({loss.cuda_value});
            row[k] = share * ({loss.cuda_derivative}) * ({activation.cuda_derivative});
        }}
    """


def _softmax_row(loss: Loss) -> str:
    """Softmax, value and dE/dz through its Jacobian, for a loss that is not fused with it."""
    derivative = f"share * ({loss.cuda_derivative})"
    return f"""
        {_SOFTMAX_ROW}
        T mean = T(0);
        for (int k = 0; k < n_columns; ++k) {{
            const T a = row[k]; const T t = target[k];
            error += share * ({loss.cuda_value});
            mean += {derivative} * a;
        }}
        for (int k = 0; k < n_columns; ++k) {{
            const T a = row[k]; const T t = target[k];
            row[k] = ({derivative} - mean) * a;
        }}
    """


@cache
def output_kernel(
    activation: Activation, loss: Loss, biases: bool, weighted: bool, scaled_there: bool
) -> Any:
    """Return what makes the output delta of z and adds each row's loss, a thread a row."""
    if loss.fused:
        body = _fused_row(activation, loss)
    elif activation is SOFTMAX:
        body = _softmax_row(loss)
    else:
        body = _elementwise_row(activation, loss)
    add = "for (int k = 0; k < n_columns; ++k) { row[k] += bias[k]; }" if biases else ""
    weigh = """
        error *= row_weights[i];
        for (int k = 0; k < n_columns; ++k) { row[k] *= row_weights[i]; }
    """
    return cupy.ElementwiseKernel(
        ("raw T bias, " if biases else "")
        + ("raw T row_weights, " if weighted else "")
        # All arrays are raw: the loop is over rows.
        + f"raw T targets, int32 n_columns, T share, {'raw ' if scaled_there else ''}T scale",
        "raw T z, raw float64 row_losses",
        f"""
        T* row = &z[(ptrdiff_t)i * n_columns];
        const T* target = &targets[(ptrdiff_t)i * n_columns];
        double error = 0;
        {add}
        {body}
        {weigh if weighted else ""}
        for (int k = 0; k < n_columns; ++k) {{ row[k] *= scale{"[0]" if scaled_there else ""}; }}
        row_losses[i] += error;
        """,
        f"gpunn_output_{activation.name}_{loss.name}",
    )


def check_known(activation: Activation) -> None:
    """Raise unless there is a kernel for an activation; softmax's is written out above."""
    if activation is SOFTMAX:
        return
    if not activation.elementwise:
        raise ParameterError(
            f"a GPU has no kernel for the activation {activation.name!r}, which ties the units of "
            "a layer together: softmax is the only such activation on a GPU; use device 'cpu'"
        )
    if not (activation.cuda_forward and activation.cuda_derivative):
        raise ParameterError(
            f"the activation {activation.name!r} has no CUDA expressions, which a GPU needs: give "
            "its record cuda_forward and cuda_derivative, or use device 'cpu'"
        )
