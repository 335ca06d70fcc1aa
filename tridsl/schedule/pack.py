"""`A.pack(at=i.o)`; TVM: cache_read, with the layout chosen by the loops that read."""

from __future__ import annotations

from dataclasses import replace

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Span, error
from tridsl.ir.expr import Const, Expr, Load, Var, index
from tridsl.ir.loop import Alloc, Buffer, Copy, CopyAxis, For, Kernel, Ref, Space
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.schedule.nest import axis_of, find_loop, nested_loops, replace_loop, stage_of, trip_bound
from tridsl.schedule.steps import Pack


def pack(kernel: Kernel, step: Pack, spec: DeviceSpec) -> Kernel:
    """
    before:  for k.o: for i.o: for k.i < 256: for i.i < 12: … A[i.o*12 + i.i, k.o*256 + k.i] …       A.pack(at=i.o)
    after:   for k.o: for i.o:
               alloc A.pack: f32[256, 12] in l2
               copy A -> A.pack, zero beyond the tails
               for k.i: for i.i: … A.pack[k.i, i.i] …

    The panel has one axis per loop inside `at` that the access mentions, in nesting order, so it is read front to back.
    Tails are filled with zeros up to the loops' bounds. E0401/E0402: no such tensor or loop. E0412: the accesses inside
    differ, or a loop inside has no constant bound, so there is no one panel.
    """
    return stage_copy(kernel, step.stage, step.reader, step.at, "l2", step.span)


def stage_copy(
    kernel: Kernel, tensor: str, reader: str | None, axis: str, space: Space, span: Span | None, *,
    cooperative: bool = False, buffers: int = 1, pad: int = 0,
) -> Kernel:  # fmt: skip
    """Copy what the loop `axis` reads of parameter (or stage) `tensor` into `space`, in traversal order."""
    dtype = next((p.dtype for p in kernel.params if isinstance(p, Tensor) and p.name == tensor), None)
    if dtype is None:
        have = ", ".join(p.name for p in kernel.params if isinstance(p, Tensor) and p.role == "input")
        raise error("E0401", f"there is no input tensor `{tensor}` to copy", span, help=f"the input tensors are: {have}")
    stage = reader or _reader(kernel, tensor, axis, span)
    target = find_loop(kernel, stage, axis, span)
    reads = _loads(target, tensor)
    if not reads:
        raise error("E0412", f"the loop `{axis}` of `{stage}` does not read `{tensor}`", span, help="name a loop around the access")
    load, around = reads[0]
    if any(other.index != load.index for other, _ in reads):
        raise error(
            "E0412", f"`{tensor}` is read at different places inside `{axis}`", span, help="copy it at an inner loop that reads one place"
        )
    used = [loop for loop in around if loop.var in {v for i in load.index for v in variables(i)}]
    bounds = [trip_bound(loop) for loop in used]
    loose = [axis_of(loop.var) for loop, bound in zip(used, bounds) if bound is None]
    if loose:
        raise error(
            "E0412", f"the panel of `{tensor}` would have no constant size: `{loose[0]}` has no bound", span,
            help=f"`.split({loose[0]}, 64)` first, or copy at an inner loop",
        )  # fmt: skip
    name = f"{tensor}.{space if cooperative else 'pack'}"
    shape = [int(b or 0) for b in bounds]
    if pad and shape:
        shape[-1] += pad
    prefix = f"{stage}:{name}."
    renamed = {loop.var: Var(name=prefix + axis_of(loop.var)) for loop in used}
    source = replace(load, index=tuple(substitute(i, renamed) for i in load.index))
    copy = Copy(
        axes=tuple(
            CopyAxis(var=renamed[loop.var].name, extent=substitute(loop.extent, renamed), bound=bound)
            for loop, bound in zip(used, bounds)
        ),
        target=Ref(tensor=name, index=tuple(renamed[loop.var] for loop in used)),
        source=source,
        pad=Const(value=0.0 if dtype.is_float else 0, dtype=dtype),
        cooperative=cooperative,
        buffers=buffers,
        span=span,
    )
    buffer = Buffer(
        name=name, dtype=dtype, shape=tuple(index(n) for n in shape), space=space, padded=(True,) * len(shape), span=span
    )

    def place(loop: For) -> For:
        def read(access: Load) -> Expr:
            if access.tensor != tensor:
                return access
            return Load(tensor=name, index=tuple(Var(name=l.var) for l in used), dtype=dtype, span=access.span)

        return replace(loop, body=(Alloc(buffer=buffer), copy, *rewrite(loop.body, {Load: read})))

    return replace_loop(kernel, target.var, place)


def _loads(loop: For, tensor: str) -> list[tuple[Load, tuple[For, ...]]]:
    found: list[tuple[Load, tuple[For, ...]]] = []

    def visit(block: tuple[object, ...], around: tuple[For, ...]) -> None:
        for statement in block:
            if isinstance(statement, For):
                visit(statement.body, (*around, statement))
            elif not isinstance(statement, Copy):  # what another copy reads is not read again
                found.extend((n, around) for n in walk(statement) if isinstance(n, Load) and n.tensor == tensor)  # type: ignore[arg-type]

    visit(loop.body, ())
    return found


def _reader(kernel: Kernel, tensor: str, axis: str, span: Span | None) -> str:
    """The one stage that reads `tensor` and has the loop."""
    readers = dict.fromkeys(
        stage_of(loop.var)
        for phase in kernel.phases
        for loop, _ in nested_loops(phase.body)
        if axis_of(loop.var) == axis and _loads(loop, tensor)
    )
    if len(readers) == 1:
        return next(iter(readers))
    if not readers:
        raise error("E0402", f"no stage reads `{tensor}` inside a loop `{axis}`", span, help="name a loop of the stage that reads it")
    raise error(
        "E0412", f"several stages read `{tensor}` inside a loop `{axis}`", span,
        help=f"add `reader={next(iter(readers))}` (or {', '.join(list(readers)[1:])})",
    )  # fmt: skip
