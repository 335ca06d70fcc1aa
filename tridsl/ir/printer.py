"""Text of an `Op` or a `Kernel`: deterministic, and readable by anyone who knows Halide.

Loop variables are `stage:axis` inside; only `axis` is printed unless two loops of which one encloses the other share it,
or a size or parameter has that name. Expressions: `ir.print_expressions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tridsl.dtypes import INDEX
from tridsl.ir import loop, op
from tridsl.ir.expr import Binary, Const, Expr
from tridsl.ir.print_expressions import Names, print_constant, print_expr, print_inner, print_list, print_place
from tridsl.ir.walk import walk

_UPDATE = {"add": "+=", "mul": "*=", "max": "max=", "min": "min=", "and": "and=", "or": "or="}


def print_op(value: op.Op) -> str:
    """Signature, contracts, then each stage: its ranges and its equation."""
    types = f"<{', '.join(f'{name}={dtype}' for name, dtype in value.types)}>" if value.types else ""
    lines = [f"op {value.name}{types}{_signature(value.params)}"]
    if value.dynamic:
        lines.append(f"  dyn {', '.join(value.dynamic)}")
    lines += [f"  where {print_expr(c.condition)}" for c in value.contracts]
    lines += [f"  check {print_expr(c.condition)}" for c in value.checks]
    lines += [f"  let {_tensor(t)}" for t in value.intermediates]
    lines += _monoids(stage.reducer for stage in value.stages if isinstance(stage, op.Reduce | op.Scan))
    for stage in value.stages:
        lines += ["  " + line for line in _STAGES[type(stage)](stage)]
    return "\n".join(lines) + "\n"


def print_kernel(kernel: loop.Kernel) -> str:
    """Signature, then the loops of each phase."""
    names = _short_names(kernel)
    lines = [f"kernel {kernel.name}{_signature(kernel.params)}"]
    if kernel.sizes:
        lines.append(f"  sizes {', '.join(kernel.sizes)}")
    lines += [f"  message {number}: {text}" for number, text in enumerate(kernel.messages)]
    lines += _monoids(node.reducer for node in walk(kernel) if isinstance(node, loop.Accumulate))
    lines += [f"  alloc {_buffer(b, names)}" for b in kernel.scratch]
    for phase in kernel.phases:
        lead = "  "
        if len(kernel.phases) > 1:
            lines.append(f"  phase {phase.name}")
            lead = "    "
        lines += [lead + line for line in _block(phase.body, names)]
    return "\n".join(lines) + "\n"


# Declarations.


def _signature(params: tuple[op.Param, ...]) -> str:
    passed = ", ".join(_param(p) for p in params if isinstance(p, op.Scalar) or p.role != "output")
    results = [_param(p) for p in params if isinstance(p, op.Tensor) and p.role == "output"]
    arrow = f" -> {results[0] if len(results) == 1 else '(' + ', '.join(results) + ')'}" if results else ""
    return f"({passed}){arrow}"


def _param(param: op.Param) -> str:
    if isinstance(param, op.Tensor):
        return ("inout " if param.role == "inout" else "") + _tensor(param)
    default = f" = {print_constant(param.default)}" if param.default is not None else ""
    return f"{'const ' if param.const else ''}{param.name}: {param.dtype}{default}"


def _tensor(tensor: op.Tensor) -> str:
    shape = ", ".join(print_expr(e) for e in tensor.shape)
    text = f"{tensor.name}: {tensor.dtype}" + (f"[{'..' if tensor.length else ''}{shape}]" if tensor.shape else "[]")
    if tensor.strides is not None:
        text += f" strides [{', '.join(print_expr(e) for e in tensor.strides)}]"
    return text if tensor.layout == "row" else f"{text} as {tensor.layout}"


def _buffer(buffer: loop.Buffer, names: Names) -> str:
    shape = f"[{print_list(buffer.shape, names)}]" if buffer.shape else ""
    padded = " padded" if any(buffer.padded) else ""
    return f"{buffer.name}: {buffer.dtype}{shape} in {buffer.space}{padded}" + (
        f", align {buffer.align}" if buffer.align != 64 else ""
    )


def _monoids(reducers: Iterable[op.Reducer]) -> list[str]:
    """The definition of each reducer that is not one built-in operation, once."""
    out: list[str] = []
    for reducer in dict.fromkeys(r for r in reducers if r.op is None):
        states = ", ".join(
            f"{n}: {d} = {print_constant(i)}"
            for n, d, i in zip(reducer.states, reducer.dtypes, reducer.identity, strict=True)
        )
        out.append(f"  monoid {reducer.name}({states})" + ("" if reducer.commutative else " in order"))
        out += [f"    {name} = {print_expr(merge)}" for name, merge in zip(reducer.states, reducer.merge, strict=True)]
    return out


# Stages of an op.


def _axis(axis: op.Axis) -> str:
    if axis.lo == Const(value=0, dtype=INDEX):
        return f"{axis.name} < {print_expr(axis.hi)}"
    return f"{axis.name} in {print_inner(axis.lo, 7, {})}..{print_inner(axis.hi, 7, {})}"


def _ranges(axes: tuple[op.Axis, ...], word: str = "", extra: tuple[op.Axis, ...] = ()) -> list[str]:
    parts = [", ".join(_axis(a) for a in axes)] if axes else []
    if extra:
        parts.append(f"{word} {', '.join(_axis(a) for a in extra)}")
    return [f"axes {'; '.join(parts)}"] if parts else []


def _targets(targets: Iterable[op.Target]) -> str:
    return ", ".join(f"{t.name}{'[' + ', '.join(t.axes) + ']' if t.axes else ''}: {t.dtype}" for t in targets)


def _map(stage: op.Map) -> list[str]:
    index = f"[{', '.join(a.name for a in stage.axes)}]" if stage.axes else ""
    return [*_ranges(stage.axes), f"{stage.name}{index}: {stage.dtype} = {print_expr(stage.value)}"]


def _reduce(stage: op.Reduce) -> list[str]:
    over = ", ".join(a.name for a in stage.over) + ("; order=seq" if stage.ordered else "")
    equation = f"{_targets(stage.targets)} = {stage.reducer.name}[{over}]({print_list(stage.values, {})})"
    return [*_ranges(stage.axes, "reduce", stage.over), equation]


def _scan(stage: op.Scan) -> list[str]:
    along = stage.along.name + ("; exclusive" if stage.exclusive else "")
    equation = f"{_targets(stage.targets)} = scan {stage.reducer.name}[{along}]({print_list(stage.values, {})})"
    return [*_ranges(stage.axes, "scan", (stage.along,)), equation]


def _compact(stage: op.Compact) -> list[str]:
    equation = f"{stage.name}: {stage.dtype}, {stage.length} = compact[{stage.along.name}]({print_list((stage.value, stage.keep), {})})"
    return [*_ranges((), "along", (stage.along,)), equation]


def _topk(stage: op.TopK) -> list[str]:
    equation = f"{_targets((stage.values, stage.indices))} = topk[{stage.along.name}; k={print_expr(stage.k)}]({print_expr(stage.value)})"
    return [*_ranges(stage.axes, "along", (stage.along,)), equation]


_STAGES: dict[type, Callable[[Any], list[str]]] = {op.Map: _map, op.Reduce: _reduce, op.Scan: _scan, op.Compact: _compact, op.TopK: _topk}


# Statements of a kernel.


def _short_names(kernel: loop.Kernel) -> dict[str, str]:
    taken = {*kernel.sizes, *(p.name for p in kernel.params)}
    full: set[str] = set()
    seen: dict[str, str] = {}

    def bind(variables: Iterable[str], scope: dict[str, str]) -> dict[str, str]:
        inner = dict(scope)
        for variable in variables:
            axis = variable.partition(":")[2] or variable
            seen[variable] = axis
            if axis in taken:
                full.add(variable)
            if axis in inner:
                full.update((variable, inner[axis]))
            inner[axis] = variable
        return inner

    def visit(block: loop.Block, scope: dict[str, str]) -> None:
        for statement in block:
            match statement:
                case loop.For():
                    visit(statement.body, bind((statement.var,), scope))
                case loop.If():
                    visit(statement.then, scope)
                    visit(statement.otherwise, scope)
                case loop.Copy():
                    bind((a.var for a in statement.axes), scope)
                case loop.Mma():
                    bind((variable for variable, _ in statement.axes), scope)

    for phase in kernel.phases:
        visit(phase.body, {})
    return {variable: variable if variable in full else axis for variable, axis in seen.items()}


def _block(block: loop.Block, names: Names) -> list[str]:
    return [line for statement in block for line in _STATEMENTS[type(statement)](statement, names)]


def _nested(block: loop.Block, names: Names) -> list[str]:
    return ["  " + line for line in _block(block, names)]


def _for(s: loop.For, names: Names) -> list[str]:
    word = s.binding or {"serial": "for"}.get(s.kind, s.kind)
    visible = isinstance(s.extent, Const) or (
        isinstance(s.extent, Binary)
        and s.extent.op == "min"
        and Const(value=s.bound or 0, dtype=INDEX) in (s.extent.a, s.extent.b)
    )
    bound = f" bound {s.bound}" if s.bound is not None and not visible else ""
    flags = (" reduce" if s.reduce else "") + (" carried" if s.carried else "") + (f", {s.unrolled} a turn" if s.unrolled != 1 else "")
    return [f"{word} {names[s.var]} < {print_inner(s.extent, 5, names)}{bound}{flags}", *_nested(s.body, names)]


def _alloc(s: loop.Alloc, names: Names) -> list[str]:
    return [f"alloc {_buffer(s.buffer, names)}"]


def _ref(ref: loop.Ref, names: Names) -> str:
    return print_place(ref.tensor, ref.index, names)


def _masked(text: str, mask: Expr | None, names: Names) -> str:
    return text if mask is None else f"{text} if {print_expr(mask, names)}"


def _value(value: Expr, mask: Expr | None, names: Names) -> str:
    return print_inner(value, 0 if mask is None else 1, names)


def _store(s: loop.Store, names: Names) -> list[str]:
    around = ("   stream" if s.stream else "") + ("   again" if s.again else "")
    return [_masked(f"{_ref(s.target, names)} = {_value(s.value, s.mask, names)}", s.mask, names) + around]


def _accumulate(s: loop.Accumulate, names: Names) -> list[str]:
    update = _UPDATE[s.reducer.op] if s.reducer.op else f"{s.reducer.name}="
    values = ", ".join(_value(v, s.mask if len(s.values) == 1 else None, names) for v in s.values)
    text = f"{', '.join(_ref(t, names) for t in s.targets)} {update} {values}"
    if s.init:
        text += f" from {', '.join(print_constant(c) for c in s.reducer.identity)}"
    return [_masked(text, s.mask, names)]


def _append(s: loop.Append, names: Names) -> list[str]:
    count = _ref(s.count, names)
    targets = ", ".join([*(f"{tensor}[{count}]" for tensor in s.tensors[:-1]), f"{s.tensors[-1]}[{count}++]"])
    values = ", ".join(print_inner(value, 1, names) for value in s.values)
    below = "" if s.limit is None else f" below {print_expr(s.limit, names)}"
    return [f"append {targets} = {values} if {print_expr(s.keep, names)}{below}"]


def _prefetch(s: loop.Prefetch, names: Names) -> list[str]:
    return [f"prefetch {_ref(loop.Ref(tensor=s.tensor, index=s.index), names)}"]


def _copy(s: loop.Copy, names: Names) -> list[str]:
    axes = ", ".join(
        f"{names[a.var]} < {print_inner(a.extent, 5, names)}" + (f" of {a.bound}" if a.bound is not None else "")
        for a in s.axes
    )
    notes = [f"for {axes}"] if axes else []
    notes += [f"pad {print_expr(s.pad, names)}"] if s.pad is not None else []
    notes += ["cooperative"] if s.cooperative else []
    notes += [f"buffers {s.buffers}"] if s.buffers != 1 else []
    notes += [f"panels {s.panels}"] if s.panels != 1 else []
    notes += [f"pieces of {s.piece}"] if s.piece != 1 else []
    notes += ["kept"] if s.kept else []
    notes += ["in strips"] if s.strips else []
    notes += ["transposed"] if s.transposed else []
    notes += ["flipped"] if s.flipped else []
    return [f"copy {print_inner(s.source, 1, names)} -> {_ref(s.target, names)}" + (f" {', '.join(notes)}" if notes else "")]


def _mma(s: loop.Mma, names: Names) -> list[str]:
    axes = ", ".join(f"{names[variable]} < {extent}" for variable, extent in s.axes)
    return [
        f"mma {s.intrinsic} {_ref(s.target, names)} += {print_inner(s.a, 8, names)} * {print_inner(s.b, 9, names)} for {axes}"
    ]


def _if(s: loop.If, names: Names) -> list[str]:
    lines = [f"if {print_expr(s.condition, names)}", *_nested(s.then, names)]
    return [*lines, "else", *_nested(s.otherwise, names)] if s.otherwise else lines


def _barrier(s: loop.Barrier, names: Names) -> list[str]:
    return ["barrier" if s.scope == "group" else f"barrier {s.scope}"]


def _check(s: loop.Check, names: Names) -> list[str]:
    return [f"check {print_expr(s.condition, names)} else message {s.number}"]


_STATEMENTS: dict[type, Callable[[Any, Names], list[str]]] = {
    loop.For: _for, loop.Alloc: _alloc, loop.Store: _store, loop.Accumulate: _accumulate, loop.Append: _append,
    loop.Copy: _copy, loop.Mma: _mma, loop.If: _if, loop.Barrier: _barrier, loop.Check: _check,
    loop.Prefetch: _prefetch,
}  # fmt: skip
