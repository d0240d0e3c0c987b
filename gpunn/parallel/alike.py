"""What must be the same on all ranks, compared before it matters."""

import hashlib
import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpunn.backends.base import Backend
from gpunn.errors import ParameterError
from gpunn.parallel.ranks import Ranks
from gpunn.parallel.sharing import Sharing

MOST_NAMED = 8
"""Of so many ranks a person is told where they are."""


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


def check_same(ranks: Ranks, what: str, facts: Mapping[str, Any]) -> None:
    """Raise ParameterError on all ranks unless they have the same facts, in plain values."""
    if ranks.size == 1:
        return
    of_all = ranks.gather(dict(facts))
    for rank, found in enumerate(of_all):
        for name in of_all[0] | found:
            here, there = of_all[0].get(name), found.get(name)
            if here != there:
                raise ParameterError(
                    f"{what} is not the same on all ranks: {name} is {here!r:.60} on rank 0, but "
                    f"{there!r:.60} on rank {rank}; start all ranks with the same data, versions "
                    "and options"
                )
