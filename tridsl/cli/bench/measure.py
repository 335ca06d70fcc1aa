"""One row: everybody's answers are checked, then everybody's time is taken, in turn with the machine's peaks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tridsl.api.compilation import stage_seconds
from tridsl.api.engine import Services
from tridsl.cli.bench import arrays, cases, peers
from tridsl.cli.bench.contest import (
    Prepared,
    agreement,
    bound_call,
    caller,
    our_call,
    plain,
    prepare,
    reference,
    target_of,
)
from tridsl.cli.bench.goals import judge
from tridsl.cli.bench.peak_kernels import BLOCKS, STREAMS
from tridsl.cli.bench.peaks import Probe, rates
from tridsl.cli.bench.rows import Regime, Row
from tridsl.cli.bench.sampling import Call, Reading, interleave, once
from tridsl.cli.bench.session import Session
from tridsl.cli.targets import services_for
from tridsl.diagnostics import TriError
from tridsl.dtypes import BF16, F32, I8, I16, TRIT, DType
from tridsl.structs import dataclass, replace

US = "tridsl"
ARITHMETIC: dict[DType, str] = {F32: "fma", BF16: "bf16", I8: "vnni", TRIT: "vnni", I16: "vnni16"}
"""The peak of arithmetic that products of a type are compared with."""
MOSTLY_READ = 8
"""An op whose results are a smaller part of its bytes than one in so many is compared with reading, others with copying."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contestant:
    """Who else computes the row, on any arrays; `seconds` of one call."""

    name: str
    peer: peers.Peer
    seconds: float
    call: Callable[[], Any]


def measure(row: Row, session: Session) -> dict[str, Any]:
    """A row of the document: correctness of everybody, times of compiling, hot and cold readings, the figure and its verdict."""
    options = session.options
    services = services_for(session.settings)
    ready = prepare(row.case, services)
    found: dict[str, Any] = {"name": row.name, "operation": row.case.operation, "case": row.case.title, "regime": row.regime, "bytes": ready.bytes}
    call = our_call(ready, services, options.device, options.threads)
    exact = reference(ready)
    mine = agreement(ready, call(), exact)
    found |= {"correct": mine.right, "error": mine.reason or mine.worst}
    if not mine.right:
        return found
    contestants = _contestants(ready, exact, session, found) if options.peers else []
    if not options.quick:
        found["compile"] = compile_times(ready, session)
    readings: dict[str, Any] = {}
    for regime in session.regimes(row):
        readings[regime] = _reading(row, ready, contestants, session, regime)
    found["readings"] = readings
    return found | verdict(row, readings, ready.bytes)


def verdict(row: Row, readings: Mapping[str, Any], moved: int) -> dict[str, Any]:
    """The figure of our reading in the goal's regime, the goal, and what to think of it. `ceiling`: what would be reached if nothing took
    time but to read the bytes once at the rate probed beside, where that is less than the floor; the verdict goes by it only where the goal says so."""
    if row.goal is None or row.regime not in readings:
        return {}
    found = readings[row.regime]["contestants"]
    value = found[US].get("value")
    goal = asdict(row.goal)
    if value is None:
        return {"goal": goal, "value": None, "verdict": f"no peak `{row.peak}` here"}
    others = {name: one["value"] for name, one in found.items() if name != US}
    reached = {name: peak["rate"] for name, peak in readings[row.regime]["peaks"].items()}
    ceiling = row.value(moved / reached["read"], reached, moved) if row.goal.more and "read" in reached else None
    judged = judge(row.goal, value, others, ceiling)
    bounded = {"ceiling": ceiling} if ceiling is not None and (ceiling < row.goal.floor or judged.share is not None) else {}
    return {"goal": goal, "value": value} | judged.data() | bounded


def _contestants(ready: Prepared, exact: Mapping[str, Any], session: Session, found: dict[str, Any]) -> list[Contestant]:
    """Who is installed, knows the op, gives the right answer and is not too slow; `found` gets the others with their reasons."""
    here, kept = peers.installed(), []
    found |= {"peers": {}, "slow": {}, "missing": [], "elsewhere": list(peers.ELSEWHERE.get(ready.op.name, ()))}
    if not ready.case.is_ours:
        return []
    arguments = ready.plain
    for name, library, peer in peers.peers_of(ready.op.name):
        if not here[library]:
            found["missing"].append(name)
            continue
        try:
            call = peer(arguments, tuple(arrays.aligned(o.shape, o.dtype) for o in ready.outs))
            if call is None:
                continue
            answer = agreement(ready, call(), exact, peer=True)
            seconds = once(call)
        except Exception as problem:  # noqa: BLE001 (another library's failure is its row's, not ours)
            found["peers"][name] = f"raises {type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"
            continue
        found["peers"][name] = answer.reason or answer.worst
        if answer.right and seconds > session.slow:
            found["slow"][name] = {"seconds": seconds, "label": "measured"}
        elif answer.right:
            kept.append(Contestant(name=name, peer=peer, seconds=seconds, call=call))
    return kept


def _reading(row: Row, ready: Prepared, contestants: list[Contestant], session: Session, regime: Regime) -> dict[str, Any]:
    calls, rotated = _hot(ready, contestants, session) if regime == "hot" else _cold(ready, contestants, session)
    probes = probes_of(row.peak, ready, session, regime)
    readings = interleave(beside(calls, probes), session.samples, warm=regime == "hot")
    reached = rates(probes, readings)
    flop = row.case.flop if row.case.flop is not None else cases.multiply_adds(ready.whole, ready.sizes)
    mine = {n: r for n, r in readings.items() if n in calls}
    return {
        "contestants": {n: r.data() | _share(r, row, ready, flop, reached) | _value(row, r, reached, ready.bytes) for n, r in mine.items()},
        "peaks": peak_data(probes, reached), "rotated_bytes": rotated,
    }  # fmt: skip


def beside(calls: Mapping[str, Call], probes: tuple[Probe, ...]) -> dict[str, Call]:
    """The order of a round: arithmetic next to who may use it, streams at the end."""
    streams = {p.name: p.call for p in probes if p.name in STREAMS}
    return {p.name: p.call for p in probes if p.name not in streams} | dict(calls) | streams


def peak_data(probes: tuple[Probe, ...], reached: Mapping[str, float]) -> dict[str, Any]:
    """Every peak with its rate; `copy` is in bytes as its two ways are."""
    units = {p.name: p.unit for p in probes}
    return {name: {"rate": rate, "unit": units.get(name, "B/s"), "label": "measured"} for name, rate in reached.items()}


def probes_of(peak: str | None, ready: Prepared, session: Session, regime: Regime) -> tuple[Probe, ...]:
    """The peaks beside a reading: arithmetic of the inputs' type and of f32, and memory at the size of the row."""
    if session.peaks is None:
        return ()
    wanted = {"fma", *(ARITHMETIC[t.dtype] for t in ready.op.tensors if t.role == "input" and t.dtype in ARITHMETIC)}
    wanted |= {name for name in ARITHMETIC.values() if name == peak}
    arithmetic = (session.peaks.arithmetic(name) for name in sorted(wanted))
    blocks = (session.peaks.blocks(name) for name, kind in BLOCKS.items() if kind.of in wanted)
    return (*(p for p in (*arithmetic, *blocks) if p is not None), *session.peaks.memory(ready.bytes, cold=regime == "cold"))


def _value(row: Row, reading: Reading, reached: Mapping[str, float], moved: int) -> dict[str, float]:
    value = row.value(reading.median, reached, moved)
    return {} if value is None else {"value": value}


def _share(reading: Reading, row: Row, ready: Prepared, flop: int, reached: Mapping[str, float]) -> dict[str, Any]:
    """The fraction of the nearer roof: the time that the peak would need, over the time that was taken."""
    kinds = [ARITHMETIC[t.dtype] for t in ready.op.tensors if t.role == "input" and t.dtype in ARITHMETIC and len(t.shape) > 1]
    blocks = [name for kind in kinds for name, block in BLOCKS.items() if block.of == kind and row.tiled]
    arithmetic = next((k for k in (*blocks, *kinds) if k in reached), "fma")
    memory = "read" if ready.written * MOSTLY_READ < ready.bytes else "copy"
    needed = {name: amount / reached[name] for name, amount in ((arithmetic, flop), (memory, ready.bytes)) if name in reached}
    roof = max(needed, key=lambda name: needed[name], default=None)
    return {} if roof is None else {"roof": roof, "fraction": needed[roof] / reading.median}


def _hot(ready: Prepared, contestants: list[Contestant], session: Session) -> tuple[dict[str, Call], int]:
    options = session.options
    mine = our_call(ready, services_for(session.settings), options.device, options.threads)
    calls: dict[str, Call] = {US: lambda number: mine()}
    for one in contestants:
        calls[one.name] = lambda number, call=one.call: call()  # type: ignore[misc]
    return calls, 0


def _cold(ready: Prepared, contestants: list[Contestant], session: Session) -> tuple[dict[str, Call], int]:
    """Calls on buffers that go round, so that none is found in the cache again."""
    options = session.options
    call = caller(ready, services_for(session.settings), options.device, options.threads)
    held = arrays.sets(ready.arguments, ready.outs, ready.bytes, session.rotation)
    calls: dict[str, Call] = {US: lambda number: call(*held[number % len(held)])}
    if contestants:
        given = _decoded(held, session.rotation)
        for one in contestants:
            bound = [peer_call for arguments, outs in given if (peer_call := one.peer(arguments, outs)) is not None]
            calls[one.name] = lambda number, bound=bound: bound[number % len(bound)]()  # type: ignore[misc]
    return calls, len(held) * ready.bytes


def _decoded(held: list[arrays.Set], rotation: int) -> list[arrays.Set]:
    """The sets as libraries take them; packed arguments are decoded, of which fewer sets are enough."""
    if not any(hasattr(v, "layout") for v in held[0][0].values()):
        return held
    first = plain(held[0][0])
    one = sum(v.nbytes for v in first.values() if hasattr(v, "nbytes"))
    return [(plain(arguments), outs) for arguments, outs in held[: max(2, -(-rotation // one))]]


def compile_times(ready: Prepared, session: Session, *, dispatch: bool = True) -> dict[str, Any]:
    """First call with an empty cache, first call of a new table with that cache (both with parsing, checking, the target's compiler
    and one run), a call of the smallest arrays there are (None where the op has a contract against them), and each stage's time."""
    options = session.options
    with tempfile.TemporaryDirectory(prefix="tridsl-bench-") as folder:
        fresh = replace(session.settings, cache=Path(folder))
        times = []
        for _ in range(2):
            services = services_for(fresh)

            def first(services: Services = services) -> None:
                again = replace(ready, target=target_of(ready.case, services))
                our_call(again, services, options.device, options.threads)()

            times.append(once(first))
    run = once(our_call(ready, services, options.device, options.threads))
    stages = _stages(ready, session)
    build = stages.get("build", 0.0)
    return {
        "cold_seconds": times[0], "warm_seconds": times[1], "run_seconds": run, "dispatch": _dispatch(ready, session) if dispatch else None,
        "lowering_seconds": sum(stages.values()) - build, "build_seconds": build, "stages": stages, "label": "measured",
    }  # fmt: skip


def _stages(ready: Prepared, session: Session) -> dict[str, float]:
    return stage_seconds(*bound_call(ready, services_for(session.settings), session.options.device, session.options.threads))


def _dispatch(ready: Prepared, session: Session) -> dict[str, float | int | str] | None:
    case, options = ready.case, session.options
    smallest = replace(case, sizes=dict.fromkeys(case.sizes, 1), shapes={n: (1,) * len(s) for n, s in case.shapes.items()})
    try:
        services = services_for(session.settings)
        call = our_call(prepare(smallest, services), services, options.device, options.threads)
        call()
    except TriError:
        return None
    return interleave({"dispatch": lambda number: call()}, session.samples)["dispatch"].data()

