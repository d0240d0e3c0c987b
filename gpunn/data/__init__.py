"""Data sets: a few known ones by name, and your own from files."""

from gpunn.data.datasets import (
    DATA_DIR_VARIABLE,
    Dataset,
    is_table,
    load_dataset,
    load_digits,
    read_csv,
    read_idx_folder,
    read_npy_pair,
    read_npz,
    read_parquet,
    table_chunks,
    table_fits,
)
from gpunn.data.readers import read_idx
from gpunn.data.scaling import Scaling

__all__ = [
    "DATA_DIR_VARIABLE",
    "Dataset",
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
]
