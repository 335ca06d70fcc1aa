"""Runs the launches of a program over a table of arrays. Knows binaries' executables only; re-entrant and thread-safe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

import numpy as np

from tridsl.backend import Executable
from tridsl.dtypes import NUMPY_TYPES, U8, DType
from tridsl.runtime.memory import allocate
from tridsl.structs import dataclass

if TYPE_CHECKING:
    from numpy.typing import NDArray  # 5 ms of start-up time

KEPT_ARENAS = 2
"""Arenas a program keeps between calls: one, and one more for a concurrent caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Array `number` of the table; broadcast to `shape` where that is set."""

    number: int
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One launch. `slots` follow the kernel's signature. `contiguous`: the device reads contiguous arrays only; those that
    are not (by slot number `written`) are copied back."""

    executable: Executable
    slots: tuple[Reference | bool | int | float, ...]
    threads: int
    contiguous: bool = False
    written: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Temporary:
    """Array `number` of the table, at byte `offset` of the arena."""

    number: int
    dtype: DType
    shape: tuple[int, ...]
    offset: int


@dataclass(slots=True, kw_only=True, eq=False)
class Program:
    """Launches in order over one table of `table_size` arrays, of which the caller fills all but the temporaries."""

    steps: tuple[Step, ...]
    temporaries: tuple[Temporary, ...]
    table_size: int
    arena_bytes: int
    _arenas: list[tuple[tuple[int, NDArray[Any]], ...]] = field(default_factory=list)

    def run(self, arrays: Sequence[tuple[int, NDArray[Any]]], threads: int | None = None) -> None:
        """`arrays` are (table number, array) of inputs, constants and results. Raises what the kernels raise."""
        table: list[Any] = [None] * self.table_size
        for number, array in arrays:
            table[number] = array
        try:
            arena = self._arenas.pop()  # one operation: safe among threads
        except IndexError:
            arena = self._arena()
        try:
            for number, array in arena:
                table[number] = array
            for step in self.steps:
                _launch(step, table, threads or step.threads)
        finally:
            if len(self._arenas) < KEPT_ARENAS:
                self._arenas.append(arena)

    def _arena(self) -> tuple[tuple[int, NDArray[Any]], ...]:
        memory = allocate("temporaries", (self.arena_bytes,), U8)
        views = []
        for t in self.temporaries:
            count = int(np.prod(t.shape, dtype=np.int64)) * t.dtype.storage_bytes
            views.append((t.number, memory[t.offset : t.offset + count].view(NUMPY_TYPES[t.dtype]).reshape(t.shape)))
        return tuple(views)


def _launch(step: Step, table: Sequence[Any], threads: int) -> None:
    slots: list[Any] = [_slot(slot, table) if isinstance(slot, Reference) else slot for slot in step.slots]
    if not step.contiguous:
        step.executable(slots, threads)
        return
    passed = [np.ascontiguousarray(slot) if isinstance(slot, np.ndarray) else slot for slot in slots]
    step.executable(passed, threads)
    for number in step.written:
        if passed[number] is not slots[number]:
            np.copyto(slots[number], passed[number])


def _slot(reference: Reference, table: Sequence[Any]) -> Any:
    array = table[reference.number]
    return array if reference.shape is None else np.broadcast_to(array, reference.shape)
