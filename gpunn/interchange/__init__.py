"""From and to other libraries' models, with the same predictions: scikit-learn, PyTorch, ONNX.

Nothing is shared: the numbers are copies. What an optimizer remembers stays behind, so that
training that goes on begins with a fresh one. The other libraries are imported when needed.
"""

from gpunn.interchange.onnx_files import to_onnx
from gpunn.interchange.sklearn_models import from_sklearn, to_sklearn
from gpunn.interchange.torch_models import from_torch, to_torch

__all__ = ["from_sklearn", "from_torch", "to_onnx", "to_sklearn", "to_torch"]
