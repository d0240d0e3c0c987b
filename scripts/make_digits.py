"""Make the data set "digits" again from scikit-learn's copy of the UCI handwritten digits.

    python scripts/make_digits.py          writes gpunn/data/digits.npz
    python scripts/make_digits.py FILE     writes FILE instead

The source is "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI
Machine Learning Repository, https://doi.org/10.24432/C50P49, licence CC BY 4.0. The pixels are
whole numbers from 0 to 16, so they are stored as bytes. Runs give equal files, byte by byte, as
long as the compressor (zlib) is the same.
"""

import argparse
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "file", nargs="?", type=Path, default=DEFAULT_FILE, help=f"default: {DEFAULT_FILE}"
    )
    make_digits(parser.parse_args().file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
