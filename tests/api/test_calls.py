"""Calls: what may be passed, what comes back, what is refused before anything runs."""

from __future__ import annotations

import contextlib
import copy
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tridsl
from tridsl.api import engine
from tridsl.api.ops import Namespace
from tridsl.diagnostics import TriError

TEXT = """
# z = a x + y
op saxpy(a: f32, x: f32[N], y: f32[N]) -> z: f32[N] {
  z[i] = a * x[i] + y[i]
}
op scale[T in {f32, f64, f16, bf16, i32}](x: T[N], s: T) -> y: T[N] {
  y[i] = x[i] * s
}
op rows(x: f32[M, N]) -> y: f32[M] {
  y[i] = sum[j](x[i, j])
}
op both(x: f32[N], low: f32 = -1.0, high: f32 = 1.0) -> (a: f32[N], b: f32[N]) where low <= high {
  a[i] = max(x[i], low)
  b[i] = min(x[i], high)
}
op power(x: i32[N], const n: i32 = 2) -> y: i32[N] where n >= 1 {
  y[i] = x[i] * n
}
op above(x: f32[N], t: f32) -> (y: f32[..N], pos: i32[..N]) {
  y   = compact[i](x[i], x[i] >= t)
  pos = compact[i](i, x[i] >= t)
}
op bump(inout x: f32[N], by: f32) {
  x[i] = x[i] + by
}
op shift(x: f32[N]) -> y: f32[N] {
  y[i] = x[i - 1; pad=0]
}
op dots(W: trit[M, K], x: i8[K]) -> y: i32[M] {
  y[m] = sum[k; acc=i32](W[m, k] * x[k])
}
op gather(T: f32[V], ids: i32[N]) -> y: f32[N] {
  y[n] = T[ids[n]]
}
op grow(dyn N, x: f32[N]) -> y: f32[N] {
  y[i] = x[i] + 1
}
op outer(x: f32[M], y: f32[N]) -> z: f32[M, N] {
  z[i, j] = x[i] * y[j]
}
op first_max(x: f32[N]) -> y: f32 {
  y = max[n](x[n])
}
"""


@pytest.fixture(scope="module")
def ops(compile_text: Callable[[str], Namespace]) -> Namespace:
    return compile_text(TEXT)


@pytest.fixture
def x(random: np.random.Generator) -> np.ndarray:
    return random.standard_normal(40).astype(np.float32)


def refused(code: str, *words: str) -> Any:
    """The call raises TriError `code`, whose text has all `words`."""
    return pytest.raises(TriError, match=r"(?s)error\[" + code + r"\].*" + ".*".join(map(_escape, words)))


def _escape(word: str) -> str:
    import re

    return re.escape(word)


# What comes in


def test_positional_keyword_and_default_arguments(ops: Namespace, x: np.ndarray) -> None:
    want = np.float32(2) * x + x
    assert np.allclose(ops.saxpy(2.0, x, x), want)
    assert np.allclose(ops.saxpy(y=x, x=x, a=2), want)
    a, b = ops.both(x)
    assert np.array_equal(a, np.maximum(x, -1)) and np.array_equal(b, np.minimum(x, 1))
    a, b = ops.both(x, high=0.5)
    assert np.array_equal(b, np.minimum(x, np.float32(0.5)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int32])
def test_results_have_the_inputs_type(ops: Namespace, dtype: Any) -> None:
    array = np.arange(17).astype(dtype)
    y = ops.scale(array, 3)
    assert y.dtype == dtype and np.array_equal(y, array * dtype(3))


def test_a_const_parameter_is_part_of_the_kernel(ops: Namespace) -> None:
    array = np.arange(9, dtype=np.int32)
    for n in (2, 3, 2):
        assert np.array_equal(ops.power(array, n), array * n)
    assert np.array_equal(ops.power(array), array * 2)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::-1],
        lambda a: a[::3],
        lambda a: a[5:],
        lambda a: np.broadcast_to(a[:1], (40,)),
        lambda a: a.reshape(8, 5)[:, 2],
        lambda a: a[:0],
        lambda a: a[:1],
    ],
)
def test_any_strides_are_read_in_place(ops: Namespace, x: np.ndarray, view: Callable[[np.ndarray], np.ndarray]) -> None:
    array = view(x)
    for _ in range(2):  # the second call takes the native path where there is one
        assert np.allclose(ops.saxpy(2.0, array, array), 3 * array)
    assert np.allclose(ops.saxpy(2.0, array, array), ops.saxpy.reference(2.0, array, array))


def test_transposed_matrices(ops: Namespace, random: np.random.Generator) -> None:
    m = random.standard_normal((6, 9)).astype(np.float32)
    for view in (m, m.T, m[::-1, ::2], m.T[1:], np.asfortranarray(m)):
        assert np.allclose(ops.rows(view), view.sum(axis=1), atol=1e-5)


def test_leading_axes_broadcast_like_numpy(ops: Namespace, random: np.random.Generator) -> None:
    shapes = [((3, 40), (40,)), ((3, 1, 40), (2, 40)), ((40,), (2, 3, 40)), ((1, 40), (5, 40)), ((0, 40), (40,))]
    for a, b in shapes:
        p, q = random.standard_normal(a).astype(np.float32), random.standard_normal(b).astype(np.float32)
        z = ops.saxpy(2.0, p, q)
        assert z.shape == np.broadcast_shapes(a, b) and np.allclose(z, 2 * p + q, atol=1e-6)
    deep = random.standard_normal((2, 1, 4, 5)).astype(np.float32)
    assert np.allclose(ops.rows(deep), deep.sum(axis=-1), atol=1e-5)


class Foreign:
    """A framework's tensor: DLPack only."""

    def __init__(self, array: np.ndarray, device: int = 1) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (self.device, 0)


def from_dlpack(value: Any) -> Foreign:
    return Foreign(np.from_dlpack(value))


def test_dlpack_in_and_out(ops: Namespace, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    z = ops.saxpy(1.0, Foreign(x), x)  # this test module offers `from_dlpack`, as a framework's would
    assert np.allclose(np.from_dlpack(z) if isinstance(z, Foreign) else z, 2 * x)
    module = Foreign.__module__.partition(".")[0]
    framework = type("framework", (), {"from_dlpack": staticmethod(from_dlpack)})
    monkeypatch.setitem(__import__("sys").modules, module, framework)
    z = ops.saxpy(1.0, Foreign(x), x)
    assert isinstance(z, Foreign) and np.allclose(z.array, 2 * x)


def test_arrays_of_other_devices_are_refused(ops: Namespace, x: np.ndarray) -> None:
    with refused("E0526", "`x`", "memory of another device"):
        ops.saxpy(1.0, Foreign(x, device=2), x)


def test_torch_tensors_come_back_as_torch_tensors(ops: Namespace, x: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    z = ops.saxpy(1.0, torch.from_numpy(x), x)
    assert isinstance(z, torch.Tensor) and np.allclose(z.numpy(), 2 * x)
    half = torch.arange(8, dtype=torch.bfloat16)
    assert torch.equal(ops.scale(half, 2.0), half * 2)
    with refused("E0532", "`x`", "detach"):
        ops.saxpy(1.0, torch.from_numpy(x).requires_grad_(), x)


def test_buffer_protocol_and_buffers(ops: Namespace, x: np.ndarray) -> None:
    from array import array

    z = ops.saxpy(1.0, array("f", x), memoryview(x))
    assert type(z) is np.ndarray and np.allclose(z, 2 * x)
    buffer = tridsl.buffer(40, "f32", hint="prefer_gpu")
    view = np.asarray(buffer)
    view[:] = x
    assert np.shares_memory(view, buffer.array)
    z = ops.saxpy(1.0, buffer, buffer)
    assert isinstance(z, tridsl.Buffer) and np.allclose(np.asarray(z), 2 * x)


def test_trits_are_checked_and_packed(ops: Namespace, random: np.random.Generator) -> None:
    w = random.integers(-1, 2, (21, 37)).astype(np.int8)
    v = random.integers(-128, 128, 37).astype(np.int8)
    want = w.astype(np.int32) @ v.astype(np.int32)
    assert np.array_equal(ops.dots(w, v), want)
    packed = tridsl.pack(w, "t16")
    assert np.array_equal(np.asarray(packed), w)
    assert packed.array.nbytes == -(-21 // 16) * -(-37 // 16) * 64
    y = ops.dots(packed, v)
    assert isinstance(y, np.ndarray) and np.array_equal(y, want)
    assert np.array_equal(ops.dots.reference(packed, v), want)
    w[3, 5] = 2
    with refused("E0531", "`W`", "2 at index [3, 5]"):
        ops.dots(w, v)
    with refused("E0531"):
        tridsl.pack(w, "t16")
    with refused("E0540", "t16"):
        tridsl.pack(w, "t17")


# What comes out


def test_out_is_filled_and_returned(ops: Namespace, x: np.ndarray) -> None:
    out = np.empty_like(x)
    assert ops.saxpy(2.0, x, x, out=out) is out and np.allclose(out, 3 * x)
    first, second = np.empty_like(x), np.empty_like(x)
    found = ops.both(x, out=(first, second))
    assert found[0] is first and found[1] is second and np.array_equal(first, np.maximum(x, -1))
    wide = np.full(80, 7, np.float32)
    ops.saxpy(2.0, x, x, out=wide[::2])
    assert np.allclose(wide[::2], 3 * x) and (wide[1::2] == 7).all()
    backwards = np.empty_like(x)
    ops.saxpy(2.0, x, x, out=backwards[::-1])
    assert np.allclose(backwards[::-1], 3 * x)


def test_out_must_fit(ops: Namespace, x: np.ndarray) -> None:
    with refused("E0528", "`z`", "(40,)", "(39,)"):
        ops.saxpy(1.0, x, x, out=np.empty(39, np.float32))
    with refused("E0528", "`z`", "f32", "f64"):
        ops.saxpy(1.0, x, x, out=np.empty(40))
    with refused("E0528", "2 results", "1"):
        ops.both(x, out=np.empty(40, np.float32))
    locked = np.empty(40, np.float32)
    locked.flags.writeable = False
    with refused("E0529", "read-only"):
        ops.saxpy(1.0, x, x, out=locked)


def test_out_over_an_input(ops: Namespace, x: np.ndarray) -> None:
    want = 3 * x
    memory = x.copy()
    assert ops.saxpy(2.0, memory, memory.copy(), out=memory) is memory and np.allclose(memory, want)
    for out in (memory[::-1], np.broadcast_to(memory, (40,))[::-1]):
        with pytest.raises(TriError):
            ops.saxpy(2.0, memory, x, out=out)
    big = np.zeros(60, np.float32)
    with refused("E0530", "overlaps `x`"):
        ops.saxpy(2.0, big[:40], x, out=big[20:])
    with refused("E0530", "overlaps `x`"):  # y[i] reads x[i - 1]
        ops.shift(memory, out=memory)
    with refused("E0530"):
        ops.scale(memory.reshape(5, 8), 2.0, out=memory.reshape(8, 5).T)
    interleaved = np.zeros(80, np.float32)
    ops.saxpy(2.0, interleaved[::2], x, out=interleaved[1::2])  # the ranges overlap, no element does
    assert np.allclose(interleaved[1::2], x)


def test_run_time_lengths_are_exact(ops: Namespace, x: np.ndarray) -> None:
    for threshold in (-10.0, 0.0, 10.0):
        y, pos = ops.above(x, threshold)
        assert np.array_equal(y, x[x >= threshold]) and np.array_equal(pos, np.flatnonzero(x >= threshold))
        assert y.shape == (int((x >= threshold).sum()),)
    assert len(ops.above(x[:0], 0.0)[0]) == 0


def test_inout_is_updated_in_place(ops: Namespace, x: np.ndarray) -> None:
    memory = x.copy()
    for round_ in (1, 2):
        assert ops.bump(memory, 1.0) is None
        assert np.allclose(memory, x + round_)
    strided = np.zeros(80, np.float32)
    ops.bump(strided[::2], 2.0)
    assert (strided[::2] == 2).all() and (strided[1::2] == 0).all()
    memory.flags.writeable = False
    with refused("E0529", "`x`", "read-only"):
        ops.bump(memory, 1.0)
    with refused("E0529", "broadcast view"):
        ops.bump(np.lib.stride_tricks.as_strided(x.copy(), (4,), (0,)), 1.0)


# What is refused


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        (lambda ops, x: ops.saxpy(1.0, x), "E0521", ("missing", "`y`")),
        (lambda ops, x: ops.saxpy(1.0, x, x, x), "E0521", ("3 arguments", "4")),
        (lambda ops, x: ops.saxpy(1.0, x, x, a=2.0), "E0521", ("`a`", "twice")),
        (lambda ops, x: ops.saxpy(1.0, x, z=x), "E0521", ("no parameter `z`",)),
        (lambda ops, x: ops.saxpy(1.0, x, x, devise="cpu"), "E0521", ("did you mean `device`",)),
        (lambda ops, x: ops.saxpy(1.0, x, x.astype(np.float64)), "E0503", ("'y' must be f32, got f64",)),
        (lambda ops, x: ops.saxpy(1.0, x, x.astype(np.complex64)), "E0522", ("`y`", "complex64")),
        (lambda ops, x: ops.saxpy(1.0, x, x.astype(">f4")), "E0525", ("`y`", "astype")),
        (lambda ops, x: ops.saxpy(1.0, x, [1.0]), "E0532", ("`y`", "list", "np.asarray")),
        (lambda ops, x: ops.saxpy(1.0, np.ma.masked_less(x, 0), x), "E0532", ("`x`", "masked", "filled")),
        (lambda ops, x: ops.saxpy(1.0, x.astype(object), x), "E0522", ("`x`", "object")),
        (lambda ops, x: ops.saxpy(1.0, x, 2.0), "E0503", ("'y' needs 1 axis, got a number",)),
        (lambda ops, x: ops.saxpy("1", x, x), "E0532", ("`a`", "str")),
        (lambda ops, x: ops.saxpy(x, x, x), "E0503", ("'a' must be a number",)),
        (lambda ops, x: ops.saxpy(np.float64(2).astype(np.float16), x, x), "E0522", ("`a`", "float16")),
        (lambda ops, x: ops.saxpy(True, x, x), "E0522", ("`a`", "True")),
        (lambda ops, x: ops.saxpy(1e60, x, x), "E0531", ("`a`", "too large")),
        (lambda ops, x: ops.power(np.arange(3, dtype=np.int32), 2.5), "E0522", ("`n`", "2.5")),
        (lambda ops, x: ops.power(np.arange(3, dtype=np.int32), 1 << 40), "E0531", ("`n`", "i32")),
        (lambda ops, x: ops.power(np.arange(3, dtype=np.int32), 0), "E0505", ("n >= 1",)),
        (lambda ops, x: ops.both(x, 2.0, 1.0), "E0505", ("low <= high",)),
        (lambda ops, x: ops.saxpy(1.0, x, x[1:]), "E0504", ("40", "'x'", "39", "'y'")),
        (
            lambda ops, x: ops.saxpy(1.0, x.reshape(2, 20), x.reshape(2, 20)[:1].repeat(3, 0)),
            "E0524",
            ("`x`", "`y`", "2 against 3"),
        ),
        (lambda ops, x: ops.rows(x), "E0503", ("2 axes, got an array of 1",)),
        (lambda ops, x: ops.first_max(x[:0]), "E0505", ("N",)),
        (lambda ops, x: ops.saxpy(1.0, x, x, threads=0), "E0538", ("threads=0",)),
        (lambda ops, x: ops.saxpy(1.0, x, x, device="tpu"), "E0703", ("tpu",)),
        (lambda ops, x: ops.scale(x, 2.0, T="f99"), "E0533", ("T='f99'",)),
        (lambda ops, x: ops.scale(x, 2.0, T="i8"), "E0503", ("'x' must be i8, got f32",)),
        (lambda ops, x: ops.nothing, "E0534", ("nothing", "saxpy")),
    ],
)
def test_wrong_calls_name_the_argument_and_the_fix(
    ops: Namespace, x: np.ndarray, call: Callable[[Any, Any], Any], code: str, words: tuple[str, ...]
) -> None:
    with refused(code, *words):
        call(ops, x)


def test_misaligned_memory_is_refused(ops: Namespace, x: np.ndarray) -> None:
    raw = np.zeros(161, np.uint8)
    with refused("E0525", "`x`", "np.array(x)"):
        ops.saxpy(1.0, raw[1:].view(np.float32), x)


def test_sizes_that_no_memory_holds(ops: Namespace) -> None:
    huge = np.broadcast_to(np.float32(1), (1 << 22, 1 << 22))
    with refused("E0602", "70368744177664 bytes", "available"):
        ops.saxpy(1.0, huge, huge)
    with refused("E0601"):
        line = np.broadcast_to(np.float32(1), (1 << 40,))
        ops.outer(line, line)


def test_a_gather_outside_raises_after_the_call(ops: Namespace, x: np.ndarray) -> None:
    good = np.array([0, 39, 3], np.int32)
    assert np.array_equal(ops.gather(x, good), x[good])
    for bad in ([40], [-1]):
        with pytest.raises(IndexError):
            ops.gather(x, np.array(bad, np.int32))


# How often


def test_declared_dyn_and_many_sizes_share_one_kernel(compile_text: Callable[[str], Namespace], x: np.ndarray) -> None:
    ops = compile_text(TEXT)
    kernels = set()
    for n in range(1, 13):
        assert np.array_equal(ops.grow(x[:n]), x[:n] + 1)
        assert np.allclose(ops.saxpy(2.0, x[:n], x[:n]), 3 * x[:n])
        grow = ops.grow._engine._ready
        kernels |= {id(ready.loaded) for ready in grow.values()}
    assert len(kernels) == 1
    assert (
        len({id(ready.loaded) for ready in ops.saxpy._engine._ready.values()}) == 9
    )  # eight of their own, one for the rest
    assert np.allclose(ops.saxpy(2.0, x[::-1], x), 2 * x[::-1] + x)


def test_calls_from_many_threads(compile_text: Callable[[str], Namespace], random: np.random.Generator) -> None:
    ops = compile_text(TEXT.replace("saxpy", "saxpy2"))
    arrays = [random.standard_normal(n).astype(np.float32) for n in (5, 64, 1000) for _ in range(8)]
    barrier = threading.Barrier(8)

    def work(array: np.ndarray) -> bool:
        if barrier.n_waiting < 8 and not barrier.broken:
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(timeout=2)
        return all(np.allclose(ops.saxpy2(2.0, array, array), 3 * array) for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, arrays))


def test_other_threads_run_while_a_kernel_does(ops: Namespace) -> None:
    """The interpreter's lock is released: a thread that counts gets on during a call, which nothing else would let it."""
    x = np.ones(1 << 22, np.float32)
    z = np.empty_like(x)
    ops.saxpy(2.0, x, x, out=z)  # compiled; from here on calls take the native path where there is one
    count, going = 0, True

    def counting() -> None:
        nonlocal count
        while going:
            count += 1
            time.sleep(0)  # lets go

    def advance(call: Callable[[], object]) -> int:
        before = count
        call()
        return count - before

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=counting)
    try:
        sys.setswitchinterval(60)  # no thread is made to let go: it must do so by itself
        thread.start()
        calls = {"native": lambda: ops.saxpy(2.0, x, x, out=z), "engine": lambda: ops.saxpy._engine(2.0, x, x, out=z)}
        for name, call in calls.items():
            assert any(advance(call) for _ in range(200)), name
    finally:
        going = False
        sys.setswitchinterval(interval)
        thread.join()


def test_the_native_path_answers_and_falls_back(ops: Namespace, x: np.ndarray) -> None:
    ops.saxpy(2.0, x, x)
    if not ops.saxpy._fast.native:
        pytest.skip("the native dispatcher cannot be used with this interpreter")
    assert np.allclose(ops.saxpy(2.0, x, x), 3 * x)
    assert np.allclose(ops.saxpy(2.0, x=x, y=x), 3 * x)
    assert np.allclose(ops.saxpy(np.float32(2), x, x), 3 * x)
    with refused("E0521"):
        ops.saxpy(2.0)
    assert ops.saxpy.__name__ == "saxpy" and ops.saxpy.reference(2.0, x, x).shape == x.shape


@pytest.mark.parametrize("device", ["cpu", "reference", "gpu:software"])
def test_devices_by_name(ops: Namespace, x: np.ndarray, device: str) -> None:
    if device not in ("reference", *map(str, tridsl.devices())):
        pytest.skip(f"no device {device}: its driver is not installed")
    assert np.allclose(ops.saxpy(2.0, x[:7], x[:7], device=device, threads=1), 3 * x[:7])
    wide = np.zeros(14, np.float32)
    ops.saxpy(2.0, x[7:14][::-1], x[:7], out=wide[::2], device=device)
    assert np.allclose(wide[::2], 2 * x[7:14][::-1] + x[:7]) and (wide[1::2] == 0).all()
    found = ops.above(x[:7], 0.0, device=device)[0]
    assert np.array_equal(found, x[:7][x[:7] >= 0])


def test_a_growing_size_is_answered_natively(compile_text: Callable[[str], Namespace], x: np.ndarray) -> None:
    ops = compile_text(TEXT.replace("op saxpy", "op axpy"))
    for n in range(1, 30):
        assert np.allclose(ops.axpy(2.0, x[:n], x[:n]), 3 * x[:n])
    engine, asked = ops.axpy._engine, len(ops.axpy._engine._ready)
    assert np.allclose(ops.axpy(2.0, x[:39], x[:39]), 3 * x[:39])
    if ops.axpy._fast.native:
        assert len(engine._ready) == asked  # the engine was not asked
    with refused("E0504"):
        ops.axpy(2.0, x[:39], x[:38])
    assert np.allclose(ops.axpy(2.0, x[::2], x[::-2]), 2 * x[::2] + x[::-2])


def test_numbers_of_thousands_of_digits_are_refused_in_a_line(ops: Any, x: Any) -> None:
    with pytest.raises(TriError) as caught:
        ops.saxpy(10**5000, x, x)
    assert caught.value.code == "E0531"
    assert "a number of 16610 bits" in str(caught.value)


def test_a_misspelt_op_is_suggested(ops: Any) -> None:
    with pytest.raises(AttributeError, match="did you mean 'saxpy'"):
        _ = ops.sxpy


def test_copies_of_an_op_are_the_op(ops: Any) -> None:
    """Python objects that hold ops (modules of a network, say) can be copied."""
    assert copy.deepcopy({"op": ops.saxpy})["op"] is ops.saxpy
    assert copy.copy(ops.saxpy) is ops.saxpy


class Meta:
    """A tensor without memory, as torch's on device `meta`."""

    def __dlpack__(self, **_: object) -> object:
        raise ValueError("no memory")

    def __dlpack_device__(self) -> tuple[int, int]:
        raise ValueError("Unknown device type meta for Dlpack")


def test_a_tensor_without_memory_is_refused(ops: Any, x: Any) -> None:
    with refused("E0526", "`x`", "meta"):
        ops.saxpy(1.0, Meta(), x)


def test_calls_of_ever_new_shapes_are_not_remembered_for_good(ops: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the table of answered calls nor what the native path has met of them grows with the number of shapes."""
    monkeypatch.setattr(engine, "READY_LIMIT", 16)
    op = ops.above
    for size in range(1, 80):
        x = np.arange(size, dtype=np.float32)
        for _ in range(2):
            assert len(op(x, 0.0)[0]) == size
        assert max(len(op._engine._ready), len(op._fast._met), len(op._fast._offered)) <= 16


MOST = (1 << 63) - 1


def wrapped(number: int) -> int:
    """As 64 bits hold it."""
    return (number + MOST + 1) % (1 << 64) - MOST - 1


@pytest.mark.parametrize(("value", "meaning"), [
    (f"x[i] + {MOST} + {MOST} + {MOST}", lambda x: wrapped(x + 3 * MOST)),
    ("i64(lowest) + i64(-3) + x[i]*0", lambda x: wrapped(-MOST - 1 - 3)),
    (f"x[i] - i64(lowest) - {MOST}", lambda x: wrapped(x + 1)),
    (f"min(x[i] + {MOST} + {MOST}, 5)", lambda x: min(wrapped(x + 2 * MOST), 5)),
])  # fmt: skip
def test_constants_wrap_like_what_is_computed_of_them(value: str, meaning: Callable[[int], int]) -> None:
    """Those that stand beside each other are put together before anything runs, and may leave 64 bits there."""
    x = np.array([1, -5, MOST, -MOST - 1], np.int64)
    op = tridsl.compile(f"op f(x: i64[N]) -> y: i64[N] {{\n y[i] = {value}\n}}").f
    want = [meaning(n) for n in x.tolist()]
    np.testing.assert_array_equal(op(x), want)
    np.testing.assert_array_equal(op.reference(x), want)
