"""Shipped answers: what a search found best on a family of chips, as the scheduler's defaults there.

They come after everything that a user or a schedule text says, and before the automatic default. A row is data in
`answers/<chip>.toml`, written by `tridsl personality ship` from measurements; the chip's name is that of its file in `chips/`.

    [[row]]
    op = "matmul"                                      # with these element types, by tensor
    types = { A = "f32", B = "f32", C = "f32" }
    sizes = "K=512 M=512 N=512"                        # these, or a class of them: "K~2^9/64 M~2^9/64 N~2^9/64" (`schedule.shapes`)
    answers = { "C.rows" = 8, "C.vectors" = 3 }        # to decisions of the automatic schedule
    source = "measured"
    evidence = "K=512 M=512 N=512 ..."                 # what was measured, in words and numbers
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

_FOLDER = Path(__file__).with_name("answers")
Answer = int | str | bool


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answers for one op with certain types at certain sizes, or at all of a class."""

    op: str
    types: dict[str, str]
    sizes: str
    answers: dict[str, Answer]
    source: str
    evidence: str

    @property
    def subject(self) -> tuple[str, tuple[tuple[str, str], ...], str]:
        """What it answers for: of two rows with one subject the later holds."""
        return self.op, tuple(sorted(self.types.items())), self.sizes


class Sheet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of rows."""

    row: tuple[Row, ...] = ()


@cache
def shipped(chip: str) -> Mapping[tuple[str, tuple[tuple[str, str], ...], str], Row]:
    """The rows for chips of this name, by subject; none where there is no file."""
    file = _FOLDER / f"{chip}.toml"
    if not file.is_file():
        return {}
    return {row.subject: row for row in msgspec.toml.decode(file.read_bytes(), type=Sheet).row}


def sheets() -> tuple[str, ...]:
    """Names of the chips that have answers."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.toml")))
