"""From what a machine has to what it lacks, and the command that mends it.

Each rule is a pure function of `Facts`, so that every broken machine can be tested on any machine.
The rules stand in the order in which their remedies have to be carried out.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from gpunn import launcher
from gpunn.backends.numba_library import INSTALL_NUMBA, NOT_INSTALLED, SWITCH
from gpunn.backends.nvidia import DRIVER_FOR_CUDA, FIRST_CAPABILITY_OF_CUDA_13, hides_gpus
from gpunn.backends.select import is_nearly_full
from gpunn.cli.facts import Facts
from gpunn.host_memory import in_gib

CUDA_OF_WHEEL = {"cupy-cuda12x": 12, "cupy-cuda13x": 13}
GET_DRIVER = "https://www.nvidia.com/drivers"
INSTALL_DRIVER = f"sudo ubuntu-drivers install && sudo reboot (not Ubuntu: {GET_DRIVER})"
UNSET = {"Windows": "Remove-Item Env:{} (in PowerShell)"}
RUN_WITH_GPU = (
    "docker run --gpus all ... (podman run --device nvidia.com/gpu=all ..., "
    "apptainer exec --nv ...)"
)
WHO_USES_IT = "nvidia-smi --query-compute-apps=pid,name,used_memory --format=csv"


class Problem(NamedTuple):
    """What is wrong, and what to type."""

    cause: str
    remedy: str


def diagnose(facts: Facts) -> list[Problem]:
    """Return what is wrong with a machine, in the order in which it has to be mended."""
    problems = [problem for rule in GPU_RULES for problem in rule(facts)]
    if not problems:
        problems += _unexplained(facts)
    return problems + [problem for rule in OTHER_RULES for problem in rule(facts)]


def _unset(facts: Facts, name: str) -> str:
    return UNSET.get(facts.system.kind, "unset {}").format(name)


def _reinstall(facts: Facts) -> str:
    return f"pip uninstall -y {' '.join(facts.cuda.wheels)} && pip install 'gpunn[{facts.extra}]'"


# What keeps the GPU from being used, from the hardware upwards.


def _no_gpu(facts: Facts) -> Iterator[Problem]:
    system = facts.system
    if facts.cuda.wheels and facts.cuda.problem and not (system.has_nvidia or system.wsl):
        elsewhere = RUN_WITH_GPU if system.container else "use a machine with a GPU"
        yield Problem(
            "CuPy is installed, but no NVIDIA GPU is found: no driver, no nvidia-smi, and none on "
            "the PCI bus",
            f"--device cpu needs no GPU; otherwise {elsewhere}",
        )


def _no_driver(facts: Facts) -> Iterator[Problem]:
    system = facts.system
    if system.driver_here or not system.on_bus or system.wsl:
        return
    where = "on the host: " if system.container else ""
    if system.smi_problem:
        yield Problem(
            f"an NVIDIA GPU is there, but its driver is not loaded [{system.smi_problem}]",
            f"{where}sudo modprobe nvidia (if that fails, after a new kernel: sudo dkms "
            "autoinstall && sudo reboot)",
        )
    else:
        other = f" ({system.bound_driver} has the GPU)" if system.bound_driver else ""
        yield Problem(
            f"an NVIDIA GPU is there, but no NVIDIA driver{other}", where + INSTALL_DRIVER
        )


def _wsl_without_driver(facts: Facts) -> Iterator[Problem]:
    if facts.system.wsl and not facts.system.driver_here:
        yield Problem(
            "this is WSL, and it has no NVIDIA driver: it uses the one of Windows",
            f"if the PC has an NVIDIA GPU: in Windows install {GET_DRIVER}, then in PowerShell "
            "wsl --update; wsl --shutdown (install no driver inside WSL)",
        )


def _not_passed_in(facts: Facts) -> Iterator[Problem]:
    system = facts.system
    if system.container and system.has_nvidia and not system.passed_in and not system.gpus:
        yield Problem(
            "the machine has an NVIDIA GPU, but this container was started without it",
            f"{RUN_WITH_GPU}, with NVIDIA's Container Toolkit on the host",
        )


def _mismatch(facts: Facts) -> Iterator[Problem]:
    said = f"{facts.system.smi_problem or ''} {facts.cuda.problem or ''}"
    if "mismatch" in said.lower():
        yield Problem(
            "the running driver and its libraries have different versions, as after an update "
            f"[{said.strip()}]",
            "sudo reboot",
        )


def _driver_too_old(facts: Facts) -> Iterator[Problem]:
    needed = max((CUDA_OF_WHEEL.get(wheel, 12) for wheel in facts.cuda.wheels), default=12)
    version = facts.cuda_version
    alone = len(facts.cuda.wheels) <= 1
    if version is None or version >= needed or not (alone and facts.cuda.problem):
        return
    has = f"the driver ({facts.system.driver or 'of unknown version'}) is too old"
    if version >= 12:
        yield Problem(
            f"{has} for {' '.join(facts.cuda.wheels)}, which needs {DRIVER_FOR_CUDA[needed]}",
            f"{_reinstall(facts)} (or a newer driver: {GET_DRIVER})",
        )
    else:
        yield Problem(f"{has} for CUDA 12, which needs {DRIVER_FOR_CUDA[12]}", INSTALL_DRIVER)


def _two_wheels(facts: Facts) -> Iterator[Problem]:
    if len(facts.cuda.wheels) > 1:
        yield Problem(
            f"{' and '.join(facts.cuda.wheels)} are installed together and break each other",
            _reinstall(facts),
        )


def _gpu_too_old(facts: Facts) -> Iterator[Problem]:
    broken = facts.cuda.problem or any(gpu.problem for gpu in facts.cuda.gpus)
    old = next((gpu for gpu in facts.gpus if gpu.is_too_old_for_13), None)
    if broken and old and facts.cuda.wheels == ("cupy-cuda13x",):
        yield Problem(
            f"cupy-cuda13x cannot use {old.name}: CUDA 13 needs compute capability "
            f"{FIRST_CAPABILITY_OF_CUDA_13}, and it has {old.compute_capability}",
            _reinstall(facts),
        )


def _no_cupy(facts: Facts) -> Iterator[Problem]:
    if facts.system.has_nvidia and not facts.cuda.wheels:
        yield Problem(
            "an NVIDIA GPU is there, but CuPy is not installed",
            f"pip install 'gpunn[{facts.extra}]'",
        )


def _missing_libraries(facts: Facts) -> Iterator[Problem]:
    if facts.cuda.missing and len(facts.cuda.wheels) == 1:
        wheel = facts.cuda.wheels[0]
        own = f"cuda{CUDA_OF_WHEEL[wheel]}" if wheel in CUDA_OF_WHEEL else facts.extra
        yield Problem(
            f"CuPy is installed without {', '.join(facts.cuda.missing)}, which come with gpunn's "
            "extra",
            f"pip install 'gpunn[{own}]'",
        )


def _hidden(facts: Facts) -> Iterator[Problem]:
    if hides_gpus(facts.environment) and facts.system.has_nvidia:
        value = facts.environment["CUDA_VISIBLE_DEVICES"]
        yield Problem(
            f"CUDA_VISIBLE_DEVICES={value!r} hides every GPU", _unset(facts, "CUDA_VISIBLE_DEVICES")
        )


def _taken(facts: Facts) -> Iterator[Problem]:
    problems = [gpu.problem for gpu in facts.cuda.gpus if gpu.problem] or [facts.cuda.problem or ""]
    modes = {gpu.compute_mode for gpu in facts.system.gpus} - {None, "Default"}
    for problem in problems:
        if "DevicesUnavailable" in problem and modes:
            yield Problem(
                f"a GPU serves one program at a time ({', '.join(sorted(map(str, modes)))}), and "
                f"another has it: {problem}",
                f"{WHO_USES_IT} shows which; wait, or: sudo nvidia-smi -c DEFAULT",
            )


def _crowded(facts: Facts) -> Iterator[Problem]:
    # CUDA cannot ask a GPU that is all full; nvidia-smi can.
    asked = [gpu for gpu in facts.cuda.gpus if gpu.memory_free is not None]
    known = asked or [gpu for gpu in facts.system.gpus if gpu.memory_free is not None]
    for gpu in known:
        free, total = gpu.memory_free or 0, gpu.memory_total or 0
        if is_nearly_full(free, total):
            freest = max(known, key=lambda other: other.memory_free or 0)
            better = freest.device and freest is not gpu
            instead = f"--device {freest.device}, or " if better else ""
            yield Problem(
                f"{gpu.device or gpu.name} has only {in_gib(free)} of its {in_gib(total)} free: "
                "other programs use it",
                f"{instead}{WHO_USES_IT} shows which to end",
            )


def _unexplained(facts: Facts) -> Iterator[Problem]:
    cuda = facts.cuda
    said = [f"{gpu.device}: {gpu.problem}" for gpu in cuda.gpus if gpu.problem]
    if cuda.problem and cuda.wheels:
        said = said or [cuda.problem]
    said += filter(None, [facts.system.smi_problem])
    for line in said:
        yield Problem(
            line, "nvidia-smi, and sudo dmesg | grep -iE 'nvrm|xid', show whether the GPU is well"
        )


GPU_RULES: tuple[Callable[[Facts], Iterator[Problem]], ...] = (
    _no_gpu,
    _no_driver,
    _wsl_without_driver,
    _not_passed_in,
    _mismatch,
    _two_wheels,
    _driver_too_old,
    _gpu_too_old,
    _no_cupy,
    _missing_libraries,
    _hidden,
    _taken,
    _crowded,
)


# What changes results or speed, but keeps nothing from working.


def _changed_products(facts: Facts) -> Iterator[Problem]:
    for name, value in facts.environment.items():
        emulates = name.startswith("CUBLAS_EMULATE_") and value != "0"
        if emulates or (name == "NVIDIA_TF32_OVERRIDE" and value != "0"):
            yield Problem(
                f"{name}={value} makes cuBLAS compute products in another precision than you chose",
                _unset(facts, name),
            )


def _one_core(facts: Facts) -> Iterator[Problem]:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        limited = facts.environment.get(name) == "1" and facts.blas_threads == 1 < facts.cores
        if limited and launcher.n_local() < facts.cores:
            yield Problem(
                f"{name}=1 limits products on the CPU to one of {facts.cores} cores",
                _unset(facts, name),
            )


def _no_loops(facts: Facts) -> Iterator[Problem]:
    if facts.loops_problem == NOT_INSTALLED:
        yield Problem(
            "the CPU trains with NumPy alone; compiled loops make it faster, with Adam and small "
            "networks most",
            INSTALL_NUMBA,
        )
    elif SWITCH in facts.environment and facts.loops_problem is not None:
        yield Problem(
            f"the CPU does without its compiled loops: {facts.loops_problem}", _unset(facts, SWITCH)
        )


def _no_plots(facts: Facts) -> Iterator[Problem]:
    if not facts.matplotlib:
        yield Problem("pictures need matplotlib", "pip install 'gpunn[plots]'")


OTHER_RULES = (_changed_products, _one_core, _no_loops, _no_plots)
