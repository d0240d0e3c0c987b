"""What the fused loops of the CPU take, as their compiler and their callers know it."""

import numpy as np

SIGNATURES = {
    "activate": "aann",
    "activation_backward": "aann",
    "adam_update": "aaaannxxxxx",
    "axpby": "aannxx",
    "dropout": "annnnx",
    "gemm": "nnaaannxx",
    "learn_run": "aaaaaaaannxx",
    "sum_rows": "aaxx",
    "sparse_sums": "aaaaannxx",
    "sparse_gradient": "aaaaannxx",
    "loss_backward": "aaaaaxx",
    "softmax_backward": "aaaaaax",
    "sigmoid_backward": "aaaaaax",
}
"""What each loop takes: arrays (a), whole numbers (n), and numbers (x)."""

PYTHON = (
    "PyErr_BadArgument",
    "PyErr_Occurred",
    "PyEval_RestoreThread",
    "PyEval_SaveThread",
    "PyFloat_AsDouble",
    "PyLong_AsSsize_t",
    "PyLong_FromSsize_t",
)
"""What of Python's own functions a loop calls, all in its stable interface."""

OBJECTS = {"gpunn_ndarray": np.ndarray, "gpunn_none": None}
"""The objects that loops compare with, under names of gpunn's own."""
