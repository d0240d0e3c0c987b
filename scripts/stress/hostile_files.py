"""Files from strangers: good ones of each kind, how to damage them, and who reads them.

Shared by `torture.py`, which damages them at random, `fuzz.py`, whose fuzzer knows which code a
damage reaches, and the tests. Whatever the damage, a reader must read the file or raise a
`GpunnError` of one line that names it, without much memory.
"""

import functools
import gzip
import io
import json
import os
import random
import resource
import traceback
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy

from gpunn import Callback, Checkpoints, GpunnError, Network, Scaling, ThreeLayerNetwork, fit
from gpunn.cli.model_commands import read_inputs
from gpunn.data import read_csv, read_idx, read_npy_pair, read_npz, read_parquet, table_chunks
from gpunn.model_file import FORMAT
from gpunn.training.checkpoints import Content, checksum

MEMORY = 2**30
SECONDS = 20
LONGEST_MESSAGE = 1000

Change = Callable[[bytes], bytes]
Read = Callable[[Path], object]


class Kind(NamedTuple):
    """A kind of file.

    `good` files are damaged by `damage`, which is given one, what changes bytes, and a random
    generator; they are then read by each of `reads` at a path that ends in `name`.
    """

    name: str
    good: tuple[bytes, ...]
    damage: Callable[[bytes, Change, random.Random], bytes]
    reads: tuple[Read, ...]


# How a file is damaged: its bytes, or those within a wrapping that would hide any change.


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return some bytes with a few things wrong with them."""
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 8, 40))
        head, tail = data[:at], data[at + size :]
        extreme = rng.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, 10**6))
        order = rng.choice(("little", "big"))
        match rng.randrange(9):
            case 0 if data[at : at + 1]:
                data = head + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
            case 1:
                data = head
            case 2:
                data = head + other[rng.randrange(len(other)) :]
            case 3:
                data = head + extreme.to_bytes(8, order)[-size:] + tail
            case 4:
                data = head + str(rng.choice((extreme, -1, "1e999", "NaN", "null"))).encode() + tail
            case 5:
                data = head + tail
            case 6:
                data = head + data[at : at + size] * rng.choice((2, 3, 100)) + tail
            case 7:
                data = head + rng.randbytes(size) + tail
            case 8:
                data = (
                    head + rng.choice((b"[" * 2000, b"{}", b'"', b",", b"\n", b"(", b"\0")) + tail
                )
    return data


def as_it_is(data: bytes, change: Change, rng: random.Random) -> bytes:
    return change(data)


def in_gzip(data: bytes, change: Change, rng: random.Random) -> bytes:
    return gzip.compress(change(gzip.decompress(data)), 1, mtime=0)


def in_zip(data: bytes, change: Change, rng: random.Random) -> bytes:
    mutated = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(mutated, "w") as target:
        chosen = rng.choice(source.namelist() or [""])
        for name in source.namelist():
            method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            content = source.read(name)
            if name == chosen or rng.random() < 0.2:
                content = change(content)
            target.writestr(name, content, method)
    return mutated.getvalue()


def in_header(data: bytes, change: Change, rng: random.Random) -> bytes:
    """Change the JSON of a safetensors file, and let its length be that of the JSON."""
    header, rest = _split(data)
    way = rng.randrange(3)
    if way == 0:
        return _joined(change(header), rest)
    # What gpunn says is JSON in a text in JSON.
    fields = json.loads(header)
    described = fields["__metadata__"][FORMAT]
    if way == 1:
        described = change(described.encode()).decode(errors="replace")
    else:
        described = json.dumps(in_values(json.loads(described), rng, rng.choice((0.02, 0.1))))
    fields["__metadata__"][FORMAT] = described
    return _joined(json.dumps(fields).encode(), rest)


def in_checkpoint(data: bytes, change: Change, rng: random.Random) -> bytes:
    """Change a checkpoint's JSON or its numbers, and give it a checksum that fits, if it can be."""
    changed = in_header(data, change, rng) if rng.random() < 0.8 else change(data)
    header, rest = _split(changed)
    fields = json.loads(header)
    described = json.loads(fields["__metadata__"][FORMAT])
    del described["sha256"]
    content = Content(safetensors.numpy.load(changed), described)
    described = json.dumps({**described, "sha256": checksum(content)})
    fields["__metadata__"][FORMAT] = described
    return _joined(json.dumps(fields).encode(), rest)


def in_values(value: object, rng: random.Random, rate: float) -> object:
    """Return JSON values with some of them replaced."""
    if rng.random() < rate:
        return rng.choice(
            (None, -1, 0, 1, 10**30, 1e300, "", "x" * 99, "a\nb", [], {}, True, [[]], 2**63,
             float("nan"), float("inf"))
        )  # fmt: skip
    if isinstance(value, dict):
        return {k: in_values(v, rng, rate) for k, v in value.items() if rng.random() > rate / 4}
    if isinstance(value, list):
        return [in_values(item, rng, rate) for item in value]
    return value


def damaged(kind: Kind, data: bytes, change: Change, rng: random.Random) -> bytes:
    """Return a file of a kind, damaged; as a whole, half of the times or if it is no more whole."""
    if rng.random() < 0.5:
        return change(data)
    try:
        return kind.damage(data, change, rng)
    except Exception:  # of the readers that take a wrapping off: any, since it is damaged already
        return change(data)


def _split(data: bytes) -> tuple[bytes, bytes]:
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]


def _joined(header: bytes, rest: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + rest


# Good files, and their readers.


def small_data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (12, 3, 3)).astype(np.uint8), np.arange(12) % 3


GENERATORS = ("PCG64", "MT19937", "Philox", "SFC64")


class _Notices(Callback):
    """Expect a line for each damaged checkpoint, which names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_notice(self, text: str) -> None:
        if "\n" in text or str(self.path.parent) not in text:
            raise AssertionError(f"a notice does not name the file in one line: {text}")


def resume_from(path: Path) -> None:
    """Go on with a training, whose random generator is of the kind that the checkpoint names."""
    data = path.read_bytes() if path.exists() else b""
    kind = next((name for name in GENERATORS if name.encode() in data), "PCG64")
    generator = np.random.Generator(getattr(np.random, kind)(5))
    X, y = small_data()
    network = Network([9, 4, 3], device="cpu")
    fit(network, X.reshape(12, 9) / 255.0, y, epochs=2, batch_size=4, learning_rate=0.1,
        optimizer="adam", validation_data=(X.reshape(12, 9) / 255.0, y), seed=generator,
        callbacks=[_Notices(path)],
        checkpoints=Checkpoints(path.parent, "1 step", resume=True))  # fmt: skip


def load_and_use(path: Path) -> None:
    network = Network.load(path, "cpu")
    network.predict(network.scaling.apply(np.ones((2, network.n_inputs)), network.dtype))


def load_classic(path: Path) -> None:
    ThreeLayerNetwork.load(path, "cpu").predict(np.ones(9))


def load_estimator(path: Path) -> None:
    from gpunn import MLPClassifier, MLPRegressor

    kind = MLPRegressor if b"MLPRegressor" in path.read_bytes() else MLPClassifier
    estimator = kind.load(path, "cpu")
    estimator.predict(np.ones((2, estimator.n_features_in_)))


def read_in_chunks(path: Path) -> None:
    for _ in table_chunks(path):
        pass


def kinds_of_files(folder: Path) -> dict[str, Kind]:
    """Return the kinds by name; the folder is for files that are read beside the damaged ones."""
    X, y = small_data()
    images, labels = _npy(X), _npy(y)
    (folder / "x.npy").write_bytes(images)
    (folder / "y.npy").write_bytes(labels)
    idx = tuple(
        bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
        for code, array in ((8, X), (8, y.astype(np.uint8)), (0x0E, X[:2].astype(">f8")))
    )
    rows = np.column_stack([y, X.reshape(12, 9)])[:6]
    lines = [",".join(map(str, row)) for row in rows]
    csv = tuple(
        "\n".join(text).encode()
        for text in (
            ["label,a,b,c,d,e,f,g,h,i", *lines],
            ["0,0.5,-1e-3,7", "", " 2 , 0,1.25, 3\r", "1,.5,1E9,+1"],
        )
    )

    def read_as_inputs(path: Path) -> None:
        read_npy_pair(path, folder / "y.npy")

    def read_as_labels(path: Path) -> None:
        read_npy_pair(folder / "x.npy", path)

    network = Network([9, 4, 3], device="cpu")

    def predict(path: Path) -> None:
        for inputs in read_inputs(Namespace(data=str(path), data_dir=None), network):
            network.predict(network.scaling.rows(inputs, network.dtype))

    kinds = {
        "model": Kind(
            "m.safetensors", tuple(_models(folder)), in_header, (load_and_use, load_classic)
        ),
        "checkpoint": Kind(
            "checkpoint-000001.safetensors",
            tuple(_checkpoints(folder)), in_checkpoint, (resume_from,)
        ),
        "idx": Kind("i", idx, as_it_is, (read_idx,)),
        "idx-gzip": Kind("i.gz", tuple(map(_gzip, idx)), in_gzip, (read_idx,)),
        "npz": Kind("z.npz", tuple(_archives(X, y)), in_zip, (read_npz,)),
        "npy": Kind(
            "x.npy",
            (images, labels, _npy(np.asfortranarray(X[:4].astype(">f4")), version=(2, 0))),
            as_it_is,
            (read_as_inputs, read_as_labels, predict),
        ),
        "csv": Kind("t.csv", csv, as_it_is, (read_csv, read_in_chunks, predict)),
        "csv-gzip": Kind(
            "t.csv.gz", tuple(map(_gzip, csv)), in_gzip, (read_csv, read_in_chunks, predict)
        ),
    }  # fmt: skip
    if find_spec("sklearn"):
        kinds["estimator"] = Kind(
            "e.safetensors", tuple(_estimators(folder)), in_header, (load_estimator,)
        )
    if find_spec("pyarrow"):
        kinds["parquet"] = Kind(
            "t.parquet", tuple(_tables(y)), as_it_is, (read_parquet, read_in_chunks, predict)
        )
    return kinds


_gzip = functools.partial(gzip.compress, mtime=0)


def _npy(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def _archives(X: np.ndarray, y: np.ndarray) -> list[bytes]:
    plain, compressed = io.BytesIO(), io.BytesIO()
    np.savez(plain, X=X[:3], y=y[:3])
    np.savez_compressed(compressed, x_train=X, y_train=y, x_test=X, y_test=y)
    return [plain.getvalue(), compressed.getvalue()]


def _tables(y: np.ndarray) -> list[bytes]:
    import pyarrow
    from pyarrow import parquet

    columns = [y / 7, y > 1, y.astype(np.float32)] * 3
    table = pyarrow.table([y, *columns], [f"column {number}" for number in range(10)])
    found = []
    for options in ({"compression": "none", "row_group_size": 5}, {"version": "1.0"}):
        stream = io.BytesIO()
        parquet.write_table(table, stream, **options)
        found.append(stream.getvalue())
    return found


def _models(folder: Path) -> list[bytes]:
    network = Network([9, 4, 3], device="cpu")
    network.class_labels, network.training_record = [3, 5, 7], {"history": [{"epoch": 1}]}
    deep = Network(
        [2, 3, 2, 2], output_activation="softmax", loss="cross_entropy", dtype="float64",
        device="cpu",
    )  # fmt: skip
    deep.scaling = Scaling.per_feature(np.array([[0.0, 1.0], [2.0, 4.0]]))
    classic = ThreeLayerNetwork(9, 2, 3, 0.3, device="cpu")
    found = []
    for each in (network, deep, classic):
        each.save(folder / "model")
        found.append((folder / "model").read_bytes())
    return found


def _checkpoints(folder: Path) -> list[bytes]:
    found = []
    for name in GENERATORS:
        place = folder / name
        place.mkdir()
        (place / "x").write_bytes(name.encode())
        resume_from(place / "x")
        found.append(Checkpoints(place).paths()[1].read_bytes())
    return found


def _estimators(folder: Path) -> list[bytes]:
    from gpunn import MLPClassifier, MLPRegressor

    X, y = small_data()
    classifier = MLPClassifier((2,), max_iter=2, validation_fraction=0.3, early_stopping=True)
    regressor = MLPRegressor(hidden_layer_sizes=(2,), max_iter=2, solver="lbfgs")
    found = []
    for estimator, targets in ((classifier, np.array(["a", "b", "c"])[y]), (regressor, y)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two epochs are few
            estimator.set_params(device="cpu", random_state=0).fit(
                X.reshape(12, 9)[:, :3] / 255.0, targets
            )
        estimator.save(folder / "estimator")
        found.append((folder / "estimator").read_bytes())
    return found


# What must be, whatever the damage.


class Outcome(NamedTuple):
    """How many readers refused a file, and what should not have been."""

    n_refused: int
    problem: str | None


class Judge:
    """Lets the readers of a kind read files, one after the other, in this process."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.memory_before = _most_memory()

    def __call__(self, path: Path) -> Outcome:
        outcomes = [self._read(read, path) for read in self.kind.reads]
        problems = [outcome.problem for outcome in outcomes if outcome.problem]
        grown = _most_memory() - self.memory_before
        if grown > MEMORY:
            problems.append(f"{grown >> 20} MiB of memory")
        return Outcome(sum(o.n_refused for o in outcomes), "; ".join(problems) or None)

    def _read(self, read: Read, path: Path) -> Outcome:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path)
        except GpunnError as error:
            if "\n" in str(error) or not str(error):
                return Outcome(1, f"its message is not one line: {error!s:.200}")
            if len(str(error)) > LONGEST_MESSAGE:
                return Outcome(1, f"its message is too long: {error!s:.200}")
            if str(path.parent) not in str(error):
                return Outcome(1, f"its message does not name the file: {error!s:.200}")
            return Outcome(1, None)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in Rust is no Exception
            last = traceback.extract_tb(error.__traceback__)[-1]
            return Outcome(0, f"{error!r:.200} at {last.filename}:{last.lineno}")
        return Outcome(0, None)


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def scratch() -> str | None:
    """Return where files are quick, if there is such a place."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None
