"""Pictures as people have them, read with Pillow: the extra `images`.

Whatever a file holds, what comes of it is grey, 8 bits a pixel, upright and on white.
"""

import os
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpunn.data.files import FilePath, check_fits, check_is_file
from gpunn.errors import DataError, MissingPackageError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
"""The ends of the names of pictures, in small letters."""

# No other decoder of Pillow's is let near a file, whatever is in it.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")

_BYTES_A_PIXEL = 8
"""What Pillow needs for one, at most: four colours, twice."""


def is_picture_name(name: FilePath) -> bool:
    """Whether a file is a picture, by the end of its name."""
    return os.fspath(name).lower().endswith(SUFFIXES)


def read_picture(path: FilePath) -> NDArray[np.uint8]:
    """Read a picture as grey values.

    Colours become their luminance, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601). What is transparent
    is put on white. A camera's note of how it was held (EXIF orientation) is followed. Values of 16
    bits are divided by 257. Of an animation, the first picture is read.

    Parameters
    ----------
    path : path
        A PNG, JPEG, BMP, GIF, TIFF or WebP file. Its content, not its name, tells which.

    Returns
    -------
    array of uint8, shape (rows, columns)
        0 is black, 255 is white.

    Raises
    ------
    DataError
        If the file is missing or damaged, or has more pixels than Pillow's limit
        ``PIL.Image.MAX_IMAGE_PIXELS`` or the memory allows.
    MissingPackageError
        If Pillow is not installed.
    """
    content = _read(path)
    check_pillow()
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Of pictures that are too large, which is checked here, and of odd notes in files.
            warnings.simplefilter("ignore")
            picture = Image.open(BytesIO(content), formats=_FORMATS)
            n_pixels = picture.width * picture.height
            if n_pixels > (Image.MAX_IMAGE_PIXELS or n_pixels):
                raise Image.DecompressionBombError
            check_fits(path, n_pixels * _BYTES_A_PIXEL, "make the picture smaller")
            ImageOps.exif_transpose(picture, in_place=True)
            return _grey(picture, path)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(
            f"{path}: has more pixels than the {Image.MAX_IMAGE_PIXELS:,} that Pillow takes to be "
            "harmless; make the picture smaller"
        ) from None
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: not a picture, or damaged; expected PNG, JPEG, BMP, GIF, TIFF or WebP"
        ) from None
    except Exception as error:  # decoders raise all kinds of errors when a file is damaged
        raise DataError(
            f"{path}: damaged, or a kind of picture that Pillow cannot read "
            f"({one_line(error, 120)}); save it again as PNG"
        ) from None


def check_pillow() -> None:
    """Raise unless pictures can be read.

    Raises
    ------
    MissingPackageError
        If Pillow is not installed.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            "reading pictures needs Pillow, which is not installed: pip install 'gpunn[images]'"
        ) from error


def _read(path: FilePath) -> bytes:
    check_is_file(path)
    try:
        check_fits(path, os.path.getsize(path), "a picture is never that large")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {one_line(error, 120)}") from None


def _grey(picture: "Image", path: FilePath) -> NDArray[np.uint8]:
    if picture.mode == "F" or picture.mode.startswith("I"):
        return _from_wide_values(np.asarray(picture), path)
    if "A" in picture.getbands():
        return _on_white(picture)
    if "a" in picture.getbands() or "transparency" in picture.info:
        return _on_white(picture.convert("RGBA"))
    return np.array(picture.convert("L"))


def _from_wide_values(values: NDArray[Any], path: FilePath) -> NDArray[np.uint8]:
    """Return 16-bit values as 8-bit ones; wider numbers have no largest value to divide by."""
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"{path}: its pixels are numbers of 32 bits; expected 8 or 16 bits, so save it as such"
        )
    grey: NDArray[np.uint8] = ((values.astype(np.int32) + 128) // 257).astype(np.uint8)
    return grey


def _on_white(picture: "Image") -> NDArray[np.uint8]:
    from PIL import Image

    white = Image.new("L", picture.size, 255)
    white.paste(picture.convert("L"), mask=picture.getchannel("A"))
    return np.array(white)
