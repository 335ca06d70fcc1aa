"""A `Kernel` as Python source: loops are Python loops, memory is flat lists, every access is checked.

    C[i, j] += A[i, k] * B[k, j]   ->   i0 = v1; i1 = v2
                                        if not (0 <= i0 < d0 and 0 <= i1 < d1): out_of_bounds('C', i0, i1)
                                        …

Meaning comes first: loops of any kind run in order, except lanes that wait at barriers (`kernel_values.lockstep`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tridsl.devices.intrinsics import INTRINSICS
from tridsl.dtypes import FLIPPED, INDEX, DType
from tridsl.ir import kernel_values as kv
from tridsl.ir import loop
from tridsl.ir.block_floats import shared_exponent
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Var
from tridsl.ir.kernel_expressions import converted, expression, flat, load, operation, shared
from tridsl.ir.kernel_writer import Place, Writer
from tridsl.ir.op import Reducer, Scalar, Tensor
from tridsl.ir.walk import variables, walk

_PARALLEL = ("parallel", "group", "column", "row")
_LANES = ("subgroup", "lane")
_MAX_BLOCKS = 12  # CPython refuses more than 20 nested loops in one function


def kernel_source(kernel: loop.Kernel, check_races: bool) -> tuple[str, dict[str, Any]]:
    """The text of a function `run(bind, scalar, size, failed, outside)` and the names it refers to."""
    writer = Writer(kernel=kernel, check_races=check_races)
    writer.has_padded = any(isinstance(n, loop.Buffer) and any(n.padded) for n in walk(kernel))
    writer.values.update(
        POISON=kv.POISON, out_of_bounds=kv.out_of_bounds, never_written=kv.never_written, checked=kv.checked,
        lockstep=kv.lockstep, next_loop=kv.loop_instances(), Memory=kv.Memory,
    )  # fmt: skip
    with writer.block("def run(bind, scalar, size, failed, outside):"):
        for name in kernel.sizes:
            writer.names[name] = writer.fresh("n")
            writer.line(f"{writer.names[name]} = size({name!r})")
        for parameter in kernel.params:
            if isinstance(parameter, Scalar):
                writer.names[parameter.name] = writer.fresh("s")
                writer.line(f"{writer.names[parameter.name]} = scalar({parameter.name!r})")
        for parameter in kernel.params:
            if isinstance(parameter, Tensor):
                _declare(
                    writer,
                    parameter.name,
                    parameter.dtype,
                    parameter.shape,
                    "global",
                    parameter.role == "output",
                    False,
                )
                place = writer.places[parameter.name]
                writer.line(f"{place.memory} = bind({parameter.name!r}, ({''.join(e + ', ' for e in place.extents)}))")
        for buffer in kernel.scratch:
            _allocate(writer, buffer)
        for phase in kernel.phases:
            _block(writer, phase.body)
    return "\n".join(writer.lines) + "\n", writer.values


def _declare(
    w: Writer, name: str, dtype: DType, shape: tuple[Expr, ...], space: str, unwritten: bool, padded: bool
) -> None:
    extents = []
    for dimension in shape:
        extents.append(w.fresh("d"))
        w.line(f"{extents[-1]} = max(0, {expression(w, dimension)})")
    w.places[name] = Place(
        name=name, memory=w.fresh("t"), extents=tuple(extents), dtype=dtype, space=space, may_be_unwritten=unwritten, padded=padded,
        depth=w.parallel_depth,
    )  # fmt: skip


def _allocate(w: Writer, buffer: loop.Buffer) -> None:
    _declare(w, buffer.name, buffer.dtype, buffer.shape, buffer.space, True, any(buffer.padded))
    place = w.places[buffer.name]
    cells = f"[None] * ({' * '.join(place.extents) or '1'})"
    w.line(f"{place.memory} = {f'Memory({cells}, {buffer.name!r})' if w.check_races else cells}")


# Statements.


def _block(w: Writer, block: loop.Block) -> None:
    if not block:
        w.line("pass")
    for statement in block:
        _STATEMENTS[type(statement)](w, statement)


def _assign(w: Writer, target: loop.Ref, value: str, *, again: bool = False) -> None:
    """`target = value`, where `value` is held as the target's own type."""
    place = w.places[target.tensor]
    indices = []
    for position in target.index:
        indices.append(w.fresh("i"))
        w.line(f"{indices[-1]} = {expression(w, position)}")
    tests = [f"0 <= {i} < {extent}" for i, extent in zip(indices, place.extents)]
    if tests:
        w.line(f"if not ({' and '.join(tests)}): out_of_bounds({place.name!r}, {', '.join(indices)})")
    if w.has_padded and place.space == "global":
        value = f"checked({value}, {place.name!r})"
    if not shared(w, place):
        w.line(f"{place.memory}[{flat(place, indices)}] = {value}")
        return
    position_name = w.fresh("p")
    w.line(f"{position_name} = {flat(place, indices)}")
    if again:
        value, held = w.fresh("v"), value
        w.line(f"{value} = {held}")
    w.line(f"{place.memory}.write({position_name}, {w.path}{f', {value}' if again else ''})")
    w.line(f"{place.memory}[{position_name}] = {value}")


@contextmanager
def _masked(w: Writer, mask: Expr | None) -> Iterator[None]:
    if mask is None:
        yield
        return
    with w.block(f"if {expression(w, mask)}:"):
        yield


def _store(w: Writer, s: loop.Store) -> None:
    with _masked(w, s.mask):
        _assign(w, s.target, converted(w, expression(w, s.value), s.value.dtype, w.places[s.target.tensor].dtype), again=s.again)


def _stage(variable: str) -> str:
    return variable.partition(":")[0] if ":" in variable else ""


def _accumulate(w: Writer, s: loop.Accumulate) -> None:
    own = _stage(w.loops[-1].var) if w.loops else ""
    at_once = s.init and not any(f.reduce and _stage(f.var) == own for f in w.loops)
    with _masked(w, s.mask):
        if at_once:
            _initialise(w, s)
        _merge_into(w, s.targets, s.reducer, s.values)


def _initialise(w: Writer, s: loop.Accumulate) -> None:
    for target, identity in zip(s.targets, s.reducer.identity, strict=True):
        _assign(w, target, converted(w, expression(w, identity), identity.dtype, w.places[target.tensor].dtype))


def _merge_into(w: Writer, targets: tuple[loop.Ref, ...], reducer: Reducer, values: tuple[Expr, ...]) -> None:
    before, new = [], []
    for target, value, dtype in zip(targets, values, reducer.dtypes, strict=True):
        held = w.places[target.tensor].dtype
        before.append(w.fresh("a"))
        new.append(w.fresh("b"))
        w.line(
            f"{before[-1]} = {converted(w, load(w, Load(tensor=target.tensor, index=target.index, dtype=held), 0), held, dtype)}"
        )
        w.line(f"{new[-1]} = {expression(w, value)}")
    merged = []
    if reducer.op is not None:
        merged.append(operation(w, reducer.op, before[0], new[0], reducer.dtypes[0]))
    else:
        w.names.update({f"a.{n}": text for n, text in zip(reducer.states, before)})
        w.names.update({f"b.{n}": text for n, text in zip(reducer.states, new)})
        for merge in reducer.merge:
            merged.append(w.fresh("r"))
            w.line(f"{merged[-1]} = {expression(w, merge)}")
    for target, text, dtype in zip(targets, merged, reducer.dtypes, strict=True):
        _assign(w, target, converted(w, text, dtype, w.places[target.tensor].dtype))


def _for(w: Writer, s: loop.For) -> None:
    if s.reduce and not any(f.reduce and _stage(f.var) == _stage(s.var) for f in w.loops):
        _start_accumulators(w, s)
    if w.blocks >= _MAX_BLOCKS:
        waits, name = _waits(s.body) and _in_lanes(w), w.fresh("f")
        outer, w.blocks = w.blocks, 0
        with w.block(f"def {name}():"):
            _for_loop(w, s)
        w.blocks = outer
        w.line(f"yield from {name}()" if waits else f"{name}()")
        return
    _for_loop(w, s)


def _for_loop(w: Writer, s: loop.For) -> None:
    w.names[s.var] = w.fresh("v")
    extent = expression(w, s.extent)
    if s.kind in _LANES and _waits(s.body):
        _lanes(w, s, extent)
        return
    path, depth = w.path, w.parallel_depth
    tracked = w.check_races and s.kind in _PARALLEL
    if tracked:
        instance = w.fresh("l")
        w.line(f"{instance} = next_loop()")
    w.blocks += 1
    with w.block(f"for {w.names[s.var]} in range({extent}):"):
        if tracked:
            w.path, w.parallel_depth = w.fresh("k"), depth + 1
            w.line(f"{w.path} = (*{path}, ({instance}, {w.names[s.var]}))")
        w.loops.append(s)
        _block(w, s.body)
        w.loops.pop()
    w.blocks -= 1
    w.path, w.parallel_depth = path, depth


def _waits(block: loop.Block) -> bool:
    return any(isinstance(n, loop.Barrier) or (isinstance(n, loop.Copy) and n.cooperative) for n in walk(block))


def _in_lanes(w: Writer) -> bool:
    return any(f.kind in _LANES for f in w.loops)


def _lanes(w: Writer, s: loop.For, extent: str) -> None:
    """Lanes that wait for each other: each is a generator, run from barrier to barrier."""
    outer = [f for f in w.loops if f.kind in _LANES]
    absorbs = (
        ("group", "subgroup")
        if not outer
        else ("subgroup",)
        if s.kind == "lane" and outer[-1].kind == "subgroup"
        else ()
    )
    name, blocks = w.fresh("f"), w.blocks
    w.blocks = 0
    with w.block(f"def {name}({w.names[s.var]}):"):
        w.loops.append(s)
        _block(w, s.body)
        w.loops.pop()
        w.line("if False: yield")
    w.blocks = blocks
    count = w.fresh("n")
    w.line(f"{count} = {extent}")
    run = f"lockstep([{name}(v) for v in range({count})], {absorbs!r})"
    w.line(f"yield from {run}" if outer else f"list({run})")


def _start_accumulators(w: Writer, s: loop.For) -> None:
    """Before the outermost reduce loop of a stage: the identity in every target that the loops below it cover."""
    _init_block(w, s.body, (s,), _stage(s.var))


def _init_block(w: Writer, block: loop.Block, inside: tuple[loop.For, ...], stage: str) -> None:
    reduced = {f.var for f in inside if f.reduce}
    for statement in block:
        if not any(isinstance(n, loop.Accumulate) and n.init for n in walk(statement)):
            continue
        match statement:
            case loop.Accumulate() if _stage(inside[-1].var) == stage:
                mask = (
                    statement.mask if statement.mask is not None and not variables(statement.mask) & reduced else None
                )
                with _masked(w, mask):
                    _initialise(w, statement)
            case loop.For() if not any(isinstance(n, loop.For) and _stage(n.var) == stage for n in walk(statement)):
                continue  # another stage, computed inside this one's loops: it starts there
            case loop.For(reduce=True):
                _init_block(w, statement.body, (*inside, statement), stage)
            case loop.For():
                if variables(statement.extent) & reduced:
                    raise kv.KernelFault(
                        f"the extent of {statement.var} depends on a reduce loop around it: its accumulator has no start"
                    )
                w.names[statement.var] = w.fresh("v")
                with w.block(f"for {w.names[statement.var]} in range({expression(w, statement.extent)}):"):
                    w.line("pass")
                    _init_block(w, statement.body, (*inside, statement), stage)
            case loop.If():
                if variables(statement.condition) & reduced:
                    _init_block(w, statement.then + statement.otherwise, inside, stage)
                    continue
                with w.block(f"if {expression(w, statement.condition)}:"):
                    w.line("pass")
                    _init_block(w, statement.then, inside, stage)
                with w.block("else:"):
                    w.line("pass")
                    _init_block(w, statement.otherwise, inside, stage)


def _append(w: Writer, s: loop.Append) -> None:
    with w.block(f"if {expression(w, s.keep)}:"):
        count = Load(tensor=s.count.tensor, index=s.count.index, dtype=INDEX)
        text = w.fresh("m")
        w.line(f"{text} = {load(w, count, 0)}")
        w.names[text] = text
        for tensor, value in zip(s.tensors, s.values):
            stored = converted(w, expression(w, value), value.dtype, w.places[tensor].dtype)
            _assign(w, loop.Ref(tensor=tensor, index=(Var(name=text),)), stored)
        _assign(w, s.count, f"{text} + 1")


def _prefetch(w: Writer, s: loop.Prefetch) -> None:
    """A hint has no meaning; it may be all that a loop does."""
    w.line("pass")


def _copy(w: Writer, s: loop.Copy) -> None:
    together = s.cooperative and _in_lanes(w)
    if together:
        leader = " and ".join(f"{w.names[f.var]} == 0" for f in w.loops if f.kind in _LANES)
        with w.block(f"if {leader}:"):
            _copy_nest(w, s)
        w.line("yield 'group'")
        return
    _copy_nest(w, s)


def _flipped(s: loop.Copy, value: Expr) -> Expr:
    """What the copy writes for an element or the pad."""
    if not s.flipped:
        return value
    half = Const(value=1 << value.dtype.bits - 1, dtype=INDEX)
    return Cast(a=Binary(op="add", a=Cast(a=value, dtype=INDEX), b=half, dtype=INDEX), dtype=FLIPPED[value.dtype])


def _copy_nest(w: Writer, s: loop.Copy) -> None:
    start, tests = w.indent, []
    for axis in s.axes:
        w.names[axis.var], extent = w.fresh("v"), w.fresh("n")
        w.line(f"{extent} = {expression(w, axis.extent)}")
        padded = s.pad is not None and axis.bound is not None
        w.line(f"for {w.names[axis.var]} in range({axis.bound if padded else extent}):")
        w.indent += 1
        if padded:
            tests.append(f"{w.names[axis.var]} < {extent}")
    target = w.places[s.target.tensor].dtype
    source = _flipped(s, s.source)
    if tests and s.pad is not None:
        pad = _flipped(s, s.pad)
        with w.block(f"if {' and '.join(tests)}:"):
            _assign(w, s.target, converted(w, expression(w, source), source.dtype, target))
        with w.block("else:"):
            _assign(w, s.target, converted(w, expression(w, pad), pad.dtype, target))
    else:
        _assign(w, s.target, converted(w, expression(w, source), source.dtype, target))
    w.indent = start


def _mma(w: Writer, s: loop.Mma) -> None:
    if INTRINSICS[s.intrinsic].shares_exponent:
        _mma_of_blocks(w, s)
        return
    start = w.indent
    for variable, extent in s.axes:
        w.names[variable] = w.fresh("v")
        w.line(f"for {w.names[variable]} in range({extent}):")
        w.indent += 1
    dtype = w.places[s.target.tensor].dtype
    a, b = (converted(w, expression(w, e), e.dtype, dtype) for e in (s.a, s.b))
    before = load(w, Load(tensor=s.target.tensor, index=s.target.index, dtype=dtype), 0)
    _assign(w, s.target, operation(w, "add", before, operation(w, "mul", a, b, dtype), dtype))
    w.indent = start


def _mma_of_blocks(w: Writer, s: loop.Mma) -> None:
    """The operands along the sum are rounded to one exponent before they are multiplied."""
    start = w.indent
    w.values["shared_exponent"] = shared_exponent
    dtype = w.places[s.target.tensor].dtype
    *outer, (k, depth) = s.axes
    for variable, extent in outer:
        w.names[variable] = w.fresh("v")
        w.line(f"for {w.names[variable]} in range({extent}):")
        w.indent += 1
    sides = [w.fresh("b"), w.fresh("b")]
    w.line(f"{sides[0]}, {sides[1]} = [], []")
    w.names[k] = w.fresh("v")
    with w.block(f"for {w.names[k]} in range({depth}):"):
        for side, operand in zip(sides, (s.a, s.b)):
            w.line(f"{side}.append({converted(w, expression(w, operand), operand.dtype, dtype)})")
    a, b = w.fresh("v"), w.fresh("v")
    with w.block(f"for {a}, {b} in zip(shared_exponent({sides[0]}), shared_exponent({sides[1]})):"):
        before = load(w, Load(tensor=s.target.tensor, index=s.target.index, dtype=dtype), 0)
        _assign(w, s.target, operation(w, "add", before, operation(w, "mul", a, b, dtype), dtype))
    w.indent = start


def _if(w: Writer, s: loop.If) -> None:
    with w.block(f"if {expression(w, s.condition)}:"):
        _block(w, s.then)
    if s.otherwise:
        with w.block("else:"):
            _block(w, s.otherwise)


def _barrier(w: Writer, s: loop.Barrier) -> None:
    w.line(f"yield {s.scope!r}" if _in_lanes(w) else "pass")


def _check(w: Writer, s: loop.Check) -> None:
    w.line(f"if not {expression(w, s.condition)}: failed.add({s.number})")


def _alloc(w: Writer, s: loop.Alloc) -> None:
    _allocate(w, s.buffer)


_STATEMENTS: Mapping[type, Callable[[Writer, Any], None]] = {
    loop.For: _for, loop.Alloc: _alloc, loop.Store: _store, loop.Accumulate: _accumulate, loop.Append: _append,
    loop.Copy: _copy, loop.Mma: _mma, loop.If: _if, loop.Barrier: _barrier, loop.Check: _check,
    loop.Prefetch: _prefetch,
}  # fmt: skip
