"""`tridsl check`: every mistake of a file, its schedules included."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tridsl import stdlib
from tridsl.api.library import resolver_for
from tridsl.check.resolve import BoundModule, bind
from tridsl.check.signature import type_choices
from tridsl.check.types import MOST_COMBINATIONS, check_module, check_op
from tridsl.cli.monoids import broken_laws
from tridsl.cli.output import OK, USER, Report, diagnostic_data, rendered
from tridsl.cli.targets import find_source
from tridsl.devices.spec import DeviceSpec, chip_names, load_chip
from tridsl.diagnostics import Diagnostic, TriError
from tridsl.ir.op import Op
from tridsl.passes.boundaries import boundaries
from tridsl.passes.specialise import Specialisation, specialise
from tridsl.passes.to_loops import to_loops
from tridsl.schedule.apply import apply_schedule
from tridsl.schedule.text import block_steps, known_names
from tridsl.schedule.tunables import first_point
from tridsl.schedule.values import Unknown, evaluate
from tridsl.syntax.nodes import Directive, Number, ScheduleBlock
from tridsl.syntax.parse import parse

SAMPLE_GPU = DeviceSpec(
    name="sample GPU", kind="gpu", features=frozenset({"cooperative_matrix", "float16", "int8", "int16", "int64", "float64"}),
    subgroup_sizes=(32,), shared_bytes=49152, max_group_lanes=1024, max_push_bytes=128,
)  # fmt: skip
"""Facts against which the GPU schedules of a file are checked: what Vulkan implementations of current discrete GPUs have."""


def check(files: tuple[Path, ...], *, prove_monoids: bool) -> Report:
    """The mistakes of all files. A file whose text has mistakes is not looked at for mistakes in its schedules."""
    results: list[dict[str, Any]] = []
    lines: list[str] = []
    for file in files:
        problems, ops = _file(file, prove_monoids)
        results.append({"file": str(file), "ops": list(ops), "errors": [diagnostic_data(d) for d in problems]})
        if problems:
            lines.append(rendered(TriError(*problems), colour=False))
        else:
            lines.append(f"{file}: {len(ops)} op{'' if len(ops) == 1 else 's'}, no mistakes")
    return Report(data={"files": results}, text=tuple(lines), status=USER if any(r["errors"] for r in results) else OK)


def _file(file: Path, prove_monoids: bool) -> tuple[tuple[Diagnostic, ...], tuple[str, ...]]:
    try:
        source, folder = find_source(str(file))
        bound = bind(parse(source), resolver_for(stdlib.source, folder))
        check_module(bound)
    except TriError as problem:
        return problem.diagnostics, ()
    found = list(_schedule_problems(bound))
    if prove_monoids:
        for monoid in bound.monoids.values():
            if monoid in bound.module.items:
                found += broken_laws(monoid)
    return tuple(found), tuple(name for name, _ in bound.own())


def _schedule_problems(bound: BoundModule) -> Iterator[Diagnostic]:
    """What is wrong in the schedule blocks of the file itself, each applied to its op for a device of its kind."""
    seen: set[tuple[str, int]] = set()
    for block in (item for item in bound.module.items if isinstance(item, ScheduleBlock)):
        sizes = bench_sizes(bound, block.op)
        for op in _ops(bound, block.op):
            for spec in sample_devices(block.device):
                for diagnostic in _problems(block, op, spec, sizes):
                    place = (diagnostic.code, diagnostic.span.start if diagnostic.span else block.span.start if block.span else -1)
                    if place not in seen:
                        seen.add(place)
                        yield diagnostic


def _ops(bound: BoundModule, name: str) -> Iterator[Op]:
    for overload in bound.operations[name]:
        for types in islice(type_choices(overload.operation), MOST_COMBINATIONS):
            yield check_op(bound, overload, types)


def sample_devices(kind: str) -> tuple[DeviceSpec, ...]:
    """Devices of a kind (`any`: of every kind that schedules are applied for) to check schedules against."""
    chips = tuple(chip for chip in map(load_chip, chip_names()) if chip.kind == kind or kind == "any")
    return chips + ((SAMPLE_GPU,) if kind in ("gpu", "any") else ())


def bench_sizes(bound: BoundModule, name: str) -> tuple[dict[str, int], ...]:
    """The integers of the op's bench blocks, by name."""
    return tuple(
        {v.name: v.value.value for v in block.values if isinstance(v.value, Number) and isinstance(v.value.value, int)}
        for block in bound.benches.get(name, ())
    )


def _problems(block: ScheduleBlock, op: Op, spec: DeviceSpec, benches: tuple[dict[str, int], ...]) -> tuple[Diagnostic, ...]:
    """What is wrong with the block for any sizes; where it needs sizes that are known, for each of the op's bench blocks."""
    found: tuple[Diagnostic, ...] = ()
    for sizes in ({}, *benches):
        try:
            _apply(block, op, spec, {name: sizes[name] for name in op.sizes if name in sizes})
            return ()
        except TriError as problem:
            found = problem.diagnostics
    return found


def _apply(block: ScheduleBlock, op: Op, spec: DeviceSpec, sizes: dict[str, int]) -> None:
    """The block on this device; sizes that are not given stay symbolic. A guard that is false skips it."""
    directives = [item for item in block.items if isinstance(item, Directive)]
    if all(call.verb == "on" for item in directives for call in item.calls):
        return  # placement of whole ops, which no kernel sees
    names = known_names(op, sizes)
    if block.when is not None:
        try:
            if not evaluate(block.when, names, spec):
                return
        except Unknown:
            pass  # depends on sizes: some call will meet it
    steps = block_steps(block, {**names, **first_point(block, names, spec)}, spec)
    kernel = boundaries(specialise(to_loops(op), Specialisation(sizes=tuple(sizes.items()))))
    apply_schedule(kernel, steps, spec)
