"""Our dataclasses beside the standard library's: the same classes made by both behave alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import field
from typing import Any

import pytest

from tridsl import structs


def classes(dataclass: Callable[..., Any]) -> dict[str, Any]:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Base:
        span: int | None = field(default=None, compare=False, repr=False)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Leaf(Base):
        value: float
        kind: str = "f32"

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Own(Base):
        value: float

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own) and type(self.value) is type(other.value) and self.value == other.value

        def __hash__(self) -> int:
            return hash((type(self.value), self.value))

    @dataclass(frozen=True, slots=True)
    class Pair:
        first: int
        second: tuple[int, ...] = ()

    @dataclass(slots=True, kw_only=True, eq=False)
    class Table:
        rows: list[int] = field(default_factory=list)

        def __post_init__(self) -> None:
            self.rows.append(1)

    @dataclass(slots=True)
    class Counter:
        count: int = 0

    @dataclass(frozen=True, slots=True, repr=False)
    class Named:
        name: str

        def __repr__(self) -> str:
            return self.name

    return {kind.__name__: kind for kind in (Base, Leaf, Own, Pair, Table, Counter, Named)}


OURS, THEIRS = classes(structs.dataclass), classes(dataclasses.dataclass)
NAN = float("nan")
both = pytest.mark.parametrize("made", [OURS, THEIRS], ids=["ours", "theirs"])


@both
def test_equality_and_hash_go_by_the_compared_fields(made: dict[str, Any]) -> None:
    leaf = made["Leaf"]
    assert leaf(value=1.0) == leaf(value=1.0, span=3) == leaf(value=1)
    assert hash(leaf(value=1.0)) == hash(leaf(value=1, span=3))
    assert leaf(value=1.0) != leaf(value=1.0, kind="f64")
    assert leaf(value=NAN) == leaf(value=NAN), "one object, as in tuples"
    assert leaf(value=NAN) != leaf(value=float("nan"))
    assert made["Base"](span=1) == made["Base"]()
    assert made["Base"]() != leaf(value=1.0)
    assert made["Own"](value=1) != made["Own"](value=1.0)
    assert len({made["Pair"](1, (2,)), made["Pair"](1, (2,)), made["Pair"](1)}) == 2


@both
def test_what_changes_has_no_hash_and_what_has_no_equality_is_itself(made: dict[str, Any]) -> None:
    assert made["Counter"](2) == made["Counter"](count=2)
    with pytest.raises(TypeError):
        hash(made["Counter"]())
    one, other = made["Table"](), made["Table"]()
    assert one != other and len({one, other, one}) == 2
    assert one.rows == other.rows == [1] and one.rows is not other.rows


@both
def test_the_text_of_a_value(made: dict[str, Any]) -> None:
    assert repr(made["Leaf"](value=1.0, span=3)).rpartition(".")[2] == "0, kind='f32')"
    assert "Leaf(value=1.0, kind=" in repr(made["Leaf"](value=1.0))
    assert "Pair(first=1, second=())" in repr(made["Pair"](1))
    assert repr(made["Named"]("f32")) == "f32"


@both
def test_frozen_values_stay_and_have_no_other_attributes(made: dict[str, Any]) -> None:
    with pytest.raises(AttributeError):
        made["Leaf"](value=1.0).value = 2.0
    with pytest.raises((AttributeError, TypeError)):
        made["Counter"]().other = 1
    with pytest.raises(TypeError):
        made["Leaf"]()
    with pytest.raises(TypeError):
        made["Leaf"](value=1.0, other=2)
    with pytest.raises(TypeError):
        made["Leaf"](1.0)


@both
def test_replace_makes_another(made: dict[str, Any]) -> None:
    for replace in (dataclasses.replace, structs.replace) if made is OURS else (dataclasses.replace,):
        first = made["Leaf"](value=1.0, span=3)
        second = replace(first, kind="f64")
        assert second != first and hash(second) == hash(made["Leaf"](value=1.0, kind="f64")) != hash(first)
        assert (second.value, second.kind, second.span, first.kind) == (1.0, "f64", 3, "f32")
        with pytest.raises(TypeError):
            replace(first, other=1)


@both
def test_the_standard_library_knows_the_fields(made: dict[str, Any]) -> None:
    assert [(f.name, f.type, f.compare) for f in dataclasses.fields(made["Leaf"])] == [
        ("span", "int | None", False), ("value", "float", True), ("kind", "str", True),
    ]  # fmt: skip
    assert dataclasses.asdict(made["Pair"](1, (2,))) == {"first": 1, "second": (2,)}
    assert dataclasses.is_dataclass(made["Counter"]()) and dataclasses.fields(made["Table"])[0].default_factory is list


def test_declared_types() -> None:
    assert structs.declared(OURS["Leaf"]) == {"span": "int | None", "value": "float", "kind": "str"}


def test_a_class_has_the_options_of_its_base() -> None:
    with pytest.raises(TypeError, match="options of its base"):

        @structs.dataclass(frozen=True, slots=True)
        class Wrong(OURS["Leaf"]):  # type: ignore[misc]
            more: int = 0
