"""`tridsl bench`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from tridsl.api.devices import find
from tridsl.api.engine import Services
from tridsl.cli.bench import cases, peaks, peers
from tridsl.cli.bench.cases import Case
from tridsl.cli.bench.contest import Prepared, agreement, caller, our_call, prepare, reference
from tridsl.cli.bench.sampling import Call, Reading, interleave, pin, start_with_threads
from tridsl.cli.bench.table import table
from tridsl.cli.output import NOTHING_MEASURED, OK, OUR_BUG, Report
from tridsl.cli.settings import Settings
from tridsl.cli.targets import find_target, services_for
from tridsl.diagnostics import TriError
from tridsl.dtypes import F32


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The arguments of the command, as written."""

    operations: tuple[str, ...] = ()
    suite: str = "cpu"
    device: str = "cpu"
    peers: bool = True
    threads: int = 1
    samples: int = 30


def bench(options: Options, settings: Settings) -> Report:
    """Rows of readings. E0814, what the ops raise; status 3 when nothing was measured, 70 when an answer was wrong."""
    if options.suite == "list":
        return cases.list_suites()
    start_with_threads(options.threads, ("-m", "tridsl", *sys.argv[1:]))
    chosen = _cases(options, settings)
    device = find(options.device).device
    cores = pin(options.threads)
    peers.set_threads(options.threads)
    probes = peaks.probes(device, options.threads) if device.spec.kind == "cpu" else ()  # other devices' peaks are not probed yet
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(chosen):
        print(f"[{number + 1}/{len(chosen)}] {case.operation} {case.title}", file=sys.stderr)
        try:
            rows.append(_measure(case, options, settings, probes))
        except KeyboardInterrupt:
            print("interrupted: what was measured so far follows", file=sys.stderr)
            break
        except TriError as problem:
            rows.append({"operation": case.operation, "case": case.title, "error": str(problem)})
    measured = [row for row in rows if "readings" in row]
    wrong = [row for row in rows if row.get("correct") is False]
    machine = {"device": str(device), "description": device.description, "threads": options.threads, "cores": list(cores), "peers": peers.installed()}
    status = OUR_BUG if wrong else OK if measured else NOTHING_MEASURED
    return Report(data={"machine": machine, "rows": rows}, text=table(rows, machine), status=status)


def _cases(options: Options, settings: Settings) -> tuple[Case, ...]:
    if not options.operations:
        return cases.suite(options.suite)
    services = services_for(settings)
    return tuple(case for text in options.operations for case in cases.bench_blocks(text, find_target(text, services)))


def _measure(case: Case, options: Options, settings: Settings, probes: tuple[peaks.Probe, ...]) -> dict[str, Any]:
    """One row: correctness of everybody, compile times, hot and cold readings."""
    services = services_for(settings)
    ready = prepare(case, services)
    compile_times = _compile_times(ready, options, settings)
    row: dict[str, Any] = {"operation": case.operation, "case": case.title, "bytes": ready.bytes, "compile": compile_times}
    call = our_call(ready, services, options.device, options.threads)
    exact = reference(ready)
    mine = agreement(ready, call(), exact)
    row |= {"correct": mine.right, "error": mine.reason or mine.worst}
    if not mine.right:
        return row
    contestants: dict[str, Call] = {"tridsl": lambda number: call()}
    for name, peer in (_peers(ready) if options.peers else {}).items():
        found = agreement(ready, peer(), exact, peer=True)
        row.setdefault("peers", {})[name] = found.reason or found.worst
        if found.right:
            contestants[name] = lambda number, peer=peer: peer()  # type: ignore[misc]
    flop = case.flop if case.flop is not None else cases.multiply_adds(ready.whole, ready.sizes)
    row["readings"] = {
        "hot": _fractions(interleave({**contestants, **{p.name: p.call for p in probes}}, options.samples), probes, flop, ready.bytes),
        "cold": _fractions(interleave({**_cold(ready, options, services), **{p.name: p.call for p in probes}}, options.samples), probes, flop, ready.bytes),
    }
    return row


def _compile_times(ready: Prepared, options: Options, settings: Settings) -> dict[str, Any]:
    """First call with an empty cache, first call of a new table with that cache, and a call of the smallest arrays there are (None
    where the op has a contract against them). The first includes parsing, checking, LLVM or the GLSL compiler, and one run."""
    with tempfile.TemporaryDirectory(prefix="tridsl-bench-") as folder:
        fresh = replace(settings, cache=Path(folder))
        times = []
        for _ in range(2):
            start = perf_counter()
            services = services_for(fresh)
            again = replace(ready, target=find_target(ready.case.operation, services))
            our_call(again, services, options.device, options.threads)()
            times.append(perf_counter() - start)
    return {"cold_seconds": times[0], "warm_seconds": times[1], "dispatch": _dispatch(ready.case, options, settings), "label": "measured"}


def _dispatch(case: Case, options: Options, settings: Settings) -> dict[str, float | int | str] | None:
    smallest = replace(case, sizes=dict.fromkeys(case.sizes, 1), shapes={n: (1,) * len(s) for n, s in case.shapes.items()})
    try:
        services = services_for(settings)
        call = our_call(prepare(smallest, services), services, options.device, options.threads)
        call()
    except TriError:
        return None
    return interleave({"dispatch": lambda number: call()}, options.samples)["dispatch"].data()


def _peers(ready: Prepared) -> dict[str, Callable[[], Any]]:
    """Calls of everybody who is installed and knows the op."""
    if not ready.case.operation.startswith("stdlib:"):
        return {}
    here = peers.installed()
    plain = {n: np.asarray(v) if hasattr(v, "layout") else v for n, v in ready.arguments.items()}
    only_f32 = all(t.dtype == F32 for t in ready.op.tensors)
    return {
        name: table[ready.op.name](plain, [np.zeros_like(o) for o in ready.outs])
        for name, table in peers.LIBRARIES.items()
        if here[name] and ready.op.name in table and (only_f32 or name not in peers.ONLY_F32)
    }


def _cold(ready: Prepared, options: Options, services: Services) -> dict[str, Call]:
    """Our call on buffers rotated over four times the last-level cache, so that none is found there again."""
    spec = find("cpu").device.spec
    level = spec.l3_bytes or spec.l2_bytes or 1 << 20
    count = max(2, -(-4 * level // max(1, ready.bytes)))
    count = min(count, 4096, max(2, (spec.memory_bytes or 1 << 32) // 4 // max(1, ready.bytes)))
    call = caller(ready, services, options.device, options.threads)
    sets = [({n: _copied(v) for n, v in ready.arguments.items()}, tuple(o.copy() for o in ready.outs)) for _ in range(count)]
    return {"tridsl": lambda number: call(*sets[number % count])}


def _copied(value: Any) -> Any:
    """An argument in memory of its own."""
    return replace(value, array=value.array.copy()) if hasattr(value, "layout") else value.copy() if isinstance(value, np.ndarray) else value


def _fractions(readings: Mapping[str, Reading], probes: tuple[peaks.Probe, ...], flop: int, moved: int) -> dict[str, Any]:
    """Readings with the share of the nearer roof: the time that the peak probed in the same interleaving would need."""
    rates = {p.name: p.amount / readings[p.name].median for p in probes}
    needed = {"fma": float(flop), "copy": float(moved)}
    roofs = {name: needed[name] / rate for name, rate in rates.items()}
    roof = max(roofs, key=lambda name: roofs[name], default=None)
    found = {n: r.data() | ({"roof": roof, "fraction": roofs[roof] / r.median} if roof else {}) for n, r in readings.items() if n not in rates}
    return {"contestants": found, "peaks": {p.name: {"rate": rates[p.name], "unit": p.unit, "label": "measured"} for p in probes}}
