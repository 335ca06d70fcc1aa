"""The rows of `tridsl bench` as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def seconds(value: float) -> str:
    """`3.21 ms`."""
    size, unit = next(((s, u) for s, u in _UNITS if value >= s), _UNITS[-1])
    return f"{value / size:.3g} {unit}"


def table(rows: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]) -> tuple[Any, ...]:
    """A line per contestant and regime, and below it a line per op with its compile times."""
    runs = Table("op", "case", "", "by", "median", "p10", "p90", "of peak", "peak", "label", box=None, pad_edge=False)
    for row in rows:
        for cells in _readings(row):
            runs.add_row(*cells)
    starts = Table("op", "case", "first call, empty cache", "first call, warm cache", "smallest call", "largest error", "label", box=None, pad_edge=False)
    for row in rows:
        if "compile" in row:
            times = row["compile"]
            dispatch = times["dispatch"]
            starts.add_row(
                row["operation"], row["case"], seconds(times["cold_seconds"]), seconds(times["warm_seconds"]),
                seconds(dispatch["median_seconds"]) if dispatch else "-", _error(row["error"]), times["label"],
            )  # fmt: skip
    absent = [name for name, here in machine["peers"].items() if not here]
    head = f"{machine['description']}, {machine['threads']} thread(s) on core(s) {', '.join(map(str, machine['cores']))}"
    tail = f"Not installed, so not measured: {', '.join(absent)} (pip install 'tridsl[bench]', and torch)." if absent else ""
    problems = [f"{row['operation']} {row['case']}: {row['error']}" for row in rows if "readings" not in row]
    return (head, "", runs, "", starts, *problems, tail)


def _readings(row: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for regime, found in row.get("readings", {}).items():
        for name, one in found["contestants"].items():
            peak = found["peaks"][one["roof"]]
            yield (
                row["operation"], row["case"], regime, name, seconds(one["median_seconds"]), seconds(one["p10_seconds"]), seconds(one["p90_seconds"]),
                f"{one['fraction']:.0%}", f"{one['roof']} {peak['rate'] / 1e9:.4g} G{peak['unit']}", one["label"],
            )  # fmt: skip


def _error(error: Any) -> str:
    return f"{error:.2g}" if isinstance(error, float) else str(error)
