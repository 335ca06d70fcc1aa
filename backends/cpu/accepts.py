"""What this backend cannot emit, said before it tries."""

from __future__ import annotations

from tridsl.backends.cpu.amx import PREFIX
from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Diagnostic
from tridsl.ir.loop import For, Kernel, Mma
from tridsl.ir.walk import walk

LOOP_KINDS = ("serial", "parallel", "vector", "unroll")


def accepts(kernel: Kernel, spec: DeviceSpec) -> tuple[Diagnostic, ...]:
    """E0710 for matrix instructions whose feature `spec` lacks and for loops of other processors."""
    problems: dict[str, Diagnostic] = {}
    for node in walk(tuple(kernel.phases)):
        match node:
            case Mma(intrinsic=name):
                problem = _instruction(node, spec)
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


def _loop(loop: For) -> Diagnostic:
    return Diagnostic(
        code="E0710",
        message=f"a `{loop.kind}` loop cannot run on a CPU",
        span=loop.span,
        help="bind no hardware axes in a schedule for the CPU: write `.parallel(…)` and `.vector(…)`",
    )
