"""What holds the tiles of a stream in one memory, and what a descriptor there moves."""

from __future__ import annotations

from dataclasses import dataclass

from tridsl.backends.npu.design import Dimension
from tridsl.backends.npu.lower_streams import Lane


def line(lane: Lane, tiles: int = 1) -> tuple[Dimension, ...]:
    return (Dimension(size=lane.elements * tiles, stride=1),)


def strip(lane: Lane) -> tuple[Dimension, ...]:
    """What a core takes at a time."""
    return (Dimension(size=lane.elements // lane.strips, stride=1),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Buffers of a stream, and the locks of each (most have the same)."""

    buffers: tuple[str, ...]
    empty: tuple[str, ...]
    full: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a descriptor moves: which of a stream's buffers, from where in it, how, and whether it is filled (else emptied); `count` of its locks."""

    held: Held
    buffer: int
    dimensions: tuple[Dimension, ...]
    fills: bool
    offset: int = 0
    count: int = 1
