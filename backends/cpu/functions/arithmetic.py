"""The arithmetic in which the vector functions are written, apart from any code generator.

A formula sees only `Value`s: Python's operators build instructions. What an instruction is, a `Target` says:
`llvm.LLVMTarget` builds `llvmlite.ir`; a writer of textual IR or of GLSL is a second class with these methods. The shape (scalar or
so many lanes) belongs to the target and is never mentioned by a formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from tridsl.structs import dataclass

Kind = Literal["f32", "f64", "i32", "i64", "i1"]
"""Element type of a value."""

Number = int | float

SIGNIFICAND = {"f32": 24, "f64": 53}
"""Bits of precision, with the hidden one."""

FLOATS: dict[int, Kind] = {32: "f32", 64: "f64"}
"""The kind of a float by its width."""

BIAS = {"f32": 127, "f64": 1023}
"""Exponent bias, which is also the exponent of the greatest finite number."""


class Target(Protocol):
    """One vector shape of one code generator. Operands and results are that generator's own values."""

    def constant(self, kind: Kind, value: Number) -> Any:
        """`value` in every lane, rounded to `kind`; integers are taken modulo 2**bits."""

    def instruction(self, opcode: str, kind: Kind, a: Any, b: Any) -> Any:
        """LLVM's two-operand instructions: fadd fsub fmul fdiv, add sub and or xor shl ashr lshr; no fast-math flags."""

    def compare(self, predicate: str, kind: Kind, a: Any, b: Any) -> Any:
        """An `i1`. LLVM's predicates: oeq one olt ole ogt oge uno une (u: true on NaN) for floats, eq slt for integers."""

    def select(self, kind: Kind, condition: Any, a: Any, b: Any) -> Any:
        """`a` where the condition is true, else `b`; lane by lane."""

    def convert(self, opcode: str, source: Kind, kind: Kind, a: Any) -> Any:
        """bitcast fpext fptrunc sitofp fptosi sext trunc."""

    def intrinsic(self, name: str, kind: Kind, operands: Sequence[Any]) -> Any:
        """fma sqrt fabs copysign floor ceil trunc roundeven round, all operands and the result of `kind`."""

    def scale(self, kind: Kind, a: Any, n: Any) -> Any | None:
        """`a * 2**n` for a float `n` of whole value, rounded once, saturating; None where no one instruction does it."""

    def bound(self, kind: Kind, a: Any, limit: float) -> Any | None:
        """`a` where |a| <= limit, else +limit or -limit; NaN becomes limit. None where no one instruction does it."""

    def fraction(self, kind: Kind, a: Any) -> Any | None:
        """`a` less the nearest whole number (ties to even), exactly; 0 of infinities. None where no one instruction does it."""

    def lookup(self, table: Sequence[float], index: Any) -> Any | None:
        """The f32 of `table` (32 of them) that the low bits of each i32 name. None where no one instruction does it."""

    def negated(self, a: Any) -> Any | None:
        """What `a` was made from by flipping its sign; None where it was made otherwise, or nobody knows."""

    def rarely(
        self,
        name: str,
        kind: Kind,
        a: Any,
        condition: Any,
        body: Callable[[Value], tuple[Value, ...]],
        usual: Sequence[Value],
    ) -> tuple[Any, ...]:
        """`usual`, but `body(a)` in the lanes where `condition` holds; `body` need not run when it holds nowhere.

        The test and `body` go into an internal function of the module, `name` with the shape appended: the caller stays
        free of branches. A target without functions may compute both and select.
        """


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Value:
    """A value of `target`. Operators take Values of the same kind or Python numbers; comparisons give `i1` Values."""

    target: Target
    kind: Kind
    raw: Any

    def of(self, raw: Any, kind: Kind | None = None) -> Value:
        return Value(target=self.target, kind=kind or self.kind, raw=raw)

    def constant(self, value: Number) -> Value:
        """`value` as this Value's kind."""
        return self.of(self.target.constant(self.kind, value))

    def lift(self, other: Value | Number) -> Value:
        if not isinstance(other, Value):
            return self.constant(other)
        if other.kind != self.kind:
            raise TypeError(f"operands are {self.kind} and {other.kind}")
        return other

    @property
    def is_float(self) -> bool:
        return self.kind[0] == "f"

    @property
    def bits(self) -> int:
        return int(self.kind[1:])

    def _binary(self, opcode: str, other: Value | Number) -> Value:
        return self.of(self.target.instruction(opcode, self.kind, self.raw, self.lift(other).raw))

    def _reflected(self, opcode: str, other: Number) -> Value:
        return self.constant(other)._binary(opcode, self)

    def __add__(self, other: Value | Number) -> Value:
        return self._binary("fadd" if self.is_float else "add", other)

    def __sub__(self, other: Value | Number) -> Value:
        return self._binary("fsub" if self.is_float else "sub", other)

    def __mul__(self, other: Value | Number) -> Value:
        return self._binary("fmul", other)

    def __truediv__(self, other: Value | Number) -> Value:
        return self._binary("fdiv", other)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Number) -> Value:
        return self._reflected("fsub" if self.is_float else "sub", other)

    def __rtruediv__(self, other: Number) -> Value:
        return self._reflected("fdiv", other)

    def __neg__(self) -> Value:
        """Sign flip, of zeros and NaN too."""
        return (self.bitcast() ^ -(1 << self.bits - 1)).bitcast()

    def __and__(self, other: Value | int) -> Value:
        return self._binary("and", other)

    def __or__(self, other: Value | int) -> Value:
        return self._binary("or", other)

    def __xor__(self, other: Value | int) -> Value:
        return self._binary("xor", other)

    def __invert__(self) -> Value:
        return self._binary("xor", -1)

    def __lshift__(self, other: Value | int) -> Value:
        return self._binary("shl", other)

    def __rshift__(self, other: Value | int) -> Value:
        """Arithmetic shift."""
        return self._binary("ashr", other)

    def logical_shift_right(self, count: int) -> Value:
        return self._binary("lshr", count)

    def compare(self, predicate: str, other: Value | Number) -> Value:
        return self.of(self.target.compare(predicate, self.kind, self.raw, self.lift(other).raw), "i1")

    def __lt__(self, other: Value | Number) -> Value:
        return self.compare("olt" if self.is_float else "slt", other)

    def __le__(self, other: Value | Number) -> Value:
        return self.compare("ole", other)

    def __gt__(self, other: Value | Number) -> Value:
        return self.compare("ogt", other)

    def __ge__(self, other: Value | Number) -> Value:
        return self.compare("oge", other)

    def equals(self, other: Value | Number) -> Value:
        return self.compare("oeq" if self.is_float else "eq", other)

    def is_nan(self) -> Value:
        return self.compare("uno", self)

    def bitcast(self) -> Value:
        """The bits of a float as an integer, or back."""
        kind: Kind = {"f32": "i32", "f64": "i64", "i32": "f32", "i64": "f64"}[self.kind]  # type: ignore[assignment]  # the table's values are kinds
        return self.convert("bitcast", kind)

    def convert(self, opcode: str, kind: Kind) -> Value:
        return self.of(self.target.convert(opcode, self.kind, kind, self.raw), kind)

    def intrinsic(self, name: str, *others: Value | Number) -> Value:
        return self.of(self.target.intrinsic(name, self.kind, (self.raw, *(self.lift(o).raw for o in others))))

    def round(self) -> Value:
        """Nearest whole number, ties to even."""
        return self.intrinsic("roundeven")

    def abs(self) -> Value:
        return self.intrinsic("fabs")

    def copysign(self, sign: Value) -> Value:
        return self.intrinsic("copysign", sign)

    def rarely(
        self, name: str, condition: Value, body: Callable[[Value], tuple[Value, ...]], usual: tuple[Value, ...]
    ) -> tuple[Value, ...]:
        """`usual`, but `body(self)` where `condition` holds (see `Target.rarely`)."""
        raw = self.target.rarely(name, self.kind, self.raw, condition.raw, body, usual)
        return tuple(u.of(r) for u, r in zip(usual, raw, strict=True))

    def clamp(self, low: Number | None = None, high: Number | None = None) -> Value:
        """Limits to [low, high]; NaN stays NaN. The operand order is that of x86's min and max: one instruction."""
        out = self
        if low is not None:
            out = select(self.constant(low) > out, low, out)
        if high is not None:
            out = select(self.constant(high) < out, high, out)
        return out


def fma(a: Value, b: Value | Number, c: Value | Number) -> Value:
    """a * b + c, rounded once."""
    return a.intrinsic("fma", b, c)


def select(condition: Value, a: Value | Number, b: Value | Number) -> Value:
    like = a if isinstance(a, Value) else b
    assert isinstance(like, Value), "one arm must be a Value"
    return like.of(like.target.select(like.kind, condition.raw, like.lift(a).raw, like.lift(b).raw))


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's scheme, lowest degree first: shortest code; the latency hides behind other vectors of a loop."""
    out = x.constant(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        out = fma(out, x, c)
    return out


def paired_polynomial(x: Value, square: Value, coefficients: Sequence[float]) -> Value:
    """The same in half the latency where `square`, x * x, is there already: pairs of terms, then Horner's scheme in the square. For
    long functions, of which few vectors fit a processor's window at the same time."""
    pairs = [fma(x, odd[0], even) if odd else x.constant(even) for even, odd in ((coefficients[k], coefficients[k + 1 : k + 2]) for k in range(0, len(coefficients), 2))]
    out = pairs[-1]
    for pair in reversed(pairs[:-1]):
        out = fma(out, square, pair)
    return out


def fast_two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b exactly, as (rounded, error), if |a| >= |b| (T. J. Dekker, Numer. Math. 18, 1971)."""
    high = a + b
    return high, b - (high - a)


def two_sum(a: Value, b: Value | Number) -> tuple[Value, Value]:
    """a + b exactly, as (rounded, error) (D. E. Knuth, TAOCP 2, 4.2.2)."""
    high = a + b
    virtual = high - a
    return high, (a - (high - virtual)) + (b - virtual)


def two_product(a: Value, b: Value | Number) -> tuple[Value, Value]:
    """a * b exactly, as (rounded, error), barring underflow."""
    high = a * b
    return high, fma(a, b, -high)
