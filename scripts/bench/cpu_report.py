"""What bench_cpu.py found, in tables, beside what gpunn promises."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from cpu_baselines import BASELINES
from cpu_plan import Cell
from cpu_results import Limits, MemoryUse, Row, Timing
from text_table import print_table

# How many times as fast as a baseline gpunn promises to be: one sample at a time beside a plain
# loop, by hidden units; else by section and baseline; and on average beside PyTorch.
LEAST_ONLINE_PLAIN = {200: 12.0, 2000: 50.0}
LEAST = {
    ("online", "torch"): 17.0,
    ("grid", "torch"): 1.0,
    ("grid", "sklearn"): 1.5,
    ("adam", "torch"): 1.2,
    ("adam", "sklearn"): 1.2,
}
LEAST_MEANS = {"grid": 1.8, "adam": 1.6}
LEAST_SHARE = 0.80
"""Of the rate of matrix products by themselves, where a layer is wide."""
MOST_MEMORY = 1.25
"""The largest memory of the whole process, over that of the weights."""


def least_ratio(cell: Cell, baseline: str) -> float | None:
    """Return the ratio to a baseline that gpunn promises, if it promises one."""
    if (cell.section, baseline) == ("online", "plain"):
        return LEAST_ONLINE_PLAIN.get(cell.hidden)
    return LEAST.get((cell.section, baseline))


def promises_share(cell: Cell) -> bool:
    """Return whether gpunn promises a share of the matrix products' own speed."""
    return cell.section == "grid" and cell.hidden >= 2000 and cell.batch == 256


@dataclass
class Report:
    """All that was found, on which processor, and the count of promises kept."""

    processor: str
    rows: list[Row]
    limits: dict[int, Limits]
    memory: list[MemoryUse]
    n_ok: int = 0
    n_short: int = 0

    def mark(self, value: float, bound: float, *, most: bool = False) -> str:
        """Return a value beside what it should be at least (or at most), and whether it is."""
        good = value <= bound if most else value >= bound
        self.n_ok, self.n_short = self.n_ok + good, self.n_short + (not good)
        sign = "<=" if most else ">="
        return f"{value:.2f} ({sign} {bound:.4g} {'ok' if good else 'short'})"

    def print(self) -> None:
        """Print all tables."""
        self._print_limits()
        for section, title in (
            ("online", "One sample at a time"),
            ("grid", "Mini-batches, plain gradient descent"),
            ("adam", "Adam"),
        ):
            rows = [row for row in self.rows if row.cell.section == section]
            if rows:
                baselines = {"online": ["plain", "torch"]}.get(section, ["torch", "sklearn"])
                if any("numpy" in row.timings for row in rows):
                    baselines.insert(0, "numpy")
                if any("compile" in row.timings for row in rows):
                    baselines.insert(baselines.index("torch") + 1, "compile")
                self._print_section(title, rows, baselines)
                if section in LEAST_MEANS:
                    self._print_means(rows, LEAST_MEANS[section])
        self._print_notes()
        self._print_memory()
        if self.n_ok + self.n_short:
            print(f"\nrequired: {self.n_ok} ok, {self.n_short} short")

    def _print_limits(self) -> None:
        lines = [["threads", "sgemm GFLOP/s", "start", "end", "copy GB/s", "start", "end"]]
        for n, limits in self.limits.items():
            gemm = [limits.best_sgemm, limits.sgemm_at(0), limits.sgemm_at(-1)]
            copy = [max(limits.copy), limits.copy[0], limits.copy[-1]]
            lines.append([str(n), *(f"{value:.1f}" for value in gemm + copy)])
        if len(lines) > 1:
            print_table(f"What the machine itself can do ({self.processor})", lines)

    def _print_section(self, title: str, rows: list[Row], baselines: Sequence[str]) -> None:
        names = [cell for baseline in baselines for cell in (BASELINES[baseline], "ratio")]
        streamed = rows[0].cell.section == "online"
        lines = [["network", "threads", "gpunn", *names, "of sgemm", *["of streaming"] * streamed]]
        for row in rows:
            line = [row.cell.label, str(row.threads), time_text(row.timings["gpunn"])]
            for baseline in baselines:
                line += [time_text(row.timings.get(baseline)), self._ratio_text(row, baseline)]
            line.append(self._share_text(row))
            if streamed:
                bound = max(self.limits[row.threads].copy) * 1e9
                rate = 1 / row.timings["gpunn"].per_sample()
                line.append(f"{rate * row.cell.bytes_streamed_per_sample / bound:.2f}")
            lines.append(line)
        heading = f"{title}: microseconds a sample, median (min-max), on {self.processor}"
        print_table(heading, lines)

    def _ratio_text(self, row: Row, baseline: str) -> str:
        ratio, least = row.ratio(baseline), least_ratio(row.cell, baseline)
        if ratio is None:
            return "-"
        return f"{ratio:.2f}" if least is None else self.mark(ratio, least)

    def _share_text(self, row: Row) -> str:
        share = row.gflops() / self.limits[row.threads].best_sgemm
        return self.mark(share, LEAST_SHARE) if promises_share(row.cell) else f"{share:.2f}"

    def _print_means(self, rows: list[Row], least: float) -> None:
        for threads in sorted({row.threads for row in rows}):
            for baseline in BASELINES:
                ratios = [row.ratio(baseline) for row in rows if row.threads == threads]
                found = [ratio for ratio in ratios if ratio is not None]
                if found:
                    mean = statistics.geometric_mean(found)
                    text = self.mark(mean, least) if baseline == "torch" else f"{mean:.2f}"
                    print(f"geometric mean over {BASELINES[baseline]}, threads {threads}: {text}")

    def _print_notes(self) -> None:
        chosen: dict[str, list[str]] = {}
        for row in self.rows:
            for baseline, timing in row.timings.items():
                if timing.note:
                    where = f"{row.cell.label} ({row.threads})"
                    chosen.setdefault(f"{BASELINES[baseline]}, {timing.note}", []).append(where)
        if chosen:
            print("\nThe faster set-ups, by network (threads):")
        for note, places in chosen.items():
            print(f"  {note}: {'; '.join(places)}")
        for note in sorted({note for row in self.rows for note in row.notes}):
            print(f"  {note}")

    def _print_memory(self) -> None:
        lines = [["training", "weights GB", "peak GB", "ratio"]]
        for use in self.memory:
            line = [use.what, f"{use.weights / 1e9:.2f}"]
            if use.skipped:
                lines.append([*line, "-", f"skipped: {use.skipped}"])
            else:
                ratio = self.mark(use.peak / use.weights, MOST_MEMORY, most=True)
                lines.append([*line, f"{use.peak / 1e9:.2f}", ratio])
        if len(lines) > 1:
            print_table("Memory, whole process over weights", lines)


def time_text(timing: Timing | None) -> str:
    """Return a contestant's microseconds a sample with their spread, or "-"."""
    if timing is None:
        return "-"
    low, middle, high = (1e6 * timing.per_sample(f) for f in (min, statistics.median, max))
    return f"{middle:.4g} ({low:.4g}-{high:.4g})"
