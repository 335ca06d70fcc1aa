"""Which of a chip's shipped answers are for an op at sizes."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices import answers
from tridsl.devices.answers import Row
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.op import Op
from tridsl.schedule.shapes import bucket, sized_like

NONE: Mapping[str, answers.Answer] = {}


def row_for(op: Op, spec: DeviceSpec, sizes: Mapping[str, int]) -> Row | None:
    """That of the very sizes, else of their class; None where the chip has none for these types, or a size is not known."""
    rows = answers.shipped(spec.name)
    if not rows or any(name not in sizes for name in op.sizes):
        return None
    types = tuple(sorted((t.name, t.dtype.name) for t in op.tensors))
    known = {name: sizes[name] for name in op.sizes}
    return rows.get((op.name, types, bucket(known))) or rows.get((op.name, types, sized_like(known)))


def shipped_answers(op: Op, spec: DeviceSpec, sizes: Mapping[str, int]) -> Mapping[str, answers.Answer]:
    """By decision; a decision that is not asked for, or not with this answer, keeps its default."""
    row = row_for(op, spec, sizes)
    return NONE if row is None else row.answers
