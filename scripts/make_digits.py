"""Make gpunn/digits.npz again from scikit-learn's copy of the UCI handwritten digits.

The source is "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI
Machine Learning Repository, https://doi.org/10.24432/C50P49, licence CC BY 4.0. The pixels are
whole numbers from 0 to 16, so they are stored as bytes. Runs give equal files, byte by byte, as
long as the compressor (zlib) is the same.

    python scripts/make_digits.py [FILE]
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

DEFAULT_FILE = Path(__file__).parents[1] / "gpunn" / "data" / "digits.npz"


def make_digits(file: Path) -> None:
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    if not np.array_equal(images, digits.images):
        raise SystemExit("the pixels are no longer whole numbers from 0 to 255")
    np.savez_compressed(file, inputs=images, labels=digits.target.astype(np.uint8))


if __name__ == "__main__":
    make_digits(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FILE)
