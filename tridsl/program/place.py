"""The seam for placement: who decides which device runs a call. `autotune` implements `Placer`; the default is below."""

from __future__ import annotations

from typing import Protocol

from tridsl.program.graph import Graph


class Placer(Protocol):
    """`placer(graph, fallback)` gives one device name per node. A node's own `device` must be kept; `fallback` is always usable."""

    def __call__(self, graph: Graph, fallback: str) -> tuple[str, ...]: ...


def place(graph: Graph, fallback: str) -> tuple[str, ...]:
    """Every call where it asked to be, the others on `fallback`."""
    return tuple(node.device or fallback for node in graph.nodes)
