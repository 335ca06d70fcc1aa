"""Convolutions: sums of products in which one factor is read at places that several indices make together (`y*stride + r`).

    Y[b, o, y, x] = sum[c, r, s](X[b, c, y*stride + r - p, x*stride + s - p] * F[o, c, r, s])

A register tile is some results next to each other times some filters, the lanes. The filters are packed lanes innermost; the rows of
the image that a row of results needs are packed in the order in which the tile reads them, with the padding in it, so the
innermost loop is loads, broadcasts and multiply-adds alone (Georganas et al. 2018, "Anatomy of high-performance deep learning
convolutions on SIMD architectures"). The image is never laid out as a matrix in memory: a panel is a row of results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import DType, compute_type
from tridsl.ir.expr import Expr, Load
from tridsl.ir.op import Reduce, Stage
from tridsl.ir.walk import variables
from tridsl.schedule.analyse import extent_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.roles import factors_of
from tridsl.schedule.steps import Order, Pack, Parallel, Split, Step, Unroll, Vector
from tridsl.structs import dataclass

SPARE_REGISTERS = 4
"""Registers that a tile leaves to the loaded filters and to addresses."""
WIDEST = 4
"""Registers of filters beside each other beyond which a tile has too few results to use them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """`lanes`: the axis of the filters; `across`: the innermost windowed axis of the result; `rows`: the other windowed ones."""

    lanes: str
    across: str
    rows: tuple[str, ...]
    image: Load
    filters: Load


def window_of(stage: Reduce) -> Window | None:
    """The roles of the axes where the stage is a convolution over several filters, else None."""
    factors = factors_of(stage.values[0])
    if factors is None or stage.ordered or stage.reducer.op != "add" or len(stage.targets) != 1:
        return None
    axes, over = [a.name for a in stage.axes], {a.name for a in stage.over}
    for image, filters in (factors, factors[::-1]):
        seen = [_axes_in(i, axes) for i in image.index if _joins(i, axes, over)]
        windowed = [a for names in seen for a in axes if a in names]
        weighted = variables(filters.index)
        lanes = [a for a in axes if a in weighted and a not in variables(image.index)]
        shared = [a for a in axes if a in weighted and a in variables(image.index)]
        plain = all(not i.boundary and isinstance(i, Load) for i in (filters,))
        if windowed and len(lanes) == 1 and not shared and plain and windowed[-1] != lanes[0]:
            return Window(lanes=lanes[0], across=windowed[-1], rows=tuple(windowed[:-1]), image=image, filters=filters)
    return None


def windowed(stage: Stage) -> bool:
    """Whether the stage packs panels for loops of its own: inside those of a reader it would be one dot product after the other."""
    return isinstance(stage, Reduce) and window_of(stage) is not None


def _axes_in(place: Expr, axes: list[str]) -> frozenset[str]:
    return frozenset(variables(place)) & frozenset(axes)


def _joins(place: Expr, axes: list[str], over: set[str]) -> bool:
    """Whether an index is made of an axis of the result and a reduced one."""
    return bool(variables(place) & over) and bool(_axes_in(place, axes))


def window_steps(
    stage: Reduce, window: Window, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider, *, threads: bool
) -> list[Step]:
    """Steps for a convolution that has a phase of its own."""
    name = stage.name
    extents = {a.name: extent_of(a, sizes) or 0 for a in (*stage.axes, *stage.over)}
    lanes = spec.lanes(stage.reducer.dtypes[0])
    registers = (spec.vector_registers or 16) - SPARE_REGISTERS
    across, filters = extents[window.across], extents[window.lanes]
    columns = decide(f"{name}.columns", _tile(across, filters, lanes, registers)[1], range(1, WIDEST + 1), "registers of filters side by side")
    heights = range(2, registers // columns + 1)
    results = decide(f"{name}.rows", _tile(across, filters, lanes, registers, (columns,))[0], heights, "results next to each other in a register tile")
    width = lanes * columns
    o, x = window.lanes, window.across
    steps: list[Step] = [Split(stage=name, axis=o, factor=width), Split(stage=name, axis=x, factor=results)]
    outer = [a.name for a in stage.axes if a.name not in (o, x, *window.rows)]
    inner = [*(a.name for a in stage.over), f"{x}.i", f"{o}.i"]
    swept = list(window.rows)
    if swept and not outer and extents[swept[0]]:  # one iteration, for the panel of the filters to stand in
        steps.append(Split(stage=name, axis=swept[0], factor=extents[swept[0]]))
        outer, swept = [f"{swept[0]}.o"], [f"{swept[0]}.i", *swept[1:]]
        extents[outer[0]] = 1
    size = stage.reducer.dtypes[0].storage_bytes
    weights = size * extents[o] * prod(extents[a.name] for a in stage.over)
    few = not spec.l2_bytes or 2 * weights <= spec.l2_bytes
    places: tuple[str | None, str | None]
    if decide(f"{name}.filters", few, (False, True), "whether all filters are packed at once, and a row of the image at a time") and swept:
        axes = [*outer, *swept, f"{o}.o", f"{x}.o", *inner]
        places = (axes[0] if outer else None, swept[-1])
    else:
        axes = [*outer, f"{o}.o", *swept, f"{x}.o", *inner]
        places = (f"{o}.o", axes[0] if outer else None)
    steps.append(Order(stage=name, axes=tuple(axes)))
    if threads:
        shared = axes[len(outer)] if extents.get(axes[0], 0) == 1 or not outer else axes[0]
        steps.append(Parallel(stage=name, axis=shared))
    steps += [Vector(stage=name, axis=f"{o}.i"), Unroll(stage=name, axis=f"{x}.i")]
    if not all(extents.values()):  # a panel has a size
        return steps
    factors = zip((window.filters, window.image), places)
    return [*steps, *(Pack(stage=load.tensor, at=at, type=_widened(load.dtype)) for load, at in factors if at is not None)]


def _widened(dtype: DType) -> DType | None:
    """Elements are widened once each as they are packed, not at every use."""
    wide = compute_type(dtype)
    return None if wide == dtype else wide


def _tile(across: int, filters: int, lanes: int, registers: int, widths: Iterable[int] = range(1, WIDEST + 1)) -> tuple[int, int]:
    """Results and registers of filters of the tile that wastes least at the edges, the largest of those that do."""

    def worth(shape: tuple[int, int]) -> tuple[float, int]:
        results, columns = shape
        used = 1.0
        for extent, step in ((across, results), (filters, columns * lanes)):
            used *= extent / (-(-extent // step) * step) if extent else 1.0
        # two loads a cycle serve two multiply-adds: a tile of few columns waits for its broadcasts
        fed = min(1.0, results * columns / (results + columns))
        return round(used * fed, 2), results * columns

    shapes = [(r, c) for c in widths for r in range(2, registers // c + 1)]
    return max(shapes, key=worth)
