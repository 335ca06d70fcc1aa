"""Which checked op a call means, by element types and ranks: worked out once, then remembered in memory and on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from tridsl.api import records
from tridsl.api.modules import TriModule
from tridsl.ir.expr import Const, Load, Var
from tridsl.ir.op import Axis, Map, Op, Scalar
from tridsl.ir.walk import walk
from tridsl.structs import dataclass, replace


@dataclass(slots=True, kw_only=True, eq=False)
class Family:
    """An op of concrete element types.

    `header` is the op without its stages: enough to solve sizes, check contracts and allocate results. `in_place` are the
    inputs that an output may share memory with. `seen` counts the values each size has had; `dynamic` are the sizes that
    are arguments of the kernel, because the text says `dyn` or because too many values were seen.
    """

    key: str
    header: Op
    in_place: tuple[tuple[str, str], ...]
    load: Callable[[], Op]
    seen: dict[str, set[int]] = field(default_factory=dict)
    dynamic: frozenset[str] = frozenset()
    _op: Op | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def op(self) -> Op:
        """The whole op; parses and checks on first use."""
        with self._lock:
            if self._op is None:
                self._op = self.load()
            return self._op

    def note(self, sizes: Mapping[str, int], limit: int) -> None:
        """Count the values of sizes; one with more than `limit` becomes dynamic."""
        with self._lock:
            for name, value in sizes.items():
                if name not in self.dynamic:
                    values = self.seen.setdefault(name, set())
                    values.add(value)
                    if len(values) > limit:
                        self.dynamic |= {name}
                        del self.seen[name]

    @property
    def scalars(self) -> tuple[Scalar, ...]:
        return tuple(p for p in self.header.params if isinstance(p, Scalar))


def make_family(module: TriModule, key_parts: tuple[Any, ...], load: Callable[[], Op]) -> Family:
    """The family of a call; `load` selects and checks the op when the store does not have its header."""
    key = module.store.key("family", module.digest, *key_parts)
    record = module.store.get(key)
    if record is not None:
        header, in_place = records.from_bytes(record, tuple)
        return Family(key=key, header=header, in_place=in_place, load=load, dynamic=frozenset(header.dynamic))
    op = load()
    header, in_place = replace(op, stages=(), intermediates=(), checks=()), in_place_pairs(op)
    module.store.put(key, records.to_bytes((header, in_place)))
    return Family(key=key, header=header, in_place=in_place, load=load, dynamic=frozenset(op.dynamic), _op=op)


def in_place_pairs(op: Op) -> tuple[tuple[str, str], ...]:
    """(input, output) pairs that may be the same memory: of an op whose stages are all maps over the output's axes and
    read the input at exactly the element they compute, so that no element is read after it was overwritten."""
    if len(op.outputs) != 1 or not all(isinstance(stage, Map) for stage in op.stages):
        return ()
    stages = [stage for stage in op.stages if isinstance(stage, Map)]
    (output,) = op.outputs
    ranges = {tuple((axis.lo, axis.hi) for axis in stage.axes) for stage in stages}
    if len(ranges) != 1:
        return ()
    allowed = []
    for tensor in op.tensors:
        if tensor.role == "input" and tensor.dtype == output.dtype and tensor.shape == output.shape:
            watched = {tensor.name, *(stage.name for stage in stages)}
            loads = (
                (load, stage)
                for stage in stages
                for load in walk(stage)
                if isinstance(load, Load) and load.tensor in watched
            )
            if all(_at_own_element(load, stage.axes) for load, stage in loads):
                allowed.append((tensor.name, output.name))
    return tuple(allowed)


def _at_own_element(load: Load, axes: tuple[Axis, ...]) -> bool:
    starts_at_zero = all(isinstance(axis.lo, Const) and axis.lo.value == 0 for axis in axes)
    return load.boundary is None and starts_at_zero and load.index == tuple(Var(name=axis.name) for axis in axes)
