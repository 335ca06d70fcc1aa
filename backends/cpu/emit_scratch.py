"""Borrowing a block of `scratch`, and giving it back: two functions of each module that needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tridsl.backends.cpu.emit_frame import Frame, new_function
from tridsl.backends.cpu.emit_llvm import INDEX_TYPE, POINTER, VOID, Value, constant, declare, index_constant, ir
from tridsl.backends.cpu.scratch import LINE, SYMBOL
from tridsl.devices.spec import DeviceSpec


def borrow(frame: Frame, size: Value) -> Value:
    """At least `size` bytes, a multiple of 64 that is not 0, aligned to 64; null where there is no memory."""
    function = _function(frame.builder.module, "tridsl.borrow", POINTER, INDEX_TYPE, frame.chip.spec, _write_borrow)
    return frame.builder.call(function, [size])


def give_back(frame: Frame, pointer: Value) -> None:
    """What `borrow` gave (null: nothing)."""
    function = _function(frame.builder.module, "tridsl.give_back", VOID, POINTER, frame.chip.spec, _write_give_back)
    frame.builder.call(function, [pointer])


def _function(module: Any, name: str, returns: Any, argument: Any, spec: DeviceSpec, write: Callable[[Any, Any], None]) -> Any:
    if name in module.globals:
        return module.globals[name]
    function = new_function(module, name, [argument], spec, returns=returns)
    function.linkage = "internal"
    function.attributes.add("noinline")  # inlined, the promise that nothing else points into the block is lost
    if returns is POINTER:
        set.add(function.return_value.attributes, "noalias")
    write(module, function)
    return function


def _table(module: Any) -> Any:
    """Its first word."""
    if SYMBOL in module.globals:
        return module.globals[SYMBOL]
    return ir.GlobalVariable(module, INDEX_TYPE, SYMBOL)


def _search(module: Any, function: Any, visit: Callable[[Any, Value, Value, Any], None]) -> Any:
    """A loop over the blocks; `visit(builder, place of "taken", block, following)` ends each round. The builder behind the loop."""
    start, loop, following, after = (function.append_basic_block(n) for n in ("entry", "loop", "following", "after"))
    builder = ir.IRBuilder(start)
    table = _table(module)
    blocks = builder.load(table, typ=INDEX_TYPE)
    builder.cbranch(builder.icmp_signed(">", blocks, index_constant(0)), loop, after)
    builder.position_at_end(loop)
    number = builder.phi(INDEX_TYPE)
    number.add_incoming(index_constant(0), start)
    entry = builder.gep(table, [builder.mul(builder.add(number, index_constant(1)), index_constant(LINE))], source_etype=ir.IntType(8))
    block = builder.load(builder.gep(entry, [index_constant(8)], source_etype=ir.IntType(8)), typ=POINTER)
    visit(builder, entry, block, following)
    builder.position_at_end(following)
    after_this = builder.add(number, index_constant(1))
    number.add_incoming(after_this, following)
    builder.cbranch(builder.icmp_signed("<", after_this, blocks), loop, after)
    builder.position_at_end(after)
    return builder


def _write_borrow(module: Any, function: Any) -> None:
    (size,) = function.args

    def visit(builder: Any, entry: Value, block: Value, following: Any) -> None:
        fits, mine = (function.append_basic_block(n) for n in ("fits", "mine"))
        table = _table(module)
        room = builder.load(builder.gep(table, [index_constant(8)], source_etype=ir.IntType(8)), typ=INDEX_TYPE)
        builder.cbranch(builder.icmp_unsigned("<=", size, room), fits, following)
        builder.position_at_end(fits)
        found = builder.cmpxchg(entry, index_constant(0), index_constant(1), "acquire", "monotonic")
        builder.cbranch(builder.extract_value(found, 1), mine, following)
        builder.position_at_end(mine)
        builder.ret(block)

    builder = _search(module, function, visit)
    allocate = declare(module, "aligned_alloc", POINTER, [INDEX_TYPE, INDEX_TYPE])
    builder.ret(builder.call(allocate, [index_constant(64), size]))


def _write_give_back(module: Any, function: Any) -> None:
    (pointer,) = function.args

    def visit(builder: Any, entry: Value, block: Value, following: Any) -> None:
        mine = function.append_basic_block("mine")
        builder.cbranch(builder.icmp_unsigned("==", block, pointer), mine, following)
        builder.position_at_end(mine)
        builder.store_atomic(constant(INDEX_TYPE, 0), entry, "release", 8)
        builder.ret_void()

    builder = _search(module, function, visit)
    builder.call(declare(module, "free", VOID, [POINTER]), [pointer])
    builder.ret_void()
