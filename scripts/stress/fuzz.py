"""Search for files that gpunn neither reads nor refuses as it must, with a fuzzer.

    python scripts/stress/fuzz.py model                    ten minutes, from tests/corpus
    python scripts/stress/fuzz.py npz --seconds 60 --corpus DIR    and keep what is found in DIR
    python scripts/stress/fuzz.py npz --corpus DIR --merge    only add to tests/corpus what it lacks

The fuzzer changes files, and goes on from those that reach code which no file reached before. Needs
atheris (`pip install atheris`), whose fuzzer is libFuzzer. It ends at the first file that is
neither read nor refused by a `GpunnError` of one line with the file's name, that takes 20 seconds
or 1 GiB of memory, or that ends the interpreter; then it says where it put that file, and the exit
status is not 0. A change to a file that is wrapped, in gzip or under a checksum, is also done to
what is within, which is wrapped again.
"""

import argparse
import random
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

# What reads files in Python, and what of NumPy does not. The rest is in C, or in Rust.
INSTRUMENTED = {
    "include": ["gpunn", "numpy", "zipfile", "gzip", "_compression", "json", "ast", "safetensors"],
    "exclude": ["numpy.f2py", "numpy.ma", "numpy.polynomial", "numpy.testing"],
}
CORPUS = Path(__file__).resolve().parents[2] / "tests" / "corpus"
LONGEST = 2**14


class WrongError(Exception):
    """A file was neither read nor refused as it must be."""


def fuzz(reader: str, folder: Path, orders: list[str]) -> None:
    """Fuzz a reader as libFuzzer's options and folders say, which ends this process."""
    import atheris

    with atheris.instrument_imports(**INSTRUMENTED):
        from hostile_damage import mutate
        from hostile_files import damaged, kinds_of_files
        from hostile_judge import Judge

        good = Path(tempfile.mkdtemp(dir=folder))
        kind = kinds_of_files(good)[reader]
        place = good / "read"
        place.mkdir()
        for number, content in enumerate(kind.good):
            (folder / f"seeds/{number}").write_bytes(content)
            (place / kind.name).write_bytes(content)
            Judge(kind)(place / kind.name)  # which loads the modules that are loaded when needed
    judge = Judge(kind)

    def read(data: bytes) -> None:
        for stale in place.iterdir():
            stale.unlink()
        (place / kind.name).write_bytes(data)
        problem = judge(place / kind.name).problem
        if problem is not None:
            raise WrongError(problem)

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)

        def change_bytes(part: bytes) -> bytes:
            if rng.random() < 0.3:
                return mutate(part, rng.choice(kind.good), rng)
            return atheris.Mutate(part, max(len(part), max_size))

        changed = damaged(kind, data, change_bytes, rng)
        return changed if len(changed) <= max_size else atheris.Mutate(data, max_size)

    atheris.Setup([_command(reader, folder), *orders], read, custom_mutator=change)
    atheris.Fuzz()


def _command(reader: str, folder: Path) -> str:
    """Return how this process is started, and started anew by libFuzzer when it merges."""
    return shlex.join([sys.executable, __file__, "--folder", str(folder), reader, "--"])


def run(options: argparse.Namespace, folder: Path) -> int:
    """Fuzz or merge in a process of its own, and return its exit status."""
    from hostile_judge import MEMORY, SECONDS

    kept, seeds = CORPUS / options.reader, folder / "seeds"
    found = options.corpus or folder / "found"
    seeds.mkdir()
    found.mkdir(parents=True, exist_ok=True)
    if options.merge:
        orders = ["-set_cover_merge=1", "-use_counters=0", kept, found, seeds]
    else:
        orders = [
            f"-max_total_time={options.seconds}",
            f"-timeout={SECONDS}",
            f"-rss_limit_mb={2 * MEMORY >> 20}",
            f"-max_len={LONGEST}",
            "-print_final_stats=1",
            f"-artifact_prefix={tempfile.gettempdir()}/gpunn-fuzz-{options.reader}-",
            found, kept, seeds,
        ]  # fmt: skip
    command = shlex.split(_command(options.reader, folder))
    return subprocess.call([*command, *map(str, orders)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reader", choices=sorted(path.name for path in CORPUS.iterdir()))
    parser.add_argument("--seconds", type=int, default=600, help="how long; default: 600")
    parser.add_argument("--corpus", type=Path, help="folder of what is found, and gone on from")
    parser.add_argument("--merge", action="store_true", help="only add DIR's files to tests/corpus")
    # What this script says to itself, and libFuzzer to its processes.
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("orders", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        fuzz(options.reader, options.folder, options.orders)
    from hostile_files import scratch

    with tempfile.TemporaryDirectory(dir=scratch(), prefix="gpunn-fuzz-") as folder:
        return run(options, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
