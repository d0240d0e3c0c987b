"""How files are damaged: their bytes, or those within a wrapping that would hide any change.

A damage is given a file's bytes, a function that changes bytes, and a random generator, and returns
the bytes of a file that is wrapped as before.
"""

import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable

import safetensors.numpy

from gpunn.model_file import FORMAT
from gpunn.training.checkpoints import Content, checksum

Change = Callable[[bytes], bytes]
Damage = Callable[[bytes, Change, random.Random], bytes]


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


def in_values(value: object, rng: random.Random, share: float) -> object:
    """Return JSON values with about a share of them replaced."""
    if rng.random() < share:
        return rng.choice(
            (None, -1, 0, 1, 10**30, 1e300, "", "x" * 99, "a\nb", [], {}, True, [[]], 2**63,
             float("nan"), float("inf"))
        )  # fmt: skip
    if isinstance(value, dict):
        return {k: in_values(v, rng, share) for k, v in value.items() if rng.random() > share / 4}
    if isinstance(value, list):
        return [in_values(item, rng, share) for item in value]
    return value


def _split(data: bytes) -> tuple[bytes, bytes]:
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]


def _joined(header: bytes, rest: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + rest
