"""Real MPI processes for tests: mpiexec from a package, on this machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}
"""What lets Open MPI, 5 and 4, start more ranks than there are cores, and in a container. MPICH
does not read it."""


def mpiexec() -> str:
    """Return the path of mpiexec; skip the test where there is no MPI."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed: pip install 'gpunn[mpi]'")
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("no mpiexec: pip install mpich")
    return found


def start(n, *arguments, options=(), **environment):
    """Start so many Python processes together; return the process of mpiexec."""
    command = [mpiexec(), *options, "-n", str(n), sys.executable, *map(str, arguments)]
    own = {
        **os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path),
        "GPUNN_RANK_SECONDS": "30", **OPEN_MPI, **environment,
    }  # fmt: skip
    return subprocess.Popen(
        command, env=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(n, *arguments, status=0, **environment):
    """Start so many and wait; return what they have printed and said."""
    process = start(n, *arguments, **environment)
    try:
        out, err = process.communicate(timeout=100)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == status, out + err
    return out, err
