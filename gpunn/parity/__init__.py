"""Whether two devices compute the same."""

from gpunn.parity.cases import Case, standard_cases
from gpunn.parity.checks import Check
from gpunn.parity.comparison import (
    Comparison,
    choose_devices,
    compare,
    compare_network,
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
