"""Which compiled loop suits which activations and losses.

Records are compared, and not their names: one of a user's own may have the same name.
"""

from gpunn.activations import EXP, IDENTITY, RELU, SIGMOID, SOFTMAX, TANH, Activation
from gpunn.backends.fused import FusedModel
from gpunn.backends.numpy_online import WIDE
from gpunn.losses import (
    ABSOLUTE_ERROR,
    BINARY_CROSS_ENTROPY,
    BINARY_LOG_LOSS,
    CROSS_ENTROPY,
    LOG_LOSS,
    MEAN_SQUARED_ERROR,
    SQUARED_ERROR,
    SUM_OF_SQUARES,
    Loss,
)

HIDDEN = (SIGMOID, TANH, RELU, IDENTITY)
ACTIVATE = {record: f"activate:{record.name}" for record in (*HIDDEN, EXP)}
GO_BACK = {record: f"activation_backward:{record.name}" for record in (*HIDDEN, EXP)}

SIMPLE_LOSSES = frozenset((SQUARED_ERROR, SUM_OF_SQUARES, MEAN_SQUARED_ERROR, ABSOLUTE_ERROR))
SOFTMAX_LOSSES = frozenset((CROSS_ENTROPY, LOG_LOSS))
SIGMOID_LOSSES = frozenset((BINARY_CROSS_ENTROPY, BINARY_LOG_LOSS))


def loop_of_loss(activation: Activation, loss: Loss) -> str | None:
    """Return the name of the loop for the outputs' activation and loss; None if there is none."""
    if _is_fused(activation, loss):
        return f"{activation.name}_backward:{loss.name}"
    if activation in (SIGMOID, IDENTITY) and loss in SIMPLE_LOSSES:
        return f"loss_backward:{activation.name}:{loss.name}"
    return None


def loop_of_run(model: FusedModel) -> str | None:
    """Return the name of the loop for single samples; None if there is none."""
    hidden, top, loss = model.hidden.activation, model.top.activation, model.loss
    simple = top in HIDDEN and loss in SIMPLE_LOSSES
    if hidden not in HIDDEN or not (simple or _is_fused(top, loss)):
        return None
    # Softmax sends back what no single output could; BLAS's threads help with very wide layers.
    if (top is SOFTMAX and model.textbook_rule) or model.hidden.weights.shape[0] >= WIDE:
        return None
    rule = "textbook" if model.textbook_rule else "gradient"
    return f"learn_run:{hidden.name}:{top.name}:{loss.name}:{rule}"


def _is_fused(activation: Activation, loss: Loss) -> bool:
    """Say whether a loss is computed from z, together with its activation."""
    return (activation is SOFTMAX and loss in SOFTMAX_LOSSES) or (
        activation is SIGMOID and loss in SIGMOID_LOSSES
    )
