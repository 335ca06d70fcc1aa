"""The native dispatcher: it recognises exactly the calls it was told of, and never loses or leaks a reference."""

from __future__ import annotations

import functools
import gc
import inspect
import itertools
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.backends.cpu import native_objects
from tridsl.backend import Signature
from tridsl.backends.cpu import dispatch_build, openmp
from tridsl.backends.cpu.dispatch import (
    LIMIT,
    Dispatcher,
    ScalarArgument,
    Size,
    Specialisation,
    TensorArgument,
    abi_problem,
)
from tridsl.backends.cpu.driver import CpuExecutable
from tridsl.dtypes import BOOL, F16, F32, F64, I8, I16, I32, I64, TRIT, U8, U32
from tridsl.ir.expr import Var, index
from tridsl.ir.op import Scalar, Tensor
from tridsl.runtime.artifacts import Artifacts

pytestmark = pytest.mark.skipif(abi_problem() is not None, reason=f"no native dispatch here: {abi_problem()}")

F4 = np.dtype(np.float32)
N = (Var(name="n"),)
AXPY = Signature(
    params=(
        Scalar(name="a", dtype=F32),
        Tensor(name="x", dtype=F32, shape=N),
        Tensor(name="y", dtype=F32, shape=N),
        Tensor(name="z", dtype=F32, shape=N, role="output"),
    ),
    sizes=("n",),
)


class Slow:
    """A fallback that remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> str:
        self.calls.append((args, kwargs))
        return "slow"


@functools.cache
def axpy() -> CpuExecutable:
    return native_objects.executable(native_objects.SUM, "axpy", AXPY)


def axpy_arguments(length: int | Size = Size(name="n")) -> tuple[ScalarArgument | TensorArgument, ...]:  # noqa: B008
    return (
        ScalarArgument(name="a", dtype=F32, default=1.0),
        TensorArgument(name="x", dtype=F4, shape=(length,)),
        TensorArgument(name="y", dtype=F4, shape=(length,)),
        TensorArgument(name="z", dtype=F4, shape=(length,), role="output"),
    )


def dispatcher(**more: Any) -> tuple[Callable[..., Any], Slow, Dispatcher]:
    slow = Slow()
    made = Dispatcher(slow, name="axpy", doc="axpy(a, x, y, *, out=None)\n--\n\na * x + y")
    assert made.add(Specialisation(executable=axpy(), arguments=axpy_arguments(), **more))
    return made.function, slow, made


def arrays(count: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.arange(count, dtype=np.float32), np.ones(count, np.float32), np.full(count, np.nan, np.float32)


# --- recognised calls ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release_gil", [False, True])
def test_calls_in_every_usual_form(release_gil: bool) -> None:
    call, slow, _ = dispatcher(release_gil=release_gil)
    x, y, z = arrays()
    want = [1.0, 3.0, 5.0, 7.0, 9.0]
    forms: list[Callable[[], Any]] = [
        lambda: call(2.0, x, y),
        lambda: call(2, x, y),
        lambda: call(2.0, x, y=y),
        lambda: call(y=y, x=x, a=2.0),
        lambda: call(2.0, x, y, None),
        lambda: call(2.0, x, y, out=None),
        lambda: call(2.0, x, y, out=z),
        lambda: call(2.0, x, y, z),
        lambda: call(2.0, out=z, y=y, x=x),
    ]
    for form in forms:
        z[:] = np.nan
        result = form()
        assert type(result) is np.ndarray and result.dtype == np.float32 and result.tolist() == want
    assert call(2.0, x, y, out=z) is z
    assert call(x=x, y=y).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]  # a's default
    assert slow.calls == []


def test_sizes_come_from_the_arguments() -> None:
    call, slow, _ = dispatcher()
    for count in (0, 1, 7, 1000):
        x, y, _ = arrays(count)
        assert np.array_equal(call(3.0, x, y), 3 * x + y)
    assert slow.calls == []


def test_a_stride_of_a_single_element_does_not_matter() -> None:
    call, slow, _ = dispatcher()
    x = np.arange(10, dtype=np.float32)
    assert call(1.0, x[3:4:7], x[::11]).tolist() == [3.0]
    empty = np.zeros((0, 4), np.float32)[:, 1]
    assert call(1.0, empty, empty).shape == (0,)
    assert slow.calls == []


# --- everything else goes to the fallback, unchanged --------------------------------------------------------------------


class Sub(np.ndarray):
    pass


class MyFloat(float):
    pass


def misses() -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    x, y, z = arrays()
    wide = np.zeros(10, np.float32)
    read_only = z.copy()
    read_only.flags.writeable = False
    unaligned = np.zeros(21, np.uint8)[1:].view(np.float32)
    metadata = np.dtype(np.float32, metadata={"unit": "m"})
    return {
        "no arguments": ((), {}),
        "too few": ((2.0, x), {}),
        "too many": ((2.0, x, y, z, z), {}),
        "unknown keyword": ((2.0, x, y), {"device": "cpu"}),
        "argument twice": ((2.0, x, y), {"x": x}),
        "out twice": ((2.0, x, y, z), {"out": z}),
        "output by its own name": ((2.0, x, y), {"z": z}),
        "lists": ((2.0, [1.0], [2.0]), {}),
        "None for an input": ((2.0, x, None), {}),
        "subclass": ((2.0, x.view(Sub), y), {}),
        "matrix": ((2.0, x.view(np.ma.MaskedArray), y), {}),
        "dtype": ((2.0, x.astype(np.float64), y), {}),
        "same width": ((2.0, x.view(np.int32), y), {}),
        "byte order": ((2.0, x.astype(">f4"), y), {}),
        "metadata": ((2.0, x.astype(metadata), y), {}),
        "rank 0": ((2.0, np.float32(1.0), y), {}),
        "0-d array": ((2.0, np.array(1.0, np.float32), y), {}),
        "rank 2": ((2.0, x.reshape(1, 5), y), {}),
        "lengths differ": ((2.0, x, y[:4]), {}),
        "negative stride": ((2.0, x[::-1], y), {}),
        "step": ((2.0, wide[::2], y), {}),
        "broadcast": ((2.0, np.broadcast_to(np.float32(1), (5,)), y), {}),
        "unaligned": ((2.0, unaligned, y), {}),
        "read-only out": ((2.0, x, y), {"out": read_only}),
        "out of another dtype": ((2.0, x, y), {"out": z.astype(np.float64)}),
        "out of another shape": ((2.0, x, y), {"out": wide}),
        "out is no array": ((2.0, x, y), {"out": [1]}),
        "out is a tuple": ((2.0, x, y), {"out": (z,)}),
        "out is an input": ((2.0, x, y), {"out": x}),
        "out overlaps an input": ((2.0, wide[:5], y), {"out": wide[4:9]}),
        "bool for a float": ((True, x, y), {}),
        "subclass of float": ((MyFloat(2.0), x, y), {}),
        "NumPy scalar of another type": ((np.float64(2.0), x, y), {}),
        "text for a float": (("2", x, y), {}),
        "int too large for a double": ((10**400, x, y), {}),
        "finite but infinite in f32": ((1e300, x, y), {}),
    }


@pytest.mark.parametrize("case", list(misses()))
def test_anything_unusual_goes_to_the_fallback_unchanged(case: str) -> None:
    call, slow, _ = dispatcher()
    args, kwargs = misses()[case]
    assert call(*args, **kwargs) == "slow"
    ((seen_args, seen_kwargs),) = slow.calls
    assert len(seen_args) == len(args) and all(a is b for a, b in zip(seen_args, args))
    assert list(seen_kwargs) == list(kwargs) and all(seen_kwargs[k] is kwargs[k] for k in kwargs)


def test_neighbouring_views_do_not_overlap() -> None:
    call, slow, _ = dispatcher()
    memory = np.arange(15, dtype=np.float32)
    call(1.0, memory[:5], memory[10:], out=memory[5:10])
    assert memory[5:10].tolist() == [10.0, 12.0, 14.0, 16.0, 18.0] and slow.calls == []


def test_infinities_and_nan_are_ordinary_floats() -> None:
    call, slow, _ = dispatcher()
    one = np.ones(1, np.float32)
    assert call(float("inf"), one, one)[0] == np.inf and np.isnan(call(float("nan"), one, one)[0])
    assert slow.calls == []


def test_errors_of_the_fallback_pass_through() -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise KeyError(args[0])

    call = Dispatcher(fail, name="f").function
    for _ in range(100):
        with pytest.raises(KeyError, match="what"):
            call("what", x=1)


# --- scalars ------------------------------------------------------------------------------------------------------------

STORE = """
; slots: value (8 bytes), out i64[1]
define i32 @store(ptr %slots, i64 %threads) {
  %value = load i64, ptr %slots
  %out.at = getelementptr i64, ptr %slots, i64 1
  %out = load ptr, ptr %out.at
  store i64 %value, ptr %out
  ret i32 0
}
"""


def storing(argument: ScalarArgument) -> tuple[Callable[..., Any], Slow]:
    signature = Signature(
        params=(Scalar(name="v", dtype=argument.dtype), Tensor(name="out", dtype=I64, shape=(index(1),), role="output")),
        sizes=(),
    )
    slow = Slow()
    made = Dispatcher(slow, name="store")
    output = TensorArgument(name="out", dtype=np.dtype(np.int64), shape=(1,), role="output")
    executable = native_objects.executable(STORE, "store", signature)
    assert made.add(Specialisation(executable=executable, arguments=(argument, output)))
    return made.function, slow


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        (I8, [-128, 127, 0], [128, -129, 2**70, 1.0, True]),
        (U32, [0, 2**32 - 1], [-1, 2**32]),
        (I64, [-(2**63), 2**63 - 1], [2**63, -(2**63) - 1]),
        (I8, [np.int8(-128), np.int8(127)], [np.int16(1), np.uint8(1), np.float32(1)]),
        (U8, [np.uint8(255), np.uint8(0)], [np.int8(1)]),
        (I16, [np.int16(-2), np.int16(32767)], [np.int32(1)]),
        (U32, [np.uint32(2**32 - 1)], [np.int32(1), np.uint64(1)]),
        (I64, [np.int64(-(2**63))], [np.int32(1)]),
        (TRIT, [-1, 1], [np.int8(1)]),
        (BOOL, [True, False, np.True_, np.False_], [1, 0.0, np.int8(1)]),
    ],
)
def test_integers_and_bools(dtype: Any, good: list[Any], bad: list[Any]) -> None:
    call, slow = storing(ScalarArgument(name="v", dtype=dtype))
    assert [int(call(value)[0]) for value in good] == [int(value) for value in good]
    assert slow.calls == []
    assert [call(value) for value in bad] == ["slow"] * len(bad)


def test_floats_fill_the_low_bytes() -> None:
    call, _ = storing(ScalarArgument(name="v", dtype=F32))
    assert call(-1.0)[0] == 0xBF80_0000 and call(-1)[0] == 0xBF80_0000 and call(0.1)[0] == 0x3DCC_CCCD
    call, slow = storing(ScalarArgument(name="v", dtype=F64, default=2.5))
    assert call(0.1).view(np.float64)[0] == 0.1 and call().view(np.float64)[0] == 2.5
    assert call(10**300).view(np.float64)[0] == 1e300 and slow.calls == []


def test_numpy_scalars_fit_a_param_of_their_own_type() -> None:
    call, slow = storing(ScalarArgument(name="v", dtype=F32))
    assert call(np.float32(-1.0))[0] == 0xBF80_0000 and slow.calls == []
    assert call(np.float64(1.0)) == "slow" and call(np.float16(1.0)) == "slow"
    call, slow = storing(ScalarArgument(name="v", dtype=F64))
    assert np.isnan(call(np.float64("nan")).view(np.float64)[0]) and call(np.float64(0.1)).view(np.float64)[0] == 0.1 and slow.calls == []
    assert call(np.float32(1.0)) == "slow"
    call, slow = storing(ScalarArgument(name="v", dtype=I32, constant=-3))
    assert call(np.int32(-3))[0] == -3 and slow.calls == []
    assert call(np.int32(3)) == "slow"


def test_a_constant_fits_only_its_value() -> None:
    call, slow = storing(ScalarArgument(name="v", dtype=I32, constant=-3))
    assert call(-3)[0] == -3 and slow.calls == []
    assert call(3) == "slow" and call() == "slow"
    call, slow = storing(ScalarArgument(name="v", dtype=F64, constant=0.0, default=0.0))
    assert call(0.0)[0] == 0 and call()[0] == 0 and call(-0.0) == "slow"
    call, slow = storing(ScalarArgument(name="v", dtype=F64, constant=1.0, default=0.0))
    assert call(1.0)[0] and call() == "slow"


def test_a_constant_that_the_kernel_does_not_take() -> None:
    slow = Slow()
    made = Dispatcher(slow, name="f")
    arguments = (*axpy_arguments()[:3], ScalarArgument(name="causal", dtype=BOOL, constant=False, default=False))
    assert made.add(Specialisation(executable=axpy(), arguments=(*arguments, axpy_arguments()[3])))
    x, y, _ = arrays()
    assert made.function(1.0, x, y)[0] == 1.0 and made.function(1.0, x, y, causal=False)[0] == 1.0
    assert made.function(1.0, x, y, causal=True) == "slow"


def test_half_precision_scalars_are_left_to_python() -> None:
    signature = Signature(params=(Scalar(name="v", dtype=F16),), sizes=())
    executable = native_objects.executable(native_objects.STATUS, "status", signature)
    made = Dispatcher(Slow(), name="f")
    assert not made.add(Specialisation(executable=executable, arguments=(ScalarArgument(name="v", dtype=F16),)))


# --- shapes, strides, several outputs -----------------------------------------------------------------------------------

NOTHING = "define i32 @nothing(ptr %slots, i64 %threads) {\n ret i32 0\n}"


def shaped(
    arguments: tuple[Any, ...], sizes: tuple[str, ...] = (), **more: Any
) -> tuple[Callable[..., Any], Slow, Dispatcher, bool]:
    params = tuple(
        Tensor(name=a.name, dtype=F32, shape=(), role=a.role) if isinstance(a, TensorArgument) else Scalar(name=a.name, dtype=a.dtype)
        for a in arguments
    )
    executable = native_objects.executable(NOTHING, "nothing", Signature(params=params, sizes=sizes))
    slow = Slow()
    made = Dispatcher(slow, name="f")
    added = made.add(Specialisation(executable=executable, arguments=arguments, **more))
    return made.function, slow, made, added


def test_constant_shapes_and_strides_are_exact() -> None:
    base = np.zeros((8, 6), np.float32)
    call, _, _, _ = shaped((TensorArgument(name="x", dtype=F4, shape=(4, 3), strides=(-48, 8)),))
    assert call(base[::-2, ::2]) is None
    for other in (base[::2, ::2], base[4:, 3:], np.zeros((4, 3), np.float32), base[::-2, ::2].T):
        assert call(other) == "slow"


def test_row_stride_as_a_size() -> None:
    x = TensorArgument(
        name="x", dtype=F4, shape=(Size(name="m"), Size(name="n")), strides=(Size(name="row", scale=4), 4)
    )
    call, _, _, _ = shaped((x,), ("m", "n", "row"))
    base = np.zeros((8, 6), np.float32)
    assert call(base) is None and call(base[:, :3]) is None and call(base[::2]) is None
    assert call(base.T) == "slow" and call(base[::-1]) == "slow"
    odd = np.ndarray((2, 2), np.float32, bytes(64), strides=(6, 4))
    assert call(odd) == "slow"


def test_sizes_relate_arguments_and_shape_the_outputs() -> None:
    m, k, n = (Size(name=name) for name in "mkn")
    arguments = (
        TensorArgument(name="a", dtype=F4, shape=(m, k)),
        TensorArgument(name="b", dtype=F4, shape=(k, n)),
        TensorArgument(name="bias", dtype=F4, shape=(Size(name="n", scale=2, offset=1),)),
        TensorArgument(name="c", dtype=np.dtype(ml_dtypes.bfloat16), shape=(m, Size(name="n", scale=2)), role="output"),
    )
    call, _, _, _ = shaped(arguments, ("m", "k", "n"))
    a, b, bias = np.zeros((2, 3), F4), np.zeros((3, 4), F4), np.zeros(9, F4)
    c = call(a, b, bias)
    assert c.shape == (2, 8) and c.dtype == ml_dtypes.bfloat16 and c.flags.c_contiguous
    assert call(a, b, bias, out=c) is c
    assert call(a, b.T, bias) == "slow" and call(a, b, bias[:8]) == "slow" and call(a, b, bias, out=c[:, :4]) == "slow"


def test_a_size_below_zero_fits_nothing() -> None:
    x = TensorArgument(name="x", dtype=F4, shape=(Size(name="n", offset=2),))
    call, _, _, _ = shaped((x,), ("n",))
    assert call(np.zeros(2, F4)) is None and call(np.zeros(1, F4)) == "slow"


def test_an_output_extent_that_may_be_negative_is_left_to_python() -> None:
    arguments = (
        TensorArgument(name="x", dtype=F4, shape=(Size(name="n"),)),
        TensorArgument(name="y", dtype=F4, shape=(Size(name="n", offset=-2),), role="output"),
    )
    assert not shaped(arguments, ("n",))[3]


def test_several_outputs() -> None:
    n = Size(name="n")
    arguments = (
        TensorArgument(name="x", dtype=F4, shape=(n,)),
        TensorArgument(name="y", dtype=F4, shape=(n,), role="output"),
        TensorArgument(name="i", dtype=np.dtype(np.int32), shape=(), role="output"),
    )
    call, slow, _, _ = shaped(arguments, ("n",))
    x, y, i = np.zeros(3, F4), np.zeros(3, F4), np.zeros((), np.int32)
    made = call(x)
    assert type(made) is tuple and [a.shape for a in made] == [(3,), ()] and made[1].dtype == np.int32
    for result in (call(x, y, i), call(x, out=(y, i))):
        assert result[0] is y and result[1] is i
    partly = call(x, out=(y, None))
    assert partly[0] is y and partly[1].shape == ()
    assert slow.calls == []
    for bad in (y, (y,), (y, i, i), [y, i], (y, y)):
        assert call(x, out=bad) == "slow"


def test_an_inout_tensor_is_checked_like_an_output_and_returned_on_request() -> None:
    arguments = (
        TensorArgument(name="cache", dtype=F4, shape=(4,), role="inout"),
        TensorArgument(name="x", dtype=F4, shape=(4,)),
    )
    call, _, _, _ = shaped(arguments, results=("cache",))
    cache, x = np.zeros(4, F4), np.zeros(4, F4)
    assert call(cache, x) is cache
    assert call(cache, cache) == "slow"
    cache.flags.writeable = False
    assert call(cache, x) == "slow"


def test_alignment() -> None:
    memory = np.zeros(64, np.float32)
    start = (-memory.ctypes.data // 4) % 16
    call, _, _, _ = shaped((TensorArgument(name="x", dtype=F4, shape=(4,), align=64),))
    assert call(memory[start : start + 4]) is None and call(memory[start + 1 : start + 5]) == "slow"
    assert not shaped((TensorArgument(name="y", dtype=F4, shape=(4,), role="output", align=64),))[3]


def test_fixed_keywords() -> None:
    call, slow, _ = dispatcher(keywords=(("device", "cpu"), ("threads", 1)))
    x, y, z = arrays()
    assert call(1.0, x, y, out=z, device="cpu", threads=1) is z and call(threads=1, x=x, y=y, device="cpu") is not None
    assert slow.calls == []
    for more in ({}, {"device": "cpu"}, {"device": "gpu", "threads": 1}, {"device": "cpu", "threads": 2}):
        assert call(1.0, x, y, **more) == "slow"


def test_descriptions_that_contradict_the_kernel_are_refused() -> None:
    a, x, y, z = axpy_arguments()
    made = Dispatcher(Slow(), name="f")
    for wrong in ((a, x, y), (a, x, x, z), (a, z, x, y), (a, x, y, z, x)):
        with pytest.raises(ValueError):
            made.add(Specialisation(executable=axpy(), arguments=wrong))
    with pytest.raises(ValueError, match="no size"):
        made.add(Specialisation(executable=axpy(), arguments=axpy_arguments(Size(name="m"))))
    assert not made.add(Specialisation(executable=axpy(), arguments=axpy_arguments(5)))  # nothing gives n


# --- the chain ----------------------------------------------------------------------------------------------------------


def test_specialisations_are_tried_in_turn_up_to_the_limit() -> None:
    slow = Slow()
    made = Dispatcher(slow, name="f")
    for length in range(LIMIT + 1):
        x = TensorArgument(name="x", dtype=F4, shape=(length,))
        y = TensorArgument(name="y", dtype=F4, shape=(length + 100,), role="output")
        signature = Signature(params=(Tensor(name="x", dtype=F32, shape=()), Tensor(name="y", dtype=F32, shape=())), sizes=())
        executable = native_objects.executable(NOTHING, "nothing", signature)
        assert made.add(Specialisation(executable=executable, arguments=(x, y))) == (length < LIMIT)
    assert len(made) == LIMIT
    for length in range(LIMIT):
        assert made.function(np.zeros(length, F4)).shape == (length + 100,)
    assert made.function(np.zeros(LIMIT, F4)) == "slow"
    made.clear()
    assert made.function(np.zeros(0, F4)) == "slow" and len(made) == 0


def test_the_fallback_may_add_and_clear_during_the_call() -> None:
    x, y, _ = arrays()
    state: dict[str, Any] = {}

    def compile_then_run(*args: Any) -> str:
        state["made"].clear()
        state["made"].add(Specialisation(executable=axpy(), arguments=axpy_arguments()))
        return "compiled"

    state["made"] = Dispatcher(compile_then_run, name="f")
    call = state["made"].function
    assert call(1.0, x, y) == "compiled"
    assert call(1.0, x, y).tolist() == (x + y).tolist()


def test_statuses_raise_and_release() -> None:
    signature = Signature(
        params=(Scalar(name="s", dtype=I32), Tensor(name="y", dtype=F32, shape=(), role="output")),
        sizes=(),
        messages=("index out of range",),
    )
    made = Dispatcher(Slow(), name="f")
    executable = native_objects.executable(native_objects.STATUS, "status", signature)
    output = TensorArgument(name="y", dtype=F4, shape=(1000,), role="output")
    for release in (False, True):
        made.clear()
        arguments = (ScalarArgument(name="s", dtype=I32), output)
        assert made.add(Specialisation(executable=executable, arguments=arguments, release_gil=release))
        mine = np.zeros(1000, F4)
        before = sys.getrefcount(mine)
        for _ in range(100):
            assert made.function(0, out=mine) is mine
            for status, kind, text in ((1, MemoryError, None), (2, IndexError, "out of range"), (3, SystemError, "bug")):
                with pytest.raises(kind, match=text):
                    made.function(status, out=mine)
                with pytest.raises(kind, match=text):
                    made.function(status)
        assert sys.getrefcount(mine) == before


def test_a_failed_allocation_is_a_memory_error() -> None:
    n = Size(name="n")
    arguments = (
        TensorArgument(name="x", dtype=F4, shape=(n,)),
        TensorArgument(name="small", dtype=F4, shape=(n,), role="output"),
        TensorArgument(name="y", dtype=F4, shape=(1 << 50,), role="output"),
    )
    call, _, _, _ = shaped(arguments, ("n",))
    for _ in range(50):
        with pytest.raises(MemoryError):
            call(np.zeros(4, F4))


# --- references and threads ---------------------------------------------------------------------------------------------


def test_reference_counts_are_exact() -> None:
    call, slow, made = dispatcher(keywords=(("device", "cpu"),))
    x, y, z = arrays()
    big = 123456789.5
    objects = [x, y, z, big, F4, made.function, axpy(), slow, None, True, float, np.ndarray]
    results = []

    def every_path() -> None:
        results.append(call(big, x, y, device="cpu"))
        call(big, x, y, out=z, device="cpu")
        call(big, x, y, None, device="cpu")
        call(big, x=x, y=y, device="cpu", out=None)
        call(big, x[::-1], y, device="cpu")
        call(big, x, y, z, out=z, device="cpu")
        call(x)
        results.clear()
        slow.calls.clear()

    every_path()
    gc.collect()
    before = [sys.getrefcount(o) for o in objects]
    for _ in range(500):
        every_path()
    gc.collect()
    after = [sys.getrefcount(o) for o in objects]
    assert max(abs(a - b) for a, b in zip(after, before)) <= 2, list(zip(before, after))


def test_thousands_of_calls_leave_no_memory_behind() -> None:
    call, slow, _ = dispatcher()
    x, y, z = arrays(64)

    def many() -> None:
        for _ in range(3000):
            call(2.0, x, y)
            call(2.0, x, y, out=z)
            call(2, x, y=y, out=None)
            call(2.0, x[::2], y)
            slow.calls.clear()

    many()
    tracemalloc.start()
    try:
        many()
        gc.collect()
        first = tracemalloc.get_traced_memory()[0]
        many()
        gc.collect()
        second = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert second - first < 3000


@pytest.mark.parametrize("release_gil", [False, True])
def test_calls_from_four_threads_while_the_table_changes(release_gil: bool) -> None:
    made = Dispatcher(lambda a, x, y: a * x + y, name="f")
    specialisation = Specialisation(executable=axpy(), arguments=axpy_arguments(), release_gil=release_gil)
    made.add(specialisation)
    wrong: list[str] = []
    done = threading.Event()

    def work(seed: int) -> None:
        x = np.arange(seed, seed + 200, dtype=np.float32)
        y = np.ones(200, np.float32)
        want = 2 * x + y
        for _ in range(2000):
            if not np.array_equal(made.function(2.0, x, y), want):
                wrong.append(f"thread {seed}")

    def change() -> None:
        while not done.is_set():
            made.clear()
            made.add(specialisation)
            done.wait(0.0005)

    changer = threading.Thread(target=change)
    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in (changer, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    changer.join()
    assert wrong == []


def test_everything_lives_as_long_as_the_function_and_no_longer() -> None:
    slow = Slow()
    executable = native_objects.executable(native_objects.SUM, "axpy", AXPY)
    made = Dispatcher(slow, name="axpy")
    made.add(Specialisation(executable=executable, arguments=axpy_arguments()))
    call = made.function
    start = f"{executable.entry & ~0xFFF:x}-"
    gone = weakref.ref(slow)
    del made, executable, slow
    gc.collect()
    x, y, _ = arrays()
    assert call(1.0, x, y).tolist() == (x + y).tolist() and gone() is not None
    assert call() == "slow"
    del call
    gc.collect()
    assert gone() is None
    assert start not in Path("/proc/self/maps").read_text()


def test_a_cycle_through_the_fallback_is_collected() -> None:
    class Op:
        def __init__(self) -> None:
            self.dispatcher = Dispatcher(self.slow, name="op")
            self.dispatcher.add(Specialisation(executable=axpy(), arguments=axpy_arguments()))

        def slow(self, *args: Any) -> None:
            return None

    op = Op()
    gone = weakref.ref(op)
    del op
    gc.collect()
    assert gone() is None


def test_parallel_kernels_get_their_threads() -> None:
    if not openmp.runtime().library:
        pytest.skip("no OpenMP runtime on this machine (libgomp.so.1)")
    signature = Signature(params=(Tensor(name="o", dtype=I64, shape=(index(64),), role="output"),), sizes=())
    output = TensorArgument(name="o", dtype=np.dtype(np.int64), shape=(64,), role="output")
    for threads in (1, 2):
        made = Dispatcher(Slow(), name="team")
        executable = native_objects.executable(native_objects.TEAM, "team", signature)
        made.add(Specialisation(executable=executable, arguments=(output,), threads=threads, release_gil=True))
        out = np.zeros(64, np.int64)
        made.function(out=out)
        assert np.count_nonzero(out[:63]) == threads


# --- around it ----------------------------------------------------------------------------------------------------------


def test_the_function_presents_itself() -> None:
    call, _, _ = dispatcher()
    assert call.__name__ == "axpy" and call.__doc__ == "a * x + y"
    assert list(inspect.signature(call).parameters) == ["a", "x", "y", "out"]
    partial = functools.partial(call)
    partial.lower = 1  # type: ignore[attr-defined]
    x, y, z = arrays()
    assert partial(1.0, x, y, out=z) is z


def test_the_code_is_kept_in_the_store_and_used_without_llvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Artifacts(tmp_path)
    monkeypatch.setattr(dispatch_build, "_STATE", dispatch_build._State())
    assert dispatch_build.native_dispatch(store) is not None and store.show().binaries == 1
    monkeypatch.setattr(dispatch_build, "_STATE", dispatch_build._State())
    monkeypatch.setattr(dispatch_build, "compile_ir", lambda text: pytest.fail("compiled again"))
    made = Dispatcher(Slow(), name="f", store=store)
    made.add(Specialisation(executable=axpy(), arguments=axpy_arguments()))
    x, y, _ = arrays()
    assert made.function(1.0, x, y).tolist() == (x + y).tolist()


def test_a_warm_process_runs_kernels_without_llvm(tmp_path: Path) -> None:
    """What a second process does: host facts, dispatcher and kernel come from files."""
    script = (
        "import sys, numpy as np\nfrom pathlib import Path\n"
        "from tridsl.backend import Binary, Signature\nfrom tridsl.dtypes import F32\n"
        "from tridsl.ir.expr import index\nfrom tridsl.ir.op import Tensor\n"
        "from tridsl.backends.cpu.dispatch import Dispatcher, Specialisation, TensorArgument\n"
        "from tridsl.backends.cpu.driver import CpuDriver\nfrom tridsl.runtime.artifacts import Artifacts\n"
        "folder, store = Path(sys.argv[1]), Artifacts(Path(sys.argv[1]))\n"
        "driver = CpuDriver(cache=folder)\n(device,) = driver.devices()\n"
        "binary = store.read(b'kernel')\n"
        "if binary is None:\n"
        "    from tests.backends.cpu import native_objects\n"
        "    params = (Tensor(name='x', dtype=F32, shape=(index(3),)), Tensor(name='y', dtype=F32, shape=(index(3),), role='output'))\n"
        "    blob = native_objects.object_code(native_objects.COPY3)\n"
        "    binary = Binary(backend='cpu', entry='copy3', blob=blob, signature=Signature(params=params, sizes=()))\n"
        "    store.write(b'kernel', binary)\n"
        "f4 = np.dtype(np.float32)\n"
        "made = Dispatcher(print, name='copy3', store=store)\n"
        "arguments = (TensorArgument(name='x', dtype=f4, shape=(3,)), TensorArgument(name='y', dtype=f4, shape=(3,), role='output'))\n"
        "assert made.add(Specialisation(executable=driver.load(binary, device), arguments=arguments))\n"
        "assert made.function(np.arange(3, dtype=f4)).tolist() == [0.0, 1.0, 2.0]\n"
        "print('llvmlite' in sys.modules)\n"
    )
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", script, str(tmp_path)]
    outputs = [
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, cwd=root).stdout for _ in range(2)
    ]
    assert outputs == ["True\n", "False\n"]


def test_without_the_expected_layout_every_call_takes_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    from tridsl.backends.cpu import dispatch

    monkeypatch.setattr(dispatch, "native_dispatch", lambda store: None)
    slow = Slow()
    made = Dispatcher(slow, name="f")
    assert not made.add(Specialisation(executable=axpy(), arguments=axpy_arguments()))
    assert made.function(1, 2) == "slow"
    made.clear()


def test_a_foreign_array_layout_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_build, "_NUMPY_C_API_VERSION", 0x0300_0000)
    assert "ABI" in (dispatch_build._numpy_problem() or "")
    monkeypatch.undo()
    shifted = itertools.count()
    word = dispatch_build._word
    monkeypatch.setattr(dispatch_build, "_word", lambda address: word(address + 8 * (next(shifted) > 1)))
    assert dispatch_build._numpy_problem() == "NumPy's arrays are laid out differently"
