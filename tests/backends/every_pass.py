"""Calls that launch the kernels of passes, of recorded steps and of rounded numbers."""

import fake_cuda
import numpy as np

from gpunn.activations import ACTIVATIONS
from gpunn.backends.base import Backend
from gpunn.backends.fused import EpochSource, FusedModel, StepShape
from gpunn.losses import BINARY_LOG_LOSS, LOG_LOSS, LOSSES, POISSON
from gpunn.network.layers import Layer
from gpunn.optimizers import SGD, Adam, Momentum

RULES = (SGD(), Momentum(), Momentum(nesterov=True), Adam())


def launch_every_kernel_of_rounded_numbers(backend: Backend) -> None:
    """Call every method that takes numbers in bfloat16."""

    def rounded(*shape: int) -> fake_cuda.ndarray:
        return backend.zeros(shape, backend.work_dtype("float32"))

    one = backend.zeros((3,), "float32")
    for activation in ACTIVATIONS.values():
        if activation.elementwise:
            backend.activation_backward(rounded(2, 3), rounded(2, 3), activation)
            for bias in (None, one):
                backend.activate(rounded(2, 3), bias, activation)
    backend.dropout(rounded(2, 3), dropout_rate=0.5, scale=2.0, key=1)
    for beta in (0.0, 1.0):
        backend.sum_rows(rounded(70, 3), one, beta=beta)
    for source, out in ((rounded(3), one), (one, rounded(3))):
        backend.copy_into(source, out)


def launch_every_pass(backend: Backend, dtype: str) -> None:
    """Go through layers with each activation and error, each optimizer's rule, and dropout."""

    def zeros(*shape: int) -> fake_cuda.ndarray:
        return backend.zeros(shape, dtype)

    kept_in = backend.work_dtype(dtype)
    elementwise = [record for record in ACTIVATIONS.values() if record.elementwise]
    pairs = [
        (activation, loss)
        for activation in ACTIVATIONS.values()
        for loss in (*LOSSES.values(), LOG_LOSS, BINARY_LOG_LOSS, POISSON)
        if loss.required_activation in (None, activation.name)
    ]
    if dtype == "float64" or kept_in != dtype:
        # The same formulas, which take nvcc most of a minute for each type.
        pairs = pairs[::7]
    losses, key = backend.zeros((2,), np.float64), backend.zeros((1,), np.uint32)
    for index, (activation, loss) in enumerate(pairs):
        hidden = Layer(zeros(8, 5), zeros(8), elementwise[index % len(elementwise)])
        top = Layer(zeros(3, 8), zeros(3), activation)
        rule, dropout_rate = RULES[index % len(RULES)].rule, 0.5 * (index % 2)
        passes = backend.make_thin_top(2, FusedModel(hidden, top, loss, False), rule, dropout_rate)
        assert passes is not None
        z, delta = (backend.zeros((2, 8), kept_in) for _ in "ab")
        passes.go_forward(z, zeros(2, 3), losses, zeros(2), zeros(1), key)
        passes.go_back(z, delta, key)
        passes.update(zeros(6), *([zeros(*n), zeros(*n)] for n in ((3, 8), (3,), (8,))))
        below = backend.make_hidden_pass(2, hidden, rule, dropout_rate)
        assert below is not None
        below.go_forward(z, key)
        below.go_back(delta, z, key)
        below.update(zeros(6), [zeros(8), zeros(8)])
    recorder = backend.make_recorder(StepShape(2, 1, 2, 5, 3, 1, True, dtype, kept_in.name))
    assert recorder is not None
    numbers = np.zeros((1, 1))
    recorder.begin_epoch(EpochSource(None, None, np.zeros(2), numbers), 0)
    recorder.step(2, lambda *_: [], losses)
    recorder.skip()
