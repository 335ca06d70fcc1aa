"""The Python builder of schedules: the same frozen steps that the text makes, by the same verbs.

`op.schedule("cpu").tile(i=64, j=64).split("k", 256)` equals `C.tile(i=64, j=64).split(k, 256)` in a schedule block.
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.diagnostics import error
from tridsl.dtypes import DType
from tridsl.schedule.steps import (
    At,
    Beside,
    Bind,
    BlockBy,
    Fuse,
    Grid,
    Inline,
    Intrin,
    Layout,
    Lines,
    Order,
    Pack,
    Pad,
    Parallel,
    Parts,
    Pipeline,
    Planes,
    Schedule,
    Slide,
    Split,
    Step,
    StoreIn,
    Tile,
    Unit,
    Unroll,
    Vector,
)
from tridsl.structs import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleBuilder:
    """Steps so far (`steps`), the `stage` the next verb applies to, and the device kind they are meant for.

    A value: every verb returns a new builder. Axes are names (`"k"`, `"k.o"`); where a verb takes keywords, split axes are
    given by a mapping: `tile({"i.i": 8})`.
    """

    device: str
    stage: str
    steps: Schedule = ()

    def on_stage(self, stage: str) -> ScheduleBuilder:
        """The following verbs apply to `stage`: a tensor (`C`), a reducer (`C.sum`) or, for pack and store, a parameter."""
        return replace(self, stage=stage)

    def tile(self, sizes: Mapping[str, int] | None = None, /, **more: int) -> ScheduleBuilder:
        return self._then(Tile(stage=self.stage, sizes=_pairs("tile", sizes, more)))

    def split(self, axis: str, factor: int, *, tail: str | None = None) -> ScheduleBuilder:
        _positive("split", axis, factor)
        return self._then(Split(stage=self.stage, axis=axis, factor=factor, tail=tail))

    def pad(self, axis: str, factor: int) -> ScheduleBuilder:
        _positive("pad", axis, factor)
        return self._then(Pad(stage=self.stage, axis=axis, factor=factor))

    def parts(self, axis: str, factor: int, *, into: str | None = None) -> ScheduleBuilder:
        _positive("parts", axis, factor)
        return self._then(Parts(stage=self.stage, axis=axis, factor=factor, into=into))

    def fuse(self, outer: str, inner: str) -> ScheduleBuilder:
        return self._then(Fuse(stage=self.stage, outer=outer, inner=inner))

    def order(self, *axes: str) -> ScheduleBuilder:
        return self._then(Order(stage=self.stage, axes=axes))

    def parallel(self, *axes: str) -> ScheduleBuilder:
        return self._then(*(Parallel(stage=self.stage, axis=axis) for axis in axes))

    def vector(self, *axes: str) -> ScheduleBuilder:
        return self._then(*(Vector(stage=self.stage, axis=axis) for axis in axes))

    def unroll(self, *axes: str, factor: int | None = None) -> ScheduleBuilder:
        return self._then(*(Unroll(stage=self.stage, axis=axis, factor=factor) for axis in axes))

    def bind(self, axes: Mapping[str, str] | None = None, /, **more: str) -> ScheduleBuilder:
        return self._then(Bind(stage=self.stage, axes=(*(axes or {}).items(), *more.items())))

    def at(self, consumer: str, axis: str) -> ScheduleBuilder:
        return self._then(At(stage=self.stage, consumer=consumer, axis=axis))

    def slide(self, consumer: str, axis: str) -> ScheduleBuilder:
        return self._then(Slide(stage=self.stage, consumer=consumer, axis=axis))

    def lines(self, consumer: str, axis: str) -> ScheduleBuilder:
        return self._then(Lines(stage=self.stage, consumer=consumer, axis=axis))

    def beside(self, other: str, axis: str) -> ScheduleBuilder:
        return self._then(Beside(stage=self.stage, other=other, axis=axis))

    def inline(self) -> ScheduleBuilder:
        return self._then(Inline(stage=self.stage))

    def store(
        self, space: str, *, at: str | None = None, buffers: int = 1, pad: int = 0, type: DType | None = None, piece: int = 1, kept: str | None = None,
        turned: bool = False, strips: str | None = None,
    ) -> ScheduleBuilder:  # fmt: skip
        step = StoreIn(stage=self.stage, space=space, at=at, buffers=buffers, pad=pad, type=type, piece=piece, kept=kept, turned=turned, strips=strips)
        return self._then(step)

    def pack(
        self, *, at: str, reader: str | None = None, type: DType | None = None, place: int | None = None, interleave: int = 1, rows: bool = False
    ) -> ScheduleBuilder:  # fmt: skip
        return self._then(Pack(stage=self.stage, at=at, reader=reader, type=type, place=place, interleave=interleave, rows=rows))

    def planes(self, parts: int) -> ScheduleBuilder:
        return self._then(Planes(stage=self.stage, parts=parts))

    def unit(self, axis: str) -> ScheduleBuilder:
        return self._then(Unit(stage=self.stage, axis=axis))

    def intrin(self, name: str) -> ScheduleBuilder:
        return self._then(Intrin(stage=self.stage, name=name))

    def pipeline(self, depth: int) -> ScheduleBuilder:
        return self._then(Pipeline(stage=self.stage, depth=depth))

    def block(self, axis: str, factor: int, *, at: str | None = None, tail: str | None = None) -> ScheduleBuilder:
        _positive("block", axis, factor)
        return self._then(BlockBy(stage=self.stage, axis=axis, factor=factor, at=at, tail=tail))

    def layout(self, *axes: str) -> ScheduleBuilder:
        return self._then(Layout(stage=self.stage, axes=axes))

    def grid(self, axes: Mapping[str, int] | None = None, /, **more: int) -> ScheduleBuilder:
        return self._then(Grid(stage=self.stage, axes=_pairs("grid", axes, more)))

    def _then(self, *steps: Step) -> ScheduleBuilder:
        return replace(self, steps=(*self.steps, *steps))


def _pairs(verb: str, mapping: Mapping[str, int] | None, more: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    pairs = (*(mapping or {}).items(), *more.items())
    for axis, value in pairs:
        _positive(verb, axis, value)
    return pairs


def _positive(verb: str, axis: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise error(
            "E0539",
            f"{verb} of axis `{axis}` needs a whole number of at least 1, got {value!r}",
            help=f"write {verb}({axis}=64)",
        )
