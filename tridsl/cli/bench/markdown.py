"""A document of `tridsl bench` as Markdown, for a file of results: losses as wins are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tridsl.cli.bench.measure import US
from tridsl.cli.bench.table import around, bounds, described, seconds

_HEAD = "| row | | ours | figure | floor | goal | verdict | as written | best peer: its time over ours | others |"


def markdown(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The machine, a table of the rows with goals, then what compiling took and what awkward operands cost."""
    return ("\n".join(_lines(data["machine"], data["rows"])),)


def _lines(machine: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    target = f" (target `{machine['target']}`)" if machine["target"] else ""
    yield f"{described(machine)}{target}, *measured*; {around(machine)}."
    yield f"Medians of {machine['samples']} samples or more, everybody in turn in one process: " + ", ".join(f"{name} {version}" for name, version in machine["versions"].items()) + "."
    disturbed, taken = _disturbed(rows)
    if disturbed:
        yield f"Other programs had the core in {disturbed / taken:.0%} of the samples, which then count the time of this process alone."
    absent = [name for name, here in machine["peers"].items() if not here]
    elsewhere = sorted({name for row in rows for name in row.get("elsewhere", ())})
    if absent or elsewhere:
        yield f"Not measured: {', '.join([*absent, *(f'{name} (no peer of this suite)' for name in elsewhere)])}."
    yield ""
    yield _HEAD
    yield "|" + "---|" * (_HEAD.count("|") - 1)
    for row in rows:
        if row.get("goal") or row.get("regime") == "device" or not row.get("correct", True) or "readings" not in row:
            yield _row(row)
    yield from _compilations(rows)
    yield from _operands(rows)


def _disturbed(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Samples of all readings during which the process was put off its core, and all samples."""
    readings = [one for row in rows for found in row.get("readings", {}).values() for one in found["contestants"].values()]
    return sum(one.get("disturbed", 0) for one in readings), sum(one["samples"] for one in readings)


def _row(row: Mapping[str, Any]) -> str:
    if "readings" not in row:
        return f"| {row['name']} | | | | | | **{'wrong' if 'correct' in row else 'not measured'}** | | {str(row['error']).splitlines()[0]} | |"
    found = row["readings"][row["regime"]]["contestants"]
    mine = found[US]
    value, floor, aim, verdict, absolute, best = bounds(row)
    loser = best and float(best.rpartition(" ")[2]) < 1
    others = ", ".join(f"{n} {seconds(one['median_seconds'])}" for n, one in found.items() if n != US)
    told = f"**{verdict}**" if verdict == "missed" else verdict
    return f"| {row['name']} | {row['regime']} | {seconds(mine['median_seconds'])} | {value} | {floor} | {aim} | {told} | {absolute} | {f'**{best}**' if loser else best} | {others} |"


def _compilations(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    compiled = [row for row in rows if row.get("compile")]
    if not compiled:
        return
    yield from ("", "| first call, *measured* | empty cache | warm cache | run alone | lowering | LLVM | call of the smallest arrays |", "|---|---|---|---|---|---|---|")
    for row in compiled:
        times = row["compile"]
        parts = (seconds(times[key]) for key in ("cold_seconds", "warm_seconds", "run_seconds", "lowering_seconds", "build_seconds"))
        dispatch = seconds(times["dispatch"]["median_seconds"]) if times["dispatch"] else ""
        yield f"| {row['name']} | {' | '.join(parts)} | {dispatch} |"


def _operands(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    awkward = [row for row in rows if "unit" in row and "readings" in row]
    if not awkward:
        return
    names = list(awkward[0]["readings"]["hot"]["contestants"])
    yield from ("", f"| time over that of row-major operands, *measured* | {' | '.join(names)} |", "|---|" + "---|" * len(names))
    for row in awkward:
        found = row["readings"]["hot"]["contestants"]
        yield f"| {row['name'].removeprefix('operands: ')} | " + " | ".join(f"{found[n]['value']:.2f}" for n in names) + " |"
