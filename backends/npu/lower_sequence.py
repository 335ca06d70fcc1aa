"""The host's sequence: which transfers are given to the edge's channels, in which order, and what is waited for.

Transfers are ordered by the moment of the whole run at which they begin. A channel gets a new one when the one `window` before it is done; all
that this one needs began no later and was given before, so the order cannot deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tridsl.backends.npu.design import Await, Command, Dimension, Direction, HostTensor, Place, Task
from tridsl.backends.npu.dimensions import Bounds, cut, offsets
from tridsl.devices.spec import ArraySpec

Key = tuple[Place, Direction, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """All that a tensor moves through one channel of the edge: for every point of `outer` a transfer (or several) that walks `walk`."""

    tile: Place
    direction: Direction
    channel: int
    tensor: HostTensor
    offset: int
    walk: tuple[Dimension, ...]
    outer: tuple[Dimension, ...] = ()

    @property
    def key(self) -> Key:
        return self.tile, self.direction, self.channel


@dataclass(frozen=True, slots=True, kw_only=True)
class _Transfer:
    start: Fraction
    tensor: str
    offset: int
    dimensions: tuple[Dimension, ...]


def sequence(edges: Sequence[Edge], facts: ArraySpec) -> list[Command]:
    """Tasks and waits of all edges, with descriptors of their tiles. Edges of one channel take turns."""
    channels: dict[Key, list[_Transfer]] = {}
    for edge in edges:
        parts = _transfers(edge, facts)
        channels.setdefault(edge.key, []).extend(
            _Transfer(start=Fraction(n, len(parts)), tensor=edge.tensor.name, offset=offset, dimensions=own) for n, (offset, own) in enumerate(parts)
        )
    sharing: dict[Place, list[Key]] = {}
    for key in channels:
        sharing.setdefault(key[0], []).append(key)
    each = {tile: facts.shim_descriptors // len(keys) for tile, keys in sharing.items()}
    first = {key: n * each[tile] for tile, keys in sharing.items() for n, key in enumerate(keys)}
    window = {key: min(each[key[0]], facts.shim_queue_tasks) for key in channels}
    for transfers in channels.values():
        transfers.sort(key=lambda t: t.start)
    planned = sorted((t.start, position, n) for position, transfers in enumerate(channels.values()) for n, t in enumerate(transfers))
    keys = list(channels)
    commands: list[Command] = []
    for _, position, n in planned:
        key = keys[position]
        transfers, depth = channels[key], window[key]
        transfer = transfers[n]
        tile, direction, channel = key
        if n >= depth:
            commands.append(Await(tile=tile, direction=direction, channel=channel))
        commands.append(
            Task(
                tile=tile, direction=direction, channel=channel, number=first[key] + n % depth, tensor=transfer.tensor, offset=transfer.offset,
                dimensions=transfer.dimensions, token=direction == "in" or n + depth < len(transfers),
            )
        )  # fmt: skip
    for (tile, direction, channel), transfers in channels.items():
        if direction == "in":
            last = min(window[tile, direction, channel], len(transfers))
            commands += [Await(tile=tile, direction=direction, channel=channel)] * last
    return commands


def _transfers(edge: Edge, facts: ArraySpec) -> list[tuple[int, tuple[Dimension, ...]]]:
    size = edge.tensor.element_bytes
    bounds = Bounds(
        own=facts.shim_dimensions, wrap=facts.shim_wrap, inner=facts.shim_wrap * facts.granule_bytes // size,
        step=facts.shim_step_words * facts.granule_bytes // size, iterations=facts.iterations,
    )  # fmt: skip
    outer, own = cut(edge.walk, bounds)
    return [(edge.offset + around + start, own) for around in offsets(edge.outer) for start in offsets(outer)]
