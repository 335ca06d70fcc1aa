"""An op at sizes, as a suite or a `bench` block of the user's own op names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from tridsl.check.sizes import Number
from tridsl.cli.targets import Given, Target
from tridsl.diagnostics import error
from tridsl.dtypes import DTYPES, DType
from tridsl.ir.op import Op, Reduce
from tridsl.schedule.analyse import points
from tridsl.schedule.roles import is_contraction
from tridsl.structs import dataclass
from tridsl.syntax.nodes import BenchBlock, Name, Prefix
from tridsl.syntax.nodes import Number as NumberNode


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An op (`stdlib:softmax`, `kernels.tri:mine`) at sizes. `shapes` are whole tensors, with leading axes to map over.
    `flop`: of one call, where `multiply_adds` cannot see them."""

    operation: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    types: Mapping[str, DType] = field(default_factory=dict)
    scalars: Mapping[str, Number] = field(default_factory=dict)
    flop: int | None = None

    @property
    def given(self) -> Given:
        return Given(sizes=self.sizes, shapes=self.shapes, types=self.types, scalars=self.scalars)

    @property
    def is_ours(self) -> bool:
        """Whether the op is one that the peers know by its name."""
        return self.operation.startswith(("stdlib:", "bench:"))

    @property
    def title(self) -> str:
        parts = [f"{n}={t}" for n, t in self.types.items()] + [f"{n}={v}" for n, v in self.sizes.items()]
        return ", ".join(parts + [f"{n}={'x'.join(map(str, s))}" for n, s in self.shapes.items()])


def bench_blocks(operation: str, target: Target) -> tuple[Case, ...]:
    """A case for every `bench` block of the op. E0814."""
    bound = target.module.bound
    blocks = bound.benches.get(target.name, ())
    if not blocks:
        raise error("E0814", f"`{operation}` has no bench block, so its sizes are not known", help=f"add to the file: bench {target.name} {{ N = 4096 }}")
    overloads = [o.operation for o in bound.operations[target.name]]
    scalars = {p.name for o in overloads for p in o.parameters if p.type.dims is None}
    return tuple(_case(operation, block, scalars) for block in blocks)


def _case(operation: str, block: BenchBlock, scalars: set[str]) -> Case:
    sizes: dict[str, int] = {}
    types: dict[str, DType] = {}
    numbers: dict[str, Number] = {}
    for setting in block.values:
        value = setting.value
        if isinstance(value, Name) and value.name in DTYPES:
            types[setting.name] = DTYPES[value.name]
            continue
        number = _literal(value)
        if number is None:
            raise error("E0814", f"the value of `{setting.name}` is no number and no element type", setting.span, help="write N = 4096, eps = 1e-5 or T = f32")
        if setting.name in scalars:
            numbers[setting.name] = number
        else:
            sizes[setting.name] = int(number)
    return Case(operation=operation, sizes=sizes, types=types, scalars=numbers)


def _literal(value: object) -> Number | None:
    if isinstance(value, Prefix) and value.operator == "-":
        inner = _literal(value.operand)
        return None if inner is None else -inner
    if isinstance(value, NumberNode):
        return value.value
    if isinstance(value, Name) and value.name in ("true", "false"):
        return value.name == "true"
    return None


def multiply_adds(op: Op, sizes: Mapping[str, int]) -> int:
    """FLOP of the contractions of an op: two for each multiply-add. 0 when it has none: then only bytes count."""
    stages = [s for s in op.stages if isinstance(s, Reduce) and is_contraction(s)]
    return sum(2 * (points((*s.axes, *s.over), sizes) or 0) for s in stages)
