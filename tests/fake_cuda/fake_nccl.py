"""NCCL as CuPy binds it, for the double: sums over real processes, which MPI started.

NCCL waits for ever, or adds up nonsense, if its ranks ask for different things or two of them have
the same GPU. Here that is an error at once, on all ranks. The sum is work of a stream like any
other: memory that another stream may still be using is refused.
"""

import itertools
from typing import Any

import numpy as np
from fake_captures import Run, Use, refuse_while_capturing
from fake_memory import GUARD
from fake_modules import make_module
from fake_products import find_memory
from fake_streams import current_device, find_stream

NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM = 7, 8, 0
_DTYPES = {NCCL_FLOAT32: np.dtype(np.float32), NCCL_FLOAT64: np.dtype(np.float64)}
_numbers = itertools.count(1)


class MisuseError(AssertionError):
    """What NCCL would wait for in vain, or do wrong."""


def get_unique_id() -> tuple[int, ...]:
    return (next(_numbers), *[0] * 127)


class NcclCommunicator:
    """A rank of several, on the device that is current now."""

    def __init__(self, n_devices: int, comm_id: tuple[int, ...], rank: int) -> None:
        from mpi4py import MPI

        refuse_while_capturing("NCCL connects the ranks")
        self._comm, self._device_id = MPI.COMM_WORLD.Dup(), current_device()
        said = self._comm.allgather((n_devices, comm_id, rank, self._device_id))
        if (n_devices, rank) != (self._comm.size, self._comm.rank):
            raise MisuseError(f"rank {rank} of {n_devices} is not what MPI says")
        if len({comm_id for _, comm_id, _, _ in said}) > 1 or len(comm_id) != 128:
            raise MisuseError("the ranks have different identities")
        if len({device for *_, device in said}) < n_devices:
            raise MisuseError("two ranks have the same GPU")

    def allReduce(
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int
    ) -> None:
        if current_device() != self._device_id:
            raise MisuseError(f"the communicator belongs to device {self._device_id}")
        said = self._comm.allgather((count, datatype, op))
        if len(set(said)) > 1 or op != NCCL_SUM or datatype not in _DTYPES:
            raise MisuseError(f"the ranks ask for different sums, or for none known here: {said}")
        if sendbuf != recvbuf:
            raise NotImplementedError("a sum that goes elsewhere")
        target = _use_at(recvbuf, count, _DTYPES[datatype])
        find_stream(stream)._submit([target], self._work())

    def _work(self) -> Run:
        def run(uses: list[Use]) -> None:
            values = uses[0].values
            parts = np.empty((self._comm.size, *values.shape), values.dtype)
            self._comm.Allgather(values, parts)
            values[...] = parts[0]
            for part in parts[1:]:
                values += part

        return run


def _use_at(address: int, count: int, dtype: np.dtype[Any]) -> Use:
    """Return the use of so many numbers, if they lie within one allocation."""
    memory = find_memory("the numbers", address, count * dtype.itemsize)
    place = GUARD + address - memory.ptr
    return Use(memory, np.ndarray(count, dtype, memory.bytes.data, place), True)


nccl = make_module(
    "cupy.cuda.nccl",
    NCCL_FLOAT32=NCCL_FLOAT32,
    NCCL_FLOAT64=NCCL_FLOAT64,
    NCCL_SUM=NCCL_SUM,
    NcclCommunicator=NcclCommunicator,
    available=True,
    get_unique_id=get_unique_id,
    get_version=lambda: 22703,
)
