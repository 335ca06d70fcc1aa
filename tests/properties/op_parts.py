"""What random ops are put together from: tensors, index sets, typed expressions, array contents (see `ops`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.properties.cases import FLOATS, Regime
from tridsl.dtypes import BF16, BOOL, DTYPES, F16, F32, F64, NUMPY_TYPES, DType, compute_type

Draw = Callable[[st.SearchStrategy[Any]], Any]

EXTENTS = (0, 1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 33)
MOST_POINTS = 3000
INTEGERS = tuple(DTYPES[n] for n in ("i8", "u8", "i16", "u16", "i32", "u32", "i64"))
MODES = ("edge", "reflect", "symmetric", "wrap")


@dataclass(frozen=True, slots=True)
class Held:
    """A name with the sizes of its axes. `computed`: holds floats that were rounded on the way."""

    name: str
    dtype: DType
    axes: tuple[str, ...]
    computed: bool = False


@dataclass(slots=True)
class Builder:
    """The op so far."""

    draw: Draw
    regime: Regime
    sizes: dict[str, int]
    inputs: list[Held] = field(default_factory=list)
    scalars: dict[str, tuple[DType, Any]] = field(default_factory=dict)
    stages: list[Held] = field(default_factory=list)
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
    def tensors(self) -> list[Held]:
        return [*self.inputs, *self.stages]


Indices = dict[str, str]  # index name: the size it runs over
Text = tuple[str, bool]  # an expression, and whether it holds a computed float


def axes_of(b: Builder, least: int = 0, most: int = 3) -> tuple[str, ...]:
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


def indices_over(b: Builder, axes: tuple[str, ...], prefix: str) -> Indices:
    return {b.fresh(prefix): size for size in axes}


def bound(indices: Indices) -> str:
    return ", ".join(f"{i} in 0..{size}" for i, size in indices.items())


def points(b: Builder, *indices: Indices) -> int:
    total = 1
    for group in indices:
        for size in group.values():
            total *= max(1, b.sizes[size])
    return total


def emit(b: Builder, dtype: DType, indices: Indices, value: Text) -> None:
    tensor = Held(b.fresh("t"), dtype, tuple(indices.values()), value[1] and dtype.is_float)
    b.lines.append(f"{tensor.name}{f'[{bound(indices)}]' if indices else ''} = {value[0]}")
    b.stages.append(tensor)


# Expressions. Every operand is written with its type, so nothing depends on how literals adapt.


def _literal(b: Builder, dtype: DType) -> str:
    if dtype == BOOL:
        return str(b.choice(("true", "false")))
    if dtype.is_float:
        return f"{dtype}({b.choice(('0.5', '-1.25', '2', '1', '0.1', '-0.75'))})"
    if b.chance(10):
        return f"{dtype}({b.choice(('lowest', 'highest'))})"
    return f"{dtype}({b.choice((0, 1, 2, 3, 7, 100) if dtype.kind == 'uint' else (-100, -3, -1, 0, 1, 2, 7, 100))})"


def _access(b: Builder, tensor: Held, indices: Indices) -> str | None:
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


def _leaf(b: Builder, dtype: DType, indices: Indices, allow_computed: bool) -> Text:
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


def condition(b: Builder, indices: Indices, depth: int) -> str:
    kind = b.draw(st.integers(0, 5))
    if kind == 0 and indices:
        return f"{b.choice(indices)} {b.choice(('<', '>=', '==', '!='))} {b.choice((0, 1, 3))}"
    if kind == 1 and depth:
        return (
            f"({condition(b, indices, depth - 1)}) {b.choice(('and', 'or'))} not ({condition(b, indices, depth - 1)})"
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


def _integer(b: Builder, dtype: DType, indices: Indices, depth: int) -> Text:
    if depth == 0:
        return _leaf(b, dtype, indices, False)
    a, c = (_integer(b, dtype, indices, depth - 1)[0] for _ in range(2))
    forms = [f"({a} {op} {c})" for op in ("+", "-", "*", "//", "%", "&", "|", "^")]
    forms += [f"min({a}, {c})", f"max({a}, {c})", f"(if {condition(b, indices, 1)} then {a} else {c})", f"(~{a})"]
    forms += [
        f"({a} << ({c} & {dtype}({dtype.bits - 1})))",
        f"({a} >> ({c} & {dtype}(63)))",
    ]  # counts past the width too
    if dtype.kind == "int":
        forms += [f"abs({a})", f"(-{a})"]
    other = b.choice([t for t in (INTEGERS if b.regime != "moved" else (*INTEGERS, F32, F64)) if t != dtype])
    forms.append(f"{dtype}({_leaf(b, other, indices, False)[0]})")
    return b.choice(forms), False


def _moved(b: Builder, dtype: DType, indices: Indices, depth: int) -> Text:
    if depth == 0:
        return _leaf(b, dtype, indices, False)
    a, c = (_moved(b, dtype, indices, depth - 1)[0] for _ in range(2))
    forms = [
        f"min({a}, {c})",
        f"max({a}, {c})",
        f"(if {condition(b, indices, 1)} then {a} else {c})",
        f"abs({a})",
        f"(-{a})",
        f"relu({a})",
    ]
    forms += [f"{name}({a})" for name in ("floor", "ceil", "trunc", "round_even", "round_away")]
    return b.choice(forms), False


def _computed(b: Builder, dtype: DType, indices: Indices, depth: int) -> Text:
    """Well conditioned: values stay small, derivatives near one."""
    if depth == 0:
        return _leaf(b, dtype, indices, True)
    (a, _), (c, _) = (_computed(b, dtype, indices, depth - 1) for _ in range(2))
    one, half = f"{dtype}(1)", f"{dtype}(0.5)"
    forms = [
        f"({a} + {c})", f"({a} - {c})", f"(tanh({a}) * {c})", f"({half} * {a})", f"({a} / ({one} + abs({c})))", f"exp(-abs({a}))", f"sigmoid({a})",
        f"tanh({a})", f"sqrt(abs({a}) + {one})", f"erf({a})", f"log({one} + abs({a}))", f"sin({a})", f"cos({a})", f"rsqrt({one} + sqr({a}) * {half})",
        f"min({a}, {c})", f"max({a}, {c})", f"(if {condition(b, indices, 0)} then {a} else {c})", f"fma(tanh({a}), {half}, {c})",
    ]  # fmt: skip
    return b.choice(forms), True


def value_of(b: Builder, dtype: DType, indices: Indices, depth: int) -> Text:
    """An expression of `dtype` (float arithmetic in its compute type, cast at the end)."""
    if dtype == BOOL:
        return condition(b, indices, depth), False
    if dtype.is_integer:
        return _integer(b, dtype, indices, depth)
    wide = compute_type(dtype)
    text, computed = (_computed if b.regime == "computed" else _moved)(b, wide, indices, depth)
    return (text if wide == dtype else f"{dtype}({text})"), computed


# Contents.


def scalar_value(b: Builder, dtype: DType) -> Any:
    if dtype.is_float:
        return b.choice(
            (0.5, -1.5, 1.0, 0.25) if b.regime == "computed" else (0.0, -0.0, float("inf"), float("nan"), 1.5, -2.0)
        )
    assert dtype.low is not None and dtype.high is not None
    return b.choice((dtype.low, dtype.high, 0, 1, 3))


def array(b: Builder, tensor: Held) -> np.ndarray[Any, Any]:
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
