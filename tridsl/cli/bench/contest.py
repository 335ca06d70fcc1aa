"""A case made ready: arguments, result arrays, our call, the reference answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tridsl.api.calls import result_shapes
from tridsl.api.engine import Engine, Services
from tridsl.autotune.answers import Agreement, compare
from tridsl.buffer import pack
from tridsl.check.sizes import solve
from tridsl.cli.bench import peers
from tridsl.cli.bench.arrays import aligned, rehomed
from tridsl.cli.bench.cases import Case
from tridsl.cli.bench.rows import own_kernels
from tridsl.cli.targets import Target, choose, complete, find_target, lifted, scalar_values, with_all_axes
from tridsl.diagnostics import error
from tridsl.dtypes import NUMPY_TYPES, TRIT
from tridsl.ir.evaluate import evaluate_op
from tridsl.ir.op import Op, Scalar
from tridsl.schedule.analyse import work
from tridsl.structs import dataclass, replace

ORACLE_WORK = 2_000_000_000
"""Scalar operations up to which the interpreter is the reference where there is no formula."""
FORMULA_WORK = 20_000_000
"""Scalar operations from which a NumPy formula in f64 is the reference, where there is one (tests compare the two at small sizes)."""
OWN = "bench:"
"""How a case names an op of `kernels.tri` of this package."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A case with its arguments and arrays for its results, each beginning at a cache line. `bytes`: of all of them; `written`: of the
    results."""

    case: Case
    target: Target
    op: Op
    whole: Op
    sizes: Mapping[str, int]
    arguments: Mapping[str, Any]
    outs: tuple[Any, ...]
    bytes: int
    written: int

    @property
    def plain(self) -> dict[str, Any]:
        """The arguments as a library takes them: packed ones decoded."""
        return plain(self.arguments)


def plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Packed arguments decoded, the others as they are."""
    return {n: rehomed(np.asarray(v)) if hasattr(v, "layout") else v for n, v in arguments.items()}


def target_of(case: Case, services: Services) -> Target:
    """The op of a case."""
    text = case.operation
    return find_target(f"{own_kernels()}:{text.removeprefix(OWN)}" if text.startswith(OWN) else text, services)


def prepare(case: Case, services: Services, seed: int = 0, *, arrays: Mapping[str, Any] | None = None) -> Prepared:
    """Random arguments of a case (but for the `arrays` that are given), trits packed, and arrays for its results. Scalars that the case
    leaves out have their default, or 1."""
    target = target_of(case, services)
    said = case.given
    op = choose(target, said, {})
    unsaid = {p.name: 1.0 if p.dtype.is_float else int(p.dtype.is_integer) for p in op.params if isinstance(p, Scalar) and p.default is None}
    said = replace(said, scalars={**unsaid, **said.scalars})
    plain = complete(op, said, arrays or {}, seed)
    tensors = {t.name: plain[t.name].shape for t in op.tensors if t.role != "output"}
    whole = lifted(op, replace(said, shapes={**said.shapes, **tensors}), {})
    numbers = scalar_values(op, plain)
    sizes = solve(whole, tensors, numbers)
    shapes = result_shapes(whole, {**numbers, **sizes})
    packed = {n: pack(v, "t16") for t in op.tensors if t.dtype == TRIT and t.role != "output" for n, v in ((t.name, plain[t.name]),) if v.ndim == 2}
    outs = tuple(aligned(shapes[t.name], NUMPY_TYPES[t.dtype]) for t in op.outputs)
    arguments = {name: rehomed(value) for name, value in {**plain, **numbers, **packed}.items()}
    read = sum(getattr(a, "array", a).nbytes for a in arguments.values() if hasattr(a, "array") or hasattr(a, "nbytes"))
    return Prepared(
        case=case, target=target, op=op, whole=whole, sizes=sizes, arguments=arguments, outs=outs,
        bytes=read + sum(o.nbytes for o in outs), written=sum(o.nbytes for o in outs),
    )  # fmt: skip


def caller(ready: Prepared, services: Services, device: str, threads: int) -> Callable[[Mapping[str, Any], tuple[Any, ...]], Any]:
    """The op as a Python program calls it, into arrays that are there. An op object of its own, so the first call finds or compiles."""
    op: Any = ready.target.op_object(services)
    names = tuple(p.name for p in ready.op.inputs if p.name in ready.arguments)
    keywords: dict[str, Any] = {name: str(dtype) for name, dtype in ready.case.types.items()}
    keywords |= {"device": device, "threads": threads}

    def call(arguments: Mapping[str, Any], outs: tuple[Any, ...]) -> Any:
        return op(*[arguments[name] for name in names], out=outs[0] if len(outs) == 1 else outs, **keywords)

    return call


def our_call(ready: Prepared, services: Services, device: str, threads: int) -> Callable[[], Any]:
    """The same call again and again: `caller` with nothing left to do but to call."""
    op: Any = ready.target.op_object(services)
    positional = tuple(ready.arguments[p.name] for p in ready.op.inputs if p.name in ready.arguments)
    keywords: dict[str, Any] = {name: str(dtype) for name, dtype in ready.case.types.items()}
    keywords |= {"device": device, "threads": threads, "out": ready.outs[0] if len(ready.outs) == 1 else ready.outs}
    return lambda: op(*positional, **keywords)


def bound_call(ready: Prepared, services: Services, device: str, threads: int) -> tuple[Engine, tuple[Any, ...], dict[str, Any]]:
    """The op's engine and the arguments of the call, for whoever asks what the call would run."""
    engine = Engine(module=ready.target.module, name=ready.target.name, services=services)
    positional = tuple(ready.arguments[p.name] for p in ready.op.inputs if p.name in ready.arguments)
    keywords: dict[str, Any] = {name: str(dtype) for name, dtype in ready.case.types.items()}
    return engine, positional, keywords | {"device": device, "threads": threads}


def reference(ready: Prepared) -> dict[str, Any]:
    """Results in f64 on the same (rounded) inputs."""
    arguments = ready.plain
    total = sum(work(stage, ready.sizes) or 0 for stage in ready.whole.stages)
    formula = peers.NUMPY.get(ready.op.name) if ready.case.is_ours else None
    if total <= FORMULA_WORK or formula is None:
        if total > 50 * ORACLE_WORK:
            raise error("E0816", f"`{ready.op.name}` at {ready.case.title} is too large to be checked before it is timed", help="bench smaller sizes")
        return evaluate_op(ready.whole, with_all_axes(ready.op, ready.whole, arguments), ready.sizes, exact=True)
    wide = {n: v.astype(np.float64) if isinstance(v, np.ndarray) and v.dtype.kind not in "iu" else v for n, v in arguments.items()}
    outs = [np.zeros(o.shape, o.dtype if t.dtype.is_integer else np.float64) for o, t in zip(ready.outs, ready.op.outputs)]
    call = formula(wide, outs)
    assert call is not None, "a formula takes f64"
    return _named(ready, call())


def _named(ready: Prepared, results: Any) -> dict[str, Any]:
    """Results by name; run-time lengths from the arrays that were returned."""
    several = results if isinstance(results, tuple) else (results,)
    named: dict[str, Any] = {t.name: np.asarray(a) if not hasattr(a, "numpy") else _array(a) for t, a in zip(ready.op.outputs, several)}
    return named | {t.length: np.int64(len(named[t.name])) for t in ready.op.outputs if t.length and t.name in named}


def _array(tensor: Any) -> Any:
    """A torch tensor's elements; bf16 as the f32 it stands for."""
    return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()


def agreement(ready: Prepared, results: Any, exact: Mapping[str, Any], *, peer: bool = False) -> Agreement:
    """Only results that the contestant gives are compared (a library may return values without their positions)."""
    found = _named(ready, results)
    op = replace(ready.op, params=tuple(p for p in ready.op.params if isinstance(p, Scalar) or p.role == "input" or p.name in found))
    return compare(op, found, exact, peer=peer)
