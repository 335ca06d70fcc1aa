"""What is measured: ops at sizes, from a suite or from the `bench` blocks of the user's own ops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tridsl.check.sizes import Number
from tridsl.cli.output import Report
from tridsl.cli.targets import Given, Target
from tridsl.diagnostics import error
from tridsl.dtypes import BF16, DTYPES, F32, I8, DType
from tridsl.ir.op import Op, Reduce
from tridsl.schedule.analyse import points
from tridsl.schedule.contraction import is_contraction
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
    def title(self) -> str:
        parts = [f"{n}={t}" for n, t in self.types.items()] + [f"{n}={v}" for n, v in self.sizes.items()]
        return ", ".join(parts + [f"{n}={'x'.join(map(str, s))}" for n, s in self.shapes.items()])


def _matmul(size: int, dtype: DType = F32) -> Case:
    return Case(operation="stdlib:matmul", sizes={"M": size, "K": size, "N": size}, types={"T": dtype})


def _rows(op: str, rows: int, columns: int) -> Case:
    return Case(operation=f"stdlib:{op}", shapes={"x": (rows, columns)})


def _attention(heads: int, length: int, width: int, *, causal: bool) -> Case:
    """Two products of 2 length^2 width FLOP per head; half of the scores are masked when causal."""
    sizes = {"H": heads, "G": heads, "S": length, "L": length, "D": width, "E": width}
    flop = 4 * heads * length * length * width // (2 if causal else 1)
    return Case(operation="stdlib:attention", sizes=sizes, scalars={"scale": width**-0.5, "causal": causal}, flop=flop)


CPU = (
    *map(_matmul, (64, 512, 1024, 2048)), _matmul(1024, BF16), _matmul(1024, I8),
    *(_rows(op, rows, columns) for op in ("softmax", "layernorm", "rmsnorm") for rows, columns in ((64, 512), (1024, 1024), (4096, 4096))),
    _attention(16, 1024, 64, causal=False), _attention(16, 1024, 64, causal=True),
    Case(operation="stdlib:tgemm", sizes={"M": 2560, "K": 6912, "N": 512}), Case(operation="stdlib:tgemm", sizes={"M": 2560, "K": 6912, "N": 8}),
    Case(operation="stdlib:tgemv", sizes={"M": 2560, "K": 6912}, scalars={"sx": 0.01}), Case(operation="stdlib:tgemv", sizes={"M": 6912, "K": 2560}, scalars={"sx": 0.01}),
    *(Case(operation=f"stdlib:{op}", sizes={"H": 1080, "W": 1920}, scalars={"threshold": 100}) for op in ("edges", "sobel_edges")),
    Case(operation="stdlib:above", sizes={"N": 10_000_000}, scalars={"t": 0.5}), Case(operation="stdlib:cumsum", sizes={"N": 10_000_000}),
    Case(operation="stdlib:saxpy", sizes={"N": 10_000_000}, scalars={"a": 2.0}), Case(operation="stdlib:gelu", sizes={"N": 10_000_000}),
)  # fmt: skip
SUITES: dict[str, tuple[Case, ...]] = {
    "cpu": CPU,
    "quick": (_matmul(64), _rows("softmax", 64, 512), Case(operation="stdlib:edges", sizes={"H": 270, "W": 480}, scalars={"threshold": 100})),
}
"""`cpu`: what the project measures itself by. `quick`: three small cases, to try the command."""


def list_suites() -> Report:
    return Report(data={n: [f"{c.operation} {c.title}" for c in cases] for n, cases in SUITES.items()}, text=tuple(f"{n}: {len(c)} cases" for n, c in SUITES.items()))


def suite(name: str) -> tuple[Case, ...]:
    """E0814."""
    if name not in SUITES:
        raise error("E0814", f"there is no suite `{name}`", help=f"suites: {', '.join(SUITES)}")
    return SUITES[name]


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
