"""What this backend cannot emit, said before it tries."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.backends.cpu.amx import PREFIX
from tridsl.backends.cpu.lower_tiles import BlockAxis, blocks_of, is_block
from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Diagnostic
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Load
from tridsl.ir.loop import For, Kernel, Mma
from tridsl.ir.op import Tensor
from tridsl.ir.strides import contiguous_axis
from tridsl.ir.walk import variables, walk

LOOP_KINDS = ("serial", "parallel", "vector", "unroll")


def accepts(kernel: Kernel, spec: DeviceSpec) -> tuple[Diagnostic, ...]:
    """E0710 for matrix instructions whose feature `spec` lacks and for loops of other processors; E0491 for operands that cannot be loaded."""
    problems: dict[str, Diagnostic] = {}
    tensors = {p.name: p for p in kernel.params if isinstance(p, Tensor)}
    for node in walk(tuple(kernel.phases)):
        match node:
            case Mma(intrinsic=name):
                problem = _instruction(node, spec) or (_operands(node, tensors) if is_block(node) else None)
                if problem:
                    problems.setdefault(name, problem)
            case For(kind=kind) if kind not in LOOP_KINDS:
                problems.setdefault(kind, _loop(node))
    return tuple(problems.values())


def _instruction(statement: Mma, spec: DeviceSpec) -> Diagnostic | None:
    row = INTRINSICS[statement.intrinsic]
    usable = sorted(r.name for r in INTRINSICS.values() if _is_ours(r) and (not r.feature or r.feature in spec.features))
    help = f'write `.intrin("…")` with one of {", ".join(usable)}, or leave it out'
    if not _is_ours(row):
        return Diagnostic(code="E0710", message=f"`{row.name}` is not an instruction of a CPU", span=statement.span, help=help)
    if row.feature and row.feature not in spec.features:
        message = f"`{row.name}` needs the feature `{row.feature}`, which {spec.name} does not have"
        return Diagnostic(code="E0710", message=message, span=statement.span, help=help)
    return None


def _is_ours(row: Intrinsic) -> bool:
    return row.lanes or row.feature.startswith(PREFIX)


def _operands(statement: Mma, tensors: Mapping[str, Tensor]) -> Diagnostic | None:
    """E0491 unless each row of a block lies in one piece, and rows at equal distances."""
    row = INTRINSICS[statement.intrinsic]
    for side, axes in ((statement.a, "rows by terms"), (statement.b, "terms by columns")):
        shape = blocks_of(statement)[side is statement.b]
        if isinstance(side, Load) and side.mask is None and _lies_in_rows(side, shape, tensors.get(side.tensor)):
            continue
        group = f", interleave={row.interleave}" if side is statement.b else ""
        return Diagnostic(
            code="E0491", message=f"`{row.name}` cannot load its block of {axes}: its rows do not lie in one piece", span=statement.span,
            help=f"copy the factor before: `.pack(at=…{group})`",
        )  # fmt: skip
    return None


def _lies_in_rows(side: Load, shape: tuple[BlockAxis, ...], tensor: Tensor | None) -> bool:
    """The first axis of a block steps from row to row, the others are innermost in memory, in order."""
    if tensor is not None and contiguous_axis(tensor) != len(side.index) - 1:
        return False
    first, *within = shape
    inner, outer = side.index[-len(within) :], side.index[: -len(within)]
    own = [variables(axis.place) for axis in within]
    if len(within) > 1:
        return inner == tuple(axis.place for axis in within) and sum(first.place == place for place in outer) == 1
    steps = normal_form(inner[0])
    return steps.coefficient(next(iter(own[0]))) == 1 and not any(own[0] & variables(place) for place in outer) and variables(first.place) & variables(outer) != set()


def _loop(loop: For) -> Diagnostic:
    return Diagnostic(
        code="E0710",
        message=f"a `{loop.kind}` loop cannot run on a CPU",
        span=loop.span,
        help="bind no hardware axes in a schedule for the CPU: write `.parallel(…)` and `.vector(…)`",
    )
