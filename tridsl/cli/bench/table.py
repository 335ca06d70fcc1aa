"""The rows of `tridsl bench` as text that fits 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def seconds(value: float) -> str:
    """`3.21 ms`."""
    size, unit = next(((s, u) for s, u in _UNITS if value >= s), _UNITS[-1])
    return f"{value / size:.3g} {unit}"


def table(rows: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]) -> tuple[str, ...]:
    """A paragraph per case: a line per reading, and one with the times of first calls."""
    cores = ", ".join(map(str, machine["cores"]))
    lines = [f"{machine['description']}; {machine['threads']} thread(s), pinned to core(s) {cores}"]
    lines.append("Fractions are of the peak beside them, probed in the same minute: fma in registers, copy past the caches.")
    for row in rows:
        lines += ["", f"{row['operation']}  {row['case']}", *(f"  {line}" for line in _case(row))]
    absent = [name for name, here in machine["peers"].items() if not here]
    if absent:
        lines += ["", f"Not installed, so not measured: {', '.join(absent)}. (pip install 'tridsl[bench]'; torch apart)"]
    return ("\n".join(lines),)


def _case(row: Mapping[str, Any]) -> Iterator[str]:
    if "error" in row and "correct" not in row:
        yield str(row["error"]).replace("\n", "\n  ")
        return
    if not row["correct"]:
        yield f"WRONG, so not timed: {row['error']}"
        return
    yield f"{'':6}{'':12} {'median':>9} {'p10':>9} {'p90':>9}"
    for regime, found in row["readings"].items():
        for name, one in found["contestants"].items():
            times = " ".join(f"{seconds(one[key]):>9}" for key in ("median_seconds", "p10_seconds", "p90_seconds"))
            yield f"{regime:6}{name:12} {times} {_share(one, found['peaks'])} {one['label']}"
    times = row["compile"]
    yield f"first call {seconds(times['cold_seconds'])} with an empty cache, {seconds(times['warm_seconds'])} with a warm one  {times['label']}"
    if times["dispatch"]:
        yield f"call of the smallest arrays {seconds(times['dispatch']['median_seconds'])}  {times['label']}"
    yield f"largest error {row['error']:.2g}, checked in f64 before timing"
    for name, answer in row.get("peers", {}).items():
        if isinstance(answer, str):
            yield f"{name} gives another answer, so it is not timed: {answer}"


def _share(one: Mapping[str, Any], peaks: Mapping[str, Any]) -> str:
    """`81% of fma 115 GFLOP/s `, empty where no peak was probed."""
    if "roof" not in one:
        return ""
    peak = peaks[one["roof"]]
    return f"{one['fraction']:>5.0%} of {one['roof']} {peak['rate'] / 1e9:.4g} G{peak['unit']} "
