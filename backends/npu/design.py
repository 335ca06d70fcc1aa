"""`ArrayDesign`: everything that is configured on the array for one kernel, as one frozen value.

The design text, the instruction stream and the simulator's input are all made from it, so what is simulated is what is emitted. Tiles are
(column, row): row 0 is the edge towards the host's memory (shim), row 1 the memory tiles, rows 2 to 5 the cores. Offsets, counts and strides
are in elements of the buffer or tensor; addresses in bytes.

A lock is a semaphore: `acquire n` waits for at least n and takes n, `release n` adds n. Data moves through ports of two locks: `empty` starts at
the number of buffers, `full` at 0.
"""

from __future__ import annotations

from math import prod
from typing import Literal

import msgspec

Place = tuple[int, int]
Direction = Literal["in", "out"]
"""Of a DMA channel, as its tile sees it: `in` writes the tile's memory (S2MM), `out` reads it (MM2S)."""

SHIM, MEMTILE, FIRST_CORE = 0, 1, 2
"""Rows of the array."""


class Value(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all parts: immutable, comparable, hashable, and JSON both ways."""


class Buffer(Value, frozen=True, kw_only=True, tag=True):
    """Memory of a tile, row-major over `shape`. `address` is its first byte in the tile."""

    name: str
    tile: Place
    dtype: str
    shape: tuple[int, ...]
    element_bytes: int
    address: int

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.element_bytes


class Lock(Value, frozen=True, kw_only=True, tag=True):
    name: str
    tile: Place
    number: int
    initial: int


class Dimension(Value, frozen=True, kw_only=True, tag=True):
    size: int
    stride: int


class Descriptor(Value, frozen=True, kw_only=True, tag=True):
    """A buffer descriptor: `acquire`, move the elements at `offset` + `dimensions` (outermost first), `release`, go on with `following`.
    Both locks by `count`: a piece that comes in one transfer and goes in several is as many."""

    number: int
    buffer: str
    offset: int
    dimensions: tuple[Dimension, ...]
    acquire: str
    release: str
    following: int
    count: int = 1

    @property
    def length(self) -> int:
        return prod(d.size for d in self.dimensions)


class Chain(Value, frozen=True, kw_only=True, tag=True):
    """The descriptors of one DMA channel of a core or a memory tile; it starts with the first and never ends."""

    tile: Place
    direction: Direction
    channel: int
    descriptors: tuple[Descriptor, ...]


class End(Value, frozen=True, kw_only=True, tag=True):
    """One end of a stream: a DMA channel."""

    tile: Place
    direction: Direction
    channel: int


class Flow(Value, frozen=True, kw_only=True, tag=True):
    """A stream from one channel to one or several (all get every word)."""

    source: End
    targets: tuple[End, ...]


class Port(Value, frozen=True, kw_only=True, tag=True):
    """A core's side of a stream: buffers taken in turn, and given back in turn. `acquire` and `release` are the locks in front of and behind
    each use."""

    name: str
    buffers: tuple[str, ...]
    acquire: str
    release: str
    writes: bool


class Affine(Value, frozen=True, kw_only=True, tag=True):
    """`constant` + sum of factor * loop variable."""

    terms: tuple[tuple[str, int], ...] = ()
    constant: int = 0


class Argument(Value, frozen=True, kw_only=True, tag=True):
    """What a kernel function gets: a held buffer of a port (`ahead` behind the oldest), a buffer of the core, or a number."""

    port: str | None = None
    ahead: int = 0
    buffer: str | None = None
    number: Affine | None = None


class Invoke(Value, frozen=True, kw_only=True, tag=True):
    function: str
    arguments: tuple[Argument, ...]


class Acquire(Value, frozen=True, kw_only=True, tag=True):
    port: str


class Release(Value, frozen=True, kw_only=True, tag=True):
    port: str


class Wait(Value, frozen=True, kw_only=True, tag=True):
    """Waits for a lock that the host's sequence sets, and takes it."""

    lock: str


class Repeat(Value, frozen=True, kw_only=True, tag=True):
    variable: str
    count: int
    body: tuple[Repeat | Invoke | Acquire | Release | Wait, ...]


Step = Repeat | Invoke | Acquire | Release | Wait


class Core(Value, frozen=True, kw_only=True, tag=True):
    """What a core does for each run of the host's sequence, again and again. `scalars`: the buffer that the host writes scalar parameters to."""

    tile: Place
    ports: tuple[Port, ...]
    program: tuple[Step, ...]
    stack_bytes: int
    scalars: str | None = None


class Function(Value, frozen=True, kw_only=True, tag=True):
    """A function of the kernel text. `parameters`: (C++ name, element type, whether a pointer)."""

    name: str
    parameters: tuple[tuple[str, str, bool], ...]


class HostTensor(Value, frozen=True, kw_only=True, tag=True):
    """An argument in the host's memory as the array sees it: `shape`, rounded up so that every transfer stays inside, row-major.

    `given` is the shape of the parameter, a corner of it; `axes` says which axis of the parameter each axis is (empty: the flattened parameter).
    `before`: elements in front of the parameter along each axis (empty: none). What lies around it is its own `edge`, or `filler` (raw bits)."""

    name: str
    dtype: str
    element_bytes: int
    given: tuple[int, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None
    role: Literal["input", "output"]
    before: tuple[int, ...] = ()
    edge: bool = False
    filler: int = 0


class Gather(Value, frozen=True, kw_only=True, tag=True):
    """`result` is what the tiles of `packed` hold, one behind another: each its count (two digits), then from element `header` on its elements.
    How many they are is result `length`."""

    result: str
    packed: str
    dtype: str
    header: int
    length: str


class Task(Value, frozen=True, kw_only=True, tag=True):
    """The host's sequence gives channel (`tile`, `direction`, `channel`) a transfer of `tensor`, through descriptor `number`, `repeats` times.
    The outermost dimension of four is the iteration: its size counts runs of one descriptor."""

    tile: Place
    direction: Direction
    channel: int
    number: int
    tensor: str
    offset: int
    dimensions: tuple[Dimension, ...]
    repeats: int = 1
    token: bool = False


class Await(Value, frozen=True, kw_only=True, tag=True):
    """The host's sequence waits until the oldest task of the channel that has a token and was not waited for is done."""

    tile: Place
    direction: Direction
    channel: int


class WriteScalar(Value, frozen=True, kw_only=True, tag=True):
    """Scalar parameter `name` to word `word` of `buffer`."""

    name: str
    buffer: str
    word: int


class SetLock(Value, frozen=True, kw_only=True, tag=True):
    lock: str
    value: int


Command = Task | Await | WriteScalar | SetLock


class ArrayDesign(Value, frozen=True, kw_only=True, tag=True):
    """One kernel on the array. `generation`: `aie2`, `aie2p`. `scalars`: (name, element type) of the kernel's scalar parameters."""

    name: str
    generation: str
    columns: int
    buffers: tuple[Buffer, ...]
    locks: tuple[Lock, ...]
    chains: tuple[Chain, ...]
    flows: tuple[Flow, ...]
    cores: tuple[Core, ...]
    tensors: tuple[HostTensor, ...]
    scalars: tuple[tuple[str, str], ...]
    functions: tuple[Function, ...]
    sequence: tuple[Command, ...]
    gathers: tuple[Gather, ...] = ()

    def tiles(self) -> tuple[Place, ...]:
        """Every tile that the design uses."""
        used = {b.tile for b in self.buffers} | {c.tile for c in self.cores} | {c.tile for c in self.chains}
        used |= {e.tile for f in self.flows for e in (f.source, *f.targets)}
        return tuple(sorted(used))
