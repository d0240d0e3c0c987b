"""The multilayer perceptron as scikit-learn's users know it."""

import sys

from gpunn.estimators import engine
from gpunn.estimators.perceptrons import MLPClassifier, MLPRegressor

# Pickles made before there were folders name a module that was here then.
sys.modules.setdefault("gpunn.mlp_engine", engine)

__all__ = ["MLPClassifier", "MLPRegressor"]
