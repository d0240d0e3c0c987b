"""Small pictures as text that a page can hold."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray


def picture_uri(image: NDArray[Any]) -> str:
    """Return a picture in [0, 1], the larger the darker, as the ``data:`` address of a PNG file."""
    from PIL import Image

    grey = np.rint(255 * (1 - np.clip(image, 0, 1))).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
