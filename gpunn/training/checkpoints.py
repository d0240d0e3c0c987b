"""Checkpoints: the files that a training can go on from.

A checkpoint is a model file (`gpunn.model_file`) that holds the training's state beside the
network, so that what uses models can use it, too. It is written whole or not at all, and carries a
SHA-256 of all that it holds. The last `KEPT` stay in their folder, under increasing numbers: if the
newest one turns out to be damaged, the one before it serves.

What is in the state is the business of `gpunn.training.state`; here it is arrays and plain values.
A file also says what it was made for, since going on with other data or other settings would give a
result that no training gives.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from gpunn.errors import ModelFileError, OutputError, ParameterError, one_line
from gpunn.model_file import read_model, write_model
from gpunn.parallel.part_files import PartReader, write_parts
from gpunn.parallel.sharing import NOT_SHARED, Sharing
from gpunn.training.checksums import MemorySource, Source, checksum_of, fits_checksum

KEPT = 3
"""How many checkpoints stay in a folder."""

_NAME = re.compile(r"checkpoint-(\d{6,18})\.safetensors")
_UNFINISHED = re.compile(r"\.checkpoint-\d{6,18}\.safetensors\.[0-9a-f]{16}\.tmp")
_UNITS = {
    "second": ("seconds", 1),
    "minute": ("seconds", 60),
    "hour": ("seconds", 3600),
    "step": ("steps", 1),
    "epoch": ("epochs", 1),
}


class Content(NamedTuple):
    """What a checkpoint holds: arrays by name, and plain values.

    Of a network that ranks share, each has its part of the arrays, as `sharing` says.
    """

    arrays: dict[str, NDArray[Any]]
    header: dict[str, Any]
    sharing: Sharing = NOT_SHARED


class Period(NamedTuple):
    """A number of "seconds", "steps" or "epochs"."""

    number: float
    unit: str


def parse_period(text: str) -> Period:
    """Return what a text such as "5 minutes", "50 steps" or "1 epoch" says.

    Raises
    ------
    ParameterError
        If it says nothing of the kind.
    """
    number, _, name = text.strip().partition(" ") if isinstance(text, str) else ("", "", "")
    unit, factor = _UNITS.get(name.strip().removesuffix("s"), ("", 0))
    whole = unit in ("steps", "epochs")
    pattern = r"\d{1,9}" if whole else r"\d{1,9}(\.\d{1,9})?"
    count = float(number) * factor if re.fullmatch(pattern, number, re.ASCII) else 0.0
    if not count:
        raise ParameterError(
            f"checkpoints are made every '5 minutes' (or seconds, hours), '50 steps' or '1 epoch', "
            f"with a number above 0, got {text!r:.80}"
        )
    return Period(count, unit)


@dataclass(frozen=True)
class Checkpoints:
    """A folder of checkpoints, and how often to save one.

    Parameters
    ----------
    folder : path-like
        Where they are saved, by one training at a time. The folder is created if it does not exist.
    every : str
        How often to save one: "5 minutes" (or seconds, hours), "50 steps" or "1 epoch". If single
        samples or small batches go through the device together, a checkpoint waits for their end.
        One more is saved at the beginning, and one at the end.
    resume : bool
        Whether to continue from the newest checkpoint in the folder. If there is none, the training
        starts from the beginning, so you can run the same script again after every interruption.

    Raises
    ------
    ParameterError
        If `every` has another form.
    """

    folder: str | os.PathLike[str]
    every: str = "5 minutes"
    resume: bool = False

    def __post_init__(self) -> None:
        parse_period(self.every)

    @property
    def period(self) -> Period:
        """`every` as a number and a unit."""
        return parse_period(self.every)

    def paths(self) -> list[Path]:
        """Return the checkpoints that there are, the newest first."""
        return [path for _, path in sorted(self._numbered(), reverse=True)]

    def _numbered(self) -> Iterator[tuple[int, Path]]:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"cannot read the folder {self.folder}: {one_line(error)}") from error
        for name in names:
            if match := _NAME.fullmatch(name):
                yield int(match[1]), Path(self.folder, name)

    def check(self) -> None:
        """Raise unless a training may begin here, before its data are looked at.

        Raises
        ------
        ParameterError
            If there are checkpoints of an earlier training that is not to be resumed.
        """
        if not self.resume and (paths := self.paths()):
            raise ParameterError(
                f"{self.folder} holds checkpoints of an earlier training, the newest is "
                f"{paths[0].name}: resume it (--resume, or resume=True in Python), or choose "
                "another folder"
            )

    def write(self, content: Content) -> Path:
        """Add a checkpoint, and remove those that are not kept.

        Raises
        ------
        OutputError
            If it cannot be written. Those that were there still are.
        """
        ranks = content.sharing.ranks
        # Ranks may see a folder differently for a while: the first one's view counts.
        path = ranks.same(ranks.together(lambda: self._next_path() if ranks.is_first else None))
        assert path is not None
        header = {**content.header, "sha256": checksum(content)}
        if content.sharing.kind == "none":
            write_model(path, content.arrays, header)
        else:
            write_parts(path, content.arrays, header, content.sharing)
        if ranks.is_first:
            self._remove_old()
        return path

    def _next_path(self) -> Path:
        """Return where the next checkpoint is written, in a folder that is there."""
        number = max((number for number, _ in self._numbered()), default=0) + 1
        try:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {self.folder}: {one_line(error)}") from error
        return Path(self.folder, f"checkpoint-{number:06}.safetensors")

    def _remove_old(self) -> None:
        for old in self.paths()[KEPT:]:
            # The folder may be taken away at any moment; the checkpoint itself is written.
            with contextlib.suppress(OSError):
                old.unlink()

    def remove_unfinished(self) -> None:
        """Remove what processes left behind that were killed while they wrote."""
        for path in Path(self.folder).glob(".checkpoint-*.tmp"):
            if _UNFINISHED.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def restore(
        self,
        take: Callable[[Content], None],
        notice: Callable[[str], None],
        sharing: Sharing = NOT_SHARED,
    ) -> Path | None:
        """Give `take` the newest checkpoint that is whole.

        Parameters
        ----------
        take : callable
            Is given a checkpoint's content. If it raises ModelFileError, having changed nothing,
            that checkpoint counts as damaged. A ParameterError ends the search.
        notice : callable
            Is told in a line of each damaged checkpoint.
        sharing : Sharing
            What each rank takes, if there are several; all must call this.

        Returns
        -------
        path or None
            The checkpoint; None if the folder has none.

        Raises
        ------
        ModelFileError
            If all of them are damaged.
        """
        paths = sharing.ranks.same(self.paths())

        def read_and_take(path: Path) -> None:
            content = read_checkpoint(path, sharing)
            try:
                take(content)
            except ModelFileError as error:
                raise ModelFileError(f"{path} is damaged: {error}") from error
            except ParameterError as error:
                raise ParameterError(f"{path} was {error}") from error

        for path in paths:
            try:
                sharing.ranks.together(partial(read_and_take, path))
            except ModelFileError as error:
                notice(f"{error}; going back to the checkpoint before it")
            else:
                return path
        if paths:
            raise ModelFileError(
                f"{self.folder}: all of its {len(paths)} checkpoints are damaged; choose another "
                "folder to train from the beginning"
            )
        return None


def read_checkpoint(path: Path, sharing: Sharing = NOT_SHARED) -> Content:
    """Read a checkpoint, or a rank's part of it, and compare it with its checksum.

    Each rank looks at a part of what was written; that all is well, it knows when all have looked.

    Raises
    ------
    ModelFileError
        If it is damaged, or a file of another kind.
    """
    if sharing.kind == "none":
        arrays, header = read_model(path)
        source: Source = MemorySource(arrays)
    else:
        source = PartReader(path)
        arrays, header = source.read(sharing), source.header
    expected = header.pop("sha256", None)
    if expected is None or "checkpoint" not in header:
        raise ModelFileError(f"{path} is a model, not a checkpoint")
    if not fits_checksum(header, source, expected, sharing.ranks):
        raise ModelFileError(f"{path} is damaged: its checksum does not fit its content")
    return Content(arrays, header, sharing)


def checksum(content: Content) -> Any:
    """Return what `read_checkpoint` compares a content with; all ranks must ask for it."""
    return checksum_of(content.header, content.arrays, content.sharing)


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Return in words how two nested dictionaries of plain values differ."""
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            text
            for key in here | there
            for text in differences(there.get(key), here.get(key), _joined(name, key))
        ]
    return [] if there == here else [f"{name} {there!r:.60} there, {here!r:.60} here"]


def _joined(name: str, key: str) -> str:
    # A file may have keys of any length, and of several lines.
    return " ".join(f"{name} {key}".split())[:80]
