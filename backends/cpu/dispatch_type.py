"""Classes whose instances CPython calls natively: objects with methods and attributes, called as fast as a built-in.

    class OpBase:
        __slots__ = ("engine",)
        def __call__(self, *args, **kwargs): ...         # used until a dispatcher is attached

    Op = callable_type(OpBase)
    op = Op(); dispatcher.attach(op)

An instance is laid out as its base says, followed by the pointer that the vectorcall protocol (PEP 590) asks for and by
the dispatcher's owner. The owner is an ordinary slot, seen by the garbage collector. While the pointer is null CPython
calls `__call__`.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")

_DEFAULT, _BASETYPE, _HAVE_VECTORCALL = 0, 1 << 10, 1 << 11  # Py_TPFLAGS_*
_TP_DOC, _TP_MEMBERS = 56, 72  # Py_tp_*
_OBJECT, _SIGNED_SIZE, _READ_ONLY = 16, 19, 1  # Py_T_OBJECT_EX, Py_T_PYSSIZET, Py_READONLY
_OWNER = "_dispatcher_owner"


class _Member(ctypes.Structure):
    """CPython's PyMemberDef."""

    _fields_ = [
        ("name", ctypes.c_char_p), ("type", ctypes.c_int), ("offset", ctypes.c_ssize_t), ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]  # fmt: skip


class _Slot(ctypes.Structure):
    """CPython's PyType_Slot."""

    _fields_ = [("slot", ctypes.c_int), ("value", ctypes.c_void_p)]


class _Spec(ctypes.Structure):
    """CPython's PyType_Spec."""

    _fields_ = [
        ("name", ctypes.c_char_p), ("basicsize", ctypes.c_int), ("itemsize", ctypes.c_int), ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(_Slot)),
    ]  # fmt: skip


def callable_type(base: type[T]) -> type[T]:
    """A subclass of `base` with the same name, whose instances a `Dispatcher` can be attached to.

    `base` has `__slots__` (at least one, in it or above it) and `__call__`, but no `__dict__` and no `__weakref__`: their
    places are CPython's business. Raises ValueError for another.
    """
    plain: Any = base
    if plain.__dictoffset__ or plain.__weakrefoffset__ or plain.__itemsize__ or plain.__basicsize__ <= object.__basicsize__:
        raise ValueError(f"{base.__qualname__} must have __slots__, without __dict__ and __weakref__")
    if not any("__call__" in vars(kind) for kind in base.__mro__):
        raise ValueError(f"{base.__qualname__} has no __call__")
    name = f"{base.__module__}.{base.__qualname__}".encode()
    offset: int = plain.__basicsize__
    members = (_Member * 3)(
        _Member(b"__vectorcalloffset__", _SIGNED_SIZE, offset, _READ_ONLY, None),
        _Member(_OWNER.encode(), _OBJECT, offset + 8, 0, None),
    )
    slots = (_Slot * 2)(_Slot(_TP_MEMBERS, ctypes.addressof(members)))
    flags = _DEFAULT | _BASETYPE | _HAVE_VECTORCALL
    spec = _Spec(name, offset + 16, 0, flags, ctypes.cast(slots, ctypes.POINTER(_Slot)))
    made: type[T] = _type_from_spec()(ctypes.byref(spec), (base,))
    _KEPT.append((name, members, slots, spec))
    return made


_KEPT: list[object] = []
"""What CPython may go on pointing to; a class is made once per process."""


@cache
def _type_from_spec() -> Any:
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.POINTER(_Spec), ctypes.py_object)
    return make(("PyType_FromSpecWithBases", ctypes.pythonapi))


def attach(instance: object, owner: tuple[object, ...], vectorcall: int) -> None:
    """Send calls of `instance` to the native function `vectorcall`, which finds `owner` behind the pointer to it."""
    where = getattr(type(instance), _OWNER, None)
    if where is None:
        raise TypeError(f"{type(instance).__qualname__} was not made by callable_type")
    offset = _vectorcall_offset(type(instance))
    setattr(instance, _OWNER, owner)
    if ctypes.c_void_p.from_address(id(instance) + offset + 8).value != id(owner):
        raise SystemError("instances are laid out differently; this is a bug of tridsl")
    ctypes.c_void_p.from_address(id(instance) + offset).value = vectorcall


def _vectorcall_offset(kind: type) -> int:
    """PyTypeObject.tp_vectorcall_offset, 56 bytes into a 64-bit type object."""
    return ctypes.c_ssize_t.from_address(id(kind) + 56).value
