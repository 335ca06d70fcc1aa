"""Predicted time of a scheduled kernel from the facts of the chip alone: a roofline over its loop nest that explains itself.

Three bounds per phase, of which the largest decides: arithmetic (vectors issued, with tails, chains and spilt registers), traffic
into each cache (footprints of the loops that fit into it, after Wolf and Lam's reuse analysis), and memory. Nothing here was
measured; the number ranks schedules, and every report calls it predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tridsl.autotune.footprints import Leaf, leaves, loaded, operations
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import F32, compute_type
from tridsl.ir.affine import evaluate_index
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Op, Tensor
from tridsl.schedule.analyse import axes_of, over_of, points, values_of
from tridsl.structs import dataclass

ISSUE_PER_SECOND = 3e9
"""Vector multiply-adds per second of one core whose peak is not known: one per cycle at 3 GHz. An assumption."""
LEVEL_VECTORS = (0.5, 0.25, 0.0625)
"""Vectors per issue slot that L2, L3 and memory deliver where no rate is known: halves and quarters of a core's usual 32 bytes a
cycle from L2 (AMD 57647, Intel 248966), and 4 bytes a cycle from memory. Assumptions."""
CHAIN = 4
"""Independent accumulators that hide the latency of a multiply-add issued once a cycle (four cycles on current cores)."""
LOADS_PER_ISSUE = 1.0
LOOP_SLOTS, ENTRY_SLOTS = 0.5, 6.0
"""Issue slots of one iteration's control, and of entering a loop (set-up, one misprediction in a while)."""
TEAM_SECONDS = 5e-6
"""Starting a team of threads and waiting for it."""
OVERLAP = 0.15
"""Part of the lesser bounds that is not hidden behind the greatest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """`seconds` are predicted; `bound` is what decides (`arithmetic`, `L2`, `L3`, `memory`, `control`); `ideal_seconds` the roofline of the op
    whatever its schedule; `reasons` say how the number came about."""

    seconds: float
    ideal_seconds: float
    bound: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"predicted {time_text(self.seconds)}, bound by {self.bound}", *(f"  {r}" for r in self.reasons)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Rates of `spec`, with assumptions where facts are absent. Seconds are the unit of everything."""

    spec: DeviceSpec
    slot: float
    threads: int
    caches: tuple[tuple[str, int], ...]

    def seconds_per_byte(self, level: int) -> float:
        """Of what comes from the level behind cache `level` (0: L1)."""
        known = self.spec.peak_copy_bytes_per_second
        if level + 1 == len(self.caches) and known:
            return 1 / known
        vector = (self.spec.vector_bits or 128) / 8
        return self.slot / (LEVEL_VECTORS[min(level if level + 1 < len(self.caches) else 2, 2)] * vector)


def machine(spec: DeviceSpec, threads: int | None = None) -> Machine:
    peak = spec.peak_f32_ops_per_second_per_core
    slot = 2 * spec.lanes(F32) / peak if peak else 1 / ISSUE_PER_SECOND
    named = (("L1", spec.l1_bytes), ("L2", spec.l2_bytes), ("L3", spec.l3_bytes))
    caches = tuple((name, size) for name, size in named if size)
    return Machine(spec=spec, slot=slot, threads=max(1, threads or spec.cores or 1), caches=caches or (("L1", 32768),))


def predict(kernel: Kernel, spec: DeviceSpec, sizes: Mapping[str, int], *, op: Op | None = None, threads: int | None = None) -> Cost:
    """The predicted time of `kernel` (a stage-`simplify` kernel of the pipeline) on `threads` of `spec` (default: its cores)."""
    rates = machine(spec, threads)
    total: dict[str, float] = {}
    seconds = 0.0
    reasons: list[str] = []
    for phase in kernel.phases:
        nests = leaves(phase.body, kernel, sizes)
        if not nests:
            continue
        spread = _threads(nests, rates)
        bounds, facts = _arithmetic(nests, rates, spread)
        traffic, more = _traffic(nests, rates, spread)
        bounds |= traffic
        worst = max(bounds.values())
        phase_seconds = worst + OVERLAP * (sum(bounds.values()) - worst) + (TEAM_SECONDS if spread > 1 else 0.0)
        seconds += phase_seconds
        for name, value in bounds.items():
            total[name] = total.get(name, 0.0) + value
        reasons.append(f"phase {phase.name}: {time_text(phase_seconds)} on {spread:.3g} of {rates.threads} threads")
        reasons += [f"  {line}" for line in (*facts, *more)]
    bound = max(total, key=lambda n: total[n], default="nothing")
    ideal = roofline(op, spec, sizes, threads=threads) if op else 0.0
    if ideal:
        reasons.append(f"the op's own roofline is {time_text(ideal)}, {100 * ideal / max(seconds, ideal):.0f}% of it is predicted")
    return Cost(seconds=seconds, ideal_seconds=ideal, bound=bound, reasons=tuple(reasons))


def roofline(op: Op, spec: DeviceSpec, sizes: Mapping[str, int], *, threads: int | None = None) -> float:
    """Seconds that no schedule can beat: every operation counted once (a function is one) at the peak of multiply-adds over the
    narrowest elements, or each parameter once from where it fits. Williams, Waterman and Patterson, "Roofline", 2009. 0 where sizes are missing.
    """
    rates = machine(spec, threads)
    slots = 0.0
    for stage in op.stages:
        count = points((*axes_of(stage), *over_of(stage)), sizes)
        if count is None:
            return 0.0
        reducer = getattr(stage, "reducer", None)
        lanes = max(spec.lanes(compute_type(getattr(stage, "dtype", F32))), *(spec.lanes(d) for d in loaded(values_of(stage))), 1)
        slots += count * operations((*values_of(stage), *(reducer.merge if reducer else ()))) / 2 / lanes
    moved = 0
    for tensor in op.params:
        if isinstance(tensor, Tensor):
            moved += math.prod(evaluate_index(n, sizes) for n in tensor.shape) * tensor.dtype.storage_bytes
    level = next((n for n, (_, size) in enumerate(rates.caches) if moved <= size), len(rates.caches))
    memory = moved * rates.seconds_per_byte(min(level, len(rates.caches)) - 1) if level else 0.0
    return max(slots * rates.slot / rates.threads, memory / (rates.threads if level < len(rates.caches) else 1))


def _threads(nests: tuple[Leaf, ...], rates: Machine) -> float:
    """Threads kept busy: pieces of the parallel loop, in whole rounds. 1 without one."""
    pieces = [loop.trips for leaf in nests for loop in leaf.loops if loop.kind == "parallel"]
    if not pieces:
        return 1.0
    most = max(pieces)
    return most / math.ceil(most / rates.threads) if most >= 1 else 1.0


def _arithmetic(nests: tuple[Leaf, ...], rates: Machine, spread: float) -> tuple[dict[str, float], list[str]]:
    """Issue slots of all statements, shared by the threads."""
    slots = control = 0.0
    useful = issued = 0.0
    facts: list[str] = []
    for leaf in nests:
        lanes = rates.spec.lanes(leaf.dtype)
        vectors = leaf.vectors(lanes)
        outside = math.prod(l.trips for l in leaf.outer)
        operations = outside * leaf.slots(lanes)
        loads = sum(outside * leaf.issues(a, lanes) for a in leaf.reads) / LOADS_PER_ISSUE
        stores = sum(leaf.visits(a) * leaf.issues(a, lanes) for a in leaf.writes)
        own = max(operations, loads) + stores
        if leaf.accumulates and leaf.chained:
            chains = max(1.0, min(vectors, 64.0)) if leaf.registered else 1.0
            if chains < CHAIN:
                own = max(own, outside * vectors * CHAIN / chains)
                facts.append(f"{leaf.stage}: {chains:.0f} accumulators wait for each other, {CHAIN} would not")
            needed = vectors + leaf.columns(lanes) + 1
            over = needed - (rates.spec.vector_registers or 16)
            if over > 0:
                own += 2 * over * outside
                facts.append(f"{leaf.stage}: {needed:.0f} registers are needed, {rates.spec.vector_registers or 16} are there")
            elif len(leaf.inner) > 1:
                facts.append(f"{leaf.stage}: a register tile of {vectors:.0f} vectors, {needed:.0f} of {rates.spec.vector_registers or 16} registers")
        slots += own
        useful += leaf.points
        issued += outside * vectors * lanes
        entries = outside / max(1.0, leaf.outer[-1].trips) if leaf.outer else 1.0
        control += LOOP_SLOTS * outside + ENTRY_SLOTS * entries
    if issued > useful * 1.02:
        facts.append(f"tails and masks: {100 * useful / issued:.0f}% of the lanes do work")
    arithmetic, loops = slots * rates.slot / spread, control * rates.slot / spread
    facts.insert(0, f"arithmetic {time_text(arithmetic)}, control {time_text(loops)}")
    return {"arithmetic": arithmetic, "control": loops}, facts


def _traffic(nests: tuple[Leaf, ...], rates: Machine, spread: float) -> tuple[dict[str, float], list[str]]:
    """Bytes into each cache from the level behind it."""
    found: dict[str, float] = {}
    facts: list[str] = []
    for level, (name, size) in enumerate(rates.caches):
        moved = sum(leaf_bytes(leaf, nests, size) for leaf in nests)
        if not moved:
            continue
        behind = rates.caches[level + 1][0] if level + 1 < len(rates.caches) else "memory"
        shared = spread if behind != "memory" else 1.0
        found[behind] = moved * rates.seconds_per_byte(level) / shared
        facts.append(f"{behind} to {name}: {bytes_text(moved)}, {time_text(found[behind])}")
    streamed = sum(streamed_bytes(leaf) for leaf in nests)
    if streamed:
        seconds = streamed * rates.seconds_per_byte(len(rates.caches) - 1)
        found["memory"] = found.get("memory", 0.0) + seconds
        facts.append(f"past the caches: {bytes_text(streamed)}, {time_text(seconds)}")
    return found, facts


def streamed_bytes(leaf: Leaf) -> float:
    """Bytes that non-temporal stores send to memory, whether or not the caches had room for them."""
    return sum(access.footprint(leaf.loops) for access in leaf.writes if access.stream)


def leaf_bytes(leaf: Leaf, nests: tuple[Leaf, ...], size: int) -> float:
    """Bytes that the accesses of one statement bring into a cache of `size` bytes; everything that fits as a whole is there already."""
    depth = _resident(leaf, nests, size)
    if depth == 0:
        return 0.0
    around = leaf.loops[: depth - 1]
    outside = math.prod(l.trips for l in around)
    here = leaf.loops[depth - 1]
    total = 0.0
    for access in (*leaf.reads, *leaf.writes):
        if access.space == "reg":
            continue
        each = access.footprint(leaf.loops[depth:]) * (here.trips if here.var in access.variables else 1.0)
        moved = outside * min(each, access.footprint(leaf.loops[depth - 1 :]))  # lines that the next iteration reads on are still there
        if not access.stream:
            total += moved * (2.0 if access in leaf.writes else 1.0)  # what is written was read first, and is written back
    return total


def _resident(leaf: Leaf, nests: tuple[Leaf, ...], size: int) -> int:
    """The number of outer loops around the largest part of the nest whose footprint fits into `size` bytes; 0: all of it."""
    for depth in range(len(leaf.loops) + 1):
        prefix = leaf.loops[:depth]
        footprints: dict[str, float] = {}
        for other in nests:
            if other.loops[:depth] == prefix:
                for access in (*other.reads, *other.writes):
                    if access.space != "reg":
                        held = access.footprint(other.loops[depth:])
                        footprints[access.tensor] = max(footprints.get(access.tensor, 0.0), held)
        if sum(footprints.values()) <= size:
            return depth
    return len(leaf.loops)


def time_text(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def bytes_text(count: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"

