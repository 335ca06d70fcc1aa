"""Kernel to LLVM IR: the tables of emit rules and the function that the driver calls.

`i32 <entry>(ptr slots, i64 threads)`: slots as `backend.Signature` says; returns 0, 1 for out of memory, or 2 + n where check
n is the lowest that failed. Phases follow each other; a parallel loop's threads are joined at its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tridsl.backend import Code, Signature
from tridsl.backends.cpu.emit_append import emit_append
from tridsl.backends.cpu.emit_buffers import heap_allocations, heap_buffers, row_major
from tridsl.backends.cpu.emit_cast import from_stored
from tridsl.backends.cpu.emit_expr import (
    emit_binary,
    emit_call,
    emit_cast_node,
    emit_const,
    emit_select,
    emit_unary,
    emit_var,
)
from tridsl.backends.cpu.emit_frame import Chip, Frame, Place, new_function
from tridsl.backends.cpu.emit_llvm import INDEX_TYPE, POINTER, STORED, WORD, constant, index_constant, ir, stack_slot
from tridsl.backends.cpu.emit_memory import emit_lead, emit_load
from tridsl.backends.cpu.emit_mma import emit_mma
from tridsl.backends.cpu.emit_parallel import annotate, finish_frame
from tridsl.backends.cpu.emit_reduce import emit_accumulate
from tridsl.backends.cpu.emit_scan import spread_of
from tridsl.backends.cpu.emit_stmt import (
    emit_alloc,
    emit_barrier,
    emit_check,
    emit_copy,
    emit_for,
    emit_if_node,
    emit_prefetch,
    emit_store_node,
)
from tridsl.backends.cpu.emit_tiles import start_tiles
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Binary, Call, Cast, Const, Lead, Load, Select, Unary, Var
from tridsl.ir.loop import Accumulate, Alloc, Append, Barrier, Check, Copy, For, If, Kernel, Mma, Prefetch, Store
from tridsl.ir.op import Tensor

EXPRESSIONS: Mapping[type, Callable[[Any, Any], Any]] = {
    Const: emit_const,
    Var: emit_var,
    Load: emit_load,
    Lead: emit_lead,
    Unary: emit_unary,
    Binary: emit_binary,
    Select: emit_select,
    Cast: emit_cast_node,
    Call: emit_call,
}

STATEMENTS: Mapping[type, Callable[[Any, Any], None]] = {
    For: emit_for,
    Alloc: emit_alloc,
    Store: emit_store_node,
    Accumulate: emit_accumulate,
    Append: emit_append,
    Mma: emit_mma,
    Copy: emit_copy,
    If: emit_if_node,
    Barrier: emit_barrier,
    Check: emit_check,
    Prefetch: emit_prefetch,
}


def emit(kernel: Kernel, spec: DeviceSpec) -> Code:
    """The LLVM module of a lowered kernel."""
    entry = "tridsl_" + "_".join(re.findall(r"\w+", kernel.name))
    module = ir.Module(name=entry)
    module.triple = spec.target_triple
    body = _body(module, kernel, spec, entry)
    _entry(module, kernel, spec, entry, body)
    signature = Signature(params=kernel.params, sizes=kernel.sizes, messages=kernel.messages)
    return Code(entry=entry, text=str(module), extension="ll", signature=signature)


def _body(module: Any, kernel: Kernel, spec: DeviceSpec, entry: str) -> Any:
    """`void <entry>.body(ptr status, i64 threads, params…, sizes…)`: the kernel with what is known of its arguments."""
    kinds = [POINTER if isinstance(p, Tensor) else STORED[p.dtype] for p in kernel.params]
    function = new_function(module, f"{entry}.body", [POINTER, INDEX_TYPE, *kinds, *(INDEX_TYPE for _ in kernel.sizes)], spec)
    function.linkage = "internal"
    status, threads, *arguments = function.args
    first, body = function.append_basic_block("entry"), function.append_basic_block("body")
    frame = Frame(
        chip=Chip(spec), expressions=EXPRESSIONS, statements=STATEMENTS, builder=ir.IRBuilder(body), entry=ir.IRBuilder(first),
        name=entry, status=status, threads=threads, spread=spread_of(kernel),
    )  # fmt: skip
    for param, argument in zip(kernel.params, arguments):
        if isinstance(param, Tensor):
            frame.places[param.name] = Place(
                pointer=argument, dtype=param.dtype, shape=param.shape, strides=param.strides or row_major(param.shape), space="global",
                role=param.role, align=param.dtype.storage_bytes,
            )  # fmt: skip
            annotate(argument, frame.places[param.name])
        else:
            frame.values[param.name] = from_stored(frame.builder, argument, param.dtype)
    frame.values.update(zip(kernel.sizes, arguments[len(kernel.params) :]))
    start_tiles(frame, tuple(s for phase in kernel.phases for s in phase.body))
    with heap_buffers(frame, kernel.scratch):
        for phase in kernel.phases:
            with heap_buffers(frame, heap_allocations(phase.body)):
                frame.run(phase.body)
    finish_frame(frame)
    return function


def _entry(module: Any, kernel: Kernel, spec: DeviceSpec, entry: str, body: Any) -> None:
    """The function the driver calls: reads the slots, turns what was recorded into a status."""
    function = new_function(module, entry, [POINTER, INDEX_TYPE], spec, returns=WORD)
    slots, threads = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    status = stack_slot(builder, WORD, 4)
    builder.store(constant(WORD, -1), status)
    values = [
        builder.load(builder.gep(slots, [index_constant(n)], source_etype=INDEX_TYPE), typ=argument.type)
        for n, argument in enumerate(body.args[2:])
    ]
    builder.call(body, [status, threads, *values])
    code = builder.load(status, typ=WORD)
    builder.ret(builder.select(builder.icmp_signed("==", code, constant(WORD, -1)), constant(WORD, 0), code))
