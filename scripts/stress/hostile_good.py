"""Good files of each kind, as bytes."""

import functools
import gzip
import io
import warnings
from pathlib import Path

import numpy as np
from hostile_readers import GENERATORS, resume_from, small_data

from gpunn import Checkpoints, Network, Scaling, ThreeLayerNetwork

Files = tuple[bytes, ...]

# Without the time, so that the same files come out every time.
in_gzip = functools.partial(gzip.compress, mtime=0)


def npy(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    """Return an npy file of a version of its format."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def idx(X: np.ndarray, y: np.ndarray) -> Files:
    """Return IDX files of bytes, as MNIST's, and of the widest numbers that the format has."""
    return tuple(
        bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
        for code, array in ((8, X), (8, y.astype(np.uint8)), (0x0E, X[:2].astype(">f8")))
    )


def csv(X: np.ndarray, y: np.ndarray) -> Files:
    """Return a plain CSV file, and some with all that is allowed: blanks, signs, quotes, words."""
    rows = np.column_stack([y, X.reshape(12, 9)])[:6]
    lines = [",".join(map(str, row)) for row in rows]
    return tuple(
        "\n".join(text).encode()
        for text in (
            ["label,a,b,c,d,e,f,g,h,i", *lines],
            ["0,0.5,-1e-3,7", "", " 2 , 0,1.25, 3\r", "1,.5,1E9,+1"],
            ["label;size;kind", "0;1.5;red", '1;;"a ""blue"" one"', "0;NA;", '"1";"2";red'],
            ["size\tname", '1\t"two\r\nlines"', "2\tone", "3\tone"],
        )
    )


def archives(X: np.ndarray, y: np.ndarray) -> Files:
    """Return npz files, plain and compressed, with and without a part to test with."""
    plain, compressed = io.BytesIO(), io.BytesIO()
    np.savez(plain, X=X[:3], y=y[:3])
    np.savez_compressed(compressed, x_train=X, y_train=y, x_test=X, y_test=y)
    return plain.getvalue(), compressed.getvalue()


def tables(y: np.ndarray) -> Files:
    """Return Parquet files: plain in several groups of rows, and compressed in the old format."""
    import pyarrow
    from pyarrow import parquet

    columns = [y / 7, y > 1, y.astype(np.float32)] * 3
    table = pyarrow.table([y, *columns], [f"column {number}" for number in range(10)])
    found = []
    for options in ({"compression": "none", "row_group_size": 5}, {"version": "1.0"}):
        stream = io.BytesIO()
        parquet.write_table(table, stream, **options)
        found.append(stream.getvalue())
    return tuple(found)


def pictures() -> Files:
    """Return pictures of all kinds: grey, coloured, with a palette, transparent, of 16 bits."""
    from PIL import Image

    X, _ = small_data()
    grey = Image.fromarray(np.tile(X[0], (3, 2)))
    wide = Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    found = []
    for image, name, options in (
        (grey, "PNG", {}),
        (wide, "PNG", {}),
        (grey.convert("LA"), "PNG", {"exif": exif}),
        (grey.convert("RGB"), "JPEG", {"exif": exif}),
        (grey.convert("P"), "GIF", {"transparency": 3}),
        (grey.convert("RGB"), "BMP", {}),
        (wide, "TIFF", {}),
        (grey.convert("RGBA"), "TIFF", {"compression": "tiff_lzw"}),
        (grey.convert("RGB"), "WEBP", {"lossless": True}),
    ):
        stream = io.BytesIO()
        image.save(stream, name, **options)
        found.append(stream.getvalue())
    return tuple(found)


def models(folder: Path) -> Files:
    """Return the files of three kinds of networks."""
    network = Network([9, 4, 3], device="cpu")
    network.class_labels, network.training_record = [3, 5, 7], {"history": [{"epoch": 1}]}
    deep = Network(
        [2, 3, 2, 2], output_activation="softmax", loss="cross_entropy", dtype="float64",
        device="cpu",
    )  # fmt: skip
    deep.scaling = Scaling.per_feature(np.array([[0.0, 1.0], [2.0, 4.0]]))
    classic = ThreeLayerNetwork(9, 2, 3, 0.3, device="cpu")
    found = []
    for each in (network, deep, classic):
        each.save(folder / "model")
        found.append((folder / "model").read_bytes())
    return tuple(found)


def checkpoints(folder: Path) -> Files:
    """Return checkpoints with the states of all random generators, which are written unlike."""
    found = []
    for name in GENERATORS:
        place = folder / name
        place.mkdir()
        (place / "x").write_bytes(name.encode())
        resume_from(place / "x")
        found.append(Checkpoints(place).paths()[1].read_bytes())
    return tuple(found)


def estimators(folder: Path) -> Files:
    """Return the files of a classifier and of a regressor."""
    from gpunn import MLPClassifier, MLPRegressor

    X, y = small_data()
    classifier = MLPClassifier((2,), max_iter=2, validation_fraction=0.3, early_stopping=True)
    regressor = MLPRegressor(hidden_layer_sizes=(2,), max_iter=2, solver="lbfgs")
    found = []
    for estimator, targets in ((classifier, np.array(["a", "b", "c"])[y]), (regressor, y)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two epochs are few
            estimator.set_params(device="cpu", random_state=0).fit(
                X.reshape(12, 9)[:, :3] / 255.0, targets
            )
        estimator.save(folder / "estimator")
        found.append((folder / "estimator").read_bytes())
    return tuple(found)
