"""A `Kernel` as Python source: loops are Python loops, memory is flat lists, every access is checked.

    C[i, j] += A[i, k] * B[k, j]   ->   i0 = v1; i1 = v2
                                        if not (0 <= i0 < d0 and 0 <= i1 < d1): out_of_bounds('C', i0, i1)
                                        …

Meaning comes first: loops of any kind run in order, except lanes that wait at barriers (`kernel_values.lockstep`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tridsl.dtypes import BOOL, INDEX, DType
from tridsl.ir import kernel_values as kv
from tridsl.ir import loop, scalar
from tridsl.ir.expr import COMPARE, Binary, Call, Cast, Const, Expr, Load, Select, Unary, Var
from tridsl.ir.op import Reducer, Scalar, Tensor
from tridsl.ir.walk import variables, walk

_PARALLEL = ("parallel", "group", "column", "row")
_LANES = ("subgroup", "lane")
_MAX_BLOCKS = 12  # CPython refuses more than 20 nested loops in one function
_MAX_DEPTH = 30  # … and more than 200 nested parentheses


@dataclass(slots=True)
class _Place:
    """Where a tensor lives: the list, the variables with its extents, and which checks an access needs."""

    name: str
    memory: str
    extents: tuple[str, ...]
    dtype: DType
    space: str
    may_be_unwritten: bool
    padded: bool
    depth: int  # number of parallel loops around its allocation


@dataclass(slots=True)
class _Writer:
    """Emits one kernel. `values` are the objects the source refers to by name."""

    kernel: loop.Kernel
    check_races: bool
    lines: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    places: dict[str, _Place] = field(default_factory=dict)
    scalars: dict[str, str] = field(default_factory=dict)
    loops: list[loop.For] = field(default_factory=list)
    indent: int = 0
    blocks: int = 0
    path: str = "()"
    parallel_depth: int = 0
    has_padded: bool = False
    counter: int = 0

    def fresh(self, prefix: str) -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head)
        self.indent += 1
        yield
        self.indent -= 1

    def call(self, key: str, make: Callable[[], Any]) -> str:
        """The name of a helper function, made once per `key`; it passes POISON on where padded buffers exist."""
        if key not in self.values:
            function = make()
            self.values[key] = kv.poisonous(function) if self.has_padded else function
        return key


def kernel_source(kernel: loop.Kernel, check_races: bool) -> tuple[str, dict[str, Any]]:
    """The text of a function `run(bind, scalar, size, failed, outside)` and the names it refers to."""
    writer = _Writer(kernel=kernel, check_races=check_races)
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
    w: _Writer, name: str, dtype: DType, shape: tuple[Expr, ...], space: str, unwritten: bool, padded: bool
) -> None:
    extents = []
    for dimension in shape:
        extents.append(w.fresh("d"))
        w.line(f"{extents[-1]} = max(0, {_expr(w, dimension)})")
    w.places[name] = _Place(
        name=name, memory=w.fresh("t"), extents=tuple(extents), dtype=dtype, space=space, may_be_unwritten=unwritten, padded=padded,
        depth=w.parallel_depth,
    )  # fmt: skip


def _allocate(w: _Writer, buffer: loop.Buffer) -> None:
    _declare(w, buffer.name, buffer.dtype, buffer.shape, buffer.space, True, any(buffer.padded))
    place = w.places[buffer.name]
    cells = f"[None] * ({' * '.join(place.extents) or '1'})"
    w.line(f"{place.memory} = {f'Memory({cells}, {buffer.name!r})' if w.check_races else cells}")


# Expressions: Python text of one value.


def _expr(w: _Writer, e: Expr, depth: int = 0) -> str:
    if depth < _MAX_DEPTH:
        return _EXPRESSIONS[type(e)](w, e, depth + 1)
    name = w.fresh("e")
    text = _expr(w, e, 0)
    w.line(f"{name} = lambda: {text}")
    return f"{name}()"


def _const(w: _Writer, e: Const, depth: int) -> str:
    if e.dtype == BOOL:
        return str(bool(e.value))
    if e.dtype.is_integer:
        return f"({int(e.value)})" if e.value < 0 else str(int(e.value))
    name = w.fresh("c")
    w.values[name] = scalar.constant(e)[()]
    return name


def _var(w: _Writer, e: Var, depth: int) -> str:
    return w.names[e.name]


def _plain_index(w: _Writer, e: Expr) -> bool:
    """Made of loop variables, sizes and small constants only: cannot leave i64."""
    match e:
        case Var():
            return e.dtype == INDEX and not any(isinstance(p, Scalar) and p.name == e.name for p in w.kernel.params)
        case Const():
            return e.dtype == INDEX and abs(int(e.value)) < 1 << 31
        case Binary():
            return e.op not in ("shl", "shr") and _plain_index(w, e.a) and _plain_index(w, e.b)
    return False


def _wrap(text: str, dtype: DType) -> str:
    if dtype.kind == "uint":
        return f"({text} & {dtype.high})"
    return f"(({text} - ({dtype.low}) & {(1 << dtype.bits) - 1}) + ({dtype.low}))"


_SIGN = {"add": "+", "sub": "-", "mul": "*", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_BITS = {"and": "&", "or": "|", "xor": "^"}
_BOOLS = {"and": "and", "or": "or", "xor": "!="}
_INTEGER_CALLS: Mapping[str, Callable[..., Any]] = {
    "floordiv": kv.wrapped_quotient, "mod": kv.wrapped_remainder, "min": min, "max": max,
    "shl": kv.shifted_left, "shr": kv.shifted_right,
}  # fmt: skip
_FLOAT_CALLS: Mapping[str, Callable[..., Any]] = {
    "floordiv": kv.float_quotient, "mod": kv.float_remainder, "min": kv.float_minimum, "max": kv.float_maximum,
}  # fmt: skip


def _operation(w: _Writer, op: str, a: str, b: str, dtype: DType, plain: bool = False) -> str:
    """`a op b` where the operands have `dtype`; `plain` when an integer result cannot leave its type."""
    if op in COMPARE:
        return f"({a} {_SIGN[op]} {b})"
    if dtype == BOOL:
        return f"({a} {_BOOLS.get(op) or {'min': 'and', 'max': 'or', 'mul': 'and', 'add': 'or'}[op]} {b})"
    if dtype.is_float:
        if op in _FLOAT_CALLS:
            return f"{w.call('float_' + op, lambda: _FLOAT_CALLS[op])}({a}, {b})"
        return f"({a} {'/' if op == 'div' else _SIGN[op]} {b})"
    if op in _BITS:
        return f"({a} {_BITS[op]} {b})"
    if op in _INTEGER_CALLS:
        bits = f", {dtype.bits}" if op in ("shl", "shr") else ""
        text = f"{w.call('integer_' + op, lambda: _INTEGER_CALLS[op])}({a}, {b}{bits})"
        return _wrap(text, dtype) if op in ("floordiv", "shl") and not plain else text
    text = f"({a} {_SIGN[op]} {b})"
    return text if plain else _wrap(text, dtype)


def _binary(w: _Writer, e: Binary, depth: int) -> str:
    return _operation(w, e.op, _expr(w, e.a, depth), _expr(w, e.b, depth), e.a.dtype, _plain_index(w, e))


def _unary(w: _Writer, e: Unary, depth: int) -> str:
    a = _expr(w, e.a, depth)
    if e.op == "not" or e.dtype == BOOL:
        return f"(not {a})"
    if e.op == "invert":
        return f"({a} ^ {e.dtype.high})" if e.dtype.kind == "uint" else f"(~{a})"
    text = f"abs({a})" if e.op == "abs" else f"(-{a})"
    return text if e.dtype.is_float else _wrap(text, e.dtype)


def _select(w: _Writer, e: Select, depth: int) -> str:
    return f"({_expr(w, e.a, depth)} if {_expr(w, e.condition, depth)} else {_expr(w, e.b, depth)})"


def _cast(w: _Writer, e: Cast, depth: int) -> str:
    return _converted(w, _expr(w, e.a, depth), e.a.dtype, e.dtype)


def _converted(w: _Writer, text: str, source: DType, target: DType) -> str:
    if source == target:
        return text
    if target == BOOL:
        return f"({text} != 0)"
    if (
        source.is_float
        and scalar.HELD[source] == scalar.HELD[target]
        and target.bits >= source.bits
        and target.bits > 16
    ):
        return text
    if source.is_float or target.is_float:
        return f"{w.call(f'{source}_to_{target}', lambda: kv.converter(source, target))}({text})"
    if source == BOOL:
        return f"int({text})"
    assert source.low is not None and source.high is not None and target.low is not None and target.high is not None
    return text if target.low <= source.low and source.high <= target.high else _wrap_bits(text, target)


def _wrap_bits(text: str, dtype: DType) -> str:
    """Wraps to the two's complement of `dtype.bits` bits (trit keeps two bits, as `ir.scalar` says)."""
    half = 1 << (dtype.bits - 1)
    return f"({text} & {2 * half - 1})" if dtype.kind == "uint" else f"(({text} + {half} & {2 * half - 1}) - {half})"


def _call(w: _Writer, e: Call, depth: int) -> str:
    name = w.call(f"call_{e.function}_{e.dtype}", lambda: kv.function(e.function, e.dtype))
    return f"{name}({', '.join(_expr(w, a, depth) for a in e.args)})"


def _zero(w: _Writer, dtype: DType) -> str:
    return _const(w, Const(value=0.0 if dtype.is_float else 0, dtype=dtype), 0)


def _load(w: _Writer, e: Load, depth: int) -> str:
    place = w.places[e.tensor]
    indices, tests = [], []
    for position, extent in zip(e.index, place.extents, strict=True):
        text = _expr(w, position, depth)
        if e.boundary is not None and e.boundary.mode not in ("value", "raise"):
            mode = e.boundary.mode
            text = f"{w.call('index_' + mode, lambda mode=mode: kv.boundary_index(mode))}({text}, {extent})"  # type: ignore[misc]
        indices.append(w.fresh("i"))
        tests.append(f"0 <= ({indices[-1]} := {text}) < {extent}")
    inside = _read(w, place, indices)
    where = f"{place.name!r}{''.join(', ' + i for i in indices)}"
    otherwise = f"out_of_bounds({where})"
    if e.boundary is not None:
        pad = e.boundary.value
        otherwise = _converted(w, _expr(w, pad, depth), pad.dtype, e.dtype) if pad is not None else _zero(w, e.dtype)
        if e.boundary.mode == "raise":
            otherwise = f"(outside({place.name!r}), {otherwise})[1]"
    # a later index is not evaluated once an earlier one is outside, so the fault names what is known
    text = inside if not tests else f"({inside} if {' and '.join(tests)} else {otherwise})"
    if len(tests) > 1 and e.boundary is None:
        text = f"({inside} if {' & '.join(f'({t})' for t in tests)} else {otherwise})"
    if e.mask is None:
        return text
    other = _expr(w, e.other, depth) if e.other is not None else _zero(w, e.dtype)
    return f"({text} if {_expr(w, e.mask, depth)} else {other})"


def _flat(place: _Place, indices: list[str]) -> str:
    text = "0" if not indices else indices[0]
    for index, extent in zip(indices[1:], place.extents[1:]):
        text = f"({text}) * {extent} + {index}"
    return text


def _read(w: _Writer, place: _Place, indices: list[str]) -> str:
    position = _flat(place, indices)
    text = f"{place.memory}[{position}]"
    if _shared(w, place) and place.may_be_unwritten:
        text = f"{place.memory}.read({position}, {w.path})"
    if not place.may_be_unwritten:
        return text
    name = w.fresh("x")
    unwritten = "POISON" if place.padded else f"never_written({place.name!r}{''.join(', ' + i for i in indices)})"
    return f"({name} if ({name} := {text}) is not None else {unwritten})"


def _shared(w: _Writer, place: _Place) -> bool:
    return w.check_races and place.depth < w.parallel_depth and place.space != "reg"


_EXPRESSIONS: Mapping[type, Callable[[_Writer, Any, int], str]] = {
    Const: _const, Var: _var, Binary: _binary, Unary: _unary, Select: _select, Cast: _cast, Call: _call, Load: _load,
}  # fmt: skip


# Statements.


def _block(w: _Writer, block: loop.Block) -> None:
    if not block:
        w.line("pass")
    for statement in block:
        _STATEMENTS[type(statement)](w, statement)


def _assign(w: _Writer, target: loop.Ref, value: str) -> None:
    """`target = value`, where `value` is held as the target's own type."""
    place = w.places[target.tensor]
    indices = []
    for position in target.index:
        indices.append(w.fresh("i"))
        w.line(f"{indices[-1]} = {_expr(w, position)}")
    tests = [f"0 <= {i} < {extent}" for i, extent in zip(indices, place.extents)]
    if tests:
        w.line(f"if not ({' and '.join(tests)}): out_of_bounds({place.name!r}, {', '.join(indices)})")
    if w.has_padded and place.space == "global":
        value = f"checked({value}, {place.name!r})"
    if not _shared(w, place):
        w.line(f"{place.memory}[{_flat(place, indices)}] = {value}")
        return
    position_name = w.fresh("p")
    w.line(f"{position_name} = {_flat(place, indices)}")
    w.line(f"{place.memory}.write({position_name}, {w.path})")
    w.line(f"{place.memory}[{position_name}] = {value}")


@contextmanager
def _masked(w: _Writer, mask: Expr | None) -> Iterator[None]:
    if mask is None:
        yield
        return
    with w.block(f"if {_expr(w, mask)}:"):
        yield


def _store(w: _Writer, s: loop.Store) -> None:
    with _masked(w, s.mask):
        _assign(w, s.target, _converted(w, _expr(w, s.value), s.value.dtype, w.places[s.target.tensor].dtype))


def _stage(variable: str) -> str:
    return variable.partition(":")[0] if ":" in variable else ""


def _accumulate(w: _Writer, s: loop.Accumulate) -> None:
    own = _stage(w.loops[-1].var) if w.loops else ""
    at_once = s.init and not any(f.reduce and _stage(f.var) == own for f in w.loops)
    with _masked(w, s.mask):
        if at_once:
            _initialise(w, s)
        _merge_into(w, s.targets, s.reducer, s.values)


def _initialise(w: _Writer, s: loop.Accumulate) -> None:
    for target, identity in zip(s.targets, s.reducer.identity, strict=True):
        _assign(w, target, _converted(w, _expr(w, identity), identity.dtype, w.places[target.tensor].dtype))


def _merge_into(w: _Writer, targets: tuple[loop.Ref, ...], reducer: Reducer, values: tuple[Expr, ...]) -> None:
    before, new = [], []
    for target, value, dtype in zip(targets, values, reducer.dtypes, strict=True):
        held = w.places[target.tensor].dtype
        before.append(w.fresh("a"))
        new.append(w.fresh("b"))
        w.line(
            f"{before[-1]} = {_converted(w, _load(w, Load(tensor=target.tensor, index=target.index, dtype=held), 0), held, dtype)}"
        )
        w.line(f"{new[-1]} = {_expr(w, value)}")
    merged = []
    if reducer.op is not None:
        merged.append(_operation(w, reducer.op, before[0], new[0], reducer.dtypes[0]))
    else:
        w.names.update({f"a.{n}": text for n, text in zip(reducer.states, before)})
        w.names.update({f"b.{n}": text for n, text in zip(reducer.states, new)})
        for merge in reducer.merge:
            merged.append(w.fresh("r"))
            w.line(f"{merged[-1]} = {_expr(w, merge)}")
    for target, text, dtype in zip(targets, merged, reducer.dtypes, strict=True):
        _assign(w, target, _converted(w, text, dtype, w.places[target.tensor].dtype))


def _for(w: _Writer, s: loop.For) -> None:
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


def _for_loop(w: _Writer, s: loop.For) -> None:
    w.names[s.var] = w.fresh("v")
    extent = _expr(w, s.extent)
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


def _in_lanes(w: _Writer) -> bool:
    return any(f.kind in _LANES for f in w.loops)


def _lanes(w: _Writer, s: loop.For, extent: str) -> None:
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


def _start_accumulators(w: _Writer, s: loop.For) -> None:
    """Before the outermost reduce loop of a stage: the identity in every target that the loops below it cover."""
    _init_block(w, s.body, (s,), _stage(s.var))


def _init_block(w: _Writer, block: loop.Block, inside: tuple[loop.For, ...], stage: str) -> None:
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
            case loop.For(reduce=True):
                _init_block(w, statement.body, (*inside, statement), stage)
            case loop.For():
                if variables(statement.extent) & reduced:
                    raise kv.KernelFault(
                        f"the extent of {statement.var} depends on a reduce loop around it: its accumulator has no start"
                    )
                w.names[statement.var] = w.fresh("v")
                with w.block(f"for {w.names[statement.var]} in range({_expr(w, statement.extent)}):"):
                    w.line("pass")
                    _init_block(w, statement.body, (*inside, statement), stage)
            case loop.If():
                if variables(statement.condition) & reduced:
                    _init_block(w, statement.then + statement.otherwise, inside, stage)
                    continue
                with w.block(f"if {_expr(w, statement.condition)}:"):
                    w.line("pass")
                    _init_block(w, statement.then, inside, stage)
                with w.block("else:"):
                    w.line("pass")
                    _init_block(w, statement.otherwise, inside, stage)


def _append(w: _Writer, s: loop.Append) -> None:
    with w.block(f"if {_expr(w, s.keep)}:"):
        count = Load(tensor=s.count.tensor, index=s.count.index, dtype=INDEX)
        text = w.fresh("m")
        w.line(f"{text} = {_load(w, count, 0)}")
        w.names[text] = text
        value = _converted(w, _expr(w, s.value), s.value.dtype, w.places[s.tensor].dtype)
        _assign(w, loop.Ref(tensor=s.tensor, index=(Var(name=text),)), value)
        _assign(w, s.count, f"{text} + 1")


def _copy(w: _Writer, s: loop.Copy) -> None:
    together = s.cooperative and _in_lanes(w)
    if together:
        leader = " and ".join(f"{w.names[f.var]} == 0" for f in w.loops if f.kind in _LANES)
        with w.block(f"if {leader}:"):
            _copy_nest(w, s)
        w.line("yield 'group'")
        return
    _copy_nest(w, s)


def _copy_nest(w: _Writer, s: loop.Copy) -> None:
    start, tests = w.indent, []
    for axis in s.axes:
        w.names[axis.var], extent = w.fresh("v"), w.fresh("n")
        w.line(f"{extent} = {_expr(w, axis.extent)}")
        padded = s.pad is not None and axis.bound is not None
        w.line(f"for {w.names[axis.var]} in range({axis.bound if padded else extent}):")
        w.indent += 1
        if padded:
            tests.append(f"{w.names[axis.var]} < {extent}")
    target = w.places[s.target.tensor].dtype
    if tests and s.pad is not None:
        with w.block(f"if {' and '.join(tests)}:"):
            _assign(w, s.target, _converted(w, _expr(w, s.source), s.source.dtype, target))
        with w.block("else:"):
            _assign(w, s.target, _converted(w, _expr(w, s.pad), s.pad.dtype, target))
    else:
        _assign(w, s.target, _converted(w, _expr(w, s.source), s.source.dtype, target))
    w.indent = start


def _mma(w: _Writer, s: loop.Mma) -> None:
    start = w.indent
    for variable, extent in s.axes:
        w.names[variable] = w.fresh("v")
        w.line(f"for {w.names[variable]} in range({extent}):")
        w.indent += 1
    dtype = w.places[s.target.tensor].dtype
    a, b = (_converted(w, _expr(w, e), e.dtype, dtype) for e in (s.a, s.b))
    before = _load(w, Load(tensor=s.target.tensor, index=s.target.index, dtype=dtype), 0)
    _assign(w, s.target, _operation(w, "add", before, _operation(w, "mul", a, b, dtype), dtype))
    w.indent = start


def _if(w: _Writer, s: loop.If) -> None:
    with w.block(f"if {_expr(w, s.condition)}:"):
        _block(w, s.then)
    if s.otherwise:
        with w.block("else:"):
            _block(w, s.otherwise)


def _barrier(w: _Writer, s: loop.Barrier) -> None:
    w.line(f"yield {s.scope!r}" if _in_lanes(w) else "pass")


def _check(w: _Writer, s: loop.Check) -> None:
    w.line(f"if not {_expr(w, s.condition)}: failed.add({s.number})")


def _alloc(w: _Writer, s: loop.Alloc) -> None:
    _allocate(w, s.buffer)


_STATEMENTS: Mapping[type, Callable[[_Writer, Any], None]] = {
    loop.For: _for, loop.Alloc: _alloc, loop.Store: _store, loop.Accumulate: _accumulate, loop.Append: _append,
    loop.Copy: _copy, loop.Mma: _mma, loop.If: _if, loop.Barrier: _barrier, loop.Check: _check,
}  # fmt: skip
