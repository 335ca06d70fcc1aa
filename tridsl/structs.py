"""Dataclasses that msgspec makes, in C.

`dataclass` and `replace` mean here what they mean in the standard library, and type checkers are told that they are those. There,
each class costs six functions that are written as text and compiled: 0.6 ms a class in Python 3.11, two thirds of what importing us took
beside NumPy; and a frozen value takes 1.5 us to make and 2.9 us to change. Here it is 13 us a class, and 0.1 us to make or change
a value (*measured*, Emerald Rapids, 2.3 GHz). Every node of every kernel is such a value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, make_dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

__all__ = ["dataclass", "declared", "replace"]

if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:

    def dataclass(*, slots: bool, frozen: bool = False, kw_only: bool = False, eq: bool = True, repr: bool = True):
        """Decorator: the class with its annotated names as fields. `slots` is always so. A class has the options of its base."""
        options = {"frozen": frozen, "kw_only": kw_only, "eq": eq}

        def decorate(cls):
            if not isinstance(cls, _Made):
                namespace = {name: value for name, value in cls.__dict__.items() if name not in ("__dict__", "__weakref__")}
                bases = tuple(base for base in cls.__bases__ if base is not object)
                cls = _Made(cls.__name__, (*bases, msgspec.Struct), namespace, options=options)
            if not slots or cls.__options__ != options:
                raise TypeError(f"{cls.__qualname__} has slots and the options of its base: {cls.__options__}")
            if not repr and "__repr__" not in vars(cls):
                cls.__repr__ = object.__repr__
            return cls

        return decorate

    replace = msgspec.structs.replace


class _Fields:
    """`__dataclass_fields__`, by which the standard library knows a dataclass; made when something asks for it."""

    def __get__(self, instance: object, owner: Any) -> dict[str, Field[Any]]:
        given = owner.__given__
        fields = [(name, kind, given[name]) if name in given else (name, kind) for name, kind in declared(owner).items()]
        made: dict[str, Field[Any]] = vars(make_dataclass(owner.__name__, fields, kw_only=True))["__dataclass_fields__"]
        owner.__dataclass_fields__ = made
        return made


class _Made(type(msgspec.Struct)):  # type: ignore[misc]  # a C class
    """Makes the classes. Below one of them the class statement gets here by itself, ahead of the decorator."""

    def __new__(meta, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, options: dict[str, bool] | None = None) -> Any:
        above = [base for base in bases if isinstance(base, _Made)]
        options = options or above[0].__options__
        own = namespace.get("__annotations__", {})
        texts: dict[str, str] = {}
        given: dict[str, Any] = {}
        for base in above:
            texts |= base.__declared__
            given |= base.__given__
        for field in own:
            if field in namespace:
                given[field] = value = namespace[field]
                if isinstance(value, Field):
                    _replace_field(namespace, field, value)
        hidden = {field for field, value in given.items() if isinstance(value, Field)}
        uncompared = {field for field in hidden if not given[field].compare}
        unprinted = {field for field in hidden if not given[field].repr}
        defined = {"__eq__", "__hash__", "__repr__"} & namespace.keys()
        namespace |= {"__options__": options, "__given__": given, "__dataclass_fields__": _Fields()}
        once = options["frozen"] and options["eq"]
        cls: Any = super().__new__(meta, name, bases, namespace, **options, cache_hash=once)
        texts |= own
        cls.__declared__ = {field: texts[field] for field in cls.__struct_fields__}
        if uncompared and options["eq"] and not defined & {"__eq__", "__hash__"}:
            _compare(cls, [field for field in cls.__struct_fields__ if field not in uncompared], options["frozen"])
        if not options["eq"] and "__hash__" not in defined:
            cls.__hash__ = object.__hash__
        if unprinted and "__repr__" not in defined:
            _print(cls, [field for field in cls.__struct_fields__ if field not in unprinted])
        return cls


def _replace_field(namespace: dict[str, Any], name: str, field: Field[Any]) -> None:
    if field.default is not MISSING:
        namespace[name] = field.default
    elif field.default_factory is not MISSING:
        namespace[name] = msgspec.field(default_factory=field.default_factory)
    else:
        del namespace[name]


def _compare(cls: Any, names: list[str], frozen: bool) -> None:
    """Equality and hash by some of the fields."""
    get: Callable[[Any], Any] = attrgetter(*names) if names else lambda value: ()

    def __eq__(self: Any, other: Any) -> Any:
        if self is other:
            return True
        return get(self) == get(other) if other.__class__ is self.__class__ else NotImplemented

    cls.__eq__ = __eq__
    cls.__hash__ = (lambda self: hash(get(self))) if frozen else None


def _print(cls: Any, names: list[str]) -> None:
    cls.__repr__ = lambda self: f"{cls.__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"


def declared(cls: Any) -> dict[str, str]:
    """The fields of a class in order, and the types they are declared with, as text."""
    texts: dict[str, str] = cls.__declared__
    return texts
