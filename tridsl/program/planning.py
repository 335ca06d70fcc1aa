"""From a placed graph to a `Plan`: launches in order, fences where a value changes hands, memory for temporaries. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tridsl.plan import Command, Fence, Home, Launch, Place, Plan
from tridsl.program.graph import Graph, Node
from tridsl.program.lifetimes import arena, lifetimes
from tridsl.program.runs import Run, runs


def plan(graph: Graph, devices: Sequence[str], host_devices: Collection[str], recording: Collection[str] = ()) -> Plan:
    """The plan of `graph` with node n on `devices[n]`. Devices outside `host_devices` have memory of their own, so what their
    launches read and write is moved, once a run of launches where the device is in `recording`; the others work in place."""
    table = {v.name: v for v in graph.values}
    commands: list[Command] = []
    written_on: dict[str, str] = {}
    seen_on: dict[str, set[str]] = {}  # devices that have read a value since it was written
    together = [run for run in runs(graph, devices, recording) for _ in range(run.first, run.end)]
    for number, (node, device) in enumerate(zip(graph.nodes, devices)):
        commands += _fences(node, device, written_on, seen_on)
        writes = (*node.outputs, *node.updates)
        moved = 0 if device in host_devices else sum(table[name].bytes for name in _moved(graph, together[number], number))
        commands.append(Launch(label=node.label, device=device, reads=node.reads, writes=writes, moved_bytes=moved))
        for name in node.reads:
            seen_on.setdefault(name, set()).add(device)
        for name in writes:
            written_on[name] = device
            seen_on[name] = {device}
    spans = lifetimes(graph)
    memory = arena(spans)
    offsets = dict(memory.offsets)
    homes: dict[str, Home] = dict.fromkeys(graph.inputs, "argument")
    homes |= {name: "constant" for name, _ in graph.constants}
    places = tuple(
        Place(
            name=v.name,
            dtype=v.dtype,
            shape=v.shape,
            bytes=v.bytes,
            home=homes.get(v.name, "arena" if v.name in offsets else "result"),
            offset=offsets.get(v.name),
        )
        for v in graph.values
    )
    return Plan(
        commands=tuple(commands), places=places, arena_bytes=memory.bytes, unshared_bytes=sum(s.bytes for s in spans)
    )


def _moved(graph: Graph, run: Run, number: int) -> list[str]:
    """Values that cross for node `number` of `run`: up before the first that reads them, down behind the last that writes them."""
    node = graph.nodes[number]
    before = {name for other in graph.nodes[run.first : number] for name in (*other.reads, *other.outputs)}
    later = {name for other in graph.nodes[number + 1 : run.end] for name in (*other.outputs, *other.updates)}
    up = [name for name in node.reads if name in run.uploads and name not in before]
    return [*up, *(name for name in (*node.outputs, *node.updates) if name in run.downloads and name not in later)]


def _fences(node: Node, device: str, written_on: dict[str, str], seen_on: dict[str, set[str]]) -> list[Fence]:
    """Read after write on another device, once each; and, for values changed in place, write after another device's reads."""
    waits: dict[str, list[str]] = {}
    for name in node.reads:
        if name in written_on and device not in seen_on[name]:
            waits.setdefault(written_on[name], []).append(name)
    for name in node.updates:
        for reader in sorted(seen_on.get(name, set()) - {device}):
            waits.setdefault(reader, []).append(name)
    return [
        Fence(finishing=other, waiting=device, values=tuple(dict.fromkeys(names))) for other, names in waits.items()
    ]
