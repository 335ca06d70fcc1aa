"""One compiled shader for many sizes: the numbers of a shader that come from shapes are specialisation constants.

The emitter marks them (`size_text`); when the body of a shader is complete, they are named in the order in which it uses them, so that
the names do not depend on the values (`name_sizes`). The text declares them with their values:

    layout(constant_id = 0) const int k0 = 4096;

What is compiled is the template, the same text without the values; they are given to the driver, which works them into its machine
code when it makes the pipeline. Shaders of two shapes that differ in sizes only have one template.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LEAST_SIZE = 16
"""Smaller numbers stay in the text, unless they are limits. Shaders of convolutions of five sizes of pictures: 5 from 64 on, 3 from 32, 2 from 16, and
no fewer from 8, 4 or 2; silu_mul over 23 widths: 6, 4, 3 and 3 (lavapipe, counted)."""
LEAST_LIMIT = 2
"""The same of the extents of loops and what indices are compared with."""

_SUFFIXES = {"int": "", "uint": "u", "int64_t": "L"}
"""Of literals, by the GLSL types that sizes have."""

_WIDTHS = {"int": 4, "uint": 4, "int64_t": 8}
_DEFAULT = "1"
"""The value in a template; any other would do."""

_MARK = re.compile(rf"\b(?:size|limit)_({'|'.join(_SUFFIXES)})_(m?)(\d+)(?:_of_\w+)?\b")
_DECLARATION = re.compile(rf"^(layout\(constant_id = (\d+)\) const ({'|'.join(_SUFFIXES)}) \w+ = )(-?\d+)([uL]?;)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A specialisation constant: its `constant_id`, GLSL type and value."""

    number: int
    kind: str
    value: int

    @property
    def name(self) -> str:
        return f"k{self.number}"

    @property
    def declaration(self) -> str:
        return f"layout(constant_id = {self.number}) const {self.kind} {self.name} = {self.value}{_SUFFIXES[self.kind]};"

    @property
    def width(self) -> int:
        return _WIDTHS[self.kind]


def size_text(value: int, kind: str, *, limit: bool = False, of: str = "", written_out: bool = False) -> str:
    """The mark of a size of GLSL type `kind`; its literal where the number is small, or is to be `written_out`. Limits and steps through
    different tensors (`of`) are never one constant: that they are equal would be a coincidence of one shape."""
    if written_out or abs(value) < (LEAST_LIMIT if limit else LEAST_SIZE):
        literal = f"{value}{_SUFFIXES[kind]}"
        return literal if value >= 0 else f"({literal})"
    return f"{'limit' if limit else 'size'}_{kind}_{'m' if value < 0 else ''}{abs(value)}{'_of_' if of else ''}{of}"


def name_sizes(body: str) -> tuple[str, tuple[Size, ...]]:
    """`body` with names for the marks, and what they stand for."""
    found: dict[str, Size] = {}

    def named(mark: re.Match[str]) -> str:
        value = -int(mark[3]) if mark[2] else int(mark[3])
        return found.setdefault(mark[0], Size(number=len(found), kind=mark[1], value=value)).name

    return _MARK.sub(named, body), tuple(found.values())


def split_template(shader: str) -> tuple[str, tuple[Size, ...]]:
    """The template of an emitted shader, and the sizes that make it that shader again."""
    sizes = tuple(Size(number=int(m[2]), kind=m[3], value=int(m[4])) for m in _DECLARATION.finditer(shader))
    return _DECLARATION.sub(rf"\g<1>{_DEFAULT}\g<5>", shader), sizes
