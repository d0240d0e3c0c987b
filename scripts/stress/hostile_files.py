"""Files from strangers: good ones of each kind, how to damage them, and who reads them.

Shared by `torture.py`, which damages them at random, `fuzz.py`, whose fuzzer knows which code a
damage reaches, and the tests. Whatever the damage, a reader must read the file or raise a
`GpunnError` of one line that names it, without much memory; ``hostile_judge`` sees to that.
"""

import os
import random
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import hostile_good as good
import hostile_readers as readers
import numpy as np
from hostile_damage import Change, Damage, as_it_is, in_checkpoint, in_gzip, in_header, in_zip
from hostile_readers import Read, small_data

from gpunn import Network
from gpunn.data import read_csv, read_idx, read_npy_pair, read_npz, read_parquet
from gpunn.data.pictures import read_picture


class Kind(NamedTuple):
    """A kind of file.

    `good` files are damaged by `damage`, which is given one, what changes bytes, and a random
    generator; they are then read by each of `reads` at a path that ends in `name`.
    """

    name: str
    good: tuple[bytes, ...]
    damage: Damage
    reads: tuple[Read, ...]


def damaged(kind: Kind, data: bytes, change: Change, rng: random.Random) -> bytes:
    """Return a file of a kind, damaged; as a whole, half of the times or if it is no more whole."""
    if rng.random() < 0.5:
        return change(data)
    try:
        return kind.damage(data, change, rng)
    except Exception:  # of the readers that take a wrapping off: any, since it is damaged already
        return change(data)


def kinds_of_files(folder: Path) -> dict[str, Kind]:
    """Return the kinds by name; the folder is for files that are read beside the damaged ones."""
    predict = partial(readers.predict, Network([9, 4, 3], device="cpu"))
    kinds = _own_files(folder) | _arrays(folder, predict) | _texts(predict)
    if find_spec("sklearn"):
        kinds["estimator"] = Kind(
            "e.safetensors", good.estimators(folder), in_header, (readers.load_estimator,)
        )
    if find_spec("pyarrow"):
        kinds["parquet"] = Kind(
            "t.parquet",
            good.tables(small_data()[1]),
            as_it_is,
            (read_parquet, readers.read_with_options, readers.read_in_chunks, predict),
        )
    if find_spec("PIL"):
        kinds["picture"] = Kind(
            "p.png", good.pictures(), as_it_is, (read_picture, readers.predict_picture)
        )
    return kinds


def _own_files(folder: Path) -> dict[str, Kind]:
    return {
        "model": Kind(
            "m.safetensors",
            good.models(folder),
            in_header,
            (readers.load_and_use, readers.load_classic),
        ),
        "checkpoint": Kind(
            "checkpoint-000001.safetensors",
            good.checkpoints(folder),
            in_checkpoint,
            (readers.resume_from,),
        ),
    }


def _arrays(folder: Path, predict: Read) -> dict[str, Kind]:
    X, y = small_data()
    images, labels = good.npy(X), good.npy(y)
    # One of a pair is damaged; the other one is good.
    (folder / "x.npy").write_bytes(images)
    (folder / "y.npy").write_bytes(labels)

    def read_as_inputs(path: Path) -> None:
        read_npy_pair(path, folder / "y.npy")

    def read_as_labels(path: Path) -> None:
        read_npy_pair(folder / "x.npy", path)

    idx = good.idx(X, y)
    fortran = good.npy(np.asfortranarray(X[:4].astype(">f4")), version=(2, 0))
    return {
        "idx": Kind("i", idx, as_it_is, (read_idx,)),
        "idx-gzip": Kind("i.gz", tuple(map(good.in_gzip, idx)), in_gzip, (read_idx,)),
        "npz": Kind("z.npz", good.archives(X, y), in_zip, (read_npz,)),
        "npy": Kind(
            "x.npy", (images, labels, fortran), as_it_is, (read_as_inputs, read_as_labels, predict)
        ),
    }


def _texts(predict: Read) -> dict[str, Kind]:
    csv = good.csv(*small_data())
    reads = (read_csv, readers.read_with_options, readers.read_in_chunks, predict)
    return {
        "csv": Kind("t.csv", csv, as_it_is, reads),
        "csv-gzip": Kind("t.csv.gz", tuple(map(good.in_gzip, csv)), in_gzip, reads),
    }


def scratch() -> str | None:
    """Return where files are quick, if there is such a place."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None
