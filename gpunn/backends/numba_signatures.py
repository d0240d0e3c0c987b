"""What the fused loops of the CPU take, as their compiler and their callers know it."""

DATA_OFFSET = object.__basicsize__
"""Where a NumPy array's object keeps the address of its numbers: behind what all objects have."""

SIGNATURES = {
    "activate": "aannnn",
    "activation_backward": "aann",
    "adam_update": "aaaannxxxxx",
    "axpby": "aannxx",
    "dropout": "annnnx",
    "loss_backward": "aaaaannnxxnn",
    "softmax_backward": "aaaaaannnxnn",
    "sigmoid_backward": "aaaaaannnxnn",
}
"""What each loop takes: arrays (a) as ``id(array)``, whole numbers (n), and numbers (x)."""
