"""Training a network, and measuring how it does."""

from gpunn.training.callbacks import Callback, EarlyStopping, EpochRecord, History
from gpunn.training.checkpoints import Checkpoints
from gpunn.training.evaluation import Evaluation, evaluate
from gpunn.training.fitting import ON_DIVERGENCE, fit
from gpunn.training.streams import Stream

__all__ = [
    "ON_DIVERGENCE",
    "Callback",
    "Checkpoints",
    "EarlyStopping",
    "EpochRecord",
    "Evaluation",
    "History",
    "Stream",
    "evaluate",
    "fit",
]
