"""The functions of the kernel text: loops, stores, reductions and matrix instructions, in the AIE API's C++.

Innermost loops whose accesses lie side by side become vectors; loops of a register tile are written out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

from tridsl.backends.npu.emit_blocks import block_store, emit_mma, exchange, in_rows
from tridsl.backends.npu.emit_functions import ELEMENTS, HELPERS, vector, with_needs
from tridsl.backends.npu.emit_places import Frame, Lanes, Place, address, can_load, cannot, index_text, step_of
from tridsl.backends.npu.emit_scans import running, standing_for
from tridsl.backends.npu.emit_statements import accumulate, append, store
from tridsl.backends.npu.emit_values import truth
from tridsl.backends.npu.interleave import interleave
from tridsl.backends.npu.lanes import lanes_of
from tridsl.backends.npu.lower_array import Laid
from tridsl.backends.npu.lower_program import Body, identifier, in_registers
from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Const, Load, index
from tridsl.ir.loop import Accumulate, Alloc, Append, Block, Buffer, For, If, Mma, Ref, Store
from tridsl.ir.scans import scan_of
from tridsl.ir.walk import substitute, variables, walk

WRITTEN_OUT = 8
"""Iterations up to which a loop of a register tile is written out, and vectors up to which a nest is."""

BFP16 = "AIE_API_EMULATE_BFLOAT16_MMUL_WITH_BFP16"
"""The AIE API's switch for `Intrinsic.shares_exponent`: one for the whole text, which has one product."""
HEADER = """// {name}: kernels for AMD AI Engine ({generation}), written by tridsl. Not compiled by Peano and not run on an NPU by its authors.
{defined}#include <aie_api/aie.hpp>
#include <stdint.h>
"""


def kernel_text(laid: Laid, spec: DeviceSpec) -> str:
    """All functions of a design, and the helpers they call. E0774: a construct without AIE code."""
    used: set[str] = set()
    blocks: set[str] = set()
    texts = []
    for body in laid.program.bodies:
        frame = _function(body, laid, spec)
        used |= frame.used
        blocks |= frame.blocks
        texts.append("\n".join(frame.lines))
    aliases = [_alias(INTRINSICS[name]) for name in sorted(blocks)]
    defined = f"#define {BFP16}\n" if any(INTRINSICS[name].shares_exponent for name in blocks) else ""
    header = HEADER.format(name=laid.design.name, generation=laid.design.generation, defined=defined)
    assert used <= set(HELPERS)
    return "\n".join([header, *aliases, *(h.text + "\n" for h in with_needs(used)), *texts]) + "\n"


def _alias(row: Intrinsic) -> str:
    return f"using {row.name} = aie::mmul<{row.m}, {row.k}, {row.n}, {ELEMENTS[row.a]}, {ELEMENTS[row.b]}>;\n"


def _function(body: Body, laid: Laid, spec: DeviceSpec) -> Frame:
    assert spec.array is not None
    scalars = {s.name: (n, s.dtype) for n, s in enumerate(laid.program.scalars)}
    counters = frozenset(n.count.tensor for s in body.block for n in walk(s) if isinstance(n, Append))
    frame = Frame(lanes=lanes_of(body.block), align=spec.array.load_bytes, scalars=scalars, counters=counters)
    written = _written(body.block)
    names = {b.name for b in body.pointers}
    one_place = {n for result, sums in laid.program.shared if {result, sums.name} <= names for n in (result, sums.name)}
    parameters = []
    for buffer in body.pointers:
        if buffer.dtype not in ELEMENTS:
            raise cannot(f"memory of type {buffer.dtype}")
        shape = tuple(int(n.value) for n in buffer.shape if isinstance(n, Const))
        frame.places[buffer.name] = Place(name=identifier(buffer.name), kind="memory", dtype=buffer.dtype, shape=shape)
        constant = "" if buffer.name in written else "const "
        alone = "" if buffer.name in one_place else "__restrict "
        parameters.append(f"{constant}{ELEMENTS[buffer.dtype]} *{alone}{identifier(buffer.name)}")
    parameters += [f"int32_t {identifier(n)}" for n in body.numbers]
    if body.scalars:
        parameters.append("const int32_t *__restrict scalars")
    frame.depth = 0
    frame.line(f'extern "C" void {body.name}({", ".join(parameters)}) {{')
    frame.depth = 1
    frame.line("aie::set_rounding(aie::rounding_mode::conv_even);")
    frame.line("aie::set_saturation(aie::saturation_mode::none);")
    emit_block(frame, body.block, {n.target.tensor: n.intrinsic for s in body.block for n in walk(s) if isinstance(n, Mma)})
    frame.depth = 0
    frame.line("}\n")
    return frame


def _written(block: Block) -> set[str]:
    nodes = [n for s in block for n in walk(s)]
    return {n.tensor for n in nodes if isinstance(n, Ref)} | {t for n in nodes if isinstance(n, Append) for t in n.tensors}


Blocks = dict[str, str]
"""Accumulators of matrix instructions: buffer to instruction."""


def emit_block(frame: Frame, block: Block, blocks: Blocks) -> None:
    for statement in block:
        rule = _STATEMENTS.get(type(statement))
        if rule is None:
            raise cannot(f"a `{type(statement).__name__}`", statement)
        rule(frame, statement, blocks)


def _alloc(frame: Frame, statement: Alloc, blocks: Blocks) -> None:
    buffer: Buffer = statement.buffer
    shape = tuple(int(n.value) for n in buffer.shape if isinstance(n, Const))
    name = identifier(buffer.name)
    if buffer.name in blocks:
        row = INTRINSICS[blocks[buffer.name]]
        frame.blocks.add(row.name)
        frame.places[buffer.name] = Place(name=name, kind="blocks", dtype=buffer.dtype, shape=shape, block=row.name)
        frame.line(f"{row.name} {name}[{prod(shape) // (row.m * row.n)}];")
    elif buffer.name in frame.counters:
        frame.places[buffer.name] = Place(name=name, kind="counter", dtype=buffer.dtype, shape=shape)
        frame.line(f"int32_t {name};")
    elif prod(shape) == 1:
        frame.places[buffer.name] = Place(name=name, kind="number", dtype=buffer.dtype, shape=shape)
        frame.line(f"{vector(buffer.dtype, frame.lanes)} {name};")
    elif buffer.space == "reg" or in_registers(buffer):
        shape = (*shape[:-1], -(-shape[-1] // frame.lanes) * frame.lanes)  # rows are whole vectors, whose last lanes nobody may need
        frame.places[buffer.name] = Place(name=name, kind="registers", dtype=buffer.dtype, shape=shape)
        frame.line(f"{vector(buffer.dtype, frame.lanes)} {name}[{-(-prod(shape) // frame.lanes)}];")
    else:
        raise cannot(f"`{buffer.name}` in a function's own memory", buffer)


def _if(frame: Frame, statement: If, blocks: Blocks) -> None:
    frame.line(f"if {truth(frame, statement.condition)} {{")
    _inside(frame, statement.then, blocks)
    if statement.otherwise:
        frame.line("} else {")
        _inside(frame, statement.otherwise, blocks)
    frame.line("}")


def _inside(frame: Frame, block: Block, blocks: Blocks) -> None:
    frame.depth += 1
    emit_block(frame, block, blocks)
    frame.depth -= 1


def _for(frame: Frame, loop: For, blocks: Blocks) -> None:
    if not isinstance(loop.extent, Const):
        _counted(frame, loop, index_text(loop.extent), blocks)
        return
    count = int(loop.extent.value)
    if exchange(frame, loop) or interleave(frame, loop):
        return
    lanes = _vectorised(frame, loop, blocks)
    if lanes is not None:
        _vectors(frame, *lanes, carried=scan_of(loop) is not None)
        return
    if loop.kind == "vector":
        raise cannot("a vector loop whose statements are not side by side", loop)
    if count == 1 or (loop.kind == "unroll" and count <= WRITTEN_OUT) or (_touches(loop, frame, "blocks") and count <= WRITTEN_OUT and not loop.reduce):
        scoped = count > 1 and any(isinstance(s, Alloc) for s in loop.body)  # each copy has its own
        for n in range(count):
            frame.lines += ["  " * frame.depth + "{"] * scoped
            emit_block(frame, substitute(loop.body, {loop.var: index(n)}), blocks)
            frame.lines += ["  " * frame.depth + "}"] * scoped
        return
    if not any(isinstance(n, For | If) for s in loop.body for n in walk(s)):
        frame.line(f'_Pragma("clang loop min_iteration_count({count})")')
    _counted(frame, loop, str(count), blocks)


def _counted(frame: Frame, loop: For, count: str, blocks: Blocks) -> None:
    name = identifier(loop.var)
    frame.line(f"for (int {name} = 0; {name} < {count}; ++{name}) {{")
    _inside(frame, loop.body, blocks)
    frame.line("}")


def _touches(loop: For, frame: Frame, kind: str) -> bool:
    names = {n.tensor for n in walk(loop) if isinstance(n, Load | Ref)}
    names &= {name for name, place in frame.places.items() if place.kind == kind}
    return any(loop.var in variables(i) for n in walk(loop) if isinstance(n, Load | Ref) and n.tensor in names for i in n.index)


# Vectors.


def _vectorised(frame: Frame, loop: For, blocks: Blocks) -> tuple[Lanes, Block] | None:
    """The lane loops that begin with `loop`, and what they do; None where `loop` is not the outermost of such loops."""
    nest: list[For] = [loop]
    while len(nest[-1].body) == 1 and isinstance(nest[-1].body[0], For):
        nest.append(nest[-1].body[0])
    body = nest[-1].body
    if not all(isinstance(s, Store | Accumulate | Append) for s in body) or not all(isinstance(l.extent, Const) for l in nest):
        return None
    if nest[-1].kind != "vector" and not all(isinstance(s, Store) for s in body):
        return None
    in_order = len(nest) == 1 and (any(isinstance(s, Append) for s in body) or scan_of(loop) is not None)
    if any((l.carried and not in_order) or (l.reduce and l.kind != "vector") for l in nest) or any(l.kind == "vector" for l in nest[:-1]):
        return None
    lanes = Lanes(variables=tuple((l.var, int(l.extent.value)) for l in nest if isinstance(l.extent, Const)))
    if prod(n for _, n in lanes.variables) > WRITTEN_OUT * frame.lanes:
        return None
    if len(nest) > 1 and (nest[-1].reduce or prod(n for _, n in lanes.variables) % frame.lanes and not _in_blocks(frame, body)):
        return None
    if len(nest) > 1 and not _in_blocks(frame, body) and nest[-1].kind == "vector" and lanes.variables[-1][1] % frame.lanes == 0:
        return None
    return (lanes, body) if _side_by_side(frame, body, lanes) else None


def _in_blocks(frame: Frame, body: Block) -> bool:
    return any(isinstance(n, Load | Ref) and n.tensor in frame.places and frame.places[n.tensor].kind == "blocks" for s in body for n in walk(s))


def _side_by_side(frame: Frame, body: Block, lanes: Lanes) -> bool:
    for node in (n for s in body for n in walk(s)):
        if isinstance(node, Load | Ref):
            place = frame.places.get(node.tensor)
            if place is None or _chosen_by_lane(node, lanes):
                return False
            step = step_of(address(place, node.index), lanes)
            if step is None and place.kind == "memory" and _in_blocks(frame, body) and in_rows(place, node.index, lanes):
                continue
            apart = (0, 1, 2) if place.kind == "memory" and isinstance(body[0], Store) else (0, 1)
            if not (can_load(step, place.dtype, frame.lanes) if isinstance(node, Load) and place.kind == "memory" else step in apart):
                return False
            if place.kind == "blocks" and (step != 1 or prod(n for _, n in lanes.variables) != prod(place.shape[-2:])):
                return False
    return True


def _chosen_by_lane(node: Load | Ref, lanes: Lanes) -> bool:
    """Whether what memory says chooses another place for each lane."""
    inner = [n for i in node.index for n in walk(i) if isinstance(n, Load) and n.index]
    return any(variables(n) & {name for name, _ in lanes.variables} for n in inner)


def _vectors(frame: Frame, lanes: Lanes, body: Block, carried: bool) -> None:
    total = prod(n for _, n in lanes.variables)
    if _in_blocks(frame, body):
        for statement in body:
            block_store(frame, statement, lanes)
        return
    for first in range(0, total, frame.lanes):
        chunk = replace(lanes, first=first, active=min(frame.lanes, total - first))
        if carried:
            for written, texts in running(frame, body, chunk):
                store(standing_for(frame, texts), written, chunk)
            continue
        for statement in body:
            if isinstance(statement, Store):
                store(frame, statement, chunk)
            elif isinstance(statement, Accumulate):
                accumulate(frame, statement, chunk)
            elif isinstance(statement, Append):
                append(frame, statement, chunk)


def _lone_store(frame: Frame, statement: Store, blocks: Blocks) -> None:
    store(frame, statement, Lanes(active=frame.lanes))


def _lone_accumulate(frame: Frame, statement: Accumulate, blocks: Blocks) -> None:
    accumulate(frame, statement, Lanes(active=frame.lanes))


_STATEMENTS: dict[type, Callable[[Frame, Any, Blocks], None]] = {
    Alloc: _alloc,
    For: _for,
    If: _if,
    Store: _lone_store,
    Accumulate: _lone_accumulate,
    Mma: lambda frame, statement, blocks: emit_mma(frame, statement),
}
