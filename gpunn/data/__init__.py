"""Data sets: a few known ones by name, and your own from files."""

from gpunn.data.datasets import Dataset
from gpunn.data.formats import is_table, load_dataset, table_chunks, table_fits, table_inputs
from gpunn.data.idx_files import read_idx, read_idx_folder
from gpunn.data.known import DATA_DIR_VARIABLE, load_digits
from gpunn.data.numpy_files import read_npy_pair, read_npz
from gpunn.data.scaling import Scaling
from gpunn.data.tables.loading import read_csv, read_parquet
from gpunn.data.tables.preparation import Preparation

__all__ = [
    "DATA_DIR_VARIABLE",
    "Dataset",
    "Preparation",
    "Scaling",
    "is_table",
    "load_dataset",
    "load_digits",
    "read_csv",
    "read_idx",
    "read_idx_folder",
    "read_npy_pair",
    "read_npz",
    "read_parquet",
    "table_chunks",
    "table_fits",
    "table_inputs",
]
