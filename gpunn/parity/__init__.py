"""Whether two devices compute the same."""

from gpunn.parity.checks import Check
from gpunn.parity.comparison import (
    Case,
    Comparison,
    choose_devices,
    compare,
    compare_network,
    standard_cases,
)

__all__ = [
    "Case",
    "Check",
    "Comparison",
    "choose_devices",
    "compare",
    "compare_network",
    "standard_cases",
]
