"""The ranks that this process is one of."""

from functools import cache
from importlib.util import find_spec

from gpunn import launcher
from gpunn.errors import DeviceError, MissingPackageError
from gpunn.parallel.ranks import ALONE, Ranks


def ranks_here() -> Ranks:
    """Return the ranks that a launcher has started, or `ALONE`.

    MPI begins with the first call, if there are several. From then on an error that nobody catches
    ends all ranks.

    Raises
    ------
    MissingPackageError
        If there are several, but mpi4py is not installed.
    DeviceError
        If MPI does not see as many as the launcher has started, or that does not say how many.
    """
    if launcher.is_uncounted():
        raise DeviceError(
            "this process was started by a launcher that does not say how many it has started: "
            "use mpiexec or srun instead, or start one process alone without prterun"
        )
    return ALONE if launcher.n_processes() == 1 else _begin()


@cache
def _begin() -> Ranks:
    n_started = launcher.n_processes()
    if find_spec("mpi4py") is None:
        raise MissingPackageError(
            f"{n_started} processes were started together, but mpi4py is not installed: "
            "pip install 'gpunn[mpi]', or start one process alone"
        )
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise DeviceError(
            f"{n_started} processes were started together, but mpi4py finds no MPI library "
            f"({error}): install one, for example with pip install mpich"
        ) from error
    from gpunn.parallel.ending import end_together
    from gpunn.parallel.mpi import MpiRanks, library_name

    if MPI.COMM_WORLD.size != n_started:
        raise DeviceError(
            f"{n_started} processes were started together, but {library_name()} sees "
            f"{MPI.COMM_WORLD.size}: {_remedy(MPI.get_vendor()[0])}"
        )
    ranks = MpiRanks(MPI.COMM_WORLD)
    end_together(ranks)
    return ranks


def _remedy(mpi: str) -> str:
    """Return how to start processes that an MPI library sees."""
    if not launcher.is_in_slurm():
        return f"use the mpiexec of this {mpi}"
    kind = "pmix" if mpi == "Open MPI" else "pmi2"
    return (
        f"use srun --mpi={kind} if srun --mpi=list shows it, or the mpiexec of this {mpi} in a job "
        "of sbatch or salloc"
    )
