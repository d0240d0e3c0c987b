"""What the doctor finds here, and what it says of machines that are broken in every known way."""

import json
import sys
import types
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from fake_cuda import forget_devices

from gpunn.backends.numba_library import NOT_INSTALLED
from gpunn.backends.nvidia import Gpu, System
from gpunn.cli import doctor
from gpunn.cli.diagnosis import diagnose
from gpunn.cli.doctor import ENVIRONMENT, examine, meaning_of
from gpunn.cli.facts import Cuda, Facts
from gpunn.cli.info import info_text

DOCS = Path(__file__).parents[2] / "docs" / "devices.md"
GIB = 2**30
H100 = Gpu("NVIDIA H100", "cuda:0", "9.0", 70 * GIB, 80 * GIB)
SECOND = replace(H100, device="cuda:1", memory_free=79 * GIB)
PASCAL = Gpu("NVIDIA GeForce GTX 1080", "cuda:0", "6.1", None, 8 * GIB)
SEEN = replace(H100, device=None, compute_mode="Default")
LINUX = System(
    "Linux", on_bus=True, driver_here=True, driver="580.65.06", passed_in=True, gpus=(SEEN,)
)
CUDA13 = Cuda(("cupy-cuda13x",), None, 13000, 13020, (), (H100,))
WELL = Facts(LINUX, CUDA13, {}, 16, 16)

NO_CUPY = Cuda((), "an NVIDIA driver is here, but CuPy is not installed")
TOO_OLD = "too old [cudaErrorInsufficientDriver: CUDA driver version is insufficient]"
NOT_SEEN = "CUDA sees no GPU [cudaErrorNoDevice: no CUDA-capable device is detected]"
UNAVAILABLE = "another program has the GPU [cudaErrorDevicesUnavailable: busy or unavailable]"
SMI_FAILED = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"
BARE = System("Linux")
ON_BUS = System("Linux", on_bus=True)
HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}


def broken(problem, **changes):
    """Return what CuPy 13 sees on a machine on which it can use no GPU."""
    return replace(CUDA13, problem=problem, gpus=(), **changes)


def on_driver(version, **changes):
    return replace(LINUX, driver=version, **changes)


# A machine, and the causes and remedies that must be said of it, in their order.
CASES = {
    "all is well": (WELL, []),
    "no GPU and no CuPy": (Facts(BARE, Cuda((), "no driver is here")), []),
    "CuPy and no GPU": (
        Facts(BARE, broken(TOO_OLD)),
        [("no NVIDIA GPU is found", "--device cpu needs no GPU")],
    ),
    "CuPy and no GPU in a container": (
        Facts(replace(BARE, container=True), broken(TOO_OLD)),
        [("no NVIDIA GPU is found", "--gpus all")],
    ),
    "nouveau": (
        Facts(replace(ON_BUS, bound_driver="nouveau"), broken(TOO_OLD)),
        [("but no NVIDIA driver (nouveau has the GPU)", "sudo ubuntu-drivers install")],
    ),
    "no driver, no CuPy": (
        Facts(ON_BUS, Cuda((), "no driver is here")),
        [
            ("but no NVIDIA driver", "sudo ubuntu-drivers install"),
            ("but CuPy is not installed", "pip install 'gpunn[cuda12]'"),
        ],
    ),
    "no driver on a container's host": (
        Facts(replace(ON_BUS, container=True), broken(TOO_OLD)),
        [
            ("but no NVIDIA driver", "on the host: sudo ubuntu-drivers"),
            ("this container was started without it", "docker run --gpus all"),
        ],
    ),
    "driver not loaded": (
        Facts(replace(ON_BUS, smi_problem=SMI_FAILED), broken(TOO_OLD)),
        [("its driver is not loaded [NVIDIA-SMI has failed", "sudo modprobe nvidia")],
    ),
    "WSL without a driver": (
        Facts(System("Linux", wsl=True), broken(TOO_OLD)),
        [("this is WSL, and it has no NVIDIA driver", "wsl --update")],
    ),
    "container without the GPU": (
        Facts(replace(LINUX, container=True, passed_in=False, gpus=()), broken(NOT_SEEN)),
        [("this container was started without it", "docker run --gpus all")],
    ),
    "driver and library of two versions": (
        Facts(replace(LINUX, smi_problem=MISMATCH, gpus=()), broken("other [error 803]")),
        [("the running driver and its libraries have different versions", "sudo reboot")],
    ),
    "two CuPys": (
        Facts(LINUX, replace(CUDA13, wheels=("cupy-cuda12x", "cupy-cuda13x"))),
        [
            (
                "cupy-cuda12x and cupy-cuda13x are installed together and break each other",
                "pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install 'gpunn[cuda13]'",
            )
        ],
    ),
    "CuPy 13 on a driver for CUDA 12": (
        Facts(on_driver("550.54.14"), broken(TOO_OLD, driver=12040)),
        [
            (
                "the driver (550.54.14) is too old for cupy-cuda13x, which needs 580",
                "pip uninstall -y cupy-cuda13x && pip install 'gpunn[cuda12]'",
            )
        ],
    ),
    "a driver older than CUDA 12": (
        Facts(on_driver("470.256.02"), broken(TOO_OLD, driver=11040)),
        [("is too old for CUDA 12, which needs 525", "sudo ubuntu-drivers install")],
    ),
    "an old driver and no CuPy": (
        Facts(on_driver("470.256.02"), NO_CUPY),
        [
            ("is too old for CUDA 12, which needs 525", "sudo ubuntu-drivers install"),
            ("but CuPy is not installed", "pip install 'gpunn[cuda12]'"),
        ],
    ),
    "CuPy 13 on a GPU that CUDA 13 has dropped": (
        Facts(
            replace(LINUX, gpus=()),
            replace(CUDA13, problem="nvrtc", gpus=(replace(PASCAL, problem="nvrtc"),)),
        ),
        [
            (
                "cupy-cuda13x cannot use NVIDIA GeForce GTX 1080: CUDA 13 needs compute "
                "capability 7.5",
                "pip uninstall -y cupy-cuda13x && pip install 'gpunn[cuda12]'",
            )
        ],
    ),
    "no CuPy": (
        Facts(LINUX, NO_CUPY),
        [("but CuPy is not installed", "pip install 'gpunn[cuda13]'")],
    ),
    "no CuPy, driver for CUDA 12": (
        Facts(on_driver("535.183.01"), NO_CUPY),
        [("but CuPy is not installed", "pip install 'gpunn[cuda12]'")],
    ),
    "no CuPy, old GPU": (
        Facts(replace(LINUX, gpus=(PASCAL,)), NO_CUPY),
        [("but CuPy is not installed", "pip install 'gpunn[cuda12]'")],
    ),
    "CuPy without CUDA's libraries": (
        Facts(LINUX, broken("missing", missing=("cuBLAS", "NVRTC", "the CUDA headers"))),
        [("is installed without cuBLAS, NVRTC, the CUDA headers", "pip install 'gpunn[cuda13]'")],
    ),
    "CuPy 12 without CUDA's libraries": (
        Facts(LINUX, broken("missing", missing=("NVRTC",), wheels=("cupy-cuda12x",))),
        [("is installed without NVRTC", "pip install 'gpunn[cuda12]'")],
    ),
    "hidden": (
        Facts(LINUX, broken(NOT_SEEN), HIDDEN),
        [("CUDA_VISIBLE_DEVICES='' hides every GPU", "unset CUDA_VISIBLE_DEVICES")],
    ),
    "hidden on Windows": (
        Facts(replace(LINUX, kind="Windows"), broken(NOT_SEEN), {"CUDA_VISIBLE_DEVICES": "-1"}),
        [("CUDA_VISIBLE_DEVICES='-1' hides", "Remove-Item Env:CUDA_VISIBLE_DEVICES")],
    ),
    "taken by one program": (
        Facts(
            replace(LINUX, gpus=(replace(SEEN, compute_mode="Exclusive_Process"),)),
            replace(
                CUDA13,
                problem=UNAVAILABLE,
                gpus=(replace(H100, memory_free=None, problem=UNAVAILABLE),),
            ),
        ),
        [
            (
                "a GPU serves one program at a time (Exclusive_Process), and another has it",
                "sudo nvidia-smi -c DEFAULT",
            )
        ],
    ),
    "little memory, another GPU is freer": (
        Facts(
            LINUX, replace(CUDA13, gpus=(replace(H100, memory_free=GIB), SECOND))
        ),
        [
            (
                "cuda:0 has only 1.0 GiB of its 80.0 GiB free: other programs use it",
                "--device cuda:1, or nvidia-smi --query-compute-apps",
            )
        ],
    ),
    "no memory at all": (
        Facts(
            replace(LINUX, gpus=(replace(SEEN, memory_free=GIB // 4),)),
            replace(
                CUDA13,
                problem="no memory",
                gpus=(replace(H100, memory_free=None, problem="no memory"),),
            ),
        ),
        [("NVIDIA H100 has only 0.2 GiB of its 80.0 GiB free", "nvidia-smi --query-compute-apps")],
    ),
    "something else": (
        Facts(LINUX, broken("cannot compute [cudaErrorECCUncorrectable]")),
        [("cannot compute [cudaErrorECCUncorrectable]", "nvrm|xid")],
    ),
    "a GPU that fell off the bus": (
        Facts(replace(LINUX, smi_problem="Unable to determine the device handle", gpus=()), CUDA13),
        [("Unable to determine the device handle", "nvrm|xid")],
    ),
    "products changed from outside": (
        replace(
            WELL,
            environment={"CUBLAS_EMULATE_SINGLE_PRECISION": "1", "NVIDIA_TF32_OVERRIDE": "1"},
        ),
        [
            ("CUBLAS_EMULATE_SINGLE_PRECISION=1 makes cuBLAS compute products in another", "unset"),
            ("NVIDIA_TF32_OVERRIDE=1 makes", "unset NVIDIA_TF32_OVERRIDE"),
        ],
    ),
    "products exact from outside": (
        replace(
            WELL,
            environment={"CUBLAS_EMULATE_DOUBLE_PRECISION": "0", "NVIDIA_TF32_OVERRIDE": "0"},
        ),
        [],
    ),
    "one core": (
        replace(WELL, environment={"OMP_NUM_THREADS": "1"}, blas_threads=1),
        [("OMP_NUM_THREADS=1 limits products on the CPU to one of 16 cores", "unset OMP")],
    ),
    "no loops": (
        replace(WELL, loops_problem=NOT_INSTALLED),
        [("the CPU trains with NumPy alone", "pip install 'gpunn[fast]'")],
    ),
    "loops switched off": (
        replace(WELL, environment={"GPUNN_FAST": "0"}, loops_problem="GPUNN_FAST is 0"),
        [("the CPU does without its compiled loops: GPUNN_FAST is 0", "unset GPUNN_FAST")],
    ),
    "another Python": (replace(WELL, loops_problem="not made for pypy"), []),
    "no matplotlib": (
        replace(WELL, matplotlib=False),
        [("pictures need matplotlib", "pip install 'gpunn[plots]'")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_machine_and_what_is_said_of_it(case):
    facts, expected = CASES[case]
    problems = diagnose(facts)
    assert len(problems) == len(expected), problems
    for problem, (cause, remedy) in zip(problems, expected, strict=True):
        assert cause in problem.cause
        assert remedy in problem.remedy
        assert "\n" not in problem.cause + problem.remedy


def test_a_driver_that_has_been_made_newer_is_taken_at_its_word():
    """NVIDIA's forward-compatibility package lets an older driver run a newer CUDA."""
    assert diagnose(replace(WELL, system=on_driver("535.183.01"))) == []


# Probing what is here.


@pytest.fixture
def found(monkeypatch):
    """Return a function that examines a machine on which these are the facts."""

    def look(facts):
        monkeypatch.setattr(doctor, "_facts", lambda *_: facts)
        return examine()

    return look


def test_the_doctor_finds_what_is_there():
    found = examine()
    assert found["versions"]["numpy"] == np.__version__
    assert found["cpu"]["cores"] >= 1
    assert 0 < found["cpu"]["memory_free"] <= found["cpu"]["memory_total"]
    assert [blas["used"] for blas in found["blas"]].count(True) == 1
    assert found["auto"]["device"] in ("cpu", "cuda:0")
    json.dumps(found, allow_nan=False)


def test_numpys_vector_instructions_have_their_usual_names(monkeypatch):
    config = {"SIMD Extensions": {"baseline": ["X86_V2"], "found": ["X86_V3", "NEW"]}}
    monkeypatch.setattr(np, "show_config", lambda mode: config)
    assert doctor._vectors() == ["AVX2", "NEW"]
    monkeypatch.setattr(np, "show_config", lambda mode: {})
    assert doctor._vectors() == []


@pytest.mark.parametrize("case", CASES)
def test_the_text_shows_every_cause_and_remedy(found, case):
    facts, expected = CASES[case]
    text = info_text(found(facts))
    assert all(cause in text and remedy in text for cause, remedy in expected)
    for gpu in facts.cuda.gpus:
        assert f"{gpu.device}: {gpu.name}, compute capability {gpu.compute_capability}" in text
    if not expected:
        nothing = "nothing to do" if facts.system.has_nvidia else "no NVIDIA GPU was found"
        assert text.endswith(nothing)


def test_the_doctor_lists_gpus(installed_double):
    found = examine()
    assert [gpu["device"] for gpu in found["cuda"]["gpus"]] == ["cuda:0", "cuda:1"]
    for gpu in found["cuda"]["gpus"]:
        assert gpu["compute_capability"] == "9.0"
        assert 0 < gpu["memory_free"] <= gpu["memory_total"]
        assert gpu["problem"] is None
    assert found["auto"]["device"] == "cuda:0"
    assert (found["cuda"]["driver"], found["cuda"]["runtime"]) == (13000, 13000)


def test_a_gpu_that_cannot_be_used_is_listed_with_its_error(installed_double, monkeypatch):
    def fails():
        raise RuntimeError("cudaErrorDevicesUnavailable")

    monkeypatch.setattr(installed_double.cuda.device, "get_cublas_handle", fails)
    found = examine()
    assert found["auto"]["device"] == "cpu"
    for gpu in found["cuda"]["gpus"]:
        assert gpu["memory_free"] is None
        assert "cudaErrorDevicesUnavailable" in gpu["problem"]
    assert "cuda:1: Host memory in the place of a GPU" in info_text(found)


def test_a_cupy_that_cannot_be_imported_still_has_a_doctor(tmp_path, monkeypatch):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcuda.so.1: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    forget_devices()
    try:
        cuda = doctor._cuda()
    finally:
        forget_devices()
    assert "libcuda.so.1: cannot open" in cuda.problem
    assert (cuda.driver, cuda.runtime, cuda.gpus) == (None, None, ())


def test_what_cupy_would_not_find_is_seen_without_a_gpu(monkeypatch):
    def load(name):
        if name == "nvrtc":
            raise RuntimeError("not found")
        return "found"

    pathfinder = types.SimpleNamespace(
        load_nvidia_dynamic_lib=load, find_nvidia_header_directory=lambda name: None
    )
    monkeypatch.setitem(sys.modules, "cuda", types.SimpleNamespace(pathfinder=pathfinder))
    assert doctor._missing_libraries() == ("NVRTC", "the CUDA headers")
    monkeypatch.setitem(sys.modules, "cuda", None)
    assert doctor._missing_libraries() == ()


def test_the_doctor_sees_two_cupys_at_once_and_what_is_not_installed(monkeypatch):
    versions = {"cupy-cuda12x": "14.0.0", "cupy-cuda13x": "14.0.0"}

    def version(name):
        if name in versions:
            return versions[name]
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    found = examine()
    causes = [problem["cause"] for problem in found["problems"]]
    assert any("installed together" in cause for cause in causes)
    assert "pictures need matplotlib" in causes
    assert found["versions"]["scipy"] is None
    assert found["versions"]["cupy-cuda13x"] == "14.0.0"


def test_the_doctor_lists_variables_that_change_what_happens(monkeypatch):
    monkeypatch.setenv("CUPY_TF32", "1")
    monkeypatch.setenv("CUBLAS_EMULATION_STRATEGY", "eager")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = examine()
    assert found["environment"]["CUPY_TF32"] == "1"
    assert found["environment"]["CUBLAS_EMULATION_STRATEGY"] == "eager"
    assert "OMP_NUM_THREADS" not in found["environment"]
    assert "HOME" not in found["environment"]
    assert f"  CUPY_TF32=1 ({ENVIRONMENT['CUPY_TF32']})" in info_text(found)
    assert meaning_of("CUBLAS_EMULATION_STRATEGY") in info_text(found)


def test_json_has_all_facts_that_the_diagnosis_is_made_from(found):
    facts = CASES["taken by one program"][0]
    report = found(facts)
    assert report["system"] == asdict(facts.system)
    assert report["cuda"] == asdict(facts.cuda)


# The documentation.


IN_THE_TABLE = (
    "no NVIDIA GPU is found", "but no NVIDIA driver", "its driver is not loaded", "this is WSL",
    "this container was started without it", "have different versions", "installed together",
    "is too old", "cannot use", "but CuPy is not installed", "is installed without",
    "hides every GPU", "serves one program at a time", "free", "in another precision",
    "limits products on the CPU to one of", "pictures need matplotlib",
    "with NumPy alone", "does without its compiled loops",
)  # fmt: skip


def test_the_documentation_has_every_cause_and_every_variable():
    text = DOCS.read_text("utf-8")
    assert [words for words in IN_THE_TABLE if words not in text] == []
    assert [name for name in ENVIRONMENT if f"`{name}`" not in text] == []
    for name, (facts, _) in CASES.items():
        if name not in ("something else", "a GPU that fell off the bus"):
            for problem in diagnose(facts):
                assert any(words in problem.cause for words in IN_THE_TABLE), problem
