"""Spaces of schedules: what may be chosen, as a tree of named choices that is walked lazily and never built.

A point is the answers in the order in which they are asked. A space knows nothing of time; whether a point's steps apply to
the op is `Space.schedule`'s and the compiler's to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from random import Random

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Span, TriError, error
from tridsl.dtypes import DType
from tridsl.ir.op import Op
from tridsl.schedule.automatic import choices, choose
from tridsl.schedule.decisions import Answer
from tridsl.schedule.steps import Schedule
from tridsl.schedule.text import block_steps, known_names, serves
from tridsl.schedule.tunables import legal, parameters
from tridsl.schedule.values import Value
from tridsl.structs import dataclass, replace
from tridsl.syntax.nodes import Require, ScheduleBlock

Point = tuple[tuple[str, Value], ...]

NODES_LIMIT = 100_000
"""Partial points looked at before a space counts as empty, or as too large to list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One choice of a space; the default is the first value."""

    name: str
    values: tuple[Value, ...]
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """`ask(given)`: the choices on the path that `given` takes (defaults where it says nothing), in order. `allows(given)`:
    whether answers, perhaps not all of them, are not ruled out. `steps(answers)`: the schedule of a whole point."""

    name: str
    ask: Callable[[Mapping[str, Value]], tuple[Asked, ...]]
    allows: Callable[[Mapping[str, Value]], bool]
    steps: Callable[[Mapping[str, Value]], Schedule]
    span: Span | None = None

    def default(self) -> Point:
        """The first point. E0433: there is none."""
        for point in self.points():
            return point
        raise error("E0433", f"the space of {self.name} has no legal point", self.span, help="loosen a `require`, or add values")

    def points(self) -> Iterator[Point]:
        """Every point, each choice's default first."""
        yield from self._below({}, lambda values: values, _Fuel())

    def listing(self, limit: int = 10_000) -> tuple[Point, ...] | None:
        """All points, or None when there are more than `limit`."""
        found = tuple(islice(self.points(), limit + 1))
        return found if len(found) <= limit else None

    def sample(self, random: Random) -> Point:
        """A random point: each choice uniformly among the values that leave a legal point. (Not uniform over points: a branch
        with few points gets as much weight as one with many.) E0433: there is none."""

        def shuffled(values: tuple[Value, ...]) -> Sequence[Value]:
            return random.sample(values, len(values))

        for point in self._below({}, shuffled, _Fuel()):
            return point
        return self.default()

    def __contains__(self, point: Point) -> bool:
        given = dict(point)
        try:
            asked = self.ask(given)
        except TriError:  # an answer that is not possible after the others
            return False
        return (
            tuple(name for name, _ in point) == tuple(a.name for a in asked)
            and all(among(given[a.name], a.values) for a in asked)
            and self.allows(given)
        )

    def near(self, wanted: Mapping[str, Value]) -> Point | None:
        """The point with the wanted answers, or the nearest ones where they are not possible; None if that is not legal."""
        given: dict[str, Value] = {}
        while True:
            asked = self.ask(given)
            if len(given) == len(asked):
                break
            choice = asked[len(given)]
            given[choice.name] = nearest(wanted[choice.name], choice.values) if choice.name in wanted else choice.values[0]
        return tuple(given.items()) if self.allows(given) else None

    def neighbours(self, point: Point) -> Iterator[Point]:
        """Points that differ in one answer: the next smaller and larger of ordered values, each other one of names.

        Answers that depend on the changed one become the nearest possible.
        """
        given = dict(point)
        seen = {point}
        for choice in self.ask(given):
            for value in beside(given[choice.name], choice.values):
                other = self.near({**given, choice.name: value})
                if other is not None and other not in seen:
                    seen.add(other)
                    yield other

    def distance(self, a: Point, b: Point) -> float:
        """Sum over choices: 1 where one point has no such choice or names differ, octaves (at most 2) between numbers."""
        left, right = dict(a), dict(b)
        return sum(_apart(left.get(name), right.get(name)) for name in left.keys() | right.keys())

    def simplicity(self, point: Point) -> tuple[int, int, int]:
        """Lower is simpler: answers that are not the default, steps, and then the size of the answers."""
        given = dict(point)
        changed = sum(given[a.name] != a.values[0] for a in self.ask(given))
        sizes = sum(v for v in given.values() if isinstance(v, int) and not isinstance(v, bool))
        return changed, len(self.steps(given)), sizes

    def schedule(self, point: Point) -> Schedule:
        """E0952: the point names a choice that the space does not have, or lacks one; E0953: a value that it does not have."""
        given = dict(point)
        asked = {a.name: a for a in self.ask(given)}
        for name in [*(n for n in given if n not in asked), *(n for n in asked if n not in given)]:
            raise error(
                "E0952", f"{self.name} has {'no' if name in given else 'a'} choice `{name}` here", self.span,
                help=f"its choices: {', '.join(asked) or 'none'}",
            )  # fmt: skip
        for name, choice in asked.items():
            if not among(given[name], choice.values):
                raise error(
                    "E0953", f"{show(given[name])} is no value of `{name}`", self.span, help=f"its values: {', '.join(map(show, choice.values))}"
                )
        if not self.allows(given):
            raise error("E0953", f"{describe(point)} breaks a `require` of {self.name}", self.span, help="choose another point")
        return self.steps(given)

    def only(self, wanted: Mapping[str, Collection[Value]]) -> Space:
        """The part of the space where these choices have only these values. E0952: no such choice on the default path."""
        known = {a.name for a in self.ask({})}
        for name in wanted:
            if name not in known and not any(name in {a.name for a in self.ask(dict([pair]))} for pair in _pairs(self.ask({}))):
                raise error("E0952", f"{self.name} has no choice `{name}` here", self.span, help=f"its choices: {', '.join(sorted(known))}")
        whole = self.ask

        def ask(given: Mapping[str, Value]) -> tuple[Asked, ...]:
            forced = dict(given)
            while True:
                found = []
                for choice in whole(forced):
                    kept = choice.values if choice.name not in wanted else tuple(v for v in choice.values if among(v, wanted[choice.name]))
                    if not kept:
                        raise error("E0953", f"no value is left of `{choice.name}`", self.span, help=f"it has: {', '.join(map(show, choice.values))}")
                    found.append(replace(choice, values=kept))
                late = next((c for c in found if c.name not in forced and c.name in wanted), None)
                if late is None:
                    return tuple(found)
                forced[late.name] = late.values[0]

        return replace(self, ask=ask)

    def thin(self, most: Mapping[str, int]) -> Space:
        """The part of the space where each of these choices has at most so many values: the default, and others evenly spaced.
        `columns` means that choice of every stage, `C.columns` that of one."""
        whole = self.ask

        def thinned(choice: Asked) -> Asked:
            count = most.get(choice.name, most.get(choice.name.rpartition(".")[2]))
            return choice if count is None else replace(choice, values=_spaced(choice.values, count))

        def ask(given: Mapping[str, Value]) -> tuple[Asked, ...]:
            return tuple(map(thinned, whole(given)))

        return replace(self, ask=ask)

    def _below(self, given: dict[str, Value], order: Callable[[tuple[Value, ...]], Sequence[Value]], fuel: _Fuel) -> Iterator[Point]:
        asked = self.ask(given)
        if len(given) == len(asked):
            if self.allows(given):
                fuel.left = NODES_LIMIT
                yield tuple(given.items())
            return
        choice = asked[len(given)]
        for value in order(choice.values):
            fuel.left -= 1
            if fuel.left < 0:
                return
            deeper = {**given, choice.name: value}
            if self.allows(deeper):
                yield from self._below(deeper, order, fuel)


class _Fuel:
    """Partial points that may still be looked at without finding a whole one."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = NODES_LIMIT


def text_space(blocks: Sequence[ScheduleBlock], op: Op, spec: DeviceSpec, sizes: Mapping[str, int]) -> Space | None:
    """The `param`s and `require`s of the block that serves `op` here (`schedule.text`); None when none does.

    E0432, E0433 at the block's lines: a tunable without values, a `require` that no values meet.
    """
    names = known_names(op, sizes)
    for block in blocks:
        if not serves(block, op, spec, names):
            continue
        asked = tuple(
            Asked(name=p.name, values=tuple(dict.fromkeys((p.default, *p.values))), about="a `param` of the schedule")
            for p in parameters(block, names, spec)
        )
        return _checked(_block_space(block, op, spec, names, asked))
    return None


def _block_space(
    block: ScheduleBlock, op: Op, spec: DeviceSpec, names: Mapping[str, Value | None], asked: tuple[Asked, ...]
) -> Space:
    open_: dict[str, Value | None] = {**names, **{a.name: None for a in asked}}  # None: a `require` over it is not decided yet
    requires = [i for i in block.items if isinstance(i, Require)]
    return Space(
        name=f"the schedule of `{op.name}` for {block.device}",
        ask=lambda given: asked,
        allows=lambda given: legal(block, {**open_, **given}, spec),
        steps=lambda answers: block_steps(block, {**names, **answers}, spec),
        span=requires[0].span if requires else block.span,
    )


def _checked(space: Space) -> Space:
    space.default()
    return space


def automatic_space(op: Op, spec: DeviceSpec, sizes: Mapping[str, int]) -> Space:
    """The other answers to the automatic scheduler's decisions."""

    def ask(given: Mapping[str, Value]) -> tuple[Asked, ...]:
        known = choices(op, spec, sizes, _answers(given))
        return tuple(Asked(name=c.name, values=c.values, about=c.about) for c in known)

    return Space(
        name=f"the automatic schedule of `{op.name}`",
        ask=ask,
        allows=lambda given: True,
        steps=lambda given: choose(op, spec, sizes, _answers(given)),
    )


def space_of(op: Op, spec: DeviceSpec, sizes: Mapping[str, int], blocks: Sequence[ScheduleBlock] = ()) -> Space:
    """The text's space where a schedule block serves the op, else the automatic scheduler's."""
    return text_space(blocks, op, spec, sizes) or automatic_space(op, spec, sizes)


def listed_space(name: str, points: Iterable[Point]) -> Space:
    """Exactly these points, the default first (recorded spaces). Its points have no schedules."""
    root: _Branch = {}
    for point in points:
        branch = root
        for name_value in point:
            branch = branch.setdefault(name_value, {})

    def path(given: Mapping[str, Value]) -> tuple[Asked, ...]:
        found: list[Asked] = []
        branch = root
        while branch:
            asked = next(iter(branch))[0]
            values = tuple(v for n, v in branch if n == asked)
            found.append(Asked(name=asked, values=values))
            answer = given.get(asked, values[0])
            branch = branch.get((asked, answer)) or branch[asked, values[0]]
        return tuple(found)

    return Space(name=name, ask=path, allows=lambda given: True, steps=lambda given: ())


_Branch = dict[tuple[str, Value], "_Branch"]


def _spaced(values: tuple[Value, ...], most: int) -> tuple[Value, ...]:
    first, *rest = values
    if len(values) <= most or most < 1:
        return values
    order = sorted(rest, key=float) if all(map(_number, rest)) else rest  # type: ignore[arg-type]  # all are numbers
    return first, *(order[round(n * (len(order) - 1) / max(1, most - 2))] for n in range(most - 1))


def among(value: Value, values: Collection[Value]) -> bool:
    """Membership that tells True from 1."""
    return any(v == value and isinstance(v, bool) == isinstance(value, bool) for v in values)


def nearest(wanted: Value, values: tuple[Value, ...]) -> Value:
    """The value itself, the number nearest to it in octaves, or the first."""
    if among(wanted, values):
        return wanted
    numbers = [v for v in values if _number(v)]
    if not _number(wanted) or not numbers:
        return values[0]
    return min(numbers, key=lambda v: (_apart(wanted, v, most=math.inf), values.index(v)))


def beside(value: Value, values: tuple[Value, ...]) -> tuple[Value, ...]:
    """The neighbours of a value: next to it in order for numbers, every other one otherwise."""
    if not all(map(_number, values)):
        return tuple(v for v in values if v != value)
    order = sorted(values, key=float)  # type: ignore[arg-type]  # all are numbers
    place = order.index(value)
    return tuple(order[n] for n in (place - 1, place + 1) if 0 <= n < len(order))


def describe(point: Point) -> str:
    """`C.rows=12 C.vectors=2`."""
    return " ".join(f"{name}={show(value)}" for name, value in point) or "the only point"


def show(value: Value) -> str:
    return value.name if isinstance(value, DType) else str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: Value | None) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _apart(a: Value | None, b: Value | None, most: float = 2.0) -> float:
    if a == b and isinstance(a, bool) == isinstance(b, bool):
        return 0.0
    if isinstance(a, int | float) and isinstance(b, int | float) and _number(a) and _number(b):
        return min(most, 0.25 + abs(math.log2(max(abs(a), 0.5)) - math.log2(max(abs(b), 0.5))))
    return 1.0


def _answers(given: Mapping[str, Value]) -> dict[str, Answer]:
    return {n: v for n, v in given.items() if isinstance(v, int | str)}


def _pairs(asked: Iterable[Asked]) -> Iterator[tuple[str, Value]]:
    return ((a.name, v) for a in asked for v in a.values)
