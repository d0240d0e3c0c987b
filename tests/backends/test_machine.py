"""What the operating system knows of NVIDIA: fake trees of its files, and a fake nvidia-smi."""

import os
import platform
import shutil

import pytest

from gpunn.backends.nvidia import Gpu, System, has_driver, hides_gpus, probe, read_smi

posix = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell and symbolic links")
VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (x)\n"
OLD_VERSION = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2 14:37:44 2024\n"
)
LISTED = (
    "580.65.06, NVIDIA H100 80GB HBM3, 9.0, 80995, 81559, Default\n"
    "580.65.06, NVIDIA GB10, 12.1, [N/A], [N/A], Exclusive_Process\n"
)
H100 = Gpu(
    "NVIDIA H100 80GB HBM3",
    compute_capability="9.0",
    memory_free=80995 * 2**20,
    memory_total=81559 * 2**20,
    compute_mode="Default",
)
GB10 = Gpu("NVIDIA GB10", compute_capability="12.1", compute_mode="Exclusive_Process")


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """Take from the machine what would show through its own files."""
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "release", lambda: "6.8.0-generic")
    for name in ("KUBERNETES_SERVICE_HOST", "APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file below the fake root."""

    def file(path, text=""):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    return file


def test_a_machine_without_nvidia(tmp_path, write):
    write("sys/bus/pci/devices/0000:00:01.0/vendor", "0x8086\n")
    write("sys/bus/pci/devices/0000:00:01.0/class", "0x030000\n")
    # NVIDIA's, but its sound.
    write("sys/bus/pci/devices/0000:00:02.1/vendor", "0x10de\n")
    write("sys/bus/pci/devices/0000:00:02.1/class", "0x040300\n")
    found = probe(tmp_path)
    assert not found.has_nvidia
    assert found == System(kind="Linux")
    assert not has_driver(tmp_path)


@posix
def test_a_gpu_whose_driver_is_another(tmp_path, write):
    for number in (1, 2):
        write(f"sys/bus/pci/devices/0000:0{number}:00.0/vendor", "0x10de\n")
        write(f"sys/bus/pci/devices/0000:0{number}:00.0/class", "0x030200\n")
    write("sys/bus/pci/drivers/nouveau/bind")
    link = tmp_path / "sys/bus/pci/devices/0000:02:00.0/driver"
    link.symlink_to(tmp_path / "sys/bus/pci/drivers/nouveau")
    found = probe(tmp_path)
    assert found.has_nvidia
    assert (found.on_bus, found.bound_driver, found.driver_here) == (True, "nouveau", False)


@pytest.mark.parametrize(("text", "version"), [(VERSION, "580.65.06"), (OLD_VERSION, "470.256.02")])
def test_a_loaded_driver(tmp_path, write, text, version):
    write("proc/driver/nvidia/version", text)
    assert has_driver(tmp_path)
    found = probe(tmp_path)
    assert (found.driver_here, found.driver, found.passed_in) == (True, version, False)
    write("dev/nvidiactl")
    assert probe(tmp_path).passed_in


def test_wsl_has_its_driver_from_windows(tmp_path, write, monkeypatch):
    monkeypatch.setattr(platform, "release", lambda: "5.15.153.1-microsoft-standard-WSL2")
    write("dev/dxg")
    found = probe(tmp_path)
    assert (found.wsl, found.driver_here) == (True, False)
    write("usr/lib/wsl/lib/libcuda.so.1")
    assert probe(tmp_path).driver_here


def test_windows_has_its_driver_in_the_system_folder(tmp_path, write, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    assert not has_driver()
    write("System32/nvcuda.dll")
    assert has_driver()


def test_containers_leave_marks(tmp_path, write, monkeypatch):
    assert not probe(tmp_path).container
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert probe(tmp_path).container
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    write(".dockerenv")
    assert probe(tmp_path).container


@posix
@pytest.mark.parametrize(
    ("script", "driver", "gpus", "problem"),
    [
        (f"cat <<END\n{LISTED}END", "580.65.06", (H100, GB10), None),
        (
            "echo Failed to initialize NVML: Driver/library version mismatch\nexit 18",
            None,
            (),
            "Failed to initialize NVML: Driver/library version mismatch",
        ),
    ],
)
def test_what_nvidia_smi_says(tmp_path, write, monkeypatch, script, driver, gpus, problem):
    program = write("bin/nvidia-smi", f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: str(program))
    found = probe(tmp_path)
    assert (found.driver, found.gpus, found.smi_problem) == (driver, gpus, problem)
    assert found.driver_here == bool(gpus)


def test_an_nvidia_smi_that_cannot_run_is_told(tmp_path, write, monkeypatch):
    program = write("bin/nvidia-smi")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: str(program))
    assert "nvidia-smi" in probe(tmp_path).smi_problem


def test_lines_of_another_form_are_no_gpus():
    assert read_smi("No devices were found\n") == ()
    assert read_smi(LISTED) == (H100, GB10)


@pytest.mark.parametrize(
    ("value", "hides"),
    [("", True), ("-1", True), ("-1,0", True), (" ", True), ("0", False), ("1,-1", False)],
)
def test_what_hides_every_gpu(value, hides):
    assert hides_gpus({"CUDA_VISIBLE_DEVICES": value}) == hides
    assert not hides_gpus({})
