"""Schedule blocks of a `.tri` file to steps: choose the block, give its tunables values, translate the verbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import NoReturn

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.dtypes import DType
from tridsl.ir.op import Op
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
from tridsl.schedule.tunables import Point, first_point
from tridsl.schedule.values import Unknown, Value, evaluate
from tridsl.syntax.nodes import Directive, Expression, Field, Keyword, Name, ScheduleBlock, Text, VerbCall

Names = Mapping[str, Value | None]


def text_schedule(blocks: Sequence[ScheduleBlock], op: Op, spec: DeviceSpec, sizes: Mapping[str, int], point: Point | None = None) -> Schedule | None:
    """Steps of the first block for this device whose `when` holds; None when there is none (the automatic schedule serves).

    `point` gives values to tunables (what a tuner found); the others keep their defaults.
    """
    names = known_names(op, sizes)
    for block in blocks:
        if not serves(block, op, spec, names):
            continue
        values = {**first_point(block, names, spec), **(point or {})}
        return block_steps(block, {**names, **values}, spec)
    return None


def known_names(op: Op, sizes: Mapping[str, int]) -> dict[str, Value | None]:
    """Type parameters, and sizes and const parameters (None where not known)."""
    names: dict[str, Value | None] = {name: sizes.get(name) for name in op.sizes}
    names |= {p.name: sizes.get(p.name) for p in op.params if p not in op.tensors}
    names |= dict(op.types)
    return names


def serves(block: ScheduleBlock, op: Op, spec: DeviceSpec, names: Names) -> bool:
    """Whether the block is for this op and device and its guard holds; a guard over unknown sizes does not."""
    if block.op != op.name or block.device not in (spec.kind, "any") or all(_is_placement(i) for i in block.items if isinstance(i, Directive)):
        return False
    if block.when is None:
        return True
    try:
        return bool(evaluate(block.when, names, spec))
    except Unknown:
        return False


def _is_placement(directive: Directive) -> bool:
    return all(call.verb == "on" for call in directive.calls)


def block_steps(block: ScheduleBlock, names: Names, spec: DeviceSpec) -> Schedule:
    """The block's directives in order. E0434: an unknown verb; E0435: wrong arguments; `.on(…)` is placement's, not ours."""
    steps: list[Step] = []
    for item in block.items:
        if not isinstance(item, Directive):
            continue
        for call in item.calls:
            if call.verb == "on":
                continue
            verb = VERBS.get(call.verb)
            if verb is None:
                near = get_close_matches(call.verb, VERBS, 1)
                raise error(
                    "E0434", f"there is no schedule verb `{call.verb}`", call.verb_span or call.span,
                    help=f"did you mean `{near[0]}`?" if near else f"the verbs are: {', '.join(VERBS)}",
                )  # fmt: skip
            steps.append(verb(item.tensor, call, Reader(call, names, spec)))
    return tuple(steps)


class Reader:
    """Typed access to the arguments of one verb call; each mistake is E0435 at the argument."""

    def __init__(self, call: VerbCall, names: Names, spec: DeviceSpec) -> None:
        self.call, self.names, self.spec = call, names, spec

    def count(self, least: int, most: int | None = None) -> None:
        given = len(self.call.args)
        if given < least or (most is not None and given > most):
            wanted = str(least) if least == most else f"{least} or more"
            self.fail(f"`{self.call.verb}` takes {wanted} axes or values, not {given}", self.call)

    def axis(self, position: int) -> str:
        return self.path(self.call.args[position])

    def path(self, node: Expression | None) -> str:
        """`i` or `k.i.o`."""
        if isinstance(node, Name):
            return node.name
        if isinstance(node, Field):
            return f"{self.path(node.value)}.{node.name}"
        self.fail("this is not the name of a loop", node or self.call)

    def integer(self, node: Expression | None) -> int:
        if node is None:
            self.fail("a value is missing", self.call)
        try:
            value = evaluate(node, self.names, self.spec)
        except Unknown as missing:
            self.fail(f"{missing} is not known, so this has no value", node)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"this is {value}, not an integer", node)
        return value

    def flag(self, node: Expression) -> bool:
        value = evaluate(node, self.names, self.spec)
        if not isinstance(value, bool):
            self.fail(f"this is {value}, not true or false", node)
        return value

    def dtype(self, node: Expression) -> DType:
        found = evaluate(node, self.names, self.spec)
        if not isinstance(found, DType):
            self.fail("this is not an element type", node)
        return found

    def text(self, position: int) -> str:
        self.count(1, 1)
        node = self.call.args[position]
        if isinstance(node, Text):
            return node.value
        self.fail("this is not a string", node)

    def keyword(self, name: str) -> Expression | None:
        return next((k.value for k in self.call.keywords if k.name == name), None)

    def only(self, *names: str) -> None:
        for keyword in self.call.keywords:
            if keyword.name not in names:
                allowed = ", ".join(f"{n}=" for n in names) or "none"
                self.fail(f"`{self.call.verb}` has no argument `{keyword.name}=`; it has: {allowed}", keyword)

    def fail(self, message: str, node: Expression | Keyword | VerbCall) -> NoReturn:
        raise error("E0435", message, node.span, help=f"for example {EXAMPLES[self.call.verb]}")


EXAMPLES: dict[str, str] = {
    "tile": "`.tile(i=12, j=32)`", "split": "`.split(k, 256)`", "pad": "`.pad(i, 128)`", "parts": "`.parts(k, 4096)`", "fuse": "`.fuse(i, j)`", "order": "`.order(j, i, k)`",
    "parallel": "`.parallel(i)`", "vector": "`.vector(j)`", "unroll": "`.unroll(i.i)` or `.unroll(k, 4)`", "bind": '`.bind(i.o="group.x")`',
    "at": "`.at(y, r)`", "slide": "`.slide(y, r)`", "lines": "`.lines(y, r)`", "beside": "`.beside(y, i)`", "inline": "`.inline()`", "store": "`.store(l1)`", "pack": "`.pack(at=k.o)`",
    "planes": "`.planes(4)`", "unit": "`.unit(n)`", "intrin": '`.intrin("vpdpbusd")`', "pipeline": "`.pipeline(1)`", "grid": "`.grid(columns=4)`",
    "block": "`.block(t, 64)`", "layout": "`.layout(t, q)`",
}  # fmt: skip


def _tile(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(0, 0)
    return Tile(stage=stage, sizes=tuple((k.name, read.integer(k.value)) for k in call.keywords), span=call.span)


def _split(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(2, 2)
    read.only("tail")
    return Split(stage=stage, axis=read.axis(0), factor=read.integer(call.args[1]), tail=_word(read, "tail"), span=call.span)


def _word(read: Reader, keyword: str) -> str | None:
    node = read.keyword(keyword)
    return None if node is None else read.path(node)


def _pad(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(2, 2)
    read.only("kept")
    kept = read.keyword("kept")
    return Pad(stage=stage, axis=read.axis(0), factor=read.integer(call.args[1]), kept=kept is not None and read.flag(kept), span=call.span)


def _block(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(2, 2)
    read.only("at", "tail")
    at = read.keyword("at")
    return BlockBy(
        stage=stage, axis=read.axis(0), factor=read.integer(call.args[1]), at=None if at is None else read.path(at), tail=_word(read, "tail"),
        span=call.span,
    )  # fmt: skip


def _layout(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(1)
    read.only()
    return Layout(stage=stage, axes=tuple(read.axis(n) for n in range(len(call.args))), span=call.span)


def _parts(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(2, 2)
    read.only("into", "inside")
    return Parts(
        stage=stage, axis=read.axis(0), factor=read.integer(call.args[1]), into=_word(read, "into"), inside=_word(read, "inside"), span=call.span
    )  # fmt: skip


def _fuse(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(2, 2)
    read.only()
    return Fuse(stage=stage, outer=read.axis(0), inner=read.axis(1), span=call.span)


def _order(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(2)
    read.only()
    return Order(stage=stage, axes=tuple(read.axis(n) for n in range(len(call.args))), span=call.span)


def _unroll(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(1, 2)
    read.only()
    factor = read.integer(call.args[1]) if len(call.args) == 2 else None
    return Unroll(stage=stage, axis=read.axis(0), factor=factor, span=call.span)


def _axis_verb(kind: type[Parallel | Vector]) -> Callable[[str, VerbCall, Reader], Step]:
    def make(stage: str, call: VerbCall, read: Reader) -> Step:
        read.count(1, 1)
        read.only()
        return kind(stage=stage, axis=read.axis(0), span=call.span)

    return make


def _bind(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(0, 0)
    axes = []
    for keyword in call.keywords:
        if not isinstance(keyword.value, Text):
            read.fail("a hardware axis is a string", keyword)
        axes.append((keyword.name, keyword.value.value))
    return Bind(stage=stage, axes=tuple(axes), span=call.span)


def _at(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(2, 2)
    read.only()
    return At(stage=stage, consumer=read.axis(0), axis=read.axis(1), span=call.span)


def _slide(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(2, 2)
    read.only()
    return Slide(stage=stage, consumer=read.axis(0), axis=read.axis(1), span=call.span)


def _lines(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(2, 2)
    read.only()
    return Lines(stage=stage, consumer=read.axis(0), axis=read.axis(1), span=call.span)


def _beside(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(2, 2)
    read.only()
    return Beside(stage=stage, other=read.axis(0), axis=read.axis(1), span=call.span)


def _inline(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(0, 0)
    read.only()
    return Inline(stage=stage, span=call.span)


def _store(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(1, 1)
    read.only("at", "buffers", "pad", "type", "piece", "kept", "turned", "strips")
    space = call.args[0]
    at, buffers, pad, kind, piece, kept, turned, strips = (read.keyword(n) for n in ("at", "buffers", "pad", "type", "piece", "kept", "turned", "strips"))
    return StoreIn(
        stage=stage,
        space=space.value if isinstance(space, Text) else read.path(space),
        at=None if at is None else read.path(at),
        buffers=1 if buffers is None else read.integer(buffers),
        pad=0 if pad is None else read.integer(pad),
        type=None if kind is None else read.dtype(kind),
        piece=1 if piece is None else read.integer(piece),
        kept=None if kept is None else read.path(kept),
        turned=turned is not None and read.flag(turned),
        strips=None if strips is None else read.path(strips),
        span=call.span,
    )


def _pack(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(0, 0)
    read.only("at", "reader", "type", "place", "interleave", "rows")
    reader, kind, place, group, rows = (read.keyword(n) for n in ("reader", "type", "place", "interleave", "rows"))
    return Pack(
        stage=stage,
        at=read.path(read.keyword("at")),
        reader=None if reader is None else read.path(reader),
        type=None if kind is None else read.dtype(kind),
        place=None if place is None else read.integer(place),
        interleave=1 if group is None else read.integer(group),
        rows=rows is not None and read.flag(rows),
        span=call.span,
    )


def _planes(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(1, 1)
    read.only()
    return Planes(stage=stage, parts=read.integer(call.args[0]), span=call.span)


def _unit(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(1, 1)
    read.only()
    return Unit(stage=stage, axis=read.path(call.args[0]), span=call.span)


def _intrin(stage: str, call: VerbCall, read: Reader) -> Step:
    read.only()
    return Intrin(stage=stage, name=read.text(0), span=call.span)


def _pipeline(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(1, 1)
    places = ("at", "reader", "around", "stagger")
    read.only(*places)
    named = {name: read.path(value) for name in places if (value := read.keyword(name)) is not None}
    return Pipeline(stage=stage, depth=read.integer(call.args[0]), **named, span=call.span)


def _grid(stage: str, call: VerbCall, read: Reader) -> Step:
    read.count(0, 0)
    return Grid(stage=stage, axes=tuple((k.name, read.integer(k.value)) for k in call.keywords), span=call.span)


VERBS: dict[str, Callable[[str, VerbCall, Reader], Step]] = {
    "tile": _tile,
    "split": _split,
    "pad": _pad,
    "parts": _parts,
    "fuse": _fuse,
    "order": _order,
    "parallel": _axis_verb(Parallel),
    "vector": _axis_verb(Vector),
    "unroll": _unroll,
    "bind": _bind,
    "at": _at,
    "slide": _slide,
    "lines": _lines,
    "beside": _beside,
    "inline": _inline,
    "store": _store,
    "pack": _pack,
    "planes": _planes,
    "unit": _unit,
    "intrin": _intrin,
    "pipeline": _pipeline,
    "block": _block,
    "layout": _layout,
    "grid": _grid,
}
