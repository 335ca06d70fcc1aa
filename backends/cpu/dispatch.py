"""Calls from Python with the least overhead: a native function that recognises an op's usual calls and runs their kernels.

    dispatcher = Dispatcher(slow, name="softmax", store=artifacts)
    dispatcher.function(x)                      # not seen before: slow(x), which compiles and then says
    dispatcher.add(Specialisation(...))         # … how calls like this one look
    dispatcher.function(x)                      # recognised natively: no Python code runs

`function` is a built-in function: it has no attributes of its own. An object that has some, and is called as fast, is
an instance of `callable_type(base)` to which the dispatcher was attached (`dispatch_type`); a class attribute `__call__`
is twice as slow, because Python then packs the arguments into a tuple and a dict.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from tridsl.backends.cpu import dispatch_code as native
from tridsl.backends.cpu.dispatch_build import Store, abi_problem, native_dispatch
from tridsl.backends.cpu.dispatch_table import (
    Argument,
    Extent,
    Held,
    Packed,
    ScalarArgument,
    Size,
    Specialisation,
    TensorArgument,
    Unsupported,
)
from tridsl.backends.cpu.dispatch_type import attach, callable_type

__all__ = [
    "Argument",
    "Dispatcher",
    "Extent",
    "Held",
    "ScalarArgument",
    "Size",
    "Specialisation",
    "Store",
    "TensorArgument",
    "abi_problem",
    "callable_type",
]

LIMIT = 8
"""Specialisations a dispatcher tries in turn; calls that need more are the fallback's table to find."""

_FASTCALL_WITH_KEYWORDS = 0x0080 | 0x0002  # METH_FASTCALL | METH_KEYWORDS


class _Control(ctypes.Structure):
    """`%Control` of `dispatch_code`."""

    _fields_ = [
        ("count", ctypes.c_int64), ("specs", ctypes.c_void_p), ("fallback", ctypes.c_void_p), ("out", ctypes.c_void_p)
    ]  # fmt: skip


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p)
    ]  # fmt: skip


class _Guard:
    """Empties the table before the garbage collector takes the specialisations of a dead cycle apart.

    Finalisers run while everything is whole; a call made later, by another object of the cycle, takes the fallback.
    """

    __slots__ = ("control",)

    def __init__(self, control: _Control) -> None:
        self.control = control

    def __del__(self) -> None:
        self.control.count = 0


class Dispatcher:
    """One op's entry point.

    `fallback(*args, **kwargs)` gets every call that no specialisation fits, unchanged, and its result or exception is the
    call's. `function` stays valid after the Dispatcher is gone. Where the native path cannot be used (`abi_problem()`
    says why) `function` is the fallback itself and `add` answers False.
    """

    def __init__(
        self, fallback: Callable[..., Any], *, name: str, doc: str = "", store: Store | None = None
    ) -> None:
        """`doc` may begin with a text signature, `name(x, *, out=None)\\n--\\n\\n`, which `inspect.signature` reads."""
        self._lock = threading.Lock()
        self._packed: list[Packed] = []
        self._control = _Control()
        self._table = (ctypes.c_void_p * LIMIT)()
        code = native_dispatch(store)
        self._code = code
        if code is None:
            self.function = fallback
            return
        out = "out"
        self._control.specs = ctypes.addressof(self._table)
        self._control.fallback = id(fallback)
        self._control.out = id(out)
        method = _MethodDef(
            name.encode(), code.address(native.ENTRY), _FASTCALL_WITH_KEYWORDS, doc.encode() if doc else None
        )
        capsule = _capsule_new()(ctypes.addressof(self._control), None, None)
        # The function's `self`: the native code reads the first item, the others are what it and CPython point to.
        guard = _Guard(self._control)
        self._owner = (capsule, guard, self._control, self._table, method, fallback, out, self._packed, code)
        self.function = _function_new()(ctypes.addressof(method), self._owner, None)

    def __len__(self) -> int:
        return len(self._packed)

    def add(self, specialisation: Specialisation) -> bool:
        """Recognise such calls from now on. False when the native path cannot express them or the table is full.

        Raises ValueError when the arguments do not belong to the executable's signature.
        """
        if self._code is None:
            return False
        try:
            packed = Packed(specialisation)
        except Unsupported:
            return False
        with self._lock:
            count = len(self._packed)
            if count == LIMIT:
                return False
            self._packed.append(packed)
            self._table[count] = packed.address
            self._control.count = count + 1
        return True

    def attach(self, instance: object) -> bool:
        """Let calls of `instance`, made by a class of `callable_type`, come here. False where the native path cannot be used."""
        if self._code is None:
            return False
        attach(instance, self._owner, self._code.address(native.VECTORCALL))
        return True

    def clear(self) -> None:
        """Forget all specialisations. A kernel that is running in another thread keeps what it needs until it is done."""
        with self._lock:
            self._control.count = 0
            dropped = self._packed[:]
            self._packed.clear()
        del dropped  # outside the lock: freeing executables may run other code


@cache
def _capsule_new() -> Any:
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return new(("PyCapsule_New", ctypes.pythonapi))


@cache
def _function_new() -> Any:
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    return new(("PyCFunction_NewEx", ctypes.pythonapi))
