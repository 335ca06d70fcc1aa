"""What the emission of one shader knows: names, ranges, places, and the text so far."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from tridsl.backends.vulkan.collective import Lanes
from tridsl.backends.vulkan.glsl_types import ElementType, element_type
from tridsl.backends.vulkan.ranges import Range
from tridsl.backends.vulkan.template import size_text
from tridsl.dtypes import DType
from tridsl.ir.expr import Expr, Load
from tridsl.ir.loop import Stmt

AXES = ("x", "y", "z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a tensor or buffer lives. `strides` in elements. Elements (not values) lie behind `pointer`s, and in `shared`
    where the device can keep them there (`holds_elements`). `varying`: each lane has its own. `aligned`: the first
    element is at a multiple of 16 bytes. `words`: an array of `uvec4` (`words.py`). `count`: of its elements, where that is known."""

    name: str
    dtype: DType
    row: ElementType
    kind: Literal["pointer", "shared", "reg", "fragment"]
    strides: tuple[Expr, ...]
    holds_elements: bool
    varying: bool = False
    aligned: bool = False
    words: bool = False
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """GLSL text of one expression and its GLSL type; an i64 value that is known to fit is an `int`."""

    text: str
    type: str


@dataclass(slots=True, kw_only=True)
class Frame:
    """State of the emission of one phase.

    `local` are the group's lanes along x, y, z; `lanes` maps the loop variables that are bound to lanes to their axis;
    `active` names the bool that says whether this lane takes part (None: all do). `group_axes` are the grid axes that the
    phase uses anywhere, `bound_groups` those whose loop is open, `single_groups` those with one loop in all; `groups` collects
    the extents that say how many workgroups to start. `written_out`: numbers say here how the
    code is built, so they stay in the text; `indexed` is the tensor that they say the place in. `vectors`: fragments of equal rows or columns
    that are loaded already. `functions`: of this shader alone, by name. `numbered`: fragments that hold the numbers of their elements, row by row: their
    types, and how long the rows are.
    """

    features: frozenset[str]
    local: tuple[int, int, int]
    places: dict[str, Place] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)
    lanes: dict[str, str] = field(default_factory=dict)
    groups: dict[str, list[Expr]] = field(default_factory=dict)
    group_axes: frozenset[str] = frozenset()
    bound_groups: frozenset[str] = frozenset()
    single_groups: frozenset[str] = frozenset()
    sizes: frozenset[str] = frozenset()
    buffers: Lanes = field(default_factory=lambda: Lanes(private={}))
    active: str | None = None
    lines: list[str] = field(default_factory=list)
    shared: dict[str, str] = field(default_factory=dict)
    helpers: set[str] = field(default_factory=set)
    pointers: set[DType] = field(default_factory=set)
    words: set[int] = field(default_factory=set)
    word_buffers: frozenset[str] = frozenset()
    fragments: Mapping[str, str] = field(default_factory=dict)
    vectors: dict[tuple[Load, bool], str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    numbered: dict[str, tuple[str, int]] = field(default_factory=dict)
    grouped: bool = False
    aligned_pointers: set[DType] = field(default_factory=set)
    subgroup_axes: Mapping[str, int] = field(default_factory=dict)
    subgroups: dict[str, str] = field(default_factory=dict)
    extensions: set[str] = field(default_factory=set)
    shared_bytes: int = 0
    reduction_sizes: dict[str, tuple[str, int]] = field(default_factory=dict)
    fences_global: bool = False
    checks: bool = False
    depth: int = 1
    written_out: bool = False
    indexed: str = ""

    @property
    def group_lanes(self) -> int:
        x, y, z = self.local
        return x * y * z

    @property
    def is_flat(self) -> bool:
        """Whether all lanes are along x."""
        return self.local[1:] == (1, 1)

    def lane(self, axis: str) -> str:
        """This lane's place along an axis. Workgroups of several axes are started as one row (`emit`), so that subgroups are whole on
        every driver (Mesa 22's llvmpipe fills them along x alone) and hold neighbours."""
        return f"gl_LocalInvocationID.{axis}" if self.is_flat else f"lane.{axis}"

    def is_collective(self, statement: Stmt) -> bool:
        return self.buffers.is_collective(statement, self.lanes)

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    @contextmanager
    def braces(self, head: str) -> Iterator[None]:
        """`head {` … `}` around what is emitted inside."""
        self.line(f"{head} {{".lstrip())
        self.depth += 1
        yield
        self.depth -= 1
        self.line("}")

    @contextmanager
    def structure(self, written_out: bool = True) -> Iterator[None]:
        """What is emitted inside says how the code is built (extents of what is unrolled, places in local memory)."""
        before, self.written_out = self.written_out, written_out
        yield
        self.written_out = before

    @contextmanager
    def indexing(self, place: Place) -> Iterator[None]:
        """What is emitted inside says where in `place`: a question of size in global memory."""
        before, self.indexed = self.indexed, place.name
        with self.structure(place.kind != "pointer"):
            yield
        self.indexed = before

    def constant(self, value: int, kind: str = "int", *, limit: bool = False) -> str:
        """A number of GLSL type `kind`: a size, unless it is structure (`template.py`). `limit`: what an index stays below."""
        return size_text(value, kind, limit=limit, of="" if limit else self.indexed, written_out=self.written_out)

    def name(self, prefix: str, original: str) -> str:
        """A GLSL identifier for an IR name, the same at every call; unique, no keyword (all have the prefix)."""
        if original not in self.names:
            base = f"{prefix}_{re.sub('[^0-9A-Za-z]+', '_', original).strip('_') or 'x'}"
            taken, name, count = set(self.names.values()), base, 1
            while name in taken:
                count += 1
                name = f"{base}_{count}"
            self.names[original] = name
        return self.names[original]

    def fresh(self, stem: str) -> str:
        """A new identifier that belongs to no IR name."""
        return self.name("t", f"<{stem} {len(self.names)}>")

    def row(self, dtype: DType) -> ElementType:
        """The spelling of `dtype`, noting the extension and helpers that it needs."""
        row = element_type(dtype, self.features)
        self.helpers.update(row.helpers)
        if row.extension:
            self.extensions.add(row.extension)
        return row
