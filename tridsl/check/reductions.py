"""`sum[k](…)`, `scan max[i](…)`, `softmax_wsum[t](…)` inside an expression: each becomes a stage over the fewest indices."""

from __future__ import annotations

from tridsl.check.accesses import Evaluate
from tridsl.check.bounds import settle
from tridsl.check.names import cast, suggestion, written
from tridsl.check.operands import adapt, truth
from tridsl.check.prove import Prover
from tridsl.check.ranges import axis_of, parts
from tridsl.check.reducers import BUILTINS, WHOLE, Builtin
from tridsl.check.scope import Place, Scope
from tridsl.check.values import Value, integer, operand_type, typed
from tridsl.diagnostics import error
from tridsl.dtypes import BOOL, DTYPES, I32, INDEX, DType, compute_type, wide
from tridsl.ir.expr import Binary, Cast, Expr, Load, Var, index, mul, sub
from tridsl.ir.op import Axis, Reduce, Reducer, Scan, Target
from tridsl.ir.walk import substitute, variables
from tridsl.structs import replace
from tridsl.syntax.nodes import Expression, Invoke, Name, Reduction, Syntax


def reduction(scope: Scope, node: Reduction, place: Place, evaluate: Evaluate) -> Value:
    """The value of a reducer: it reads the stage that is made for it (or shared with an equal one)."""
    where = node.name_span or node.span
    refuse_packing(node)
    if node.reducer not in BUILTINS and node.reducer not in scope.known_reducers:
        raise error("E0220", f"unknown reducer '{node.reducer}'", where,
                    help=suggestion(node.reducer, [*BUILTINS, *WHOLE, *scope.known_reducers])
                    or f"reducers are {', '.join([*BUILTINS, *sorted(WHOLE)])}, and the module's monoids")  # fmt: skip
    acc = _check_options(scope, node)
    axes = _scanned(node, place) if node.scan else _reduced(scope, node, place, evaluate)
    builtin = BUILTINS.get(node.reducer)
    inner = replace(
        place,
        axes=place.axes if node.scan else place.axes + axes,
        widen=None if builtin and builtin.counts else acc,
        indexing=False,
        writes=None,
    )
    values = tuple(evaluate(scope, arg, inner) for arg in node.args)
    if builtin is None:
        return _monoid(scope, node, values, axes, replace(inner, widen=None), place)
    return _builtin(scope, node, builtin, values, axes, replace(inner, widen=None), place, acc)


def refuse_packing(node: Syntax) -> None:
    """`compact` and `topk` below the top of a right-hand side."""
    if isinstance(node, Reduction) and node.reducer in WHOLE:
        raise error("E0229", f"'{node.reducer}' gives a tensor, so it must be the whole right-hand side", node.name_span or node.span,
                    help=f"give it a stage of its own: t = {written(node)}", example="y = compact[i](x[i], x[i] > 0)")  # fmt: skip
    for child in parts(node):
        refuse_packing(child)


def _check_options(scope: Scope, node: Reduction) -> DType | None:
    """Refuses unknown options; the type of `acc=`."""
    acc: DType | None = None
    allowed = {"exclusive"} if node.scan else {"order"}
    if node.reducer in BUILTINS and not BUILTINS[node.reducer].position and node.reducer not in ("any", "all"):
        allowed.add("acc")
    for option in node.options:
        if option.name not in allowed:
            raise error("E0227", f"'{option.name}' is no option of {'scan ' if node.scan else ''}{node.reducer}", option.span,
                        help=f"its options: {', '.join(sorted(allowed)) or 'none'}")  # fmt: skip
        if option.name == "order" and not (isinstance(option.value, Name) and option.value.name == "seq"):
            raise error(
                "E0227",
                "the only order that can be asked for is order=seq",
                option.span,
                help="leave it out to allow reassociation",
            )
        if option.name == "exclusive" and option.value is not None:
            raise error("E0227", "'exclusive' takes no value", option.span, help="write scan sum[i; exclusive](x[i])")
        if option.name == "acc":
            acc = accumulator_type(scope, option.value, node)
    return acc


def accumulator_type(scope: Scope, node: Expression | None, reducer: Reduction) -> DType:
    """The type that `acc=` names: `f32`, `T` or `wide(T)`, one that arithmetic is done in."""
    match node:
        case Name():
            dtype = scope.dtype(node.name, node.span)
        case Invoke(function="wide", args=(Name() as inner,)):
            narrow = scope.dtype(inner.name, inner.span)
            if not narrow.is_float:
                raise error(
                    "E0226",
                    f"wide({inner.name}) is for floats, {inner.name} is {narrow}",
                    node.span,
                    help="name the integer type: acc=i32",
                )
            dtype = wide(narrow)
        case _:
            raise error(
                "E0226", "acc= takes a type", (node or reducer).span, help="write acc=f32, acc=T or acc=wide(T)"
            )
    if compute_type(dtype) != dtype or dtype == BOOL:
        legal = compute_type(dtype) if dtype != BOOL else I32
        raise error(
            "E0226",
            f"{dtype} is a storage type, nothing accumulates in it",
            node.span,
            help=f"write acc={legal} and cast the result to {dtype}",
        )
    return dtype


def _reduced(scope: Scope, node: Reduction, place: Place, evaluate: Evaluate) -> tuple[Axis, ...]:
    if not node.axes:
        raise error(
            "E0301", f"'{node.reducer}' needs an index to run over", node.span, help=f"write {node.reducer}[i](…)"
        )
    axes: tuple[Axis, ...] = ()
    for position in node.axes:
        if place.axis(position.name) or any(a.name == position.name for a in axes):
            raise error("E0218", f"the index '{position.name}' is bound twice", position.span,
                        help=f"it is in force outside already; reduce over another name: {node.reducer}[k](…)")  # fmt: skip
        axes += (axis_of(scope, position, node.args, place, evaluate),)
    return axes


def _scanned(node: Reduction, place: Place) -> tuple[Axis, ...]:
    if len(node.axes) != 1:
        raise error(
            "E0218",
            "a scan runs along one index",
            node.span,
            help="write scan sum[i](x[i])",
            example="c[i] = scan sum[i](x[i])",
        )
    name = node.axes[0].name
    axis = place.axis(name)
    if axis is None:
        raise error("E0217", f"a scan has a value at every '{name}', so '{name}' must be an index outside it", node.axes[0].span,
                    help=f"put {name} on the left: c[{name}] = {written(node)}", example="c[i] = scan sum[i](x[i])")  # fmt: skip
    return (axis,)


def _builtin(scope: Scope, node: Reduction, builtin: Builtin, values: tuple[Value, ...], axes: tuple[Axis, ...], inner: Place,
             place: Place, acc: DType | None) -> Value:  # fmt: skip
    if len(values) != 1:
        raise error(
            "E0228",
            f"'{node.reducer}' takes one value, not {len(values)}",
            node.span,
            help=f"write {node.reducer}[{axes[0].name}](x)",
        )
    value = values[0]
    if builtin.position and len(axes) != 1:
        raise error("E0228", f"'{node.reducer}' finds a position along one index, not {len(axes)}", node.span,
                    help="reduce one index after the other")  # fmt: skip
    if builtin.operand == "bool":
        state = BOOL if not builtin.counts else acc or INDEX
        operand: Expr = truth(value) if state == BOOL else Cast(a=truth(value), dtype=state)
        language: DType | None = BOOL if not builtin.counts else acc
    else:
        language, state = _accumulated(node, builtin, value, acc)
        operand = adapt(scope, value, language or INDEX, inner)
    reducer = builtin.make(state)
    operands: tuple[Expr, ...] = (operand,)
    if builtin.position:
        operands = (operand, Var(name=axes[0].name))
    if builtin.nonempty and not node.scan:
        _require_points(scope, node, axes)
    names = _stage(scope, node, reducer, operands, axes, place, f"{place.target}.{node.reducer}")
    read = _read(scope, names[-1], place, axes, node)
    if builtin.counts and acc is None:
        total: Expr = index(1)
        for axis in axes:
            total = mul(total, sub(axis.hi, axis.lo))
        scope.know_range(names[0], index(0), total)
    if builtin.position:
        scope.know_range(names[-1], axes[0].lo, sub(axes[0].hi, index(1)))
        return integer(read, node)
    return integer(read, node) if language is None else typed(read, language, node)


def _accumulated(node: Reduction, builtin: Builtin, value: Value, acc: DType | None) -> tuple[DType | None, DType]:
    """The language's type of the result (None: it adapts) and the type of the state."""
    if value.type == BOOL:
        raise error("E0213", f"'{node.reducer}' does not take bools", value.syntax.span, label="bool",
                    help="count[i](c) counts them; any and all combine them")  # fmt: skip
    if acc is not None:
        return acc, acc
    if value.type is None:
        if value.floating:
            raise error("E0215", f"the type of '{written(value.syntax)}' is not known", value.syntax.span,
                        help=f"say it: {cast(DTYPES['f32'], value.syntax)}")  # fmt: skip
        return None, INDEX
    dtype = operand_type(value.type)
    if builtin.narrow and dtype.is_integer and dtype.bits < 32:
        text = written(node)
        raise error("E0225", f"'{node.reducer}' over {value.type} must say in what type it accumulates", node.span, label=str(value.type),
                    help=f"write acc=i32: {text.replace(']', '; acc=i32]', 1) if ';' not in text.split(']')[0] else node.reducer + '[…; acc=i32](…)'}",
                    example="y = sum[k; acc=i32](x[k])")  # fmt: skip
    return dtype, compute_type(dtype)


def _require_points(scope: Scope, node: Reduction, axes: tuple[Axis, ...]) -> None:
    prover = Prover(scope.facts)
    for axis in axes:
        extent = sub(axis.hi, axis.lo)
        if not prover.at_least(extent, index(1)):
            scope.require(Binary(op="ge", a=extent, b=index(1), dtype=BOOL),
                          f"'{node.reducer}' over '{axis.name}' needs at least one element", node.span, late=True)  # fmt: skip


def _monoid(
    scope: Scope, node: Reduction, values: tuple[Value, ...], axes: tuple[Axis, ...], inner: Place, place: Place
) -> Value:
    form = scope.monoids(node.reducer, values, node)
    assert form is not None
    arguments = {name: adapt(scope, v, dtype, inner) for (name, dtype), v in zip(form.parameters, values)}
    operands = tuple(substitute(e, arguments) for e in form.lift)
    names = _stage(scope, node, form.reducer, operands, axes, place, place.target)
    states = {state: _read(scope, name, place, axes, node) for state, name in zip(form.reducer.states, names)}
    return typed(substitute(form.result, states), form.result_type, node)


def _read(scope: Scope, name: str, place: Place, axes: tuple[Axis, ...], node: Reduction) -> Load:
    """The state at the indices in force, over those it varies with."""
    known = next(t for s in scope.stages if isinstance(s, Reduce | Scan) for t in s.targets if t.name == name)
    return scope.read(name, tuple(a for a in place.axes if a.name in known.axes), node.span)


def _stage(scope: Scope, node: Reduction, reducer: Reducer, operands: tuple[Expr, ...], axes: tuple[Axis, ...], place: Place,
           base: str) -> tuple[str, ...]:  # fmt: skip
    """Makes the stage, or finds the equal one of this statement. The names of the tensors its states are in."""
    along = {a.name for a in axes} if node.scan else set()
    needs = _dependences(reducer, operands, {a.name for a in place.axes})
    subsets = [tuple(a for a in place.axes if a.name in need | along) for need in needs]
    used = {a.name for subset in subsets for a in subset} - along
    outer = tuple(a for a in place.axes if a.name in used)
    targets = tuple(
        Target(name=state, dtype=dtype, axes=tuple(a.name for a in subset))
        for state, dtype, subset in zip(reducer.states, reducer.dtypes, subsets)
    )
    nameless: Reduce | Scan
    if node.scan:
        exclusive = any(o.name == "exclusive" for o in node.options)
        nameless = Scan(name="", targets=targets, axes=outer, along=axes[0], reducer=reducer, values=operands, exclusive=exclusive,
                        span=node.span)  # fmt: skip
    else:
        ordered = any(o.name == "order" for o in node.options)
        nameless = Reduce(name="", targets=targets, axes=outer, over=axes, reducer=reducer, values=operands, ordered=ordered,
                          span=node.span)  # fmt: skip
    nameless = settle(scope, nameless)
    shared = scope.reductions.get(nameless)
    if shared is not None:
        return shared
    names = tuple(scope.unique(n) for n in _names(base, reducer, node))
    for name, target, subset in zip(names, targets, subsets):
        scope.declare(name, target.dtype, subset, node.span)
    stage_name = names[0] if len(names) == 1 else scope.unique(f"{place.target}.{node.reducer}")
    named = tuple(replace(t, name=n) for t, n in zip(targets, names))
    scope.stages.append(replace(nameless, name=stage_name, targets=named))
    scope.reductions[nameless] = names
    return names


def _names(base: str, reducer: Reducer, node: Reduction) -> tuple[str, ...]:
    if node.reducer in BUILTINS and len(reducer.states) == 1:
        return (base,)
    return tuple(f"{base}.{state}" for state in reducer.states)


def _dependences(reducer: Reducer, operands: tuple[Expr, ...], names: set[str]) -> list[set[str]]:
    """The indices each state varies with: those its operand mentions and those of the states its merge reads."""
    needs = [set(variables(e) & names) for e in operands]
    reads = [
        {s for s, state in enumerate(reducer.states) if {f"a.{state}", f"b.{state}"} & variables(merge)}
        for merge in reducer.merge
    ]
    changed = True
    while changed:
        changed = False
        for s, read in enumerate(reads):
            for other in read:
                if not needs[other] <= needs[s]:
                    needs[s] |= needs[other]
                    changed = True
    return needs
