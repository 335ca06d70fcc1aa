"""Where temporaries live: values whose lifetimes do not overlap share memory. Pure."""

from __future__ import annotations

from tridsl.program.graph import Graph
from tridsl.structs import dataclass

ALIGNMENT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """`value` takes `bytes` from the node numbered `first`, which writes it, to the node `last`, which reads it last."""

    value: str
    bytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """Byte `offsets` of the temporaries in one allocation of `bytes`."""

    bytes: int
    offsets: tuple[tuple[str, int], ...]


def lifetimes(graph: Graph) -> tuple[Lifetime, ...]:
    """Lifetimes of the temporaries: values that a node makes and the program does not return."""
    table = {v.name: v for v in graph.values}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, node in enumerate(graph.nodes):
        for name in node.outputs:
            first[name] = last[name] = number
        for name in node.reads:
            last[name] = number
    return tuple(
        Lifetime(value=name, bytes=table[name].bytes, first=first[name], last=last[name])
        for name in first
        if name not in graph.outputs
    )


def arena(spans: tuple[Lifetime, ...]) -> Arena:
    """Offsets such that values alive at one time do not overlap: largest first, each at the lowest free place.

    Greedy by size is within a few percent of optimal on real networks (Pisarchyk and Lee, "Efficient memory management
    for deep neural net inference", 2020).
    """
    placed: list[tuple[int, int, Lifetime]] = []
    total = 0
    for span in sorted(spans, key=lambda s: (-s.bytes, s.first, s.value)):
        size = -(-span.bytes // ALIGNMENT) * ALIGNMENT
        offset = 0
        for start, end, other in sorted(placed, key=lambda p: p[0]):
            if other.first <= span.last and span.first <= other.last:  # a node's inputs and outputs coexist
                if start - offset >= size:
                    break
                offset = max(offset, end)
        placed.append((offset, offset + size, span))
        total = max(total, offset + size)
    return Arena(bytes=total, offsets=tuple(sorted((span.value, offset) for offset, _, span in placed)))
