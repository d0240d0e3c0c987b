"""Strokes of a digit's picture, as a hand would draw them: along the middle of its ink."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]

AROUND = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
"""The neighbours of a pixel, clockwise from the one above."""


def thinned(ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return lines one pixel wide along the middle of ink.

    T. Y. Zhang, C. Y. Suen, "A fast parallel algorithm for thinning digital patterns" (1984).
    """
    image = np.pad(ink, 1)
    while True:
        before = image.copy()
        for first, second in (((0, 2, 4), (2, 4, 6)), ((0, 2, 6), (0, 4, 6))):
            near = np.stack([np.roll(image, (-dy, -dx), (0, 1)) for dy, dx in AROUND])
            n_near = near.sum(axis=0)
            n_changes = (~near & np.roll(near, -1, axis=0)).sum(axis=0)
            ends = near[[*first]].all(axis=0) | near[[*second]].all(axis=0)
            image &= ~((n_near >= 2) & (n_near <= 6) & (n_changes == 1) & ~ends)
        if (image == before).all():
            return image[1:-1, 1:-1]


def strokes_of(picture: NDArray[np.uint8]) -> Iterator[list[Point]]:
    """Yield strokes as (row, column) of pixels that touch each other, from ends to ends."""
    left = {(int(y), int(x)) for y, x in np.argwhere(thinned(picture > 100))}
    lines = set(left)

    def near(point: Point, where: set[Point]) -> list[Point]:
        # Straight on before diagonally, so that no corner is cut.
        order = sorted(AROUND, key=lambda step: abs(step[0]) + abs(step[1]))
        return [p for dy, dx in order if (p := (point[0] + dy, point[1] + dx)) in where]

    while left:
        point = min(left, key=lambda p: (len(near(p, left)), p))
        # A branch begins on the line that it leaves.
        drawn = [p for p in near(point, lines) if p not in left]
        stroke = [drawn[0], point] if drawn else [point]
        left.remove(point)
        while following := near(point, left):
            point = following[0]
            left.remove(point)
            stroke.append(point)
        closing = [p for p in near(point, lines) if p not in left and p not in stroke[-3:]]
        yield stroke + closing[:1]
