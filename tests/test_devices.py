"""Choosing a device: names, a CuPy that is missing or broken, and what the doctor says of it."""

import importlib.util
import sys
import types
from importlib import metadata
from importlib.machinery import ModuleSpec

import numpy as np
import pytest

from gpunn import Network, get_backend
from gpunn.devices import _cupy_backend, cuda_problem, select_backend
from gpunn.doctor import examine
from gpunn.errors import DeviceError, DeviceWarning, ParameterError
from gpunn.numpy_backend import NumpyBackend

INSUFFICIENT = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime"
NO_DEVICE = "cudaErrorNoDevice: no CUDA-capable device is detected"
NO_CUBLAS = "libcublas.so.13: cannot open shared object file: No such file or directory"


class CUDARuntimeError(RuntimeError):
    """Named and worded as CuPy's own."""


@pytest.fixture(autouse=True)
def fresh_look():
    """Let each test look at its machine anew, and leave nothing of it behind."""
    cuda_problem.cache_clear()
    _cupy_backend.cache_clear()
    yield
    cuda_problem.cache_clear()
    _cupy_backend.cache_clear()


def raising(error):
    def function(*_, **__):
        raise error

    return function


@pytest.fixture
def no_cupy(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "cupy" else find_spec(name, *a),
    )
    monkeypatch.setitem(sys.modules, "cupy", None)


@pytest.fixture
def fake_cupy(monkeypatch):
    """Return a function that puts a CuPy in place whose parts do what they are told to."""

    def install(*, count=lambda: 1, cublas=lambda: 1, kernel=lambda *_: lambda *_: None):
        cupy = types.ModuleType("cupy")
        cupy.__spec__ = ModuleSpec("cupy", None)
        cupy.__version__ = "14.0.0"
        cupy.cuda = types.SimpleNamespace(
            runtime=types.SimpleNamespace(getDeviceCount=count),
            device=types.SimpleNamespace(get_cublas_handle=cublas),
        )
        cupy.ElementwiseKernel, cupy.zeros = kernel, np.zeros
        monkeypatch.setitem(sys.modules, "cupy", cupy)

    return install


TOO_OLD = CUDARuntimeError(INSUFFICIENT)
NOT_SEEN = CUDARuntimeError(NO_DEVICE)
NO_NVRTC = RuntimeError("Failed\n  to\tfind nvrtc")

# What is broken, what must be said of the cause, and what of the remedy.
BROKEN = {
    "insufficient driver": ({"count": raising(TOO_OLD)}, INSUFFICIENT, "too old"),
    "no device": ({"count": raising(NOT_SEEN)}, NO_DEVICE, "CUDA_VISIBLE_DEVICES"),
    "zero devices": ({"count": lambda: 0}, "CUDA sees no GPU", "CUDA_VISIBLE_DEVICES"),
    "no cuBLAS": ({"cublas": raising(ImportError(NO_CUBLAS))}, NO_CUBLAS, "pip install"),
    "no compiler": ({"kernel": raising(NO_NVRTC)}, "Failed to find nvrtc", "nvidia-smi"),
    "silent": ({"count": raising(OSError())}, "OSError", "nvidia-smi"),
}


# Names.


def test_the_cpu_is_always_there():
    backend = get_backend("cpu")
    assert isinstance(backend, NumpyBackend)
    assert get_backend("cpu") is backend
    assert get_backend(backend) is backend
    assert "NumPy" in backend.describe()
    assert select_backend("cpu") == (backend, "as asked")


@pytest.mark.parametrize(
    "name",
    ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:1.0", "cuda:99999", "cuda:0\n", None, 0],
)
def test_other_names_are_refused(name):
    for function in (get_backend, select_backend):
        with pytest.raises(ParameterError, match="use 'auto', 'cpu', 'cuda' or 'cuda:N'"):
            function(name)


# Without CuPy.


def test_without_cupy_auto_is_the_cpu_and_says_so_without_a_warning(no_cupy):
    assert get_backend("auto").name == "cpu"
    backend, reason = select_backend("auto")
    assert backend is get_backend("cpu")
    assert "CuPy is not installed: pip install 'gpunn[cuda13]'" in reason


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_without_cupy_cuda_is_an_error_with_the_remedy(no_cupy, name):
    with pytest.raises(DeviceError) as caught:
        Network([2, 1], device=name)
    assert f"device '{name}' cannot be had: CuPy is not installed: pip install" in str(caught.value)
    assert "device 'cpu'" in str(caught.value)


# With a CuPy that cannot compute.


@pytest.mark.parametrize("case", BROKEN)
def test_auto_falls_back_with_a_warning_that_keeps_the_cause(fake_cupy, case):
    parts, original, remedy = BROKEN[case]
    fake_cupy(**parts)
    with pytest.warns(DeviceWarning) as caught:
        network = Network([2, 1])
    assert network.backend.name == "cpu"
    message = str(caught[0].message)
    assert message.startswith("running on the CPU: no usable GPU: ")
    assert original in message
    assert remedy in message
    assert "\n" not in message
    assert network.predict([0.0, 0.0]) == [0.5]


@pytest.mark.parametrize("case", BROKEN)
def test_an_explicit_cuda_is_an_error_that_keeps_the_cause(fake_cupy, case):
    parts, original, remedy = BROKEN[case]
    fake_cupy(**parts)
    with pytest.raises(DeviceError) as caught:
        get_backend("cuda")
    assert original in str(caught.value)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cupy_that_cannot_be_imported_is_an_ordinary_case(tmp_path, monkeypatch):
    (tmp_path / "cupy.py").write_text(f"raise ImportError({NO_CUBLAS!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.warns(DeviceWarning, match=NO_CUBLAS):
        assert get_backend().name == "cpu"
    with pytest.raises(DeviceError, match="missing or broken"):
        get_backend("cuda")


# With usable GPUs.


def test_auto_is_the_first_usable_gpu(installed_double):
    backend, reason = select_backend("auto")
    assert backend.name == "cuda:0"
    assert reason == "a usable GPU is there"
    assert get_backend("cuda") is get_backend("cuda:0") is backend
    assert get_backend("cuda:1").name == "cuda:1"


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
    with pytest.raises(ParameterError, match="the device given computes in fp32, not in 'tf32'"):
        get_backend(get_backend("cpu"), "tf32")


def test_an_old_gpu_has_no_tensor_cores_for_it(installed_double, monkeypatch):
    runtime = installed_double.cuda.runtime
    monkeypatch.setattr(runtime, "getDeviceProperties", lambda _: {"major": 7, "minor": 5})
    with pytest.raises(DeviceError, match=r"compute capability 8\.0 or more, and cuda:1 has 7\.5"):
        get_backend("cuda:1", "bf16")
    assert get_backend("cuda:1").precision == "fp32"


def test_a_float64_network_refuses_a_reduced_precision(installed_double):
    with pytest.raises(ParameterError, match="for float32 networks, and this one is float64"):
        Network([2, 1], dtype="float64", device=get_backend("cuda", "tf32"))


# The doctor.


def test_the_doctor_finds_what_is_there(no_cupy):
    found = examine()
    assert set(found) == {
        "versions", "platform", "cpu", "blas", "gpus", "auto", "environment", "problems",
    }  # fmt: skip
    assert found["versions"]["numpy"] == np.__version__
    assert found["cpu"]["cores"] >= 1
    assert 0 < found["cpu"]["memory_free"] <= found["cpu"]["memory_total"]
    assert [blas["used"] for blas in found["blas"]].count(True) == 1
    assert found["gpus"] == []
    assert found["auto"]["device"] == "cpu"
    assert any("CuPy is not installed: pip install" in line for line in found["problems"])


@pytest.mark.parametrize("case", BROKEN)
def test_the_doctor_names_cause_and_remedy_and_never_fails(fake_cupy, case):
    parts, original, remedy = BROKEN[case]
    fake_cupy(**parts)
    problem = next(line for line in examine()["problems"] if line.startswith("no GPU is used"))
    assert original in problem
    assert remedy in problem


def test_the_doctor_lists_gpus(installed_double, monkeypatch):
    runtime = installed_double.cuda.runtime
    known = {number: runtime.getDeviceProperties(number) for number in (0, 1)}
    more = {"major": 9, "minor": 0}
    monkeypatch.setattr(runtime, "getDeviceProperties", lambda number: known[number] | more)
    found = examine()
    assert [gpu["device"] for gpu in found["gpus"]] == ["cuda:0", "cuda:1"]
    for gpu in found["gpus"]:
        assert gpu["compute_capability"] == "9.0"
        assert 0 < gpu["memory_free"] <= gpu["memory_total"]
    assert found["auto"]["device"] == "cuda:0"
    assert not any("GPU" in line for line in found["problems"])


def test_the_doctor_sees_two_cupys_at_once_and_what_is_missing(no_cupy, monkeypatch):
    versions = {"cupy-cuda12x": "14.0.0", "cupy-cuda13x": "14.0.0"}

    def version(name):
        if name in versions:
            return versions[name]
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    found = examine()
    assert any("pip uninstall -y cupy-cuda12x cupy-cuda13x" in line for line in found["problems"])
    assert any("gpunn[plots]" in line for line in found["problems"])
    assert found["versions"]["scipy"] is None
    assert found["versions"]["cupy-cuda13x"] == "14.0.0"


def test_the_doctor_lists_variables_that_change_what_happens(no_cupy, monkeypatch):
    monkeypatch.setenv("CUPY_TF32", "1")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = examine()["environment"]
    assert found["CUPY_TF32"] == "1"
    assert "OMP_NUM_THREADS" not in found
