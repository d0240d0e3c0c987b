"""The names of a network's inputs, compared with those of the columns that come.

The rules are scikit-learn's: other names and another order are an error, and no names on one side
are a warning.
"""

import warnings
from itertools import zip_longest
from typing import Any

from gpunn.errors import DataError, ParameterError, one_line

MOST_LISTED = 5
"""So many names stand in a message at most."""


def check_names(known: list[str] | None, came: list[str] | None) -> None:
    """Raise unless two lists of names are the same, or one is not there.

    Parameters
    ----------
    known : list of str or None
        The names of a network's inputs.
    came : list of str or None
        Those of the columns that were given to it.

    Raises
    ------
    DataError
        If they differ; the message says in what.
    """
    if known is None or came is None or known == came:
        return
    missing, unknown = sorted({*known} - {*came}), sorted({*came} - {*known})
    if missing or unknown:
        found = [f"{_listed(missing)} missing"] if missing else []
        found += [f"{_listed(unknown)} unknown"] if unknown else []
        raise DataError(
            f"expected the {len(known)} columns that the network was trained with, got "
            f"{len(came)}, with {' and '.join(found)}: X[network.feature_names] chooses columns"
        )
    pairs = enumerate(zip_longest(known, came))
    place, (one, other) = next((k, pair) for k, pair in pairs if pair[0] != pair[1])
    raise DataError(
        f"expected the columns in the order of the training, with {one!r:.60} as column {place}, "
        f"got {other!r:.60}: X[network.feature_names] puts them in order"
    )


def warn_of_missing_names(
    known: list[str] | None, came: list[str] | None, *, stacklevel: int = 3
) -> None:
    """Warn if only one of two lists of names is there; the warning points to the caller's caller.

    Parameters
    ----------
    known, came : list of str or None
        As for `check_names`.
    stacklevel : int
        How far away the line is that the warning points to, as for `warnings.warn`.
    """
    if known is not None and came is None:
        text = (
            "the network was trained with column names, but these inputs have none, so their order "
            "is not checked: give a data frame"
        )
    elif known is None and came is not None:
        text = (
            "these inputs have column names, but the network was trained without, so their order "
            "is not checked: set network.feature_names to the names in the order of the training"
        )
    else:
        return
    warnings.warn(text, UserWarning, stacklevel=stacklevel)


def as_names(names: Any, n_inputs: int) -> list[str] | None:
    """Return names for a network's inputs as a list, trusting nothing.

    Raises
    ------
    ParameterError
        If they are anything but one text for each input, or None.
    """
    given = names.tolist() if hasattr(names, "tolist") else names
    if given is None:
        return None
    if (
        not isinstance(given, list | tuple)
        or len(given) != n_inputs
        or not all(isinstance(name, str) for name in given)
    ):
        raise ParameterError(
            f"feature_names must be a list of {n_inputs} names, one for each input, or None, got "
            f"{one_line(repr(given), 80)}"
        )
    return [*given]


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"{name!r:.60}" for name in names[:MOST_LISTED])
    return shown + (", ..." if len(names) > MOST_LISTED else "")
