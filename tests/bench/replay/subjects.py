"""What is recorded: ops of the library in several shapes, and how their spaces are cut down to a few hundred points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tridsl import stdlib
from tridsl.api.library import resolver_for
from tridsl.check.lift import lift
from tridsl.check.resolve import bind
from tridsl.check.signature import type_choices
from tridsl.check.types import check_op
from tridsl.ir.op import Op, Tensor
from tridsl.syntax.parse import parse


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """`op` of the library, its overload and types, mapped over `lift` leading axes, at each of `shapes`."""

    op: str
    shapes: tuple[Mapping[str, int], ...]
    types: Mapping[str, str] = field(default_factory=dict)
    overload: int = 0
    lift: int = 0
    thin: Mapping[str, int] = field(default_factory=dict)


_TILES = {"vectors": 4, "rows": 8, "depth": 2, "block_columns": 2, "pack_rows": 1, "instruction": 1}


SUBJECTS: tuple[Recorded, ...] = (
    Recorded(op="matmul", types={"T": "f32", "U": "f32"}, thin=_TILES, shapes=(
        {"M": 64, "K": 64, "N": 64}, {"M": 256, "K": 256, "N": 256}, {"M": 500, "K": 500, "N": 500}, {"M": 1024, "K": 128, "N": 1024},
    )),
    Recorded(op="matmul", overload=1, types={"T": "i16"}, thin=_TILES, shapes=(
        {"M": 64, "K": 64, "N": 64}, {"M": 256, "K": 256, "N": 256}, {"M": 384, "K": 1000, "N": 384}, {"M": 512, "K": 512, "N": 512},
    )),
    Recorded(op="softmax", lift=1, types={"T": "f32"}, thin={"columns": 2, "r.inline": 1, "stream": 1}, shapes=(
        {"B0": 64, "N": 512}, {"B0": 256, "N": 256}, {"B0": 1024, "N": 1024}, {"B0": 17, "N": 10000},
    )),
    Recorded(op="rmsnorm", lift=1, types={"T": "f32"}, thin={"columns": 5}, shapes=(
        {"B0": 64, "N": 512}, {"B0": 256, "N": 256}, {"B0": 1024, "N": 1024}, {"B0": 17, "N": 10000},
    )),
    Recorded(op="layernorm", lift=1, types={"T": "f32"}, thin={"columns": 3, "mean.inline": 1, "stream": 1}, shapes=(
        {"B0": 64, "N": 512}, {"B0": 256, "N": 256}, {"B0": 1024, "N": 1024}, {"B0": 17, "N": 10000},
    )),
    Recorded(op="edges", shapes=(
        {"H": 128, "W": 128}, {"H": 480, "W": 640}, {"H": 1080, "W": 1920}, {"H": 100, "W": 5000},
    )),
    Recorded(op="sobel_edges", shapes=(
        {"H": 128, "W": 128}, {"H": 480, "W": 640}, {"H": 1080, "W": 1920}, {"H": 100, "W": 5000},
    )),
    Recorded(op="tgemm", thin={"vectors": 4, "rows": 7, "stream": 1, "strip_rows": 3, "depth": 1, "block_columns": 2, "pack": 2, "instruction": 1}, shapes=(
        {"M": 64, "K": 64, "N": 64}, {"M": 256, "K": 256, "N": 64}, {"M": 512, "K": 1024, "N": 8}, {"M": 640, "K": 640, "N": 128},
    )),
)  # fmt: skip


def name_of(subject: Recorded, shape: Mapping[str, int]) -> str:
    """`matmul-f32-64x64x64`."""
    types = "-".join(dict.fromkeys(subject.types.values()))
    return "-".join(filter(None, (subject.op, types, "x".join(map(str, shape.values())))))


def op_of(name: str, overload: int, types: Mapping[str, str], leading: int) -> Op:
    """The checked op that a recording's header names."""
    bound = bind(parse(stdlib.source(name)), resolver_for(stdlib.source, None))
    found = bound.operations[name][overload]
    chosen = next(c for c in type_choices(found.operation) if all(c[n].name == t for n, t in types.items() if n in c))
    op = check_op(bound, found, chosen)
    inputs = [p for p in op.inputs if isinstance(p, Tensor)]
    # a parameter without axes of its own data (weights, scalars as tensors) stays shared by the rows
    return lift(op, tuple(leading if n == 0 else 0 for n, _ in enumerate(inputs))) if leading else op
