"""What bench_gpu.py finds, written down whenever something is added."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_machine import commit
from gpu_rows import AnyRow
from gpu_verdicts import verdicts

TIMING = {
    "cuda": "CUDA events on an idle device before and after each run, the same for everyone",
    "cpu": "wall clock: a rehearsal on the CPU, whose numbers mean nothing",
}
LISTS = {"row": "rows", "largest": "largest", "race": "races"}


class Results:
    """All values of a run, plain ones, and the file that they are in."""

    def __init__(self, options: argparse.Namespace, rows: Sequence[AnyRow]) -> None:
        self._out, self._began = options.out, time.monotonic()
        self.values: dict[str, Any] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "device": options.device,
            "rehearsal": options.device != "cuda",
            "timing": TIMING[options.device],
            "asked": [dataclasses.asdict(row) | {"label": row.label} for row in rows],
            "machine": {},
            "absent": {},
            "copy_bytes_per_second": None,
            "rows": [],
            "largest": [],
            "races": [],
            "late": [],
            "failures": [],
        }

    def take(self, event: tuple[Any, ...]) -> None:
        """Add what a process sends."""
        kind, values = event[0], self.values
        if kind in ("machine", "absent"):
            values[kind] = event[1]
        elif kind == "copy":
            values["copy_bytes_per_second"] = event[1]
        elif kind == "failure":
            values["failures"].append(event[1])
        elif kind == "late":
            values["late"].append(event[1])
        else:
            values[LISTS[kind]].append(event[2])
        what = f"{kind} {event[1]}" if isinstance(event[1], str) else kind
        print(f"{time.monotonic() - self._began:6.0f} s  {what}", file=sys.stderr, flush=True)
        self.save()

    def save(self) -> None:
        """Write the file, whole or not at all."""
        self.values["verdicts"] = verdicts(self.values)
        if self._out is not None:
            write_json(self._out, self.values)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(values, indent=1) + "\n")
    part.replace(path)
