"""Objects with attributes that are called natively: layout, lifetime, garbage collection."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import numpy as np
import pytest

from tests.backends.cpu.test_dispatch import Slow, arrays, axpy, axpy_arguments
from tridsl.backends.cpu import dispatch
from tridsl.backends.cpu.dispatch import Dispatcher, Specialisation, abi_problem, callable_type

pytestmark = pytest.mark.skipif(abi_problem() is not None, reason=f"no native dispatch here: {abi_problem()}")


class Base:
    """Says which engine was called."""

    __slots__ = ("engine", "other")

    def __init__(self, engine: object) -> None:
        self.engine = engine

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return ("engine", args, kwargs)

    def lower(self) -> str:
        return "text"


Op = callable_type(Base)


def attached(engine: object = None) -> tuple[Any, Slow, Dispatcher]:
    slow = Slow()
    made = Dispatcher(slow, name="axpy")
    assert made.add(Specialisation(executable=axpy(), arguments=axpy_arguments()))
    op = Op(engine)
    assert made.attach(op)
    return op, slow, made


def test_before_a_dispatcher_is_attached_call_is_used() -> None:
    op = Op(1)
    assert op(1, b=2) == ("engine", (1,), {"b": 2}) and op.lower() == "text" and isinstance(op, Base)
    assert (Op.__name__, Op.__module__) == ("Base", __name__)


def test_calls_of_an_instance_are_recognised() -> None:
    op, slow, _ = attached(5)
    x, y, z = arrays()
    assert op(2.0, x, y, out=z) is z and z.tolist() == [1.0, 3.0, 5.0, 7.0, 9.0]
    assert op(2.0, x, y=y).tolist() == z.tolist()
    keywords = {"y": y}
    assert op(*[2.0, x], **keywords).tolist() == z.tolist()
    assert next(map(op, [2.0], [x], [y])).tolist() == z.tolist()
    assert slow.calls == [] and op.engine == 5 and op.lower() == "text"
    assert op(x[::-1], a=1) == "slow"
    assert slow.calls[0][1] == {"a": 1}


def test_the_calling_conventions_of_the_interpreter() -> None:
    """A bound method's call passes `PY_VECTORCALL_ARGUMENTS_OFFSET`, which marks the argument count."""

    class Holder:
        method: Any = None

    op, slow, _ = attached()
    Holder.method = op
    x, y, z = arrays()
    assert Holder().method(2.0, x, y, out=z) is z
    assert slow.calls == []
    assert Base.__call__(op, 1)[0] == "engine"


def test_instances_of_subclasses() -> None:
    class Sub(Op):  # type: ignore[misc, valid-type]
        __slots__ = ("more",)

    op = Sub(3)
    op.more = 4
    assert op(1)[0] == "engine"
    made = Dispatcher(Slow(), name="f")
    made.add(Specialisation(executable=axpy(), arguments=axpy_arguments()))
    made.attach(op)
    x, y, _ = arrays()
    result = op(1.0, x, y)  # natively from 3.12 on; through `__call__` before, where subclasses do not inherit the protocol
    assert isinstance(result, np.ndarray) or result[0] == "engine"
    assert (op.engine, op.more) == (3, 4)


def test_references_and_memory() -> None:
    op, slow, made = attached()
    x, y, z = arrays()
    watched = [op, slow, x, y, z, made, type(op)]
    before = [sys.getrefcount(o) for o in watched]
    for _ in range(500):
        op(1.0, x, y)
        op(1.0, x, y, out=z)
        op(1.0, x)
        slow.calls.clear()
    assert [sys.getrefcount(o) for o in watched] == before
    gc.collect()
    kinds = sys.getrefcount(Op)
    for _ in range(200):
        made.attach(Op(1))
    gc.collect()
    assert abs(sys.getrefcount(Op) - kinds) <= 1


def test_an_instance_keeps_what_it_calls_and_is_freed() -> None:
    op, slow, made = attached()
    gone = weakref.ref(slow)
    del slow, made
    gc.collect()
    x, y, _ = arrays()
    assert op(1.0, x, y).tolist() == (x + y).tolist() and op() == "slow"
    del op
    gc.collect()
    assert gone() is None


def test_cycles_through_the_fallback_are_collected() -> None:
    class Engine:
        def __call__(self, *args: Any, **kwargs: Any) -> None:
            return None

    engine = Engine()
    op = Op(engine)
    made = Dispatcher(engine, name="f")
    made.add(Specialisation(executable=axpy(), arguments=axpy_arguments()))
    made.attach(op)
    engine.op, engine.made = op, made  # type: ignore[attr-defined]
    gone = weakref.ref(engine)
    del engine, op, made
    gc.collect()
    assert gone() is None


def test_a_call_from_a_dying_cycle_does_no_harm() -> None:
    x, y, _ = arrays()
    seen: list[Any] = []

    class Last:
        def __init__(self, op: Any) -> None:
            self.op = op

        def __del__(self) -> None:
            try:
                seen.append(self.op(1.0, x, y))
            except SystemError as problem:
                seen.append(problem)

    for _ in range(20):
        op, _, _ = attached()
        op.engine = Last(op)
        del op
        gc.collect()
    assert len(seen) == 20


def test_attaching_again_replaces() -> None:
    op, _, _ = attached()
    other = Dispatcher(lambda *args: "other", name="g")
    other.attach(op)
    x, y, _ = arrays()
    assert op(1.0, x, y) == "other"


def test_the_fallback_may_replace_its_dispatcher() -> None:
    op = Op(None)

    def swap(*args: Any) -> str:
        Dispatcher(lambda *args: "second", name="g").attach(op)
        gc.collect()
        return "first"

    Dispatcher(swap, name="f").attach(op)
    del swap
    assert [op(1), op(1)] == ["first", "second"]


def test_classes_that_cannot_carry_it() -> None:
    class WithDict:
        def __call__(self) -> None: ...

    class Empty:
        __slots__ = ()

        def __call__(self) -> None: ...

    class NotCallable:
        __slots__ = ("a",)

    for base in (WithDict, Empty, NotCallable):
        with pytest.raises(ValueError, match=base.__name__):
            callable_type(base)
    with pytest.raises(TypeError, match="callable_type"):
        Dispatcher(Slow(), name="f").attach(Base(1))


def test_without_native_dispatch_nothing_is_attached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "native_dispatch", lambda store: None)
    op = Op(1)
    assert not Dispatcher(Slow(), name="f").attach(op)
    assert op(1)[0] == "engine"
