"""Lets the tests import the benchmark's modules, which lie beside their script."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "bench"))
