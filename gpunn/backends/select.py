"""Which device to compute on, and why.

``auto`` takes a usable GPU, else the CPU. CuPy installed on a machine without a usable GPU is an
ordinary case there; what an explicit ``cuda`` cannot have is an error that names the cause and the
remedy. Why one thing and not another is always said: by the command line in its first line, in
Python by a `DeviceWarning` where a GPU that was meant to be used is not.

CuPy is imported here and nowhere else, and only when a GPU may be wanted. For ``cpu`` a look for
the driver's files is all, which costs nothing beside importing CuPy.
"""

import importlib.util
import re
import warnings
from functools import cache
from typing import NamedTuple

from gpunn import launcher
from gpunn.backends.base import PRECISIONS, Backend
from gpunn.backends.numba_library import loops_problem
from gpunn.backends.numpy_backend import NumpyBackend
from gpunn.backends.nvidia import has_driver, hides_gpus
from gpunn.errors import DeviceError, DeviceWarning, ParameterError
from gpunn.host_memory import in_gib

TENSOR_CORES = 8
"""The first compute capability (Ampere) that multiplies in tf32 and bf16."""

INSTALL_CUPY = "pip install 'gpunn[cuda13]' (or 'gpunn[cuda12]' for a CUDA 12 driver)"


class Selection(NamedTuple):
    """A backend, one line for a person that says why it is this one, and whether it is second best.

    `fell_back` is true if CuPy is there, so that a GPU was meant to be used, and "auto" could not
    take the first one.
    """

    backend: Backend
    reason: str
    fell_back: bool = False


def cuda_problem() -> str | None:
    """Say why no GPU can be used here; `gpunn.cli.diagnosis` knows what to do about it.

    Returns
    -------
    str or None
        One line with the cause and, in brackets, the original error; None if there is a usable GPU.
    """
    return _first_gpu()[1]


def _first_gpu() -> tuple[int, str | None]:
    """Return the first usable GPU's number and None, or 0 and why there is none.

    Of several processes that a launcher has started here, each takes the one of its own number.
    """
    problem = _cupy_problem()
    if problem is not None:
        return 0, problem
    if launcher.n_processes() > 1:
        number = _gpu_of_rank()
        return number, gpu_problem(number)
    for number in range(count_gpus()):
        if gpu_problem(number) is None:
            return number, None
    return 0, gpu_problem(0)


def _gpu_of_rank() -> int:
    """Return which GPU is this rank's: the first rank on a machine has its first GPU."""
    return launcher.local_rank() % count_gpus()


@cache
def _cupy_problem() -> str | None:
    """Say what keeps CuPy from any GPU."""
    if not has_cupy():
        if has_driver():
            return f"an NVIDIA driver is here, but CuPy is not installed: {INSTALL_CUPY}"
        return "no NVIDIA driver is here, and CuPy is not installed"
    try:
        n_gpus = count_gpus()
    except Exception as error:
        return _explain(error)
    return "CUDA sees no GPU" if n_gpus == 0 else None


@cache
def gpu_problem(device_id: int) -> str | None:
    """Say why that GPU, which CUDA sees, cannot be used; None if it can."""
    import cupy

    try:
        with cupy.cuda.Device(device_id):
            # The first product and the first kernel need libraries that loading CuPy does not.
            cupy.cuda.device.get_cublas_handle()
            cupy.ElementwiseKernel("T x", "T y", "y = x", "gpunn_probe")(cupy.zeros(1))
    except Exception as error:
        return _explain(error)
    return None


def has_cupy() -> bool:
    """Say whether CuPy is installed, without importing it."""
    return importlib.util.find_spec("cupy") is not None


def count_gpus() -> int:
    """Return how many GPUs CUDA sees; whatever CuPy raises passes through."""
    import cupy

    return int(cupy.cuda.runtime.getDeviceCount())


def _explain(error: Exception) -> str:
    text = _original_text(error)
    if "InsufficientDriver" in text:
        cause = "no NVIDIA driver, or one too old for this CuPy"
    elif "NoDevice" in text:
        hidden = " (CUDA_VISIBLE_DEVICES hides all GPUs)" if hides_gpus() else ""
        cause = f"CUDA sees no GPU{hidden}"
    elif "DevicesUnavailable" in text:
        cause = "another program uses the GPU alone, or the GPU is faulty"
    elif "MemoryAllocation" in text or isinstance(error, MemoryError):
        cause = "the GPU has no memory left"
    elif isinstance(error, ImportError):
        cause = "CuPy or a CUDA library is missing or broken"
    else:
        cause = "CuPy is installed, but the GPU cannot compute"
    return f"{cause} [{text[:300]}]"


def _original_text(error: BaseException) -> str:
    """Return what went wrong first: CuPy puts a page of general advice in front of it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


@cache
def _cpu_backend() -> Backend:
    """Return the CPU, with fused loops where Numba is installed, and its share of the cores."""
    backend = NumpyBackend() if loops_problem() is not None else _numba_backend()
    backend.share_cores(launcher.n_local())
    return backend


def _numba_backend() -> NumpyBackend:
    from gpunn.backends.numba_backend import NumbaBackend

    return NumbaBackend()


@cache
def _cupy_backend(device_id: int, precision: str) -> Backend:
    from gpunn.backends.cupy_backend import CupyBackend

    return CupyBackend(device_id, precision)


def select_backend(device: str = "auto", precision: str = "fp32") -> Selection:
    """Return the backend of a device, and why it is this one.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"}
        "auto" is the first usable GPU, else the CPU; "cuda" is "cuda:0".
    precision : {"fp32", "tf32", "bf16"}
        As in `get_backend`.

    Returns
    -------
    Selection
        The backend, and one line that says why.

    Raises
    ------
    ParameterError
        If it is none of those names.
    DeviceError
        If that GPU cannot be used, or not that precision; the message names the cause and the
        remedy.
    """
    if precision not in PRECISIONS:
        raise ParameterError(f"unknown precision {precision!r}: use one of {', '.join(PRECISIONS)}")
    selection = _select(device, precision)
    if selection.backend.precision != precision:
        raise DeviceError(
            f"precision {precision!r} needs an NVIDIA GPU, but the device is "
            f"{selection.backend.name} ({selection.reason}); use a GPU, or precision 'fp32'"
        )
    return selection


def _select(device: str, precision: str) -> Selection:
    match = re.fullmatch(r"cuda(?::(\d{1,4}))?", device) if isinstance(device, str) else None
    if device == "cpu":
        return Selection(_cpu_backend(), _why_the_cpu())
    if device == "auto":
        return _select_automatically(precision)
    if match is None:
        raise ParameterError(
            f"unknown device {device!r}: use 'auto', 'cpu', 'cuda' or 'cuda:N' (N a GPU's number)"
        )
    device_id = int(match[1] or 0)
    problem = _cupy_problem()
    if problem is None:
        if match[1] is None:
            device_id = _gpu_of_rank()
        _check_number(device_id)
        problem = gpu_problem(device_id)
    if problem is not None:
        raise DeviceError(
            f"device {device!r} cannot be used: {problem}; see gpunn info, or use device 'cpu'"
        )
    return Selection(_gpu_backend(device_id, precision), "you chose it")


def _why_the_cpu() -> str:
    if has_driver() and not hides_gpus():
        return "you chose it; there is also an NVIDIA driver, so device 'cuda' may work"
    return "you chose it"


def _select_automatically(precision: str) -> Selection:
    first, problem = _first_gpu()
    if problem is not None:
        fell_back = has_cupy() and not hides_gpus()
        return Selection(_cpu_backend(), f"no usable GPU: {problem}", fell_back)
    backend = _gpu_backend(first, precision)
    if first > 0 and launcher.n_processes() == 1:
        return Selection(backend, f"the first usable GPU; cuda:0: {gpu_problem(0)}", True)
    return Selection(backend, f"a usable GPU is there{_crowding(backend)}")


def is_nearly_full(free: int, total: int) -> bool:
    """Say whether so little of a GPU's memory is free that others must be using it."""
    return 10 * free < total


def _crowding(backend: Backend) -> str:
    """Say that others use the GPU. Their memory is not looked at: that alone would take some."""
    free, total = backend.memory_info()
    if not is_nearly_full(free, total):
        return ""
    others = f"; another of the {count_gpus()} GPUs may have more" if count_gpus() > 1 else ""
    return f", but only {in_gib(free)} of its {in_gib(total)} are free{others}"


def _check_number(device_id: int) -> None:
    n_gpus = count_gpus()
    if device_id >= n_gpus:
        raise DeviceError(
            f"device 'cuda:{device_id}' cannot be used: this machine has {n_gpus} GPU(s), "
            f"numbered from 0; use 'cuda:0' to 'cuda:{n_gpus - 1}'"
        )


def _gpu_backend(device_id: int, precision: str) -> Backend:
    if precision != "fp32":
        import cupy

        properties = cupy.cuda.runtime.getDeviceProperties(device_id)
        if properties["major"] < TENSOR_CORES:
            raise DeviceError(
                f"precision {precision!r} needs a GPU of compute capability {TENSOR_CORES}.0 or "
                f"more, but cuda:{device_id} has {properties['major']}.{properties['minor']}; "
                "use precision 'fp32'"
            )
    return _cupy_backend(device_id, precision)


def get_backend(device: str | Backend = "auto", precision: str = "fp32") -> Backend:
    """Return the backend of a device.

    If CuPy is installed, so that a GPU was meant to be used, and "auto" cannot take the first one,
    a `DeviceWarning` says so with the cause.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"} or Backend
        "auto" is the first usable GPU, else the CPU; "cuda" is "cuda:0". A backend is returned as
        it is.
    precision : {"fp32", "tf32", "bf16"}
        What a GPU's tensor cores may round the factors of float32 products to. "fp32" leaves them
        as they are; "tf32" keeps 11 significant bits, which changes a factor by a part in 1,024 at
        most. With "bf16" samples, hidden activations, deltas and a copy of the weights are kept in
        bfloat16, with 8 bits, each rounded by a part in 256 at most. Weights and sums are in
        float32, and so is everything else.

    Returns
    -------
    Backend
        The device to compute with.

    Raises
    ------
    ParameterError
        If it is none of those names.
    DeviceError
        If that GPU cannot be used, or not that precision; the message names the cause and the
        remedy.
    """
    if isinstance(device, Backend):
        if precision not in ("fp32", device.precision):
            raise ParameterError(
                f"this device computes in {device.precision}, not in {precision!r}: give the name "
                "of the device instead, or leave out the precision"
            )
        return device
    backend, reason, fell_back = select_backend(device, precision)
    if fell_back:
        where = "the CPU" if backend.name == "cpu" else backend.name
        warnings.warn(f"running on {where}: {reason}; see gpunn info", DeviceWarning, stacklevel=3)
    return backend
