"""`Op` to the naive `Kernel`: one phase per stage, one loop per axis, in the order of the text.

    y[r, n] = e[r, n] / y.sum[r]        ->    phase y:  for y:r < R: for y:n < N: y[r, n] = e[r, n] / y.sum[r]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tridsl.dtypes import INDEX, compute_type
from tridsl.ir.expr import Cast, Expr, Load, Var, add, binary, index, sub
from tridsl.ir.insertion import Insertion
from tridsl.ir.loop import Accumulate, Alloc, Append, Block, Buffer, Check, For, Kernel, Phase, Ref, Stmt, Store
from tridsl.ir.op import Axis, Compact, Map, Op, Reduce, Scan, Stage, Target, Tensor, TopK
from tridsl.ir.walk import substitute, walk
from tridsl.structs import replace


def to_loops(op: Op) -> Kernel:
    """The naive kernel. Intermediates become scratch; boundaries stay on their loads; reductions carry `init`."""
    params = {p.name for p in op.params}
    lengths = tuple(Tensor(name=t.length, dtype=INDEX, shape=(), role="output", span=t.span) for t in op.outputs if t.length)
    scratch = tuple(
        Buffer(name=t.name, dtype=t.dtype, shape=t.shape, space="global", span=t.span)
        for t in op.intermediates
        if t.name not in {length.name for length in lengths}
    )
    phases: list[Phase] = []
    pending = list(enumerate(op.checks))
    known: set[str] = set()
    for stage in op.stages:
        phases.append(Phase(name=stage.name, body=_STAGES[type(stage)](stage, frozenset(params)), span=stage.span))
        known.add(stage.length if isinstance(stage, Compact) else stage.name)
        ready = [(n, c) for n, c in pending if {e.tensor for e in walk(c.condition) if isinstance(e, Load)} <= known]
        if ready:  # a phase of its own, which no schedule moves
            checks = tuple(Check(condition=c.condition, number=n, span=c.span) for n, c in ready)
            phases.append(Phase(name=f"{stage.name}.check", body=checks, span=stage.span))
            pending = [c for c in pending if c not in ready]
    return Kernel(
        name=op.name,
        params=(*op.params, *lengths),
        sizes=op.sizes,
        phases=tuple(phases),
        scratch=scratch,
        messages=tuple(f"{op.name}: {c.message}" for c in op.checks),
        span=op.span,
    )


def _variable(stage: str, axis: str) -> Var:
    return Var(name=f"{stage}:{axis}")


def _nest(stage: str, axes: tuple[Axis, ...], body: Block, **flags: bool) -> Block:
    """Loops over `axes` around `body`, whose expressions name the axes; replaced by `lo + variable` here."""
    for axis in reversed(axes):
        variable = _variable(stage, axis.name)
        body = tuple(substitute(s, {axis.name: add(axis.lo, variable)}) for s in body)
        extent = sub(axis.hi, axis.lo)
        loop = For(var=variable.name, extent=extent, body=body, span=axis.span, **flags)  # type: ignore[arg-type]
        body = (loop,)
    return body


def _place(target: str, axes: tuple[Axis, ...], params: frozenset[str]) -> Ref:
    """Where point `axes` of a stage lives: parameters at the index itself, intermediates from 0."""
    if target in params:
        return Ref(tensor=target, index=tuple(Var(name=a.name) for a in axes))
    return Ref(tensor=target, index=tuple(sub(Var(name=a.name), a.lo) for a in axes))


def _read(ref: Ref, target: Target | Buffer) -> Expr:
    load = Load(tensor=ref.tensor, index=ref.index, dtype=target.dtype)
    wide = compute_type(target.dtype)
    return load if wide == target.dtype else Cast(a=load, dtype=wide)


def _map(stage: Map, params: frozenset[str]) -> Block:
    store = Store(target=_place(stage.name, stage.axes, params), value=stage.value, span=stage.span)
    return _nest(stage.name, stage.axes, (store,))


def _reduce(stage: Reduce, params: frozenset[str]) -> Block:
    names = tuple(a.name for a in stage.axes)
    if any(t.axes != names for t in stage.targets):
        return _hoisted(stage, params)
    accumulate = Accumulate(
        targets=tuple(_place(t.name, stage.axes, params) for t in stage.targets),
        reducer=stage.reducer,
        values=stage.values,
        init=True,
        span=stage.span,
    )
    carried = stage.ordered or not stage.reducer.commutative
    over = tuple(map(_at_most_once, stage.over)) if _says_nothing_new(stage) else stage.over
    return _nest(stage.name, stage.axes, _nest(stage.name, over, (accumulate,), reduce=True, carried=carried))


_IDEMPOTENT = ("min", "max", "and", "or")


def _says_nothing_new(stage: Reduce) -> bool:
    """Whether every point of `over` has the same value, and combining it twice is combining it once. (Besides saving time this
    keeps loops around a constant minimum away from SPIR-V's optimiser, which makes them return what they started with.)"""
    over = {a.name for a in stage.over}
    return stage.reducer.op in _IDEMPOTENT and not any(isinstance(n, Var) and n.name in over for v in stage.values for n in walk(v))


def _at_most_once(axis: Axis) -> Axis:
    return replace(axis, hi=add(axis.lo, binary("min", sub(axis.hi, axis.lo), index(1))))


def _hoisted(stage: Reduce, params: frozenset[str]) -> Block:
    """States over fewer axes are combined once per point of `over`; the others loop over their own axes inside it.

    The loop over `over` is carried: the wide states read the narrow ones from before and after each point.
    """
    shared = tuple(a for a in stage.axes if all(a.name in t.axes for t in stage.targets))
    narrow_axes = tuple(a.name for a in shared)
    by_name = {a.name: a for a in stage.axes}
    places = {
        state: _place(t.name, tuple(by_name[a] for a in t.axes), params)
        for state, t in zip(stage.reducer.states, stage.targets)
    }
    targets = dict(zip(stage.reducer.states, stage.targets))
    narrow = [s for s in stage.reducer.states if targets[s].axes == narrow_axes]
    wide = [s for s in stage.reducer.states if s not in narrow]
    lifted = dict(zip(stage.reducer.states, stage.values))
    merges = dict(zip(stage.reducer.states, stage.reducer.merge))
    identity = dict(zip(stage.reducer.states, stage.reducer.identity))

    def local(kind: str, state: str) -> Buffer:
        return Buffer(name=f"{stage.name}:{kind}.{state}", dtype=compute_type(targets[state].dtype), shape=(), space="reg")

    def inner(state: str, statement: Stmt, suffix: str) -> Block:
        axes = tuple(by_name[a] for a in targets[state].axes if a not in narrow_axes)
        renamed = tuple(replace(a, name=f"{a.name}{suffix}") for a in axes)
        body = substitute(statement, {a.name: Var(name=r.name) for a, r in zip(axes, renamed)})
        return _nest(stage.name, renamed, (body,))

    def local_load(kind: str, state: str) -> Expr:
        return Load(tensor=f"{stage.name}:{kind}.{state}", index=(), dtype=compute_type(targets[state].dtype))

    before: dict[str, Expr] = {f"a.{s}": _read(places[s], targets[s]) for s in stage.reducer.states}
    new: dict[str, Expr] = {f"b.{s}": local_load("b", s) for s in narrow}
    body: list[Stmt] = []
    for s in narrow:
        body += [Alloc(buffer=local("b", s)), Store(target=Ref(tensor=f"{stage.name}:b.{s}", index=()), value=lifted[s])]
    for s in narrow:
        merged = substitute(merges[s], {**before, **new})
        body += [Alloc(buffer=local("n", s)), Store(target=Ref(tensor=f"{stage.name}:n.{s}", index=()), value=merged)]
    for s in wide:
        values = {**before, **new, **{f"b.{w}": lifted[w] for w in wide}}
        body += inner(s, Store(target=places[s], value=substitute(merges[s], values)), "")
    body += [Store(target=places[s], value=local_load("n", s)) for s in narrow]
    start: list[Stmt] = []
    for s in stage.reducer.states:
        start += inner(s, Store(target=places[s], value=identity[s]), ".init")
    loops = _nest(stage.name, stage.over, tuple(body), carried=True)
    return _nest(stage.name, shared, (*start, *loops))


def _scan(stage: Scan, params: frozenset[str]) -> Block:
    reducer, along = stage.reducer, stage.along
    running = [Buffer(name=f"{stage.name}:run.{s}", dtype=d, shape=(), space="reg") for s, d in zip(reducer.states, reducer.dtypes)]
    refs = tuple(Ref(tensor=b.name, index=()) for b in running)
    start: list[Stmt] = []
    for buffer, ref, value in zip(running, refs, reducer.identity):
        start += [Alloc(buffer=buffer), Store(target=ref, value=value)]
    step = Accumulate(targets=refs, reducer=reducer, values=stage.values, span=stage.span)
    axes = {a.name: a for a in (*stage.axes, along)}
    out = [
        Store(target=_place(t.name, tuple(axes[n] for n in t.axes), params), value=_read(ref, buffer), span=stage.span)
        for t, ref, buffer in zip(stage.targets, refs, running)
    ]
    body: Block = (*out, step) if stage.exclusive else (step, *out)
    return _nest(stage.name, stage.axes, (*start, *_nest(stage.name, (along,), body, carried=True)))


def _compact(stage: Compact, params: frozenset[str]) -> Block:
    count = Ref(tensor=stage.length, index=())
    append = Append(tensors=(stage.name,), count=count, values=(stage.value,), keep=stage.keep, span=stage.span)
    return (Store(target=count, value=index(0)), *_nest(stage.name, (stage.along,), (append,), carried=True))


def _topk(stage: TopK, params: frozenset[str]) -> Block:
    """Insertion into the k best so far."""
    slot = Var(name=f"{stage.name}:slot")
    point = sub(Var(name=stage.along.name), stage.along.lo)
    leading = tuple(_place(stage.values.name, stage.axes, params).index)
    body = Insertion(
        stage=stage.name,
        values=Ref(tensor=stage.values.name, index=(*leading, slot)),
        indices=Ref(tensor=stage.indices.name, index=(*leading, slot)),
        dtypes=(stage.values.dtype, stage.indices.dtype),
        value=stage.value,
        position=point if stage.indices.dtype == INDEX else Cast(a=point, dtype=stage.indices.dtype),
        point=point,
        k=stage.k,
    ).body()
    return _nest(stage.name, stage.axes, _nest(stage.name, (stage.along,), body, carried=True))


_STAGES: Mapping[type[Stage], Callable[..., Block]] = {
    Map: _map,
    Reduce: _reduce,
    Scan: _scan,
    Compact: _compact,
    TopK: _topk,
}
