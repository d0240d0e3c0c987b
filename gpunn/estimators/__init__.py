"""The multilayer perceptron as scikit-learn's users know it."""

import sys

from gpunn.estimators import engine
from gpunn.estimators.classifier import MLPClassifier
from gpunn.estimators.regressor import MLPRegressor

# Their public place, which pickles name, so that a module may move.
for _kind in (MLPClassifier, MLPRegressor):
    _kind.__module__ = __name__

# Pickles made before there were folders name a module that was here then.
sys.modules.setdefault("gpunn.mlp_engine", engine)

__all__ = ["MLPClassifier", "MLPRegressor"]
