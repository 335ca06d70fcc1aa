"""Panels of the two factors of a contraction: where they are copied, and how wide a core's own are."""

from __future__ import annotations

from math import ceil

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import DType
from tridsl.ir.op import Reduce
from tridsl.schedule.blocks import block_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.roles import Factors, factors_of
from tridsl.schedule.steps import Pack, Pipeline, Step

APART = 128
"""Columns of a core's own block below which it had better share a wider one."""


def panel_steps(
    stage: Reduce, roles: Factors, rows: str | None, columns: str, kinds: tuple[DType | None, DType | None] = (None, None), interleave: int = 1,
    reader: str | None = None, lying: bool = False,
) -> list[Step]:  # fmt: skip
    """Panels of the left factor at the loop `rows` (None: it is read where it is) and of the right one at `columns`, which are loops of
    `reader` (None: of the stage). `lying`: rows of the left one stay rows."""
    twice = roles.a.tensor == roles.b.tensor  # A times A transposed: each panel takes one of the two places
    first = None if not twice else 0 if factors_of(stage.values[0]) == (roles.a, roles.b) else 1
    other = None if first is None or rows is not None else 1 - first
    steps: list[Step] = []
    if rows is not None:
        steps.append(Pack(stage=roles.a.tensor, at=rows, reader=reader or stage.name, place=first, type=kinds[0], rows=lying))
    return [*steps, Pack(stage=roles.b.tensor, at=columns, reader=reader or stage.name, place=other, type=kinds[1], interleave=interleave)]


def fetched_rows(name: str, roles: Factors, rows: int, extent: int | None, at: str, reader: str, decide: Decider) -> list[Step]:
    """The next panel of the left factor fetched while products of this one are summed."""
    several = roles.a.tensor != roles.b.tensor and (extent or rows + 1) > rows
    if not decide(f"{name}.prefetch", several, (False, True) if several else (), "whether the next rows of A are prefetched"):
        return []
    return [Pipeline(stage=roles.a.tensor, depth=1, at=at, reader=reader)]


def apart_columns(columns: int, extent: int | None, width: int, spec: DeviceSpec) -> int | None:
    """Columns of blocks that can be dealt out to the cores evenly, so that each core packs and reads its own and none waits for
    another's panels; None where they would be narrow, or the cores are not known. (Two cores of an Emerald Rapids, i8 512 cubed: 1.92
    times one, 1.79 with panels that both fill; f32 1.93 and 1.82.)"""
    if not extent or (spec.cores or 1) < 2:
        return None
    cores = spec.cores or 1
    rounds = ceil(extent / columns / cores)
    narrower = block_of(ceil(extent / (rounds * cores)), extent, width, columns)
    return narrower if narrower >= APART and ceil(extent / narrower) % cores == 0 else None
