"""Parallel loops: the body becomes a function over a range of iterations, which OpenMP's runtime or the caller runs.

Each thread takes one contiguous part, by its number; an iteration is computed the same way whoever runs it, so results do not
depend on the number of threads. One thread, or one iteration, never enters the runtime.
"""

from __future__ import annotations

from typing import Any

from tridsl.backends.cpu.emit_buffers import heap_allocations, heap_buffers
from tridsl.backends.cpu.emit_frame import Frame, Place, emit_branches, emit_loop, new_function
from tridsl.backends.cpu.emit_llvm import (
    INDEX_TYPE,
    POINTER,
    VOID,
    WORD,
    Value,
    constant,
    declare,
    index_constant,
    intrinsic,
    ir,
    stack_slot,
)
from tridsl.backends.cpu.emit_stream import emit_stream_end
from tridsl.backends.cpu.emit_tiles import configure, release, start_tiles
from tridsl.ir.expr import Lead, Load
from tridsl.ir.loop import Append, For, Prefetch, Ref
from tridsl.ir.walk import variables, walk


def emit_parallel(frame: Frame, loop: For) -> None:
    extent = frame.evaluate(loop.extent)
    scalars, places = _captured(frame, loop)
    arguments = [*(frame.values[n] for n in scalars), *(frame.places[n].pointer for n in places)]
    name = f"{frame.name}.parallel{next(frame.numbering)}"
    worker = _worker(frame, loop, name, scalars, places, [a.type for a in arguments])
    builder = frame.builder
    team = intrinsic(builder, "smin", INDEX_TYPE, [frame.threads, extent])

    def serially() -> None:
        builder.call(worker, [index_constant(0), extent, frame.status, *arguments])

    def together() -> None:
        context = ir.LiteralStructType([INDEX_TYPE, POINTER, *(a.type for a in arguments)])
        data = stack_slot(frame.entry, context, 8)
        for number, value in enumerate((extent, frame.status, *arguments)):
            builder.store(value, _field(builder, data, context, number))
        start = declare(builder.module, "GOMP_parallel", VOID, [POINTER, POINTER, WORD, WORD])
        member = _team_member(frame, name, worker, context)
        builder.call(start, [member, data, builder.trunc(team, WORD), constant(WORD, 0)])

    emit_branches(frame, builder.icmp_signed(">", team, index_constant(1)), together, serially)
    configure(frame)


def _captured(frame: Frame, loop: For) -> tuple[list[str], list[str]]:
    """Names of values and places that the body uses, in a fixed order."""
    tensors = set()
    for node in walk(loop.body):
        match node:
            case Ref(tensor=tensor) | Load(tensor=tensor) | Prefetch(tensor=tensor) | Lead(tensor=tensor):
                tensors.add(tensor)
            case Append(tensors=appended):
                tensors.update(appended)
    places = sorted(name for name in tensors if name in frame.places)
    names = set(variables(loop.body)) | {n for p in places for e in (*frame.places[p].shape, *frame.places[p].strides) for n in variables(e)}
    return sorted(n for n in names if n in frame.values and n not in frame.known), places


def _worker(frame: Frame, loop: For, name: str, scalars: list[str], places: list[str], kinds: list[Any]) -> Any:
    """`void name(i64 begin, i64 end, ptr status, …)`: iterations `begin..end`."""
    function = new_function(frame.builder.module, name, [INDEX_TYPE, INDEX_TYPE, POINTER, *kinds], frame.chip.spec)
    function.linkage = "internal"
    function.attributes.add("noinline")
    begin, end, status, *values = function.args
    inner = start_frame(frame, function, status)
    inner.known, inner.depth, inner.level, inner.ranges = dict(frame.known), dict(frame.depth), frame.level, dict(frame.ranges)
    inner.values = dict(zip(scalars, values))
    for place_name, pointer in zip(places, values[len(scalars) :]):
        place = frame.places[place_name]
        inner.places[place_name] = _moved(place, pointer)
        annotate(pointer, place)
    start_tiles(inner, loop.body)
    with heap_buffers(inner, heap_allocations(loop.body)), inner.inside(loop):

        def body(counter: Value) -> None:
            inner.values[loop.var] = counter
            inner.run(loop.body)

        emit_loop(inner, begin, end, body)
    finish_frame(inner)
    return function


def _moved(place: Place, pointer: Value) -> Place:
    return Place(
        pointer=pointer, dtype=place.dtype, shape=place.shape, strides=place.strides, space=place.space, role=place.role,
        align=place.align, padded=place.padded, private=place.private,
    )  # fmt: skip


def annotate(argument: Any, place: Place) -> None:
    """What the signature guarantees: outputs and buffers overlap nothing, inputs are not written (they may overlap each other)."""
    if place.role is None or place.role == "output":
        argument.add_attribute("noalias")
    if place.role == "input":
        set.add(argument.attributes, "readonly")
    argument.attributes.align = place.align


def _team_member(frame: Frame, name: str, worker: Any, context: Any) -> Any:
    """`void name(ptr context)`, which the runtime calls in every thread: this thread's part of the range."""
    function = new_function(frame.builder.module, f"{name}.thread", [POINTER], frame.chip.spec)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    fields = [builder.load(_field(builder, function.args[0], context, n), typ=kind) for n, kind in enumerate(context.elements)]
    extent, *rest = fields
    number, count = (
        builder.sext(builder.call(declare(builder.module, symbol, WORD, []), []), INDEX_TYPE)
        for symbol in ("omp_get_thread_num", "omp_get_num_threads")
    )
    # extent * number / count without overflow: the first `extent % count` threads take one iteration more.
    share, left = builder.udiv(extent, count), builder.urem(extent, count)
    begin = builder.add(builder.mul(share, number), intrinsic(builder, "umin", INDEX_TYPE, [number, left]))
    extra = builder.zext(builder.icmp_unsigned("<", number, left), INDEX_TYPE)
    builder.call(worker, [begin, builder.add(builder.add(begin, share), extra), *rest])
    builder.ret_void()
    return function


def _field(builder: Any, pointer: Value, context: Any, number: int) -> Value:
    return builder.gep(pointer, [constant(WORD, 0), constant(WORD, number)], source_etype=context)


def start_frame(outer: Frame, function: Any, status: Value) -> Frame:
    """A frame that writes `function` with the tables of `outer`."""
    entry, body = function.append_basic_block("entry"), function.append_basic_block("body")
    return Frame(
        chip=outer.chip, expressions=outer.expressions, statements=outer.statements, builder=ir.IRBuilder(body), entry=ir.IRBuilder(entry),
        name=outer.name, status=status, threads=index_constant(1), numbering=outer.numbering, spread=outer.spread,
    )  # fmt: skip


def finish_frame(frame: Frame) -> None:
    """Close the function: everything of the entry block is known now."""
    emit_stream_end(frame)
    release(frame)
    frame.builder.ret_void()
    frame.entry.branch(frame.builder.function.blocks[1])


