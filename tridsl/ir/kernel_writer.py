"""What the generator of kernel source carries along: lines, names and where tensors live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from typing import Any

from tridsl.dtypes import DType
from tridsl.ir import kernel_values as kv
from tridsl.ir import loop
from tridsl.structs import dataclass


@dataclass(slots=True)
class Place:
    """Where a tensor lives: the list, the variables with its extents, and which checks an access needs."""

    name: str
    memory: str
    extents: tuple[str, ...]
    dtype: DType
    space: str
    may_be_unwritten: bool
    padded: bool
    depth: int  # number of parallel loops around its allocation


@dataclass(slots=True)
class Writer:
    """Emits one kernel. `values` are the objects the source refers to by name."""

    kernel: loop.Kernel
    check_races: bool
    lines: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    scalars: dict[str, str] = field(default_factory=dict)
    loops: list[loop.For] = field(default_factory=list)
    indent: int = 0
    blocks: int = 0
    path: str = "()"
    parallel_depth: int = 0
    has_padded: bool = False
    counter: int = 0

    def fresh(self, prefix: str) -> str:
        self.counter += 1
        return f"{prefix}{self.counter}"

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.line(head)
        self.indent += 1
        yield
        self.indent -= 1

    def call(self, key: str, make: Callable[[], Any]) -> str:
        """The name of a helper function, made once per `key`; it passes POISON on where padded buffers exist."""
        if key not in self.values:
            function = make()
            self.values[key] = kv.poisonous(function) if self.has_padded else function
        return key
