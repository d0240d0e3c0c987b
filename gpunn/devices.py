"""Which device to compute on, and why.

``auto`` takes a usable GPU, else the CPU. CuPy installed on a machine without a usable GPU is an
ordinary case there; what an explicit ``cuda`` cannot have is an error that names the cause and the
remedy. CuPy is imported here and nowhere else, and only when a GPU may be wanted.
"""

import importlib.util
import re
import warnings
from functools import cache
from typing import NamedTuple

from gpunn.backend import PRECISIONS, Backend
from gpunn.errors import DeviceError, DeviceWarning, ParameterError
from gpunn.numpy_backend import NumpyBackend

TENSOR_CORES = 8
"""The first compute capability (Ampere) that multiplies in tf32 and bf16."""

INSTALL_CUPY = "pip install 'gpunn[cuda13]' (or 'gpunn[cuda12]' for a CUDA 12 driver)"


class Selection(NamedTuple):
    """A backend, and one line for a person that says why it is this one."""

    backend: Backend
    reason: str


@cache
def cuda_problem() -> str | None:
    """Say why no GPU can be used here, and what to do about it.

    Returns
    -------
    str or None
        One line with the cause and the remedy; None if there is a usable GPU.
    """
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed: {INSTALL_CUPY}"
    try:
        import cupy

        n_devices = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return _explain(error)
    if n_devices == 0:
        return "CUDA sees no GPU: check CUDA_VISIBLE_DEVICES and nvidia-smi"
    try:
        # The first product and the first kernel need libraries that loading CuPy does not.
        cupy.cuda.device.get_cublas_handle()
        cupy.ElementwiseKernel("T x", "T y", "y = x", "gpunn_probe")(cupy.zeros(1))
    except Exception as error:
        return _explain(error)
    return None


def _explain(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "InsufficientDriver" in text:
        remedy = "no NVIDIA driver, or one too old for this CuPy: check nvidia-smi"
    elif "NoDevice" in text:
        remedy = "CUDA sees no GPU: check CUDA_VISIBLE_DEVICES and nvidia-smi"
    elif isinstance(error, ImportError):
        remedy = f"CuPy or a CUDA library is missing or broken: {INSTALL_CUPY}"
    else:
        remedy = "CuPy is installed but its GPU does not answer: check nvidia-smi"
    return f"{remedy} [{text[:300]}]"


@cache
def _numpy_backend() -> Backend:
    return NumpyBackend()


@cache
def _cupy_backend(device_id: int, precision: str) -> Backend:
    from gpunn.cupy_backend import CupyBackend

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
        If that GPU cannot be had, or not that precision; the message names the cause and the
        remedy.
    """
    if precision not in PRECISIONS:
        raise ParameterError(f"unknown precision {precision!r}: use one of {', '.join(PRECISIONS)}")
    selection = _select(device, precision)
    if selection.backend.precision != precision:
        raise DeviceError(
            f"precision {precision!r} needs an NVIDIA GPU, but the device is "
            f"{selection.backend.name} ({selection.reason}); or use precision 'fp32'"
        )
    return selection


def _select(device: str, precision: str) -> Selection:
    match = re.fullmatch(r"cuda(?::(\d{1,4}))?", device) if isinstance(device, str) else None
    if device == "cpu":
        return Selection(_numpy_backend(), "as asked")
    if device == "auto":
        return _select_automatically(precision)
    if match is None:
        raise ParameterError(
            f"unknown device {device!r}: use 'auto', 'cpu', 'cuda' or 'cuda:N' (N a GPU's number)"
        )
    problem = cuda_problem()
    if problem is not None:
        raise DeviceError(f"device {device!r} cannot be had: {problem}; or use device 'cpu'")
    return Selection(_existing_gpu(int(match[1] or 0), precision), "as asked")


def _select_automatically(precision: str) -> Selection:
    problem = cuda_problem()
    if problem is None:
        return Selection(_existing_gpu(0, precision), "a usable GPU is there")
    return Selection(_numpy_backend(), f"no usable GPU: {problem}")


def _existing_gpu(device_id: int, precision: str) -> Backend:
    import cupy

    n_devices = cupy.cuda.runtime.getDeviceCount()
    if device_id >= n_devices:
        raise DeviceError(
            f"device 'cuda:{device_id}' cannot be had: this machine has {n_devices} GPU(s), "
            f"numbered from 0; use 'cuda:0' to 'cuda:{n_devices - 1}'"
        )
    if precision != "fp32":
        properties = cupy.cuda.runtime.getDeviceProperties(device_id)
        if properties["major"] < TENSOR_CORES:
            raise DeviceError(
                f"precision {precision!r} needs a GPU of compute capability {TENSOR_CORES}.0 or "
                f"more, and cuda:{device_id} has {properties['major']}.{properties['minor']}; "
                "use precision 'fp32'"
            )
    return _cupy_backend(device_id, precision)


def get_backend(device: str | Backend = "auto", precision: str = "fp32") -> Backend:
    """Return the backend of a device.

    If CuPy is installed, so that a GPU was meant to be used, and "auto" has to take the CPU all the
    same, a `DeviceWarning` says so with the cause.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"} or Backend
        "auto" is the first usable GPU, else the CPU; "cuda" is "cuda:0". A backend is returned as
        it is.
    precision : {"fp32", "tf32", "bf16"}
        What a GPU's tensor cores may round the factors of float32 products to. "fp32" leaves them
        as they are; "tf32" keeps 11 significant bits, which changes a factor by a part in 1,024 at
        most, "bf16" 8 bits, a part in 128. Sums are in float32, and so is everything else.

    Returns
    -------
    Backend
        The device to compute with.

    Raises
    ------
    ParameterError
        If it is none of those names.
    DeviceError
        If that GPU cannot be had, or not that precision; the message names the cause and the
        remedy.
    """
    if isinstance(device, Backend):
        if precision not in ("fp32", device.precision):
            raise ParameterError(
                f"the device given computes in {device.precision}, not in {precision!r}: "
                "give its name instead, or leave out the precision"
            )
        return device
    backend, reason = select_backend(device, precision)
    fell_back = device == "auto" and backend.name == "cpu"
    if fell_back and importlib.util.find_spec("cupy") is not None:
        warnings.warn(f"running on the CPU: {reason}", DeviceWarning, stacklevel=3)
    return backend
