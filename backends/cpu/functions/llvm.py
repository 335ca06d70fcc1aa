"""The arithmetic of `arithmetic.py` over llvmlite's IR builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir as _llvm

from tridsl.backends.cpu.functions.arithmetic import Kind, Number, Value
from tridsl.structs import dataclass, replace

ir: Any = _llvm
"""llvmlite's builder is untyped."""

_ELEMENTS = {
    "f32": ir.FloatType(),
    "f64": ir.DoubleType(),
    "i32": ir.IntType(32),
    "i64": ir.IntType(64),
    "i1": ir.IntType(1),
}
_ENTRIES = 16
"""f32 of a register of 512 bits."""
_LETTERS = {"f32": ("ps", 32), "f64": ("pd", 64)}
Form = Callable[[str, int, list[Any]], tuple[str, list[Any]]]
"""The intrinsic and its operands, from the type's letters, the register's bits and what goes in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LLVMTarget:
    """Builds at `builder`'s place. `lanes` is None for scalars. `features` are `DeviceSpec.features`."""

    builder: Any
    lanes: int | None
    features: frozenset[str] = frozenset()

    def type(self, kind: Kind, lanes: int | None = None) -> Any:
        lanes = lanes or self.lanes
        return ir.VectorType(_ELEMENTS[kind], lanes) if lanes else _ELEMENTS[kind]

    def constant(self, kind: Kind, value: Number) -> Any:
        element = _ELEMENTS[kind]
        if kind[0] == "f":
            value = float(value)
        else:
            bits = int(kind[1:])
            value = (int(value) + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)  # as a signed number
        scalar = ir.Constant(element, value)
        return ir.Constant(self.type(kind), [scalar] * self.lanes) if self.lanes else scalar

    def instruction(self, opcode: str, kind: Kind, a: Any, b: Any) -> Any:
        method = {"and": "and_", "or": "or_"}.get(opcode, opcode)
        return getattr(self.builder, method)(a, b)

    def compare(self, predicate: str, kind: Kind, a: Any, b: Any) -> Any:
        if kind[0] == "f":
            symbol = _PREDICATES[predicate[1:]] if predicate != "uno" else "uno"
            return (self.builder.fcmp_unordered if predicate[0] == "u" else self.builder.fcmp_ordered)(symbol, a, b)
        return self.builder.icmp_signed(_PREDICATES[predicate.lstrip("s")], a, b)

    def select(self, kind: Kind, condition: Any, a: Any, b: Any) -> Any:
        return self.builder.select(condition, a, b)

    def convert(self, opcode: str, source: Kind, kind: Kind, a: Any) -> Any:
        return getattr(self.builder, opcode)(a, self.type(kind))

    def intrinsic(self, name: str, kind: Kind, operands: Sequence[Any]) -> Any:
        of = self.type(kind)
        suffix = f"v{self.lanes}{kind}" if self.lanes else kind
        return self._call(f"llvm.{name}.{suffix}", of, operands)

    def scale(self, kind: Kind, a: Any, n: Any) -> Any | None:
        """AVX-512's vscalef (with AVX512VL for the narrow forms)."""
        return self._by_register(kind, (a, n), frozenset({"avx512f", "avx512vl"}), _scalef)

    def bound(self, kind: Kind, a: Any, limit: float) -> Any | None:
        """AVX-512's vrange, which takes the operand of less magnitude, with the first one's sign."""
        return self._by_register(kind, (a, self.constant(kind, limit)), frozenset({"avx512dq", "avx512vl"}), _range)

    def fraction(self, kind: Kind, a: Any) -> Any | None:
        """AVX-512's vreduce, to no bits behind the point. (Downwards it would round the difference downwards, too: 1 - 2**-24 of the least below 0.)"""
        return self._by_register(kind, (a,), frozenset({"avx512dq", "avx512vl"}), _reduce)

    def lookup(self, table: Sequence[float], index: Any) -> Any | None:
        """AVX-512's vpermi2ps, of two registers, for as many registers of places as there are; lanes that fill none are filled up, so that
        every number of lanes looks up the same table."""
        if "avx512f" not in self.features:
            return None
        builder, lanes = self.builder, self.lanes or 1
        if self.lanes is None:
            index = builder.insert_element(ir.Constant(ir.VectorType(_ELEMENTS["i32"], 1), ir.Undefined), index, ir.Constant(_ELEMENTS["i32"], 0))
        count = 1 << max(0, -(-lanes // _ENTRIES) - 1).bit_length()
        index = index if lanes == count * _ENTRIES else self._shuffle(index, index, [min(lane, lanes - 1) for lane in range(count * _ENTRIES)])
        halves = [ir.Constant(ir.VectorType(_ELEMENTS["f32"], _ENTRIES), [ir.Constant(_ELEMENTS["f32"], v) for v in half]) for half in (table[:_ENTRIES], table[_ENTRIES:])]
        parts = []
        for part in range(count):
            places = index if count == 1 else self._shuffle(index, index, range(part * _ENTRIES, (part + 1) * _ENTRIES))
            parts.append(self._call("llvm.x86.avx512.vpermi2var.ps.512", halves[0].type, [halves[0], places, halves[1]]))
        while len(parts) > 1:
            parts = [self._join(low, high) for low, high in zip(parts[::2], parts[1::2], strict=True)]
        if self.lanes is None:
            return builder.extract_element(parts[0], ir.Constant(_ELEMENTS["i32"], 0))
        return parts[0] if lanes == count * _ENTRIES else self._shuffle(parts[0], parts[0], range(lanes))

    def negated(self, a: Any) -> Any | None:
        return a.operands[0] if getattr(a, "opname", "") == "fneg" else None

    def _by_register(self, kind: Kind, operands: Sequence[Any], features: frozenset[str], form: Form) -> Any | None:
        """One instruction for each register that the operands fill; None without the features, or where they fill none."""
        letters, bits = _LETTERS[kind]
        lanes = self.lanes or 1
        width = min(lanes * bits, 512)
        if not features <= self.features or width not in (128, 256, 512) or lanes * bits % width:
            return None
        each = width // bits
        parts = []
        for part in range(lanes // each):
            name, arguments = form(letters, width, [self._part(v, part, each) for v in operands])
            parts.append(self._call(name, arguments[0].type, arguments))
        while len(parts) > 1:
            parts = [self._join(low, high) for low, high in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def rarely(
        self,
        name: str,
        kind: Kind,
        a: Any,
        condition: Any,
        body: Callable[[Value], tuple[Value, ...]],
        usual: Sequence[Value],
    ) -> tuple[Any, ...]:
        name = f"tridsl.{name}.{self.lanes or 1}"
        operands = (a, condition, *(u.raw for u in usual))
        function = self.builder.module.globals.get(name) or self._outlined(name, kind, operands, body, usual)
        result = self.builder.call(function, operands)
        return tuple(self.builder.extract_value(result, i) for i in range(len(usual)))

    def _outlined(
        self,
        name: str,
        kind: Kind,
        operands: Sequence[Any],
        body: Callable[[Value], tuple[Value, ...]],
        usual: Sequence[Value],
    ) -> Any:
        results = ir.LiteralStructType([u.raw.type for u in usual])
        module = self.builder.module
        function = ir.Function(module, ir.FunctionType(results, [o.type for o in operands]), name)
        function.linkage = "internal"
        function.attributes.add("alwaysinline")
        a, condition, *given = function.args
        entry, rare, done = (function.append_basic_block(n) for n in ("entry", "rare", "done"))
        inside = replace(self, builder=ir.IRBuilder(entry))
        any_lane = condition
        if self.lanes:
            any_lane = inside._call(f"llvm.vector.reduce.or.v{self.lanes}i1", ir.IntType(1), [condition])
        inside.builder.cbranch(any_lane, rare, done)
        inside.builder.position_at_end(rare)
        computed = body(Value(target=inside, kind=kind, raw=a))
        chosen = [inside.builder.select(condition, c.raw, g) for c, g in zip(computed, given, strict=True)]
        inside.builder.branch(done)
        inside.builder.position_at_end(done)
        out: Any = ir.Constant(results, ir.Undefined)
        for i, (c, g) in enumerate(zip(chosen, given, strict=True)):
            merged = inside.builder.phi(g.type)
            merged.add_incoming(c, rare)
            merged.add_incoming(g, entry)
            chosen[i] = merged
        for i, merged in enumerate(chosen):
            out = inside.builder.insert_value(out, merged, i)
        inside.builder.ret(out)
        return function

    def _part(self, value: Any, part: int, lanes: int) -> Any:
        if lanes == self.lanes:
            return value
        return self._shuffle(value, value, range(part * lanes, (part + 1) * lanes))

    def _join(self, low: Any, high: Any) -> Any:
        return self._shuffle(low, high, range(2 * low.type.count))

    def _shuffle(self, a: Any, b: Any, lanes: Sequence[int]) -> Any:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
        return self.builder.shuffle_vector(a, b, mask)

    def _call(self, name: str, of: Any, operands: Sequence[Any]) -> Any:
        module = self.builder.module
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(of, [operand.type for operand in operands]), name)
        return self.builder.call(function, operands)


_PREDICATES = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def _scalef(letters: str, width: int, operands: list[Any]) -> tuple[str, list[Any]]:
    a, n = operands
    rounding = [ir.Constant(ir.IntType(32), 4)] if width == 512 else []  # as the mode register says
    return f"llvm.x86.avx512.mask.scalef.{letters}.{width}", [a, n, *_unmasked(a), *rounding]


def _range(letters: str, width: int, operands: list[Any]) -> tuple[str, list[Any]]:
    a, limit = operands
    control = ir.Constant(ir.IntType(32), 0b0010)  # the lesser magnitude, the first operand's sign
    rounding = [ir.Constant(ir.IntType(32), 4)] if width == 512 else []
    return f"llvm.x86.avx512.mask.range.{letters}.{width}", [a, limit, control, *_unmasked(a), *rounding]


def _reduce(letters: str, width: int, operands: list[Any]) -> tuple[str, list[Any]]:
    (a,) = operands
    control = ir.Constant(ir.IntType(32), 0)  # to nearest, ties to even
    rounding = [ir.Constant(ir.IntType(32), 4)] if width == 512 else []
    return f"llvm.x86.avx512.mask.reduce.{letters}.{width}", [a, control, *_unmasked(a), *rounding]


def _unmasked(a: Any) -> list[Any]:
    """The last operands of a masked intrinsic that writes every lane."""
    return [ir.Constant(a.type, ir.Undefined), ir.Constant(ir.IntType(max(8, a.type.count)), -1)]
