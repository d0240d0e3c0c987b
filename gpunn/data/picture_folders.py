"""Folders of pictures: which files are in them, and those with a sub-folder for each class."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpunn.data.checks import MAX_LABEL
from gpunn.data.datasets import BYTE_RANGE, Dataset
from gpunn.data.files import FilePath, check_fits, check_is_file
from gpunn.data.idx_files import has_idx_files
from gpunn.data.pictures import SUFFIXES, is_picture_name, read_picture
from gpunn.errors import DataError, one_line

EXPECTED = "a folder with a sub-folder of pictures for each class"

_DROPPINGS = {"thumbs.db", "desktop.ini", "__macosx"}
"""What systems leave in folders without being asked, in small letters."""


class PictureFiles(NamedTuple):
    """The pictures that a path names, in natural order: 2.png before 10.png.

    Attributes
    ----------
    root : Path
        The folder that they are in, directly or in a sub-folder.
    names : list of str
        Their paths in it.
    classes : list of str, or None
        The names of the sub-folders, one for each class; None if there are none.
    passed_over : list of str
        Files in the folder that are no pictures.
    """

    root: Path
    names: list[str]
    classes: list[str] | None
    passed_over: list[str]

    @property
    def notes(self) -> tuple[str, ...]:
        """A line that says what was passed over, if anything was."""
        if not self.passed_over:
            return ()
        shown = ", ".join(one_line(name, 60) for name in self.passed_over[:3])
        more = ", ..." if len(self.passed_over) > 3 else ""
        return (f"pictures: passed over what is none: {shown}{more}",)

    def labels(self) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
        """Return the labels of pictures in sub-folders, and the words that they stand for.

        Returns
        -------
        labels : array of int64, shape (n_pictures,)
            The numbers that are the names of the sub-folders; or, if one of them is none, places in
            `names`.
        names : tuple of str, or None
            The names of the sub-folders, if they are not all numbers.

        Raises
        ------
        DataError
            If there are no sub-folders.
        """
        if self.classes is None:
            raise DataError(f"{self.root}: its pictures have no labels; expected {EXPECTED}")
        numbers = _as_numbers(self.classes)
        of_class = dict(zip(self.classes, numbers or range(len(self.classes)), strict=True))
        labels = np.array([of_class[os.path.dirname(name)] for name in self.names], np.int64)
        return labels, None if numbers else tuple(self.classes)


def are_pictures(path: str) -> bool:
    """Whether a path is that of a picture, by its name, or of a folder of them, by its content."""
    if not os.path.isdir(path):
        return is_picture_name(path)
    if has_idx_files(path):
        return False
    folders = []
    for name, is_dir in _entries(Path(path)):
        if is_picture_name(name) and not is_dir:
            return True
        folders += [name] if is_dir else []
    inner = (entry for folder in folders for entry in _entries(Path(path, folder)))
    return any(is_picture_name(name) and not is_dir for name, is_dir in inner)


def find_pictures(path: FilePath) -> PictureFiles:
    """Return the pictures that a path names.

    Parameters
    ----------
    path : path
        A picture, a folder of pictures, or a folder with a sub-folder of pictures for each class.

    Raises
    ------
    DataError
        If a sub-folder has no pictures, or there are pictures beside the sub-folders.
    """
    root = Path(path)
    if not root.is_dir():
        return PictureFiles(root.parent, [root.name], None, [])
    files, folders = _listed(root)
    pictures = list(filter(is_picture_name, files))
    passed_over = [name for name in files if not is_picture_name(name)]
    if not folders:
        return PictureFiles(root, pictures, None, passed_over)
    if pictures:
        raise DataError(
            f"{root}: has the picture {pictures[0]} and the sub-folder {folders[0]}; expected "
            "pictures or sub-folders of pictures, so move one of them"
        )
    for folder in folders:
        inner, deeper = _listed(root / folder)
        found = list(filter(is_picture_name, inner))
        if deeper or not found:
            came = f"holds the folder {deeper[0]}" if deeper else "holds no pictures"
            raise DataError(
                f"{root / folder}: {came}; expected pictures ({_some_suffixes()}) in each "
                "sub-folder, so move or remove it"
            )
        pictures += [f"{folder}/{name}" for name in found]
        passed_over += [f"{folder}/{name}" for name in inner if not is_picture_name(name)]
    return PictureFiles(root, pictures, folders, passed_over)


def read_picture_folder(folder: FilePath) -> Dataset:
    """Read a data set from a folder that has a sub-folder of pictures for each class.

    The pictures become grey and are otherwise as they are, so all must have the same size.

    Parameters
    ----------
    folder : path
        The folder. The names of its sub-folders are the classes: numbers, if all of them are whole
        numbers, else words.

    Returns
    -------
    Dataset
        With inputs of type uint8, a row for each picture.

    Raises
    ------
    DataError
        If a picture is damaged, two have different sizes, or the labels cannot be told.
    MissingPackageError
        If Pillow is not installed.
    """
    if not os.path.isdir(folder):
        check_is_file(folder)
        raise DataError(f"{folder}: one picture has no label to learn; expected {EXPECTED}")
    files = find_pictures(folder)
    labels, names = files.labels()
    inputs, (rows, columns) = read_alike(files)
    note = f"pictures: grey, {columns} x {rows} pixels, and otherwise as they are"
    return Dataset(
        os.path.basename(os.path.abspath(folder)),
        inputs,
        labels,
        value_range=BYTE_RANGE,
        image_shape=(rows, columns),
        description=f"pictures in {folder}",
        class_names=names,
        notes=(note, *files.notes),
    )


def read_alike(files: PictureFiles) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Return pictures of one size as rows, and that size.

    Returns
    -------
    inputs : array of uint8, shape (n_pictures, rows * columns)
        The grey values of each picture, row by row.
    shape : (int, int)
        Rows and columns of a picture.

    Raises
    ------
    DataError
        If they have different sizes, do not fit the memory, or one is damaged.
    """
    first = read_picture(files.root / files.names[0])
    check_fits(files.root, first.size * len(files.names), "use fewer or smaller pictures")
    inputs = np.empty((len(files.names), first.size), np.uint8)
    for row, name in enumerate(files.names):
        picture = read_picture(files.root / name)
        if picture.shape != first.shape:
            raise DataError(
                f"{files.root}: {files.names[0]} has {in_pixels(first)}, but {name} has "
                f"{in_pixels(picture)}; all must have the same, so resize them"
            )
        inputs[row] = picture.reshape(-1)
    return inputs, (first.shape[0], first.shape[1])


def in_pixels(picture: NDArray[np.uint8]) -> str:
    """Return the size of a picture as it is usually given: width first."""
    return f"{picture.shape[1]} x {picture.shape[0]} pixels"


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of files and of folders, in natural order, but for hidden ones."""
    seen = sorted(_entries(folder), key=lambda entry: _natural(entry[0]))
    files = [name for name, is_dir in seen if not is_dir]
    return files, [name for name, is_dir in seen if is_dir]


def _entries(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield what is in a folder and not hidden: its name, and whether it is a folder."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _is_hidden(entry.name):
                    yield entry.name, entry.is_dir()
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {one_line(error, 120)}") from None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _DROPPINGS


def _natural(name: str) -> tuple[list[str | int], str]:
    """Return what to sort by, so that numbers within names come in their order."""
    parts = re.split("([0-9]+)", name)
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], name


def _as_numbers(names: Sequence[str]) -> list[int] | None:
    """Return names as labels, if each is a whole number and no two are the same one."""
    if not all(name.isascii() and name.isdecimal() for name in names):
        return None
    numbers = list(map(int, names))
    return numbers if max(numbers) <= MAX_LABEL and len(set(numbers)) == len(names) else None


def _some_suffixes() -> str:
    return ", ".join(SUFFIXES[:3]) + ", ..."
