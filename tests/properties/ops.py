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
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st

from tridsl.dtypes import BF16, BOOL, DTYPES, F16, F32, F64, I32, I64, NUMPY_TYPES, DType, compute_type

Regime = Literal["integers", "moved", "computed"]
Draw = Callable[[st.SearchStrategy[Any]], Any]

EXTENTS = (0, 1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 33)
MOST_POINTS = 3000
INTEGERS = tuple(DTYPES[n] for n in ("i8", "u8", "i16", "u16", "i32", "u32", "i64"))
FLOATS = (F32, F64, F16, BF16)
_FLOAT_TYPES = tuple(NUMPY_TYPES[t] for t in FLOATS)
MODES = ("edge", "reflect", "symmetric", "wrap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call: `text` defines op `name`; `arguments` are its arrays and scalars by name, `sizes` the extents they imply."""

    text: str
    name: str
    arguments: dict[str, Any]
    sizes: dict[str, int]
    regime: Regime
    narrowest: DType | None

    def __repr__(self) -> str:
        shapes = {n: f"{a.dtype}{list(a.shape)}" if isinstance(a, np.ndarray) else a for n, a in self.arguments.items()}
        return f"Case({self.regime}, {shapes})\n{self.text}"


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A name with the sizes of its axes. `computed`: holds floats that were rounded on the way."""

    name: str
    dtype: DType
    axes: tuple[str, ...]
    computed: bool = False


@dataclass(slots=True)
class _Builder:
    """The op so far."""

    draw: Draw
    regime: Regime
    sizes: dict[str, int]
    inputs: list[_Tensor] = field(default_factory=list)
    scalars: dict[str, tuple[DType, Any]] = field(default_factory=dict)
    stages: list[_Tensor] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    monoids: set[str] = field(default_factory=set)
    counter: int = 0

    def choice(self, items: Any) -> Any:
        return self.draw(st.sampled_from(list(items)))

    def chance(self, percent: int) -> bool:
        return bool(self.draw(st.integers(0, 99)) < percent)

    def fresh(self, prefix: str) -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    @property
    def types(self) -> tuple[DType, ...]:
        """Element types a stage may have."""
        return INTEGERS if self.regime == "integers" else (*FLOATS, *FLOATS, *INTEGERS)

    @property
    def tensors(self) -> list[_Tensor]:
        return [*self.inputs, *self.stages]


Indices = dict[str, str]  # index name: the size it runs over
Text = tuple[str, bool]  # an expression, and whether it holds a computed float


@st.composite
def ops(draw: Draw, regimes: tuple[Regime, ...] = ("integers", "moved", "computed")) -> Case:
    """A `Case`."""
    b = _Builder(draw=draw, regime=draw(st.sampled_from(regimes)), sizes={})
    for name in ("N", "M", "K")[: draw(st.integers(1, 3))]:
        b.sizes[name] = draw(st.sampled_from(EXTENTS))
    for _ in range(draw(st.integers(1, 3))):
        b.inputs.append(_Tensor(b.fresh("x"), b.choice((*b.types, BOOL)), _axes(b, least=0 if b.inputs else 1)))
    for name in b.sizes:  # every size must follow from some argument
        if not any(name in t.axes for t in b.inputs):
            b.inputs.append(_Tensor(b.fresh("x"), b.choice(b.types), (name,)))
    for _ in range(draw(st.integers(0, 2))):
        dtype = b.choice([t for t in b.types if t not in (F16, BF16)])
        b.scalars[b.fresh("s")] = (dtype, _value(b, dtype))
    for _ in range(draw(st.integers(1, 4))):
        b.choice((_map, _map, _map, _reduce, _reduce, _scan, _matmul, _monoid, _gather))(b)
    if draw(st.integers(0, 4)) == 0:
        b.choice((_compact, _topk))(b)
    return _finish(b)


def _axes(b: _Builder, least: int = 0, most: int = 3) -> tuple[str, ...]:
    """Sizes of a tensor of at most `MOST_POINTS` elements."""
    axes: list[str] = []
    points = 1
    for _ in range(b.draw(st.integers(least, most))):
        name = b.choice(b.sizes)
        points *= max(1, b.sizes[name])
        if points > MOST_POINTS:
            break
        axes.append(name)
    return tuple(axes) if len(axes) >= least else (b.choice(b.sizes),)


def _indices(b: _Builder, axes: tuple[str, ...], prefix: str) -> Indices:
    return {b.fresh(prefix): size for size in axes}


def _bound(indices: Indices) -> str:
    return ", ".join(f"{i} in 0..{size}" for i, size in indices.items())


def _points(b: _Builder, *indices: Indices) -> int:
    total = 1
    for group in indices:
        for size in group.values():
            total *= max(1, b.sizes[size])
    return total


def _emit(b: _Builder, dtype: DType, indices: Indices, value: Text) -> None:
    tensor = _Tensor(b.fresh("t"), dtype, tuple(indices.values()), value[1] and dtype.is_float)
    b.lines.append(f"{tensor.name}{f'[{_bound(indices)}]' if indices else ''} = {value[0]}")
    b.stages.append(tensor)


# Expressions. Every operand is written with its type, so nothing depends on how literals adapt.


def _literal(b: _Builder, dtype: DType) -> str:
    if dtype == BOOL:
        return str(b.choice(("true", "false")))
    if dtype.is_float:
        return f"{dtype}({b.choice(('0.5', '-1.25', '2', '1', '0.1', '-0.75'))})"
    if b.chance(10):
        return f"{dtype}({b.choice(('lowest', 'highest'))})"
    return f"{dtype}({b.choice((0, 1, 2, 3, 7, 100) if dtype.kind == 'uint' else (-100, -3, -1, 0, 1, 2, 7, 100))})"


def _access(b: _Builder, tensor: _Tensor, indices: Indices) -> str | None:
    """`tensor[…]` at the indices in force; None where an axis has no index that fits and no pad may stand in."""
    if not tensor.axes:
        return tensor.name
    positions: list[str] = []
    outside = False
    for size in tensor.axes:
        fitting = [i for i, s in indices.items() if s == size]
        if not fitting:
            positions.append(b.choice((0, 1, 4)) if not indices or b.chance(50) else b.choice(indices))
            outside = True
        elif b.chance(70):
            positions.append(b.choice(fitting))
        elif b.chance(30):
            positions.append(f"{size} - 1 - {b.choice(fitting)}")
        else:
            positions.append(
                b.choice(("{} + 1", "{} - 1", "{} - 3", "{} + 5", "2*{}", "{} // 2 - 1", "3 - {}")).format(
                    b.choice(fitting)
                )
            )
            outside = True
    pad = ""
    if outside:
        empty = any(b.sizes[s] == 0 for s in tensor.axes)  # a mode needs an element to repeat
        if empty and tensor.dtype == BOOL:
            return None
        modes = () if empty else MODES
        values = () if tensor.dtype == BOOL else ("0", "1", "3") if tensor.dtype.kind == "uint" else ("0", "-1", "3")
        pad = f"; pad={b.choice((*modes, *values))}"
    return f"{tensor.name}[{', '.join(str(p) for p in positions)}{pad}]"


def _leaf(b: _Builder, dtype: DType, indices: Indices, allow_computed: bool) -> Text:
    """A load, a parameter, an index or a literal, as `dtype`."""
    usable = [t for t in b.tensors if (t.dtype == BOOL) == (dtype == BOOL) and (allow_computed or not t.computed)]
    if b.regime == "computed" and dtype.is_float:
        usable = [t for t in usable if t.dtype.is_float] or []
    elif dtype.is_float or b.regime == "integers":
        pass
    else:
        usable = [t for t in usable if not t.computed]
    if usable and b.chance(80):
        tensor = b.choice(usable)
        text = _access(b, tensor, indices)
        if text is not None:
            return (text if dtype == BOOL else f"{dtype}({text})"), tensor.computed
    scalars = [
        n
        for n, (t, _) in b.scalars.items()
        if dtype != BOOL and (b.regime != "computed" or t.is_float == dtype.is_float)
    ]
    if scalars and b.chance(40):
        return f"{dtype}({b.choice(scalars)})", False
    if indices and dtype.is_integer and b.chance(50):
        return f"{dtype}({b.choice(indices)})", False
    return _literal(b, dtype), False


def _condition(b: _Builder, indices: Indices, depth: int) -> str:
    kind = b.draw(st.integers(0, 5))
    if kind == 0 and indices:
        return f"{b.choice(indices)} {b.choice(('<', '>=', '==', '!='))} {b.choice((0, 1, 3))}"
    if kind == 1 and depth:
        return (
            f"({_condition(b, indices, depth - 1)}) {b.choice(('and', 'or'))} not ({_condition(b, indices, depth - 1)})"
        )
    if kind == 2:
        return _leaf(b, BOOL, indices, False)[0]
    if kind == 3 and b.regime == "moved":
        return f"{b.choice(('isnan', 'isinf'))}({_leaf(b, b.choice((F32, F64)), indices, False)[0]})"
    dtype = b.choice([compute_type(t) for t in b.types])
    if b.regime == "computed":
        dtype = b.choice(INTEGERS)  # float inputs may be computed with other roundings
    a, c = (_leaf(b, dtype, indices, False)[0] for _ in range(2))
    return f"{a} {b.choice(('<', '<=', '>', '>=', '==', '!='))} {c}"


def _integer(b: _Builder, dtype: DType, indices: Indices, depth: int) -> Text:
    if depth == 0:
        return _leaf(b, dtype, indices, False)
    a, c = (_integer(b, dtype, indices, depth - 1)[0] for _ in range(2))
    forms = [f"({a} {op} {c})" for op in ("+", "-", "*", "//", "%", "&", "|", "^")]
    forms += [f"min({a}, {c})", f"max({a}, {c})", f"(if {_condition(b, indices, 1)} then {a} else {c})", f"(~{a})"]
    forms += [
        f"({a} << ({c} & {dtype}({dtype.bits - 1})))",
        f"({a} >> ({c} & {dtype}(63)))",
    ]  # counts past the width too
    if dtype.kind == "int":
        forms += [f"abs({a})", f"(-{a})"]
    other = b.choice([t for t in (INTEGERS if b.regime != "moved" else (*INTEGERS, F32, F64)) if t != dtype])
    forms.append(f"{dtype}({_leaf(b, other, indices, False)[0]})")
    return b.choice(forms), False


def _moved(b: _Builder, dtype: DType, indices: Indices, depth: int) -> Text:
    if depth == 0:
        return _leaf(b, dtype, indices, False)
    a, c = (_moved(b, dtype, indices, depth - 1)[0] for _ in range(2))
    forms = [
        f"min({a}, {c})",
        f"max({a}, {c})",
        f"(if {_condition(b, indices, 1)} then {a} else {c})",
        f"abs({a})",
        f"(-{a})",
        f"relu({a})",
    ]
    forms += [f"{name}({a})" for name in ("floor", "ceil", "trunc", "round_even", "round_away")]
    return b.choice(forms), False


def _computed(b: _Builder, dtype: DType, indices: Indices, depth: int) -> Text:
    """Well conditioned: values stay small, derivatives near one."""
    if depth == 0:
        return _leaf(b, dtype, indices, True)
    (a, _), (c, _) = (_computed(b, dtype, indices, depth - 1) for _ in range(2))
    one, half = f"{dtype}(1)", f"{dtype}(0.5)"
    forms = [
        f"({a} + {c})", f"({a} - {c})", f"(tanh({a}) * {c})", f"({half} * {a})", f"({a} / ({one} + abs({c})))", f"exp(-abs({a}))", f"sigmoid({a})",
        f"tanh({a})", f"sqrt(abs({a}) + {one})", f"erf({a})", f"log({one} + abs({a}))", f"sin({a})", f"cos({a})", f"rsqrt({one} + sqr({a}) * {half})",
        f"min({a}, {c})", f"max({a}, {c})", f"(if {_condition(b, indices, 0)} then {a} else {c})", f"fma(tanh({a}), {half}, {c})",
    ]  # fmt: skip
    return b.choice(forms), True


def _value_of(b: _Builder, dtype: DType, indices: Indices, depth: int) -> Text:
    """An expression of `dtype` (float arithmetic in its compute type, cast at the end)."""
    if dtype == BOOL:
        return _condition(b, indices, depth), False
    if dtype.is_integer:
        return _integer(b, dtype, indices, depth)
    wide = compute_type(dtype)
    text, computed = (_computed if b.regime == "computed" else _moved)(b, wide, indices, depth)
    return (text if wide == dtype else f"{dtype}({text})"), computed


# Stages.


def _map(b: _Builder) -> None:
    dtype = b.choice((*b.types, BOOL))
    indices = _indices(b, _axes(b), "i")
    _emit(b, dtype, indices, _value_of(b, dtype, indices, b.draw(st.integers(0, 3))))


def _reducer(b: _Builder, dtype: DType, over: Indices) -> str:
    """A reducer whose answer over `dtype` does not depend on the order, or only within the tolerance."""
    empty = any(b.sizes[s] == 0 for s in over.values())
    choices = ["sum", "prod"] if dtype.is_integer else ["sum"] if b.regime == "computed" else []
    return b.choice([*choices, *([] if empty and choices else ["max", "min"])])


def _nonempty(b: _Builder) -> list[str]:
    return [s for s, extent in b.sizes.items() if extent > 0]


def _reduction_axes(b: _Builder, outer: Indices) -> Indices:
    over: Indices = {}
    for _ in range(b.draw(st.integers(1, 2))):
        size = b.choice(b.sizes)
        if _points(b, outer, over, {"": size}) <= MOST_POINTS:
            over[b.fresh("k")] = size
    return over


def _reduce(b: _Builder) -> None:
    dtype = b.choice([t for t in b.types if t not in (F16, BF16)])
    outer = _indices(b, _axes(b, most=2), "i")
    over = _reduction_axes(b, outer)
    if not over:
        return _map(b)
    inner = outer | over
    if b.chance(20):
        name = b.choice(("any", "all", "count"))
        text = f"{name}[{_bound(over)}]({_condition(b, inner, 1)})"
        return _emit(b, BOOL if name != "count" else I32, outer, (text if name != "count" else f"i32({text})", False))
    if (
        (dtype.is_integer or b.regime == "moved")
        and len(over) == 1
        and b.sizes[next(iter(over.values()))] > 0
        and b.chance(20)
    ):
        value = _value_of(b, dtype, inner, 1)[0]
        return _emit(b, I32, outer, (f"i32({b.choice(('argmax', 'argmin'))}[{_bound(over)}]({value}))", False))
    empty = any(b.sizes[s] == 0 for s in over.values())
    if empty and not dtype.is_integer and b.regime != "computed":
        return _map(b)
    name = _reducer(b, dtype, over)
    options = "; order=seq" if name in ("sum", "prod") and b.chance(10) else ""
    value, computed = _value_of(b, dtype, inner, b.draw(st.integers(0, 2)))
    acc = (
        f"; acc={b.choice(('i32', 'i64'))}"
        if dtype.is_integer and dtype.bits < 32 and name in ("sum", "prod") and dtype.name != "u32"
        else ""
    )
    scaled = f"{value} * {dtype}(0.0625)" if dtype.is_float and name == "sum" else value
    text = (
        f"{name}[{_bound(over)}{options.replace(';', ',') if options and acc else options}{acc}]({scaled})"
        if not (acc and options)
        else f"{name}[{_bound(over)}{acc}, order=seq]({scaled})"
    )
    result = DTYPES[acc.removeprefix("; acc=")] if acc else dtype
    _emit(b, result, outer, (text, computed or (dtype.is_float and name == "sum")))


def _scan(b: _Builder) -> None:
    axes = _axes(b, least=1, most=2)
    indices = _indices(b, axes, "i")
    along = b.choice(indices)
    dtype = b.choice([t for t in b.types if t not in (F16, BF16) and (t.is_float or t.bits >= 32)])
    name = "sum" if dtype.is_integer and b.chance(60) else _reducer(b, dtype, {})
    value, computed = _value_of(b, dtype, indices, 1)
    scaled = f"{value} * {dtype}(0.0625)" if dtype.is_float and name == "sum" else value
    exclusive = "; exclusive" if name == "sum" and b.chance(40) else ""
    _emit(
        b,
        dtype,
        indices,
        (f"scan {name}[{along}{exclusive}]({scaled})", computed or (dtype.is_float and name == "sum")),
    )


def _matmul(b: _Builder) -> None:
    """A product of two loads summed over a shared index: what schedules with matrix instructions look for."""
    if b.regime == "moved":
        return _map(b)
    rows, columns, depth = (b.choice(b.sizes) for _ in range(3))
    i, j, k = b.fresh("i"), b.fresh("j"), b.fresh("k")
    if _points(b, {i: rows, j: columns, k: depth}) > 4 * MOST_POINTS:
        return _map(b)
    dtype = b.choice(b.types)
    a, c = _Tensor(b.fresh("x"), dtype, (rows, depth)), _Tensor(b.fresh("x"), dtype, (depth, columns))
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
    return _emit(b, acc, {i: rows, j: columns}, (f"{text} * {acc}(0.0625)" if dtype.is_float else text, dtype.is_float))


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


def _monoid(b: _Builder) -> None:
    name = "softmean" if b.regime == "computed" else "compose"
    dtype = F32 if name == "softmean" else I32
    scanned = b.chance(30)
    outer = _indices(b, _axes(b, least=1 if scanned else 0, most=2), "i")
    over = {} if scanned else {b.fresh("k"): b.choice(b.sizes)}
    if _points(b, outer, over) > MOST_POINTS:
        return _map(b)
    inner = outer | over
    b.monoids.add(name)
    # the first state may vary with fewer indices than the second: that is what hoisting is about
    narrow = {i: s for n, (i, s) in enumerate(inner.items()) if n or len(inner) == 1 or scanned}
    first, second = _value_of(b, dtype, narrow, 1)[0], _value_of(b, dtype, inner, 1)[0]
    where = b.choice(outer) if scanned else _bound(over)
    return _emit(
        b, dtype, outer, (f"{'scan ' if scanned else ''}{name}[{where}]({first}, {second})", name == "softmean")
    )


def _gather(b: _Builder) -> None:
    """Rows named by an index tensor: inside by construction, or anywhere with a pad."""
    tables = [t for t in b.tensors if t.axes and t.dtype != BOOL]
    if not tables:
        return _map(b)
    table = b.choice(tables)
    ids = _Tensor(b.fresh("x"), I32, (b.choice(b.sizes),))
    rest = _indices(b, table.axes[1:], "j")
    i = b.fresh("i")
    if _points(b, rest, {i: ids.axes[0]}) > MOST_POINTS:
        return _map(b)
    b.inputs.append(ids)
    inside = b.sizes[table.axes[0]] > 0 and b.chance(50)
    position = f"{ids.name}[{i}] % i32({table.axes[0]})" if inside else f"{ids.name}[{i}]"
    pad = "" if inside else "; pad=0"
    text = f"{table.name}[{', '.join([position, *rest])}{pad}]"
    return _emit(b, table.dtype, {i: ids.axes[0]} | rest, (text, table.computed))


def _selectable(b: _Builder) -> list[_Tensor]:
    return [t for t in b.tensors if len(t.axes) == 1 and t.dtype != BOOL and not t.computed]


def _compact(b: _Builder) -> None:
    candidates = _selectable(b)
    if not candidates:
        return
    x = b.choice(candidates)
    i, name = b.fresh("i"), b.fresh("t")
    keep = _condition(b, {i: x.axes[0]}, 1)
    b.lines.append(f"{name} = compact[{i} in 0..{x.axes[0]}]({x.name}[{i}], {keep})")
    b.stages.append(_Tensor(name, x.dtype, (f"..{x.axes[0]}",)))


def _topk(b: _Builder) -> None:
    candidates = [t for t in _selectable(b) if b.sizes[t.axes[0]] > 0]
    if not candidates:
        return
    x = b.choice(candidates)
    count = b.draw(st.integers(1, b.sizes[x.axes[0]]))
    n, v, p = b.fresh("i"), b.fresh("t"), b.fresh("t")
    b.lines.append(f"{v}, {p} = topk[{n} in 0..{x.axes[0]}; k={count}]({x.name}[{n}])")
    b.stages += [_Tensor(v, x.dtype, (str(count),)), _Tensor(p, I32, (str(count),))]


# The whole op.


def _finish(b: _Builder) -> Case:
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
    arguments: dict[str, Any] = {t.name: _array(b, t) for t in b.inputs} | {n: v for n, (_, v) in b.scalars.items()}
    stored = [t.dtype for t in (*b.inputs, *b.stages) if t.dtype.is_float]
    narrowest = (
        min(stored, key=lambda t: (np.finfo(np.float32).nmant, {BF16: 7, F16: 10, F32: 23, F64: 52}[t])[1])
        if stored
        else None
    )
    return Case(text=text, name="f", arguments=arguments, sizes=dict(b.sizes), regime=b.regime, narrowest=narrowest)


def _type(tensor: _Tensor) -> str:
    return f"{tensor.dtype}[{', '.join(tensor.axes)}]" if tensor.axes else str(tensor.dtype)


def _value(b: _Builder, dtype: DType) -> Any:
    if dtype.is_float:
        return b.choice(
            (0.5, -1.5, 1.0, 0.25) if b.regime == "computed" else (0.0, -0.0, float("inf"), float("nan"), 1.5, -2.0)
        )
    assert dtype.low is not None and dtype.high is not None
    return b.choice((dtype.low, dtype.high, 0, 1, 3))


def _array(b: _Builder, tensor: _Tensor) -> np.ndarray[Any, Any]:
    """Random contents from a drawn seed, with the regime's special values sprinkled in."""
    rng = np.random.default_rng(b.draw(st.integers(0, 2**32 - 1)))
    shape = tuple(b.sizes[a] for a in tensor.axes)
    dtype, held = tensor.dtype, NUMPY_TYPES[tensor.dtype]
    if dtype == BOOL:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_float:
        array = rng.uniform(-2, 2, shape).astype(held)
        if b.regime == "moved":
            tiny = float(np.ldexp(1.0, {F16: -24, BF16: -133, F32: -149, F64: -1074}[dtype]))
            special = np.array(
                [np.nan, np.inf, -np.inf, 0.0, -0.0, tiny, -3 * tiny, 1e30, 0.5, 2.5, -2.5, 65504.0], np.float64
            )
            with np.errstate(all="ignore"):
                array = np.where(rng.random(shape) < 0.3, rng.choice(special, shape).astype(held), array)
        return array.astype(held)
    assert dtype.low is not None and dtype.high is not None
    array = rng.integers(dtype.low, dtype.high, shape, dtype=np.int64, endpoint=True)
    small = rng.integers(max(dtype.low, -3), 4, shape)
    extremes = rng.choice(np.array([dtype.low, dtype.high]), shape)
    kind = rng.integers(0, 3, shape)
    return np.where(kind == 0, array, np.where(kind == 1, small, extremes)).astype(held)


def agree(case: Case, got: dict[str, np.ndarray[Any, Any]], want: dict[str, np.ndarray[Any, Any]]) -> None:
    """Asserts that `got` is as good as `want` (the oracle's answer; with `exact=True` where the regime is `computed`).

    The elements of a compaction past its length are not compared.
    """
    assert set(got) >= set(want), f"{sorted(want)} expected, {sorted(got)} given"
    bits = {BF16: 7, F16: 10, F32: 21, F64: 46}[case.narrowest] if case.narrowest else 52
    for name, reference in want.items():
        length = int(want[f"{name}.len"]) if f"{name}.len" in want else None
        a, b = (x[:length] if length is not None else x for x in (got[name], reference))
        assert a.shape == b.shape, f"{name}: shape {a.shape}, expected {b.shape}"
        wide, exact = (
            x.astype(np.float64) if x.dtype in _FLOAT_TYPES else x for x in (a, b)
        )  # bf16's NaN equals nothing
        if case.regime != "computed" or wide.dtype.kind != "f":
            np.testing.assert_array_equal(wide, exact, err_msg=f"{name}\n{case!r}")
        else:
            np.testing.assert_allclose(
                wide, exact, rtol=64 * 2.0**-bits, atol=64 * 2.0**-bits, err_msg=f"{name}\n{case!r}"
            )
