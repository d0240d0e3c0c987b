"""What can go wrong, by kind.

Every error that gpunn raises on purpose is a `GpunnError`, so one ``except`` catches them all.
Each kind is also the built-in exception that it refines, so code that knows nothing of gpunn
(``except ValueError``) keeps working. A message is one line that says what was expected, what
came, and what to do about it.
"""

import re

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that steer a terminal, and those that no file in UTF-8 can hold."""


class GpunnError(Exception):
    """Base class of all errors that gpunn raises on purpose."""


class ParameterError(GpunnError, ValueError):
    """An argument has a value that is not one of those allowed."""


class ShapeError(GpunnError, ValueError):
    """An array does not have the shape, the dtype or the memory layout it must have."""


class DataError(GpunnError, ValueError):
    """A data set cannot be read, or holds values that cannot be trained on."""


class ModelFileError(GpunnError, ValueError):
    """A model file is damaged, or is not one of gpunn's."""


class OutputError(GpunnError, OSError):
    """A file could not be written; what was there before is still there."""


class DeviceError(GpunnError, RuntimeError):
    """The chosen device cannot be used."""


class ConcurrencyError(GpunnError, RuntimeError):
    """Two threads train one network at once."""


class OutOfMemoryError(GpunnError, MemoryError):
    """The device has too little memory for the task; nothing has been changed."""


class DivergenceError(GpunnError, ArithmeticError):
    """A training's error is no longer a finite number, and its weights are of no use."""


class MissingPackageError(GpunnError, ImportError):
    """An optional package is needed for this and is not installed."""


class DeviceWarning(UserWarning):
    """The best device that seemed to be there is not the one that is used."""


def one_line(error: object, limit: int = 300) -> str:
    """Return what an error, or any object, says of itself, in one line.

    Parameters
    ----------
    error : object
        An error of the operating system says what went wrong without its number and the file's
        name, which the caller knows. An error that says nothing gives the name of its kind.
    limit : int
        Most characters of the line; a longer one is cut and ends in three dots.
    """
    says = error.strerror if isinstance(error, OSError) and error.strerror else error
    text = _UNPRINTABLE.sub("\ufffd", " ".join(str(says).split())) or type(error).__name__
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def counted(n: int, what: str) -> str:
    """Return how many there are of something, in words: "1 row", "2,000 rows"."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
