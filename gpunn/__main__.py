"""``python -m gpunn`` is the same as ``gpunn``."""

import sys

from gpunn.cli.parser import main

if __name__ == "__main__":
    sys.exit(main())
