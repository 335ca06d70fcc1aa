"""`param … in … = default` and `require`: the space of a schedule block, and its first legal point."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.schedule.values import Unknown, Value, evaluate
from tridsl.structs import dataclass
from tridsl.syntax.nodes import Choices, Invoke, Range, Require, ScheduleBlock, Tunable

POINTS_LIMIT = 100_000
"""Points looked at before a block is called unsatisfiable."""

Point = dict[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A tunable with its values in the order written; `default` is one of them, or the first."""

    name: str
    values: tuple[Value, ...]
    default: Value


def parameters(block: ScheduleBlock, names: Mapping[str, Value | None], spec: DeviceSpec) -> tuple[Parameter, ...]:
    """The block's tunables. E0432: an empty space. A value that needs an unknown fact is left out."""
    found: list[Parameter] = []
    for item in block.items:
        if not isinstance(item, Tunable):
            continue
        values = tuple(dict.fromkeys(_values(item, names, spec)))
        if not values:
            raise error("E0432", f"tunable `{item.name}` has no values on {spec.name}", item.span, help="give at least one value")
        default = values[0]
        if item.default is not None:
            default = evaluate(item.default, names, spec)
            if default not in values:
                raise error(
                    "E0432", f"the default {default} of `{item.name}` is not one of its values", item.default.span,
                    help=f"choose one of {', '.join(map(str, values))}",
                )  # fmt: skip
        found.append(Parameter(name=item.name, values=values, default=default))
    return tuple(found)


def _values(item: Tunable, names: Mapping[str, Value | None], spec: DeviceSpec) -> Iterator[Value]:
    space = item.space
    if isinstance(space, Choices):
        for choice in space.items:
            try:
                yield evaluate(choice, names, spec)
            except Unknown:
                continue
        return
    ends = (space.low, space.high) if isinstance(space, Range) else space.args
    if isinstance(space, Invoke) and (space.function != "pow2" or len(ends) != 2):
        raise error("E0432", "a space is a set, a range or pow2(low, high)", space.span, help="write {4, 8, 16}, 1..9 or pow2(4, 16)")
    low, high = (evaluate(e, names, spec) for e in ends)
    if not isinstance(low, int) or not isinstance(high, int) or (isinstance(space, Invoke) and low < 1):
        raise error("E0432", f"the ends of `{item.name}` are not integers", space.span, help="write pow2(64, 512) or 1..9")
    if high - low > POINTS_LIMIT:
        raise error("E0432", f"tunable `{item.name}` has {high - low} values", space.span, help=f"at most {POINTS_LIMIT}")
    if isinstance(space, Range):
        yield from range(low, high)
        return
    value = low
    while value <= high:
        yield value
        value *= 2


def points(block: ScheduleBlock, names: Mapping[str, Value | None], spec: DeviceSpec) -> Iterator[Point]:
    """Legal points, the defaults first, then every combination in the order written."""
    tunables = parameters(block, names, spec)
    default = {p.name: p.default for p in tunables}
    if legal(block, {**names, **default}, spec):
        yield default
    for combination in itertools.islice(itertools.product(*(p.values for p in tunables)), POINTS_LIMIT):
        point = dict(zip((p.name for p in tunables), combination))
        if point != default and legal(block, {**names, **point}, spec):
            yield point


def legal(block: ScheduleBlock, names: Mapping[str, Value | None], spec: DeviceSpec) -> bool:
    """Whether every `require` holds; one that needs an unknown size or fact is taken to hold."""
    for item in block.items:
        if isinstance(item, Require):
            try:
                if not evaluate(item.condition, names, spec):
                    return False
            except Unknown:
                continue
    return True


def first_point(block: ScheduleBlock, names: Mapping[str, Value | None], spec: DeviceSpec) -> Point:
    """The defaults, or the first legal point when they break a `require`. E0433: no point is legal."""
    for point in itertools.islice(points(block, names, spec), 1):
        return point
    spot = next((i.span for i in block.items if isinstance(i, Require)), block.span)
    raise error("E0433", f"no values of the tunables meet every `require` on {spec.name}", spot, help="loosen a `require`, or add values")
