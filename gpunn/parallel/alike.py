"""What must be the same on all ranks, compared before it matters."""

import hashlib
import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpunn.backends.base import Array, Backend
from gpunn.data.matrices import row_blocks
from gpunn.errors import ParameterError
from gpunn.parallel.ranks import Ranks
from gpunn.parallel.sharing import Sharing

_REMEDY = "start all ranks with the same data, versions and options"
_SEED = "give all ranks the same seed, and not None"
_REMEDIES = {
    "seed": _SEED,
    "random generator": _SEED,
    "path": "give all ranks the same path",
    "content": "give all ranks the same file",
}
_HASHED = ("seed", "random generator", "content")
"""Of these a hash is compared, which tells a person nothing."""

MOST_SHOWN = 60
"""Characters of a value that a message shows."""

MOST_NAMED = 8
"""Of so many ranks a person is told where they are."""


HASHED_CHUNKS = 1024
"""How many chunks of 1 MiB of an array are hashed: one GiB, a second or two."""


def check_alike(
    sharing: Sharing,
    backend: Backend,
    architecture: Mapping[str, Any],
    initializer: str,
    generator: np.random.Generator,
) -> None:
    """Raise unless all ranks make the same network, on devices of one kind.

    Raises
    ------
    ParameterError
        On all ranks, with what differs.
    """
    if sharing.ranks.size > 1:
        check_same(
            sharing.ranks,
            "the network",
            {
                **facts_of(backend),
                **architecture,
                "parallel": sharing.kind,
                "initializer": initializer,
                "seed": generator_fingerprint(generator),
            },
        )


def facts_of(backend: Backend) -> dict[str, Any]:
    """Return what ranks must have in common beside what they are told."""
    from gpunn import __version__

    kind = backend.name.partition(":")[0]
    return {
        "gpunn": __version__,
        "NumPy": np.__version__,
        "device": kind,
        "precision": backend.precision,
    }


def describe_ranks(ranks: Ranks, backend: Backend) -> str:
    """Return for a person who is where: each rank's device, machine and process."""
    mine = f"{ranks.rank} is process {os.getpid()} of {platform.node()} on {backend.name}"
    places = ranks.gather(mine)
    more = f", and {len(places) - MOST_NAMED} more" if len(places) > MOST_NAMED else ""
    shown = ", ".join(places[:MOST_NAMED])
    return f"{ranks.size} ranks by {ranks.library} ({shown}{more}), {backend.describe()}"


def generator_fingerprint(generator: np.random.Generator) -> str:
    """Return what tells the state of a random generator from others."""
    state = repr(generator.bit_generator.state).encode()
    return hashlib.sha256(state).hexdigest()[:16]


def check_same_arrays(sharing: Sharing, backend: Backend, what: str, **arrays: Any) -> None:
    """Raise unless all ranks that share the hidden units go through the same matrices.

    Each adds its units' part to the sums of the others, which are nonsense if their samples differ.

    Raises
    ------
    ParameterError
        On all ranks, with what differs.
    """
    if sharing.is_split:
        facts = {name: array_fingerprint(backend, array) for name, array in arrays.items()}
        check_same(sharing.ranks, what, facts)


def check_same(ranks: Ranks, what: str, facts: Mapping[str, Any]) -> None:
    """Raise ParameterError on all ranks unless they have the same facts, in plain values."""
    if ranks.size == 1:
        return
    of_all = ranks.gather(dict(facts))
    if not all(isinstance(found, dict) for found in of_all):
        raise ParameterError(f"{what} is not on all ranks: all of them must run the same lines")
    for rank, found in enumerate(of_all):
        for name in of_all[0] | found:
            here, there = of_all[0].get(name), found.get(name)
            if here != there:
                raise ParameterError(
                    f"{what} is not the same on all ranks: {_difference(name, here, there, rank)}; "
                    f"{_REMEDIES.get(name, _REMEDY)}"
                )


def _difference(name: str, here: Any, there: Any, rank: int) -> str:
    """Return in words how a fact of rank 0 differs from that of another rank."""
    if isinstance(here, dict) and isinstance(there, dict):
        here, there = ({key: fact.get(key) for key in ("dtype", "shape")} for fact in (here, there))
        here, there = (f"{fact['dtype']} {fact['shape']}" for fact in (here, there))
    if here == there or name in _HASHED:
        return f"{name} on rank {rank} is another than on rank 0"
    first, other = _from_there(here, there), _from_there(there, here)
    return f"{name} is {first} on rank 0, but {other} on rank {rank}"


def _from_there(one: Any, other: Any) -> str:
    """Return a value in words; of a long text, from a little before where the other differs."""
    text, beside = repr(one), repr(other)
    if len(text) <= MOST_SHOWN:
        return text
    pairs = enumerate(zip(text, beside, strict=False))
    first = max(0, next((place for place, (a, b) in pairs if a != b), 0) - 10)
    end = first + MOST_SHOWN
    return ("..." if first else "") + text[first:end] + ("..." if end < len(text) else "")


def array_fingerprint(backend: Backend, array: Array) -> dict[str, Any]:
    """Return what tells an array from others: its shape, its dtype, and a hash of its values.

    Of more than `HASHED_CHUNKS` chunks of 1 MiB, so many are hashed, from its first one to its last
    at equal distances, since reading a long file through may take as long as an epoch does.
    """
    digest = hashlib.sha256()
    row_bytes = max(1, array.shape[1] * np.dtype(array.dtype).itemsize)
    chunks = list(row_blocks(array.shape[0], max(1, 2**20 // row_bytes)))
    if len(chunks) > HASHED_CHUNKS:
        places = np.linspace(0, len(chunks) - 1, HASHED_CHUNKS).astype(int)
        chunks = [chunks[place] for place in places]
    for rows in chunks:
        part = array[rows]
        host = part if isinstance(part, np.ndarray) else backend.to_host(part)
        digest.update(np.ascontiguousarray(host).reshape(-1).view(np.uint8).data)
    return {
        "shape": list(array.shape),
        "dtype": np.dtype(array.dtype).name,
        "SHA-256": digest.hexdigest()[:16],
    }
