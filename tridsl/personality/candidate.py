"""A candidate: a schedule as steps and the values of its tunables, as data that can be written, read and compared.

The wire form of each step is generated from its class in `schedule.steps` - `{"step": "Split", "stage": "C", "axis": "k",
"factor": 256}` - so that decoding checks every field's type and knows no other fields. Fields that have their default are left
out: a step that gains a field with a default leaves every old record, and its hash, as it was.
"""

from __future__ import annotations

import hashlib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union, get_args, get_origin

import msgspec

from tridsl.dtypes import DTYPES, DType
from tridsl.schedule import steps
from tridsl.schedule.steps import Schedule, Step

Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=400)]

_STEPS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(steps.Step)}


def _bounded(hint: Any) -> Any:
    """A field's type with limits: whole numbers of 63 bits, names of 400 characters."""
    if hint is int:
        return Whole
    if hint is str:
        return Name
    if get_origin(hint) is tuple:
        return tuple[tuple(Ellipsis if item is Ellipsis else _bounded(item) for item in get_args(hint))]  # type: ignore[misc]
    if get_origin(hint) in (Union, types.UnionType):
        return reduce(or_, map(_bounded, get_args(hint)))
    return hint


def _wire(kind: type[Any]) -> type[msgspec.Struct]:
    hints = typing.get_type_hints(kind)
    members: list[Any] = [
        (f.name, _bounded(hints[f.name])) + (() if f.default is MISSING else (f.default,))
        for f in fields(kind)
        if f.name != "span"
    ]
    return msgspec.defstruct(
        kind.__name__, members, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="step", tag=True
    )  # fmt: skip


_WIRE = {name: _wire(kind) for name, kind in _STEPS.items()}

if TYPE_CHECKING:
    StepRecord: TypeAlias = msgspec.Struct
else:
    StepRecord = reduce(or_, _WIRE.values())


class TypeName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An element type as the value of a tunable."""

    dtype: Name


Value: TypeAlias = bool | Whole | float | Name | TypeName


class Candidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One way to run a kernel. Made by `candidate`; `steps` and `point` (in the order in which its values were chosen) decide
    equality and identity."""

    steps: Annotated[tuple[StepRecord, ...], msgspec.Meta(max_length=1000)] = ()
    point: Annotated[tuple[tuple[Name, Value], ...], msgspec.Meta(max_length=200)] = ()

    @property
    def schedule(self) -> Schedule:
        """The steps to apply. Whether they are legal for a kernel is `schedule.apply`'s to say."""
        return tuple(_STEPS[type(record).__name__](**msgspec.structs.asdict(record)) for record in self.steps)

    @property
    def values(self) -> dict[str, int | float | bool | str | DType]:
        """The tunables' values, as `schedule.tunables.Point`. Raises ValueError for an element type that there is not."""
        return {name: _dtype(value) if isinstance(value, TypeName) else value for name, value in self.point}

    @property
    def id(self) -> str:
        """32 hexadecimal digits; equal candidates have equal ones, in every process."""
        return hashlib.blake2b(_ENCODER.encode(self), digest_size=16).hexdigest()

    @property
    def text(self) -> str:
        """For reading: the tunables' values, or the steps where there are none."""
        if self.point:
            return " ".join(f"{name}={value.dtype if isinstance(value, TypeName) else value}" for name, value in self.point)
        return "; ".join(_step_text(record) for record in self.steps) or "no steps"

    @property
    def simplicity(self) -> tuple[int, int, bytes]:
        """Smaller is simpler: fewer steps, then a shorter text, then any order that is always the same."""
        encoded = _ENCODER.encode(self.steps) + _ENCODER.encode(self.point)
        return len(self.steps), len(encoded), encoded


_ENCODER = msgspec.json.Encoder()


def candidate(schedule: Schedule, point: Mapping[str, int | float | bool | str | DType] | None = None) -> Candidate:
    """The candidate of a schedule and the values of its tunables. Raises ValueError for a number that has no place in it."""
    values = tuple((name, TypeName(value.name) if isinstance(value, DType) else value) for name, value in (point or {}).items())
    made = Candidate(steps=tuple(map(_record, schedule)), point=values)
    return _DECODER.decode(_ENCODER.encode(made))  # the limits are checked here, not when somebody reads it


_DECODER = msgspec.json.Decoder(Candidate)


def _record(step: Step) -> StepRecord:
    return _WIRE[type(step).__name__](**{f.name: getattr(step, f.name) for f in fields(step) if f.name != "span"})


def _dtype(value: TypeName) -> DType:
    if value.dtype not in DTYPES:
        raise ValueError(f"there is no element type `{value.dtype}`")
    return DTYPES[value.dtype]


def _step_text(record: StepRecord) -> str:
    """`C.Split(k, 256)`: the verbs with their arguments, defaults left out."""
    given = msgspec.to_builtins(record)
    stage = given.pop("stage")
    verb = given.pop("step").lower()
    return f"{stage}.{verb}({', '.join(_argument(value) for value in given.values())})"


def _argument(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        pairs = [item for item in value if isinstance(item, (list, tuple)) and len(item) == 2]
        if len(pairs) == len(value):
            return ", ".join(f"{name}={item}" for name, item in pairs)
        return ", ".join(map(str, value))
    return str(value)
