"""The page to draw on: one HTML file with a network in it, which needs nothing else."""

import base64
import hashlib
import json
from importlib import resources
from string import Template
from typing import Any

from gpunn.drawing.contents import contents_of
from gpunn.network import Network

_SCRIPTS = ("network.js", "field.js", "pen.js", "views.js", "page.js")
"""Put together in this order, they are one script."""

_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
"""In JSON these are within texts alone; escaped, no text can end the script or become HTML."""


def draw_page(network: Network) -> str:
    """Return a page to draw on, in which a network answers.

    The page is complete: weights, style and script are in it. Its policy lets the browser run this
    very script and nothing else, and load or send nothing.

    Parameters
    ----------
    network : Network
        A network that tells pictures apart: by the record of its training, or because the number of
        its inputs is a square.

    Returns
    -------
    str
        HTML, to be written in UTF-8.

    Raises
    ------
    ParameterError
        If the network's inputs are no pixels, it predicts numbers, it has an activation that the
        page cannot compute, or it has more than `gpunn.drawing.contents.LARGEST` MiB of weights.
    """
    style, script = _read("page.css"), "\n".join(map(_read, _SCRIPTS))
    return Template(_read("page.html")).substitute(
        policy=_policy(style, script),
        style=style,
        script=script,
        network=_as_json(contents_of(network)),
    )


def _read(name: str) -> str:
    return resources.files("gpunn.drawing").joinpath(name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """Return a Content Security Policy that knows style and script by their checksums."""
    return (
        f"default-src 'none'; style-src '{_checksum(style)}'; script-src '{_checksum(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _checksum(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _as_json(values: dict[str, Any]) -> str:
    return json.dumps(values, allow_nan=False, separators=(",", ":")).translate(_ESCAPED)
