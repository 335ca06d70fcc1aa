"""Small kernels by hand, and running them: the emitter's tests compare with the kernel oracle, element by element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from tridsl.backends.cpu.build import build
from tridsl.backends.cpu.driver import CpuExecutable
from tridsl.backends.cpu.emit import emit
from tridsl.backends.cpu.host import host_spec
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import BF16, BOOL, F16, F32, F64, I4, I64, NUMPY_TYPES, TRIT, U4, DType, compute_type
from tridsl.ir.evaluate_kernel import evaluate_kernel
from tridsl.ir.expr import COMPARE, Binary, Cast, Const, Expr, Load, Var
from tridsl.ir.loop import Accumulate, Alloc, Buffer, For, Kernel, LoopKind, Phase, Ref, Space, Stmt, Store
from tridsl.ir.op import Param, Reducer, Role, Scalar, Tensor

Array = np.ndarray[Any, Any]
ALL_TYPES = (BOOL, F16, BF16, F32, F64, I4, U4, TRIT)


@cache
def host() -> DeviceSpec:
    return host_spec()


def const(value: bool | float, dtype: DType = I64) -> Const:
    return Const(value=value, dtype=dtype)


def as_expr(value: Expr | int | str) -> Expr:
    return const(value) if isinstance(value, int) else Var(name=value) if isinstance(value, str) else value


def tensor(name: str, dtype: DType, *shape: Expr | int | str, role: Role = "input", strides: tuple[int, ...] | None = None) -> Tensor:
    steps = None if strides is None else tuple(const(s) for s in strides)
    return Tensor(name=name, dtype=dtype, shape=tuple(map(as_expr, shape)), role=role, strides=steps)


def scalar(name: str, dtype: DType) -> Scalar:
    return Scalar(name=name, dtype=dtype)


def raw(name: str, dtype: DType, *position: Expr | int | str, mask: Expr | None = None, other: Expr | None = None) -> Load:
    return Load(tensor=name, index=tuple(map(as_expr, position)), dtype=dtype, mask=mask, other=other)


def load(name: str, dtype: DType, *position: Expr | int | str, mask: Expr | None = None, other: Expr | None = None) -> Expr:
    """In its compute type."""
    node = raw(name, dtype, *position, mask=mask, other=other)
    wide = compute_type(dtype)
    return node if wide == dtype else Cast(a=node, dtype=wide)


def ref(name: str, *position: Expr | int | str) -> Ref:
    return Ref(tensor=name, index=tuple(map(as_expr, position)))


def store(name: str, *position: Expr | int | str, value: Expr, mask: Expr | None = None) -> Store:
    return Store(target=ref(name, *position), value=value, mask=mask)


def op(name: str, a: Expr, b: Expr) -> Binary:
    return Binary(op=name, a=a, b=b, dtype=BOOL if name in COMPARE else a.dtype)  # type: ignore[arg-type]


def loop(var: str, extent: Expr | int | str, *body: Stmt, kind: LoopKind = "serial", bound: int | None = None, **more: bool) -> For:
    return For(var=var, extent=as_expr(extent), body=tuple(body), kind=kind, bound=bound, **more)


def buffer(name: str, dtype: DType, *shape: Expr | int | str, space: Space = "reg", padded: tuple[bool, ...] = ()) -> Alloc:
    return Alloc(buffer=Buffer(name=name, dtype=dtype, shape=tuple(map(as_expr, shape)), space=space, padded=padded))


def reducer(name: str, dtype: DType, identity: float) -> Reducer:
    merge = op(name, Var(name="a.s", dtype=dtype), Var(name="b.s", dtype=dtype))
    return Reducer(
        name=name, states=("s",), dtypes=(dtype,), identity=(const(identity, dtype),), merge=(merge,), op=name  # type: ignore[arg-type]
    )  # fmt: skip


def accumulate(target: Ref, combine: Reducer, value: Expr, mask: Expr | None = None) -> Accumulate:
    return Accumulate(targets=(target,), reducer=combine, values=(value,), mask=mask)


def kernel(
    name: str, params: Sequence[Param], *body: Stmt, sizes: tuple[str, ...] = (), messages: tuple[str, ...] = (), scratch: tuple[Buffer, ...] = ()
) -> Kernel:
    return Kernel(
        name=name, params=tuple(params), sizes=sizes, phases=(Phase(name=name, body=tuple(body)),), messages=messages, scratch=scratch
    )  # fmt: skip


@cache
def compiled(what: Kernel, spec: DeviceSpec) -> CpuExecutable:
    return CpuExecutable(build(emit(what, spec), spec))


def run(
    what: Kernel, arguments: Mapping[str, Any], sizes: Mapping[str, int] | None = None, *, threads: int = 1, spec: DeviceSpec | None = None
) -> dict[str, Array]:
    """What the compiled kernel leaves in its inout and output tensors."""
    sizes = sizes or {}
    written: dict[str, Array] = {}
    slots: list[Any] = []
    for param in what.params:
        if isinstance(param, Scalar) or param.role == "input":
            slots.append(arguments[param.name])
        elif param.role == "inout":
            written[param.name] = arguments[param.name].copy()
            slots.append(written[param.name])
        else:
            shape = tuple(_extent(e, sizes) for e in param.shape)
            written[param.name] = np.full(shape, 1, NUMPY_TYPES[param.dtype])
            slots.append(written[param.name])
    compiled(what, spec or host())([*slots, *(sizes[n] for n in what.sizes)], threads)
    return written


def _extent(expression: Expr, sizes: Mapping[str, int]) -> int:
    from tridsl.ir.affine import evaluate_index

    return evaluate_index(expression, sizes)


def agrees(
    what: Kernel,
    arguments: Mapping[str, Any],
    sizes: Mapping[str, int] | None = None,
    *,
    rtol: float = 1e-6,
    spec: DeviceSpec | None = None,
    threads: int = 1,
) -> None:
    """The compiled kernel gives what the oracle gives: integers and NaNs exactly, floats within `rtol`."""
    expected = evaluate_kernel(what, arguments, sizes or {})
    actual = run(what, arguments, sizes, spec=spec, threads=threads)
    for name, want in expected.items():
        got = actual[name]
        if np.dtype(want.dtype).kind in "biu":
            np.testing.assert_array_equal(got, want, err_msg=name)
        else:
            np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=rtol, atol=rtol, err_msg=name)


def values(dtype: DType, shape: int | tuple[int, ...], seed: int = 0) -> Array:
    """Random elements over the dtype's range (floats: a few units around 0)."""
    generator = np.random.default_rng(seed)
    if dtype.is_float:
        return generator.normal(size=shape).astype(NUMPY_TYPES[dtype])
    low, high = dtype.low, dtype.high
    assert low is not None and high is not None
    return generator.integers(low, high, shape, endpoint=True).astype(NUMPY_TYPES[dtype])
