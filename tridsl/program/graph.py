"""A program: calls of ops on values of known shape, in execution order. Frozen and printable; made by `trace`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, Protocol, TypeAlias

from tridsl.dtypes import DType
from tridsl.ir.op import Op, Tensor
from tridsl.program.realise import Served, Target
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor of the program. `layout` is a codec's name for packed inputs."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    layout: str = "row"

    @property
    def bytes(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count * self.dtype.storage_bytes

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """A value as an input: broadcast to `shape` by NumPy's rules (missing and size-1 leading axes repeat)."""

    value: str
    shape: tuple[int, ...]


Input: TypeAlias = Operand | bool | int | float


class Origin(Protocol):
    """What knows how a call is to run: the op object that was called, or who has evidence of the op that calls were joined to."""

    def schedule(self, target: Target) -> Served: ...

    def train(self, target: Target, done: Callable[[], None]) -> None:
        """Look for a better schedule in the background; `done` is called when there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One call. `op` has constant sizes; `inputs` follow `op.inputs`, `outputs` are the values that `op.outputs` write.

    `label` names the call in plans (`matmul`, or `matmul + gelu` after fusion). Inputs of `inout` parameters are written too.
    `device` is a device name the call asked for, None to let placement decide. A joined call has no `origin`.
    """

    label: str
    op: Op
    inputs: tuple[Input, ...] = ()
    outputs: tuple[str, ...] = ()
    device: str | None = None
    origin: Origin | None = field(default=None, compare=False, repr=False)

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(i.value for i in self.inputs if isinstance(i, Operand)))

    @property
    def updates(self) -> tuple[str, ...]:
        """Values changed in place."""
        return tuple(
            given.value
            for parameter, given in zip(self.op.inputs, self.inputs)
            if isinstance(parameter, Tensor) and parameter.role == "inout" and isinstance(given, Operand)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """`inputs` are passed by the caller, `constants` were captured while tracing (name, array), `outputs` are returned."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    values: tuple[Value, ...]
    constants: tuple[tuple[str, Any], ...] = field(default=(), compare=False, repr=False)

    def value(self, name: str) -> Value:
        return next(v for v in self.values if v.name == name)

    def __str__(self) -> str:
        table = {v.name: v for v in self.values}
        lines = [f"program({', '.join(str(table[name]) for name in self.inputs)}) -> {', '.join(self.outputs)}"]
        for node in self.nodes:
            given = ", ".join(i.value if isinstance(i, Operand) else repr(i) for i in node.inputs)
            lines.append(f"  {', '.join(str(table[o]) for o in node.outputs)} = {node.label}({given})")
        return "\n".join(lines)
