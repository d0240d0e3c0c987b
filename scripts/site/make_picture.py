"""Draw the picture of the home page: a digit, what the hidden units look for, and the answer.

    python scripts/site/make_picture.py

trains a network on the digits that come with gpunn and writes ``docs/pictures/network.png``.
"""

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import gpunn

OUT = Path(__file__).parents[2] / "docs" / "pictures" / "network.png"
COLUMNS, ROWS = 9, 5
INK, ACCENT, GROUND = "#14495a", "#c8501e", "#7f8c91"  # GROUND is legible on white and on black


def trained() -> tuple[gpunn.Network, gpunn.Dataset]:
    """Return a network with small, smooth weights, which are the prettiest, and its data."""
    digits = gpunn.load_dataset("digits").split(test_fraction=0.2, seed=0)
    network = gpunn.Network(
        [64, COLUMNS * ROWS, 10],
        output_activation="softmax",
        loss="cross_entropy",
        seed=3,
        device="cpu",
    )
    optimizer = gpunn.Adam(weight_decay=0.002)
    X = digits.inputs / np.float32(16)
    gpunn.fit(network, X, digits.labels, epochs=150, optimizer=optimizer, learning_rate=0.003)
    return network, digits


def draw(network: gpunn.Network, sample: Any) -> Figure:
    """Return the figure of how `network` reads `sample` (64,)."""
    weights = network.parameters()["layers.0.weight"].reshape(ROWS, COLUMNS, 8, 8)
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(2.2, 5, 2.8))
    for part, title in (
        (left, "a digit"),
        (middle, "what each hidden unit looks for"),
        (right, "the answer"),
    ):
        part.suptitle(title, color=GROUND)
        part.set_facecolor("none")
    axis = left.subplots()
    axis.imshow(
        sample.reshape(8, 8),
        cmap=mpl.colors.LinearSegmentedColormap.from_list("ink", ["#e9eef0", INK]),
    )
    axis.set_axis_off()
    most = np.abs(weights).max() * 0.8
    for axis, unit in zip(
        middle.subplots(ROWS, COLUMNS).flat, weights.reshape(-1, 8, 8), strict=True
    ):
        axis.imshow(unit, cmap="RdBu_r", vmin=-most, vmax=most)
        axis.set_axis_off()
    outputs = network.predict(sample / np.float32(16))
    axis = right.subplots()
    axis.barh(
        range(10), outputs, color=[ACCENT if k == outputs.argmax() else INK for k in range(10)]
    )
    axis.set_yticks(range(10))
    axis.set_xlim(0, 1)
    axis.set_xticks([0, 0.5, 1])
    axis.invert_yaxis()
    axis.set_facecolor("none")
    axis.tick_params(colors=GROUND, length=0)
    axis.spines[:].set_visible(False)
    return figure


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="PNG file (default: %(default)s)")
    out = parser.parse_args().out
    network, digits = trained()
    sample = digits.test_inputs[np.flatnonzero(digits.test_labels == 3)[1]]
    draw(network, sample).savefig(out, dpi=200, transparent=True)


if __name__ == "__main__":
    main()
