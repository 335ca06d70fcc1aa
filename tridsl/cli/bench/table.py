"""The rows of `tridsl bench` as text that fits 100 columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from tridsl.cli.bench.measure import US

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def seconds(value: float) -> str:
    """`3.21 ms`."""
    size, unit = next(((s, u) for s, u in _UNITS if value >= s), _UNITS[-1])
    return f"{value / size:.3g} {unit}"


def amount(value: float) -> str:
    """Bytes, in powers of 1024."""
    size, unit = next(((s, u) for s, u in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")) if value >= s), (1, "bytes"))
    return f"{value / size:.3g} {unit}"


def figure(row: Mapping[str, Any], value: float) -> str:
    """A value in the unit of the row's goal."""
    unit = row["goal"]["unit"] if row.get("goal") else row.get("unit", "")
    return f"{value:.3g}{unit}" if unit.startswith(("%", "x")) else f"{value:.3g} {unit}"


def best_peer(row: Mapping[str, Any]) -> tuple[str, float] | None:
    """The peer with the least time in the reading that the goal is for, and its time over ours."""
    contestants = row.get("readings", {}).get(row.get("regime"), {}).get("contestants", {})
    others = {n: one["median_seconds"] for n, one in contestants.items() if n != US and ("value" in one or not row.get("goal"))}
    if US not in contestants or not others:
        return None
    name = min(others, key=lambda n: others[n])
    return name, others[name] / contestants[US]["median_seconds"]


def described(machine: Mapping[str, Any]) -> str:
    """The machine in a line."""
    if machine.get("clock") == "device":
        return str(machine["description"])
    cores = ", ".join(map(str, machine["cores"]))
    return f"{machine['description']}; {machine['threads']} thread(s), pinned to core(s) {cores}"


def around(machine: Mapping[str, Any]) -> str:
    """Where the arrays are, and what cold means here."""
    if machine.get("clock") == "device":
        return "arrays in the device's memory, times by its own clock; `copy` reads and writes far more than its caches hold"
    level = machine["caches"]["l3_bytes"] or machine["caches"]["l2_bytes"] or 0
    told = f"cold: buffers go round in {amount(machine['rotation_bytes'])}"
    return told + (f", bounded: the last-level cache is reported as {amount(level)}" if machine["rotation_bytes"] < 4 * level else "")


def table(rows: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]) -> tuple[Any, ...]:
    """A paragraph per row: a line per reading, and what compiling took; then the rows with goals in one table."""
    lines = [f"{described(machine)}; {around(machine)}"]
    lines.append("Fractions are of the peak beside them, probed in the same minute at the same size.")
    for row in rows:
        title = f"{row['operation']}  {row['case']}" if row["operation"] != row["name"] else row["name"]
        lines += ["", title, *(f"  {line}" for line in _case(row))]
    absent = [name for name, here in machine["peers"].items() if not here]
    if absent:
        lines += ["", f"Not installed, so not measured: {', '.join(absent)}. (pip install 'tridsl[bench]'; torch apart)"]
    judged = [row for row in rows if row.get("goal") or row.get("regime") == "device"]
    return ("\n".join(lines), "", _summary(judged)) if judged else ("\n".join(lines),)


def _summary(rows: Sequence[Mapping[str, Any]]) -> Table:
    summary = Table("row", "", "ours, measured", "floor", "goal", "verdict", "as written", "best peer: its time over ours", box=None, pad_edge=False)
    for row in rows:
        if not row.get("correct", True):
            summary.add_row(row["name"], row["regime"], "", "", "", "WRONG")
            continue
        if "readings" not in row:
            continue
        summary.add_row(row["name"], row["regime"], *bounds(row))
    return summary


def bounds(row: Mapping[str, Any]) -> tuple[str, str, str, str, str, str]:
    """Figure (of a row without a goal its share of the nearer roof), floor, goal, verdict, the absolute verdict where that is another one,
    best peer. A floor that was carried over by another than the best of the table's peers, which is not here, says by whom; one that lies
    above what reading alone allows here, how much that is. Where the share of that is judged, the figure has both, and the floor says of what it is."""
    best = best_peer(row)
    told = "" if best is None else f"{best[0]} {best[1]:.2f}"
    if not row.get("goal"):
        return _share(row["readings"][row["regime"]]["contestants"][US], row["readings"][row["regime"]]["peaks"]).strip(), "", "", "", "", told
    goal = row["goal"]
    value = "" if row["value"] is None else figure(row, row["value"])
    floor, aim = f"{goal['floor']:g}", "as peer" if goal["goal"] is None else f"{goal['goal']:g}"
    absolute = ""
    if row.get("floor_of_peer") is not None:
        absolute = f"{row['absolute']} ({floor})"
        scale = row["floor_of_peer"] / goal["floor"]
        floor = f"{row['floor_of_peer']:.3g}" + (f" by {row['through']}" if row["through"] != next(iter(goal["peers"])) else "")
        aim = aim if goal["goal"] is None else f"{goal['goal'] * scale:.3g}"
    elif row.get("share_of_roofline") is not None:
        absolute = f"{row['absolute']} ({floor}{goal['unit']})"
        value += f": {row['share_of_roofline']:.3g}% of the {row['ceiling']:.3g} that reading allows"
        floor, aim = f"{floor}% of that", f"{aim}% of that"
    elif row.get("ceiling") is not None:
        absolute = f"at most {row['ceiling']:.3g} here: {row['value'] / row['ceiling']:.0%} of read"
    return value, floor, aim, row["verdict"], absolute, told


def _case(row: Mapping[str, Any]) -> Iterator[str]:
    if "error" in row and "correct" not in row:
        yield str(row["error"]).replace("\n", "\n  ")
        return
    if not row.get("correct", True):
        yield f"WRONG, so not timed: {row['error']}"
        return
    width = max(12, *(len(name) for found in row["readings"].values() for name in found["contestants"]))
    yield f"{'':7}{'':{width}} {'median':>9} {'p10':>9} {'p90':>9}"
    for regime, found in row["readings"].items():
        for name, one in found["contestants"].items():
            times = " ".join(f"{seconds(one[key]):>9}" for key in ("median_seconds", "p10_seconds", "p90_seconds"))
            yield f"{regime:7}{name:{width}} {times} {_share(one, found['peaks'])} {one['label']}"
    yield from _compiled(row)
    if "error" in row:
        yield f"largest error {row['error']:.2g}, checked in f64 before timing"
    for name, answer in row.get("peers", {}).items():
        if isinstance(answer, str):
            yield f"{name} is not timed: {answer}"
    for name, one in row.get("slow", {}).items():
        yield f"{name} takes {seconds(one['seconds'])}, one call  {one['label']}"
    if row.get("elsewhere"):
        yield f"not in any package index, so not measured: {', '.join(row['elsewhere'])}"


def _compiled(row: Mapping[str, Any]) -> Iterator[str]:
    times = row.get("compile")
    if not times:
        return
    yield f"first call {seconds(times['cold_seconds'])} with an empty cache, {seconds(times['warm_seconds'])} with a warm one  {times['label']}"
    stages = sorted(times["stages"].items(), key=lambda pair: -pair[1])[:3]
    longest = ", ".join(f"{name} {seconds(took)}" for name, took in stages if name != "build")
    yield f"lowering {seconds(times['lowering_seconds'])} ({longest}), LLVM {seconds(times['build_seconds'])}  {times['label']}"
    if times["dispatch"]:
        yield f"call of the smallest arrays {seconds(times['dispatch']['median_seconds'])}  {times['label']}"


def _share(one: Mapping[str, Any], peaks: Mapping[str, Any]) -> str:
    """`81% of fma 115 GFLOP/s `, empty where no peak was probed."""
    if "flop_per_second" in one:
        return f"{one['flop_per_second'] / 1e12:>8.4g} T(FL)OP/s "
    if "roof" not in one:
        return ""
    peak = peaks[one["roof"]]
    return f"{one['fraction']:>5.0%} of {one['roof']} {peak['rate'] / 1e9:.4g} G{peak['unit']} "
