"""Choosing a device: names, reasons, and a CuPy that is missing or broken."""

import importlib.util
import sys
import types
from contextlib import nullcontext
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from fake_cuda import forget_devices

from gpunn import Network, get_backend
from gpunn.backends import select as devices
from gpunn.backends.numpy_backend import NumpyBackend
from gpunn.backends.select import cuda_problem, gpu_problem, select_backend
from gpunn.cli.console import Console, choose_device
from gpunn.errors import DeviceError, DeviceWarning, ParameterError

INSUFFICIENT = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime"
NO_DEVICE = "cudaErrorNoDevice: no CUDA-capable device is detected"
NO_CUBLAS = "libcublas.so.13: cannot open shared object file: No such file or directory"


class CUDARuntimeError(RuntimeError):
    """Named and worded as CuPy's own."""


@pytest.fixture(autouse=True)
def fresh_look():
    """Let each test look at its machine anew, and leave nothing of it behind."""
    forget_devices()
    yield
    forget_devices()


@pytest.fixture
def driver(monkeypatch):
    """Return a function that says whether NVIDIA's driver is here."""

    def install(here):
        monkeypatch.setattr(devices, "has_driver", lambda: here)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    install(False)
    return install


def raising(error):
    def function(*_, **__):
        raise error

    return function


@pytest.fixture
def no_cupy(monkeypatch, driver):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "cupy" else find_spec(name, *a),
    )
    monkeypatch.setitem(sys.modules, "cupy", None)


@pytest.fixture
def fake_cupy(monkeypatch, driver):
    """Return a function that puts a CuPy in place whose parts do what they are told to."""

    def install(*, count=lambda: 1, cublas=lambda: 1, kernel=lambda *_: lambda *_: None):
        cupy = types.ModuleType("cupy")
        cupy.__spec__ = ModuleSpec("cupy", None)
        cupy.__version__ = "14.0.0"
        cupy.cuda = types.SimpleNamespace(
            Device=nullcontext,
            runtime=types.SimpleNamespace(getDeviceCount=count),
            device=types.SimpleNamespace(get_cublas_handle=cublas),
        )
        cupy.ElementwiseKernel, cupy.zeros = kernel, np.zeros
        monkeypatch.setitem(sys.modules, "cupy", cupy)

    return install


TOO_OLD = CUDARuntimeError(INSUFFICIENT)
NOT_SEEN = CUDARuntimeError(NO_DEVICE)
TAKEN = CUDARuntimeError("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy")
FULL = CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
NO_NVRTC = RuntimeError("Failed\n  to\tfind nvrtc")

ADVICE = ImportError("a page of general advice")
ADVICE.__cause__ = ImportError(NO_CUBLAS)

# What is broken, what must be kept of the original error, and what must be said of the cause.
BROKEN = {
    "insufficient driver": ({"count": raising(TOO_OLD)}, INSUFFICIENT, "too old"),
    "no device": ({"count": raising(NOT_SEEN)}, NO_DEVICE, "CUDA sees no GPU"),
    "zero devices": ({"count": lambda: 0}, "", "CUDA sees no GPU"),
    "no cuBLAS": ({"cublas": raising(ADVICE)}, NO_CUBLAS, "missing or broken"),
    "no compiler": ({"kernel": raising(NO_NVRTC)}, "Failed to find nvrtc", "cannot compute"),
    "taken": ({"cublas": raising(TAKEN)}, "DevicesUnavailable", "uses the GPU alone"),
    "full": ({"kernel": raising(FULL)}, "MemoryAllocation", "no memory left"),
    "silent": ({"count": raising(OSError())}, "OSError", "cannot compute"),
}


# Names.


def test_the_cpu_is_always_there(driver):
    backend = get_backend("cpu")
    assert isinstance(backend, NumpyBackend)
    assert get_backend("cpu") is backend
    assert get_backend(backend) is backend
    assert "NumPy" in backend.describe()
    assert select_backend("cpu") == (backend, "you chose it", False)


@pytest.mark.parametrize(
    "name",
    ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:1.0", "cuda:99999", "cuda:0\n", None, 0],
)
def test_other_names_are_refused(name):
    for function in (get_backend, select_backend):
        with pytest.raises(ParameterError, match="use 'auto', 'cpu', 'cuda' or 'cuda:N'"):
            function(name)


# Without CuPy.


@pytest.mark.parametrize(
    ("here", "said"),
    [
        (False, "no usable GPU: no NVIDIA driver is here, and CuPy is not installed"),
        (True, "an NVIDIA driver is here, but CuPy is not installed: pip install 'gpunn[cuda13]'"),
    ],
)
def test_without_cupy_auto_is_the_cpu_and_says_so_without_a_warning(no_cupy, driver, here, said):
    driver(here)
    assert get_backend("auto").name == "cpu"
    backend, reason, fell_back = select_backend("auto")
    assert backend is get_backend("cpu")
    assert said in reason
    assert not fell_back


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_without_cupy_cuda_is_an_error_with_the_remedy(no_cupy, driver, name):
    driver(True)
    with pytest.raises(DeviceError) as caught:
        Network([2, 1], device=name)
    message = str(caught.value)
    assert message.startswith(f"device '{name}' cannot be used: an NVIDIA driver is here, but CuPy")
    assert "pip install 'gpunn[cuda13]'" in message
    assert "see gpunn info, or use device 'cpu'" in message


# The CPU, chosen by name.


def test_the_cpu_that_was_asked_for_costs_no_look_through_cupy(fake_cupy, driver, monkeypatch):
    fake_cupy(count=raising(AssertionError("nobody asked for a GPU")))
    driver(True)
    with_driver = "you chose it; there is also an NVIDIA driver, so device 'cuda' may work"
    assert select_backend("cpu").reason == with_driver
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert select_backend("cpu").reason == "you chose it"


# With a CuPy that cannot compute.


@pytest.mark.parametrize("case", BROKEN)
def test_auto_falls_back_with_a_warning_that_keeps_the_cause(fake_cupy, case):
    parts, original, cause = BROKEN[case]
    fake_cupy(**parts)
    with pytest.warns(DeviceWarning) as caught:
        network = Network([2, 1])
    assert network.backend.name == "cpu"
    message = str(caught[0].message)
    assert message.startswith("running on the CPU: no usable GPU: ")
    assert original in message
    assert cause in message
    assert message.endswith("; see gpunn info")
    assert "\n" not in message
    assert network.predict([0.0, 0.0]) == [0.5]


@pytest.mark.parametrize("case", BROKEN)
def test_an_explicit_cuda_is_an_error_that_keeps_the_cause(fake_cupy, case):
    parts, original, cause = BROKEN[case]
    fake_cupy(**parts)
    with pytest.raises(DeviceError) as caught:
        get_backend("cuda")
    assert original in str(caught.value)
    assert cause in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cupy_that_cannot_be_imported_is_an_ordinary_case(tmp_path, monkeypatch, driver):
    (tmp_path / "cupy.py").write_text(f"raise ImportError({NO_CUBLAS!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.warns(DeviceWarning, match=NO_CUBLAS):
        assert get_backend().name == "cpu"
    with pytest.raises(DeviceError, match="missing or broken"):
        get_backend("cuda")


def test_a_fallback_is_said_even_where_all_else_is_quiet(fake_cupy, capsys):
    fake_cupy(count=raising(TOO_OLD))
    choose_device("auto", Console(as_json=False, quiet=True))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("running on cpu (NumPy")
    assert INSUFFICIENT in err
    assert err.endswith("; see gpunn info\n")
    choose_device("cpu", Console(as_json=False, quiet=True))
    assert capsys.readouterr() == ("", "")


def test_gpus_hidden_on_purpose_are_no_fallback(fake_cupy, monkeypatch):
    fake_cupy(count=raising(NOT_SEEN))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert get_backend().name == "cpu"
    _, reason, fell_back = select_backend("auto")
    assert "CUDA_VISIBLE_DEVICES hides all GPUs" in reason
    assert not fell_back


# With usable GPUs.


def test_auto_is_the_first_usable_gpu(installed_double):
    backend, reason, fell_back = select_backend("auto")
    assert (backend.name, fell_back) == ("cuda:0", False)
    assert reason == "a usable GPU is there"
    assert get_backend("cuda") is get_backend("cuda:0") is backend
    assert get_backend("cuda:1").name == "cuda:1"


def test_auto_passes_over_a_gpu_that_is_taken_and_says_so(installed_double, monkeypatch):
    get_handle = installed_double.cuda.device.get_cublas_handle

    def handle():
        if installed_double.cuda.Device().id == 0:
            raise TAKEN
        return get_handle()

    monkeypatch.setattr(installed_double.cuda.device, "get_cublas_handle", handle)
    backend, reason, _ = select_backend("auto")
    assert backend.name == "cuda:1"
    assert reason.startswith("the first usable GPU; cuda:0: another program uses the GPU alone")
    with pytest.warns(DeviceWarning, match=r"running on cuda:1: .*DevicesUnavailable"):
        assert get_backend() is backend
    assert get_backend("cuda:1") is backend
    with pytest.raises(DeviceError, match=r"'cuda' cannot be used: .*DevicesUnavailable"):
        get_backend("cuda")
    assert cuda_problem() is None
    assert gpu_problem(1) is None


def test_auto_says_that_others_use_its_gpu(installed_double, monkeypatch):
    runtime = installed_double.cuda.runtime
    monkeypatch.setattr(runtime, "memGetInfo", lambda: (2**30, 20 * 2**30))
    assert select_backend("auto").reason == (
        "a usable GPU is there, but only 1.0 GiB of its 20.0 GiB are free; another of the 2 GPUs "
        "may have more"
    )
    monkeypatch.setattr(runtime, "memGetInfo", lambda: (2 * 2**30, 20 * 2**30))
    assert select_backend("auto").reason == "a usable GPU is there"


def test_a_gpu_that_is_not_there_is_named_with_those_that_are(installed_double):
    with pytest.raises(DeviceError, match=r"'cuda:7'.*2 GPU\(s\).*'cuda:0' to 'cuda:1'"):
        get_backend("cuda:7")


def test_a_network_on_one_gpu_refuses_inputs_from_another(installed_double):
    network = Network([2, 1], device="cuda:0")
    elsewhere = get_backend("cuda:1").asarray(np.zeros((1, 2), np.float32))
    with pytest.raises(DeviceError, match="cuda:0"):
        network.predict(elsewhere)


# Precision.


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_reduced_precision_is_a_backend_of_its_own(installed_double, precision):
    backend = get_backend("cuda", precision)
    assert backend.precision == precision
    assert backend is not get_backend("cuda")
    assert f"products in {precision}" in backend.describe()
    assert "products" not in get_backend("cuda").describe()
    assert get_backend("auto", precision) is backend
    assert get_backend(backend, precision) is get_backend(backend) is backend


def test_precisions_that_cannot_be_had(no_cupy):
    for name in ("cpu", "auto"):
        with pytest.raises(DeviceError, match="'tf32' needs an NVIDIA GPU, but the device is cpu"):
            get_backend(name, "tf32")
    with pytest.raises(ParameterError, match="unknown precision 'fp16': use one of fp32, tf32"):
        get_backend("cpu", "fp16")
    with pytest.raises(ParameterError, match="this device computes in fp32, not in 'tf32'"):
        get_backend(get_backend("cpu"), "tf32")


def test_an_old_gpu_has_no_tensor_cores_for_it(installed_double, monkeypatch):
    runtime = installed_double.cuda.runtime
    monkeypatch.setattr(runtime, "getDeviceProperties", lambda _: {"major": 7, "minor": 5})
    with pytest.raises(DeviceError, match=r"compute capability 8\.0 or more, but cuda:1 has 7\.5"):
        get_backend("cuda:1", "bf16")
    assert get_backend("cuda:1").precision == "fp32"


def test_a_float64_network_refuses_a_reduced_precision(installed_double):
    with pytest.raises(ParameterError, match="for float32 networks, but this one is float64"):
        Network([2, 1], dtype="float64", device=get_backend("cuda", "tf32"))
