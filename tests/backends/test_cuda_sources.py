"""Every kernel compiles as CUDA, without a warning, for old and new GPUs; no GPU is needed."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fake_compiler
import fake_cuda
import numpy as np
import pytest
from every_pass import launch_every_kernel_of_rounded_numbers, launch_every_pass

from gpunn.activations import ACTIVATIONS, SIGMOID, Activation, get_activation
from gpunn.backends.base import AdamStep, Backend
from gpunn.backends.fused import FusedModel
from gpunn.losses import BINARY_LOG_LOSS, LOG_LOSS, LOSSES, POISSON, Loss
from gpunn.network.layers import Layer
from gpunn.training.online import BLOCK_ROWS

NVCC = shutil.which("nvcc")
ESTIMATORS_LOSSES = (LOG_LOSS, BINARY_LOG_LOSS, POISSON)
CODES = {"all": ("compute_75",), "one of a kind": ("sm_75", "sm_90", "sm_120")}
"""What is made of which kernels, for which generations of GPUs.

No text asks for the generation and none has an assembler's lines; a test sees to that. So all
kernels go once through everything that reads them. The last stage takes most of the time and never
sees the source: one of each kind goes through it, for old and new GPUs.
"""


WIDTHS = (128, 200, 500, 1000, 2000)
"""Numbers of hidden units, with one unit for a thread or several."""


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
    backend.dropout(zeros(2, 3), dropout_rate=0.5, scale=2.0, key=1, first=1, skipped=2)
    for beta in (0.0, 1.0):
        backend.sum_rows(zeros(70, 3), zeros(3), beta=beta)
    backend.take_rows(zeros(2, 3), backend.zeros((4,), np.int64), zeros(4, 3))
    memories = [zeros(5) for _ in range(4)]
    backend.axpby(*memories[:2], alpha=1.0, beta=0.0)
    backend.axpby(*memories[:2], alpha=zeros(1), beta=1.0)
    backend.add_squares(zeros(70, 3), backend.zeros((1,), np.float64), alpha=zeros(1))
    backend.gemm(zeros(1, 1), zeros(1, 1), zeros(1, 1), beta=zeros(1))
    backend.adam_update(*memories, AdamStep(0.1, 0.9, 0.99, epsilon=1e-8, weight_decay=0.0))


def learn_in_order(
    backend: Backend,
    dtype: str,
    sizes: tuple[int, int, int],
    n_rows: int = 2,
    *,
    hidden: Activation = SIGMOID,
    top: Activation = SIGMOID,
    loss: Loss = LOSSES["squared_error"],
    textbook_rule: bool = False,
) -> None:
    """Call the sequencer of a network."""

    def zeros(*shape: int) -> fake_cuda.ndarray:
        return backend.zeros(shape, dtype)

    n_inputs, n_hidden, n_outputs = sizes
    layers = (
        Layer(zeros(n_hidden, n_inputs), zeros(n_hidden), hidden),
        Layer(zeros(n_outputs, n_hidden), zeros(n_outputs), top),
    )
    sequencer = backend.make_sequencer(n_rows, FusedModel(*layers, loss, textbook_rule))
    assert sequencer is not None
    samples = (zeros(n_rows, n_inputs), zeros(n_rows, n_outputs))
    losses = backend.zeros((n_rows,), np.float64)
    sequencer.prepare(zeros(n_rows, sizes[0]))
    sequencer.prepare(samples[0])
    sequencer.learn(*samples, 0.1, losses, zeros(n_rows, n_outputs))


def launch_every_kind_of_learning_in_order(backend: Backend, dtype: str) -> None:
    """Call the sequencer with each output activation and error, and each hidden activation."""
    elementwise = [record for record in ACTIVATIONS.values() if record.elementwise]
    kinds = [
        (activation, loss, False)
        for activation in ACTIVATIONS.values()
        for loss in LOSSES.values()
        if loss.required_activation in (None, activation.name)
    ]
    if dtype == "float64":
        kinds = kinds[::4]  # The same texts, which take nvcc most of a minute for each type.
    kinds.append((SIGMOID, LOSSES["squared_error"], True))
    for index, (activation, loss, textbook_rule) in enumerate(kinds):
        hidden = elementwise[index % len(elementwise)]
        for n_outputs in (3, 33):  # in registers, and from memory
            learn_in_order(
                *(backend, dtype, (5, 4, n_outputs)),
                hidden=hidden,
                top=activation,
                loss=loss,
                textbook_rule=textbook_rule,
            )


@contextmanager
def texts_only() -> Iterator[dict[str, str]]:
    """Collect the kernels that are launched inside; nothing is compiled or run."""
    texts: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_compiler, "kernel_texts", texts)
        for kind in (fake_cuda.ElementwiseKernel, fake_cuda.RawKernel):
            patch.setattr(kind, "_function", lambda *_: lambda *arguments: None)
        yield texts


@pytest.fixture(scope="module")
def sources() -> list[str]:
    """The text of every kernel, in both dtypes."""
    backend = fake_cuda.load_cupy_backend().CupyBackend(0)
    with texts_only() as texts:
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
    for name in ("gpunn_learn_in_order", "gpunn_learn_in_registers"):
        assert sum(f" {name}(" in text for text in sources) == (n_pairs + 1) + (
            -(-n_pairs // 4) + 1
        )


def _apart(text: str, index: int) -> str:
    """Return a kernel's source so that many fit in one file: nothing else may be changed."""
    defined = re.findall(r"#define (\w+)", text)
    renamed = re.findall(r'extern "C" [^{;(]*(?:\([^)]*\) )?(\w+)\(', text)
    before = [f"#define {name} {name}_{index}" for name in renamed]
    after = [f"#undef {name}" for name in defined + renamed]
    return "\n".join([*before, f"namespace k{index} {{", text, "}", *after])


def one_of_a_kind(sources: list[str]) -> list[str]:
    """Return one text for each kernel's name and type of number."""
    kinds = {
        (tuple(re.findall(r"\b(gpunn_\w+)\(", text)), *re.findall(r"typedef .*;", text)): text
        for text in sources
    }
    return list(kinds.values())


def _targets(codes: tuple[str, ...]) -> list[str]:
    """Return nvcc's options for as much as it knows of."""
    known = subprocess.run([NVCC, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    numbers = [(code, code.split("_")[1]) for code in codes]
    return [
        option
        for code, number in numbers
        if f"compute_{number}\n" in known.stdout
        for option in ("-gencode", f"arch=compute_{number},code={code}")
    ]


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
@pytest.mark.parametrize("which", CODES)
def test_every_kernel_compiles_as_cuda(sources: list[str], tmp_path: Path, which: str) -> None:
    chosen = sources if which == "all" else one_of_a_kind(sources)
    parts = [_apart(text, index) for index, text in enumerate(chosen)]
    source = tmp_path / "kernels.cu"
    source.write_text(fake_cuda.CUDA_PREAMBLE + "\n".join(parts))
    targets = _targets(CODES[which])
    assert targets
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


@pytest.mark.skipif(NVCC is None, reason="nvcc is not installed")
def test_registers_hold_what_a_thread_keeps(tmp_path: Path) -> None:
    """What they do not hold would go to memory with every sample, without a word."""
    backend = fake_cuda.load_cupy_backend().CupyBackend(0)
    with texts_only() as texts:
        for n_hidden in WIDTHS:
            learn_in_order(backend, "float32", (784, n_hidden, 10), BLOCK_ROWS)
    found = [text for text, name in texts.items() if name == "gpunn_learn_in_registers"]
    assert len(found) == len(WIDTHS)
    source = tmp_path / "online.cu"
    source.write_text("\n".join(_apart(text, index) for index, text in enumerate(found)))
    command = [
        *(str(NVCC), "-std=c++17", "-arch=sm_90", "-Xptxas", "-v"),
        *("-cubin", str(source), "-o", str(tmp_path / "online.cubin")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for index in range(len(WIDTHS)):
        (said,) = re.findall(
            rf"Function properties for gpunn_learn_in_registers_{index}\n(.*)", done.stderr
        )
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in said, index


def test_the_sources_need_no_headers(sources: list[str]) -> None:
    """CuPy compiles them where there may be none."""
    assert not any("#include" in text for text in sources)


def test_the_sources_are_the_same_for_every_gpu(sources: list[str]) -> None:
    """So that what compiles for one generation compiles for all of them."""
    for words in ("__CUDA_ARCH__", "asm"):
        assert not any(re.search(rf"\b{words}\b", text) for text in sources), words


def test_no_float_kernel_computes_in_double(sources: list[str]) -> None:
    """A literal such as 0.5 without T(...) would turn a float32 kernel into a slow one."""
    for text in sources:
        if "typedef float T" in text:
            assert re.search(r"(?<!T\()\b\d+\.\d*", text) is None, text
