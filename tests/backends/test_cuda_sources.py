"""Every kernel compiles as CUDA, without a warning, for old and new GPUs; no GPU is needed."""

import re
import shutil
import subprocess
from pathlib import Path

import fake_compiler
import fake_cuda
import numpy as np
import pytest

from gpunn.activations import ACTIVATIONS, get_activation
from gpunn.backends.base import AdamStep, Backend
from gpunn.backends.fused import EpochSource, FusedModel, StepShape
from gpunn.losses import BINARY_LOG_LOSS, LOG_LOSS, LOSSES, POISSON
from gpunn.network.layers import Layer
from gpunn.optimizers import SGD, Adam, Momentum

NVCC = shutil.which("nvcc")
ESTIMATORS_LOSSES = (LOG_LOSS, BINARY_LOG_LOSS, POISSON)
RULES = (SGD(), Momentum(), Momentum(nesterov=True), Adam())
ARCHITECTURES = ("75", "80", "90", "120")


def launch_every_kernel(backend: Backend, dtype: str) -> None:
    """Call every method of the backend with every variant of its kernel."""

    def zeros(*shape: int) -> fake_cuda.ndarray:
        return backend.zeros(shape, dtype)

    losses = backend.zeros((2,), np.float64)
    for activation in ACTIVATIONS.values():
        backend.activation_backward(zeros(2, 3), zeros(2, 3), activation)
        for bias in (None, zeros(3)):
            backend.activate(zeros(2, 3), bias, activation)
            for loss in LOSSES.values():
                if loss.required_activation in (None, activation.name):
                    given = (zeros(2, 3), bias, zeros(2, 3), activation, loss, losses)
                    backend.loss_backward(*given)
                    backend.loss_backward(*given, scale=zeros(1))
    for loss in ESTIMATORS_LOSSES:
        activation = get_activation(str(loss.required_activation))
        backend.activate(zeros(2, 3), None, activation)
        backend.activation_backward(zeros(2, 3), zeros(2, 3), activation)
        for bias in (None, zeros(3)):
            backend.loss_backward(
                zeros(2, 3), bias, zeros(2, 3), activation, loss, losses, row_weights=zeros(2)
            )
    backend.add_squares(zeros(70, 3), backend.zeros((1,), np.float64), alpha=0.5)
    backend.dropout(zeros(2, 3), dropout_rate=0.5, scale=2.0, key=1)
    for beta in (0.0, 1.0):
        backend.sum_rows(zeros(70, 3), zeros(3), beta=beta)
    backend.take_rows(zeros(2, 3), backend.zeros((4,), np.int64), zeros(4, 3))
    memories = [zeros(5) for _ in range(4)]
    backend.axpby(*memories[:2], alpha=1.0, beta=0.0)
    backend.axpby(*memories[:2], alpha=zeros(1), beta=1.0)
    backend.add_squares(zeros(70, 3), backend.zeros((1,), np.float64), alpha=zeros(1))
    backend.gemm(zeros(1, 1), zeros(1, 1), zeros(1, 1), beta=zeros(1))
    backend.adam_update(*memories, AdamStep(0.1, 0.9, 0.99, epsilon=1e-8, weight_decay=0.0))


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


def launch_every_kind_of_learning_in_order(backend: Backend, dtype: str) -> None:
    """Call the sequencer with each output activation and error, and each hidden activation."""

    def zeros(*shape: int) -> fake_cuda.ndarray:
        return backend.zeros(shape, dtype)

    elementwise = [record for record in ACTIVATIONS.values() if record.elementwise]
    kinds = [
        (activation, loss, False)
        for activation in ACTIVATIONS.values()
        for loss in LOSSES.values()
        if loss.required_activation in (None, activation.name)
    ]
    kinds.append((ACTIVATIONS["sigmoid"], LOSSES["squared_error"], True))
    for index, (activation, loss, textbook_rule) in enumerate(kinds):
        hidden = Layer(zeros(4, 5), zeros(4), elementwise[index % len(elementwise)])
        top = Layer(zeros(3, 4), zeros(3), activation)
        sequencer = backend.make_sequencer(2, FusedModel(hidden, top, loss, textbook_rule))
        assert sequencer is not None
        losses = backend.zeros((2,), np.float64)
        sequencer.learn(zeros(2, 5), zeros(2, 3), 0.1, losses, zeros(2, 3))


def launch_every_pass(backend: Backend, dtype: str) -> None:
    """Go through layers with each activation and error, each optimizer's rule, and dropout."""

    def zeros(*shape: int) -> fake_cuda.ndarray:
        return backend.zeros(shape, dtype)

    kept_in = backend.work_dtype(dtype)
    elementwise = [record for record in ACTIVATIONS.values() if record.elementwise]
    pairs = [
        (activation, loss)
        for activation in ACTIVATIONS.values()
        for loss in (*LOSSES.values(), *ESTIMATORS_LOSSES)
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


@pytest.fixture(scope="module")
def sources() -> list[str]:
    """The text of every kernel, in both dtypes; nothing is compiled or run here."""
    backend = fake_cuda.load_cupy_backend().CupyBackend(0)
    texts: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_compiler, "kernel_texts", texts)
        for kind in (fake_cuda.ElementwiseKernel, fake_cuda.RawKernel):
            patch.setattr(kind, "_function", lambda *_: lambda *arguments: None)
        for dtype in ("float32", "float64"):
            launch_every_kernel(backend, dtype)
            launch_every_kind_of_learning_in_order(backend, dtype)
            launch_every_pass(backend, dtype)
        rounding = type(backend)(0, "bf16")
        launch_every_pass(rounding, "float32")
        launch_every_kernel_of_rounded_numbers(rounding)
    return list(texts)


def test_no_kernel_is_left_out(sources: list[str]) -> None:
    module = fake_cuda.load_cupy_backend()
    makers = [name for name in vars(module) if name.endswith("_kernel")]
    assert len(makers) > 5
    assert [name for name in makers if not getattr(module, name).cache_info().currsize] == []
    n_outputs = sum("gpunn_output_" in text for text in sources)
    n_pairs = 4 * len(ACTIVATIONS) + 2
    # With biases and without, and but for the estimators' also with a factor on the device.
    assert n_outputs == 2 * 2 * (2 * n_pairs + len(ESTIMATORS_LOSSES))
    assert sum("gpunn_thin_forward(" in text for text in sources) > n_pairs
    assert sum("gpunn_learn_in_order(" in text for text in sources) == 2 * (n_pairs + 1)


def _apart(text: str, index: int) -> str:
    """Return a kernel's source so that many fit in one file: nothing else may be changed."""
    defined = re.findall(r"#define (\w+)", text)
    renamed = re.findall(r'extern "C" [^{;(]*(?:\([^)]*\) )?(\w+)\(', text)
    before = [f"#define {name} {name}_{index}" for name in renamed]
    after = [f"#undef {name}" for name in defined + renamed]
    return "\n".join([*before, f"namespace k{index} {{", text, "}", *after])


def _architectures() -> list[str]:
    known = subprocess.run([NVCC, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    return [number for number in ARCHITECTURES if f"compute_{number}\n" in known.stdout]


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
def test_every_kernel_compiles_as_cuda(sources: list[str], tmp_path: Path) -> None:
    parts = [_apart(text, index) for index, text in enumerate(sources)]
    source = tmp_path / "kernels.cu"
    source.write_text(fake_cuda.CUDA_PREAMBLE + "\n".join(parts))
    architectures = _architectures()
    assert architectures
    targets = [
        option
        for number in architectures
        for option in ("-gencode", f"arch=compute_{number},code=sm_{number}")
    ]
    # 177: CuPy declares a reference for each parameter, needed or not. -G leaves out the
    # optimiser, which takes most of the time and says nothing about the source.
    command = [
        *(str(NVCC), "-std=c++17", "-Werror", "all-warnings", "-diag-suppress", "177"),
        *("-G", "--threads", "2", "-fatbin", *targets, str(source)),
        *("-o", str(tmp_path / "kernels.fatbin")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "kernels.fatbin").stat().st_size > 0


def test_the_sources_need_no_headers(sources: list[str]) -> None:
    """CuPy compiles them where there may be none."""
    assert not any("#include" in text for text in sources)


def test_no_float_kernel_computes_in_double(sources: list[str]) -> None:
    """A literal such as 0.5 without T(...) would turn a float32 kernel into a slow one."""
    for text in sources:
        if "typedef float T" in text:
            assert re.search(r"(?<!T\()\b\d+\.\d*", text) is None, text
