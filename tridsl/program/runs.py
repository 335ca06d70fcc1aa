"""Neighbouring launches on one device that has memory of its own run as one: what passes between them stays there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tridsl.program.graph import Graph, Node, Operand
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Nodes `first` to `end` (without it). `uploads` are values that come from the host, `downloads` those that go back to it;
    what is in neither lives and dies on the device."""

    first: int
    end: int
    uploads: tuple[str, ...]
    downloads: tuple[str, ...]


def runs(graph: Graph, devices: Sequence[str], recording: Collection[str]) -> tuple[Run, ...]:
    """All nodes, in order, with node n on `devices[n]`. Only devices in `recording` run several launches as one.

    A value that a node sees broadcast is repeated by the host, so whoever made it ran before.
    """
    shapes = {v.name: v.shape for v in graph.values}
    cuts = [0]
    written: set[str] = set()
    for number, node in enumerate(graph.nodes):
        repeated = any(i.value in written and i.shape != shapes[i.value] for i in node.inputs if isinstance(i, Operand))
        same = number and devices[number] == devices[number - 1] and devices[number] in recording
        if number and (repeated or not same):
            cuts.append(number)
            written.clear()
        written.update((*node.outputs, *node.updates))
    ends = [*cuts[1:], len(graph.nodes)]
    return tuple(_run(graph, first, end) for first, end in zip(cuts, ends) if end > first)


def _run(graph: Graph, first: int, end: int) -> Run:
    inside = graph.nodes[first:end]
    uploads: dict[str, None] = {}
    written: dict[str, None] = {}
    for node in inside:
        uploads.update((name, None) for name in node.reads if name not in written)
        written.update((name, None) for name in (*node.outputs, *node.updates))
    outlive = {*graph.outputs, *graph.inputs, *(name for name, _ in graph.constants)} | _read(graph.nodes[end:])
    return Run(first=first, end=end, uploads=tuple(uploads), downloads=tuple(n for n in written if n in outlive))


def _read(nodes: Sequence[Node]) -> set[str]:
    return {name for node in nodes for name in node.reads}
