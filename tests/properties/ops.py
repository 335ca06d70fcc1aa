"""Random ops that are valid by construction, as `.tri` text with arguments for one call.

`ops()` is the source of the differential suite: whatever it draws must give the oracle's answer under every schedule, on
every backend. Three regimes, so that "the same answer" always has a clear meaning:

- `integers`: only integers and bools. Answers are bit-identical. Inputs include the extremes of every type.
- `moved`: floats are loaded, selected, compared, negated, converted, never rounded twice or summed: identical up to the
  sign of zero and the payload of NaN. Inputs include NaN, infinities and denormals.
- `computed`: float arithmetic, functions and sums over tame inputs (|x| <= 2), conditioned so that `agree` can compare with
  the oracle's f64 answer under a tolerance. Nothing discontinuous is applied to a computed float.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.properties.cases import Case, Regime, agree
from tests.properties.op_parts import (
    EXTENTS,
    MOST_POINTS,
    Builder,
    Draw,
    Held,
    Indices,
    array,
    axes_of,
    bound,
    condition,
    emit,
    indices_over,
    points,
    scalar_value,
    value_of,
)  # fmt: skip
from tridsl.dtypes import BF16, BOOL, DTYPES, F16, F32, F64, I32, I64, DType, compute_type

__all__ = ["Case", "agree", "ops"]


@st.composite
def ops(draw: Draw, regimes: tuple[Regime, ...] = ("integers", "moved", "computed")) -> Case:
    """A `Case`."""
    b = Builder(draw=draw, regime=draw(st.sampled_from(regimes)), sizes={})
    for name in ("N", "M", "K")[: draw(st.integers(1, 3))]:
        b.sizes[name] = draw(st.sampled_from(EXTENTS))
    for _ in range(draw(st.integers(1, 3))):
        b.inputs.append(Held(b.fresh("x"), b.choice((*b.types, BOOL)), axes_of(b, least=0 if b.inputs else 1)))
    for name in b.sizes:  # every size must follow from some argument
        if not any(name in t.axes for t in b.inputs):
            b.inputs.append(Held(b.fresh("x"), b.choice(b.types), (name,)))
    for _ in range(draw(st.integers(0, 2))):
        dtype = b.choice([t for t in b.types if t not in (F16, BF16)])
        b.scalars[b.fresh("s")] = (dtype, scalar_value(b, dtype))
    for _ in range(draw(st.integers(1, 4))):
        b.choice((_map, _map, _map, _reduce, _reduce, _scan, _matmul, _monoid, _gather))(b)
    if draw(st.integers(0, 4)) == 0:
        b.choice((_compact, _topk))(b)
    return _finish(b)


# Stages.


def _map(b: Builder) -> None:
    dtype = b.choice((*b.types, BOOL))
    indices = indices_over(b, axes_of(b), "i")
    emit(b, dtype, indices, value_of(b, dtype, indices, b.draw(st.integers(0, 3))))


def _reducer(b: Builder, dtype: DType, over: Indices) -> str:
    """A reducer whose answer over `dtype` does not depend on the order, or only within the tolerance."""
    empty = any(b.sizes[s] == 0 for s in over.values())
    choices = ["sum", "prod"] if dtype.is_integer else ["sum"] if b.regime == "computed" else []
    return b.choice([*choices, *([] if empty and choices else ["max", "min"])])


def _nonempty(b: Builder) -> list[str]:
    return [s for s, extent in b.sizes.items() if extent > 0]


def _reduction_axes(b: Builder, outer: Indices) -> Indices:
    over: Indices = {}
    for _ in range(b.draw(st.integers(1, 2))):
        size = b.choice(b.sizes)
        if points(b, outer, over, {"": size}) <= MOST_POINTS:
            over[b.fresh("k")] = size
    return over


def _reduce(b: Builder) -> None:
    dtype = b.choice([t for t in b.types if t not in (F16, BF16)])
    outer = indices_over(b, axes_of(b, most=2), "i")
    over = _reduction_axes(b, outer)
    if not over:
        return _map(b)
    inner = outer | over
    if b.chance(20):
        name = b.choice(("any", "all", "count"))
        text = f"{name}[{bound(over)}]({condition(b, inner, 1)})"
        return emit(b, BOOL if name != "count" else I32, outer, (text if name != "count" else f"i32({text})", False))
    if (
        (dtype.is_integer or b.regime == "moved")
        and len(over) == 1
        and b.sizes[next(iter(over.values()))] > 0
        and b.chance(20)
    ):
        value = value_of(b, dtype, inner, 1)[0]
        return emit(b, I32, outer, (f"i32({b.choice(('argmax', 'argmin'))}[{bound(over)}]({value}))", False))
    empty = any(b.sizes[s] == 0 for s in over.values())
    if empty and not dtype.is_integer and b.regime != "computed":
        return _map(b)
    name = _reducer(b, dtype, over)
    options = "; order=seq" if name in ("sum", "prod") and b.chance(10) else ""
    value, computed = value_of(b, dtype, inner, b.draw(st.integers(0, 2)))
    acc = (
        f"; acc={b.choice(('i32', 'i64'))}"
        if dtype.is_integer and dtype.bits < 32 and name in ("sum", "prod") and dtype.name != "u32"
        else ""
    )
    scaled = f"{value} * {dtype}(0.0625)" if dtype.is_float and name == "sum" else value
    text = (
        f"{name}[{bound(over)}{options.replace(';', ',') if options and acc else options}{acc}]({scaled})"
        if not (acc and options)
        else f"{name}[{bound(over)}{acc}, order=seq]({scaled})"
    )
    result = DTYPES[acc.removeprefix("; acc=")] if acc else dtype
    emit(b, result, outer, (text, computed or (dtype.is_float and name == "sum")))


def _scan(b: Builder) -> None:
    axes = axes_of(b, least=1, most=2)
    indices = indices_over(b, axes, "i")
    along = b.choice(indices)
    dtype = b.choice([t for t in b.types if t not in (F16, BF16) and (t.is_float or t.bits >= 32)])
    name = "sum" if dtype.is_integer and b.chance(60) else _reducer(b, dtype, {})
    value, computed = value_of(b, dtype, indices, 1)
    scaled = f"{value} * {dtype}(0.0625)" if dtype.is_float and name == "sum" else value
    exclusive = "; exclusive" if name == "sum" and b.chance(40) else ""
    emit(
        b,
        dtype,
        indices,
        (f"scan {name}[{along}{exclusive}]({scaled})", computed or (dtype.is_float and name == "sum")),
    )


def _matmul(b: Builder) -> None:
    """A product of two loads summed over a shared index: what schedules with matrix instructions look for."""
    if b.regime == "moved":
        return _map(b)
    rows, columns, depth = (b.choice(b.sizes) for _ in range(3))
    i, j, k = b.fresh("i"), b.fresh("j"), b.fresh("k")
    if points(b, {i: rows, j: columns, k: depth}) > 4 * MOST_POINTS:
        return _map(b)
    dtype = b.choice(b.types)
    a, c = Held(b.fresh("x"), dtype, (rows, depth)), Held(b.fresh("x"), dtype, (depth, columns))
    b.inputs += [a, c]
    acc = (
        compute_type(dtype)
        if dtype.is_float
        else dtype
        if dtype.bits >= 32
        else I64
        if dtype.kind == "uint" and b.chance(50)
        else I32
    )
    text = f"sum[{k} in 0..{depth}; acc={acc}]({a.name}[{i}, {k}] * {c.name}[{k}, {j}])"
    return emit(b, acc, {i: rows, j: columns}, (f"{text} * {acc}(0.0625)" if dtype.is_float else text, dtype.is_float))


_MONOIDS = {
    # composition of affine maps x -> a x + b in wrapping integers: associative, exact, and order matters
    "compose": """monoid compose(p: i32, q: i32) -> i32 {
  state a: i32 = 1, c: i32 = 0
  lift {
    a = p
    c = q
  }
  merge x, y {
    a = x.a * y.a
    c = x.c * y.a + y.c
  }
  result c
}
""",
    "softmean": """monoid softmean(s: f32, v: f32) -> f32 {
  state m: f32 = lowest, l: f32 = 0, o: f32 = 0
  lift {
    m = s
    l = 1
    o = v
  }
  merge x, y {
    m = max(x.m, y.m)
    l = x.l * exp(x.m - m) + y.l * exp(y.m - m)
    o = x.o * exp(x.m - m) + y.o * exp(y.m - m)
  }
  result if l == 0 then 0 else o / l
}
""",
}


def _monoid(b: Builder) -> None:
    name = "softmean" if b.regime == "computed" else "compose"
    dtype = F32 if name == "softmean" else I32
    scanned = b.chance(30)
    outer = indices_over(b, axes_of(b, least=1 if scanned else 0, most=2), "i")
    over = {} if scanned else {b.fresh("k"): b.choice(b.sizes)}
    if points(b, outer, over) > MOST_POINTS:
        return _map(b)
    inner = outer | over
    b.monoids.add(name)
    # the first state may vary with fewer indices than the second: that is what hoisting is about
    narrow = {i: s for n, (i, s) in enumerate(inner.items()) if n or len(inner) == 1 or scanned}
    first, second = value_of(b, dtype, narrow, 1)[0], value_of(b, dtype, inner, 1)[0]
    where = b.choice(outer) if scanned else bound(over)
    return emit(
        b, dtype, outer, (f"{'scan ' if scanned else ''}{name}[{where}]({first}, {second})", name == "softmean")
    )


def _gather(b: Builder) -> None:
    """Rows named by an index tensor: inside by construction, or anywhere with a pad."""
    tables = [t for t in b.tensors if t.axes and t.dtype != BOOL]
    if not tables:
        return _map(b)
    table = b.choice(tables)
    ids = Held(b.fresh("x"), I32, (b.choice(b.sizes),))
    rest = indices_over(b, table.axes[1:], "j")
    i = b.fresh("i")
    if points(b, rest, {i: ids.axes[0]}) > MOST_POINTS:
        return _map(b)
    b.inputs.append(ids)
    inside = b.sizes[table.axes[0]] > 0 and b.chance(50)
    position = f"{ids.name}[{i}] % i32({table.axes[0]})" if inside else f"{ids.name}[{i}]"
    pad = "" if inside else "; pad=0"
    text = f"{table.name}[{', '.join([position, *rest])}{pad}]"
    return emit(b, table.dtype, {i: ids.axes[0]} | rest, (text, table.computed))


def _selectable(b: Builder) -> list[Held]:
    return [t for t in b.tensors if len(t.axes) == 1 and t.dtype != BOOL and not t.computed]


def _compact(b: Builder) -> None:
    candidates = _selectable(b)
    if not candidates:
        return
    x = b.choice(candidates)
    i, name = b.fresh("i"), b.fresh("t")
    keep = condition(b, {i: x.axes[0]}, 1)
    b.lines.append(f"{name} = compact[{i} in 0..{x.axes[0]}]({x.name}[{i}], {keep})")
    b.stages.append(Held(name, x.dtype, (f"..{x.axes[0]}",)))


def _topk(b: Builder) -> None:
    candidates = [t for t in _selectable(b) if b.sizes[t.axes[0]] > 0]
    if not candidates:
        return
    x = b.choice(candidates)
    count = b.draw(st.integers(1, b.sizes[x.axes[0]]))
    n, v, p = b.fresh("i"), b.fresh("t"), b.fresh("t")
    b.lines.append(f"{v}, {p} = topk[{n} in 0..{x.axes[0]}; k={count}]({x.name}[{n}])")
    b.stages += [Held(v, x.dtype, (str(count),)), Held(p, I32, (str(count),))]


# The whole op.


def _finish(b: Builder) -> Case:
    values = " ".join(line.partition(" = ")[2] for line in b.lines)
    read = set(re.findall(r"[a-z]\w*", values))  # what was drawn and then left out of an expression does not count
    outputs = [t for t in b.stages if t.name not in read or b.chance(25)]
    params = [f"{t.name}: {_type(t)}" for t in b.inputs] + [f"{n}: {t}" for n, (t, _) in b.scalars.items()]
    results = ", ".join(f"{t.name}: {_type(t)}" for t in outputs)
    contracts = sorted(
        {
            f"{t.axes[0]} <= {s}"
            for t in b.stages
            for s in b.sizes
            if t.axes and t.axes[0].isdigit() and f"0..{s}; k=" in "".join(b.lines) and b.sizes[s] >= int(t.axes[0])
        }
    )
    where = f" where {', '.join(contracts)}" if contracts else ""
    body = "\n".join(f"  {line}" for line in b.lines)
    text = (
        "".join(_MONOIDS[m] for m in sorted(b.monoids))
        + f"op f({', '.join(params)}) -> ({results}){where} {{\n{body}\n}}\n"
    )
    arguments: dict[str, Any] = {t.name: array(b, t) for t in b.inputs} | {n: v for n, (_, v) in b.scalars.items()}
    stored = [t.dtype for t in (*b.inputs, *b.stages) if t.dtype.is_float]
    narrowest = (
        min(stored, key=lambda t: (np.finfo(np.float32).nmant, {BF16: 7, F16: 10, F32: 23, F64: 52}[t])[1])
        if stored
        else None
    )
    return Case(text=text, name="f", arguments=arguments, sizes=dict(b.sizes), regime=b.regime, narrowest=narrowest)


def _type(tensor: Held) -> str:
    return f"{tensor.dtype}[{', '.join(tensor.axes)}]" if tensor.axes else str(tensor.dtype)
