"""What a design may use of the array: every numeric limit is one row of `LIMITS`. (What else has to be true of it: `rules`.)

The numbers are facts of the generation (`devices/chips/aie2*.toml`, each with its source); a row says how much a design uses, and where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tridsl.backends.npu.design import (
    ArrayDesign,
    Await,
    Place,
    SetLock,
    Task,
)
from tridsl.backends.npu.readings import KINDS, by_tile, kind_of, own_dimensions, transfers
from tridsl.backends.npu.rules import RULES
from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.diagnostics import Diagnostic

Use = tuple[str, int]
"""Where in the design, and how much."""

DESCRIPTOR_BANK = 24
"""A memory tile's even channels have descriptors 0 to 23, its odd ones 24 to 47 (mlir-aie, AIETargetModel.h)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`uses` of a design may be at most `limit` of its generation. `what` completes "… has at most N"."""

    name: str
    what: str
    limit: Callable[[DeviceSpec, ArraySpec], int]
    uses: Callable[[ArrayDesign], Iterator[Use]]


def check(design: ArrayDesign, spec: DeviceSpec) -> tuple[Diagnostic, ...]:
    """E0771: a limit is exceeded. E0772: a rule is broken. Each names the limit and the place."""
    array = spec.array
    assert array is not None, f"{spec.name} is no array"
    found = []
    for row in LIMITS:
        most = row.limit(spec, array)
        over = max((use for use in row.uses(design) if use[1] > most), key=lambda use: use[1], default=None)
        if over is not None:
            found.append(
                Diagnostic(
                    code="E0771",
                    message=f"`{design.name}` exceeds the limit `{row.name}` of {spec.name}: {over[0]} has {over[1]} {row.what}, at most {most} are possible",
                    help="choose smaller tiles or fewer buffers in the schedule, or run this operation on another device",
                )
            )
    for rule in RULES:
        place = next(rule.breaks(design, array), None)
        if place is not None:
            found.append(
                Diagnostic(
                    code="E0772", message=f"`{design.name}` breaks the rule `{rule.name}` of {spec.name}: {place}: {rule.what}",
                    help="choose tile sizes whose rows are multiples of 4 bytes, or run this operation on another device",
                )
            )  # fmt: skip
    return tuple(found)


# How much of what a design uses.


def _words(elements: int, size: int) -> int:
    return -(-elements * size // 4)


def _memory(kind: str) -> Callable[[ArrayDesign], Iterator[Use]]:
    def uses(design: ArrayDesign) -> Iterator[Use]:
        stacks = {core.tile: core.stack_bytes for core in design.cores}
        for tile, buffers in by_tile(design, kind):
            yield f"tile {tile}", max([stacks.get(tile, 0), *(b.address + b.bytes for b in buffers)])

    return uses


def _channels(kind: str, direction: str) -> Callable[[ArrayDesign], Iterator[Use]]:
    def uses(design: ArrayDesign) -> Iterator[Use]:
        for flow in design.flows:
            for end in (flow.source, *flow.targets):
                if kind_of(end.tile) == kind and end.direction == direction:
                    yield f"tile {end.tile}", end.channel + 1

    return uses


def _descriptors(kind: str) -> Callable[[ArrayDesign], Iterator[Use]]:
    def uses(design: ArrayDesign) -> Iterator[Use]:
        for chain in design.chains:
            if kind_of(chain.tile) == kind:
                yield from ((f"tile {chain.tile}", d.number + 1) for d in chain.descriptors)
        for task in design.sequence:
            if isinstance(task, Task) and kind == "shim":
                yield f"tile {task.tile}", task.number + 1

    return uses


def _bank(design: ArrayDesign) -> Iterator[Use]:
    for chain in design.chains:
        if kind_of(chain.tile) == "memtile":
            first = DESCRIPTOR_BANK * (chain.channel % 2)
            for d in chain.descriptors:
                place = d.number - first
                yield f"tile {chain.tile}", place + 1 if place >= 0 else DESCRIPTOR_BANK + 1


def _locks(kind: str) -> Callable[[ArrayDesign], Iterator[Use]]:
    return lambda design: ((f"tile {lock.tile}", lock.number + 1) for lock in design.locks if kind_of(lock.tile) == kind)


def _lock_values(design: ArrayDesign) -> Iterator[Use]:
    yield from ((f"lock `{lock.name}`", lock.initial) for lock in design.locks)
    yield from ((f"lock `{c.lock}`", c.value) for c in design.sequence if isinstance(c, SetLock))


def _dimensions(kind: str) -> Callable[[ArrayDesign], Iterator[Use]]:
    more = 1 if kind == "shim" else 0
    return lambda design: ((where, len(dims) - more) for k, where, _, _, _, dims in transfers(design) if k == kind)


def _wraps(kind: str) -> Callable[[ArrayDesign], Iterator[Use]]:
    def uses(design: ArrayDesign) -> Iterator[Use]:
        for k, where, _, size, _, dims in transfers(design):
            own = own_dimensions(kind, dims)
            if k == kind and len(own) > 1:  # a linear transfer is one length
                yield where, max(*(d.size for d in own[:-1]), _words(own[-1].size, size))

    return uses


def _steps(kind: str) -> Callable[[ArrayDesign], Iterator[Use]]:
    def uses(design: ArrayDesign) -> Iterator[Use]:
        for k, where, _, size, _, dims in transfers(design):
            if k == kind and dims:
                yield where, max(_words(abs(d.stride), size) for d in dims)

    return uses


def _lengths(kind: str) -> Callable[[ArrayDesign], Iterator[Use]]:
    def uses(design: ArrayDesign) -> Iterator[Use]:
        for k, where, _, size, _, dims in transfers(design):
            if k == kind:
                total = size
                for d in own_dimensions(kind, dims):
                    total *= d.size
                yield where, total // 4

    return uses


def _iterations(design: ArrayDesign) -> Iterator[Use]:
    for kind, where, _, _, _, dims in transfers(design):
        if kind == "shim" and len(dims) == 4:
            yield where, dims[0].size


def _repeats(design: ArrayDesign) -> Iterator[Use]:
    yield from ((f"the transfer of `{t.tensor}` on tile {t.tile}", t.repeats) for t in design.sequence if isinstance(t, Task))


def _pending(design: ArrayDesign) -> Iterator[Use]:
    """Tasks that a channel has been given and nobody has waited for yet: the most that its queue may have to hold."""
    waiting: dict[object, int] = {}
    for command in design.sequence:
        if isinstance(command, Task):
            key = (command.tile, command.direction, command.channel)
            waiting[key] = waiting.get(key, 0) + 1
            yield f"channel {command.direction} {command.channel} of tile {command.tile}", waiting[key]
        elif isinstance(command, Await):
            key = (command.tile, command.direction, command.channel)
            waiting[key] = max(0, waiting.get(key, 0) - 1)


def _streams(up: bool) -> Callable[[ArrayDesign], Iterator[Use]]:
    """Streams between a memory tile and cores, which all pass its own stream switch."""

    def uses(design: ArrayDesign) -> Iterator[Use]:
        counts: dict[Place, int] = {}
        for flow in design.flows:
            tiles = [flow.source.tile, *(e.tile for e in flow.targets)]
            if up and kind_of(tiles[0]) == "memtile" and any(kind_of(t) == "core" for t in tiles[1:]):
                counts[tiles[0]] = counts.get(tiles[0], 0) + 1
            elif not up and kind_of(tiles[0]) == "core":
                for tile in (t for t in tiles[1:] if kind_of(t) == "memtile"):
                    counts[tile] = counts.get(tile, 0) + 1
        yield from ((f"tile {tile}", n) for tile, n in counts.items())

    return uses


def _sideways(step: int) -> Callable[[ArrayDesign], Iterator[Use]]:
    """Streams from a column to the next one east (1) or west (-1): whatever way each takes, it goes through the tile of a core (memory tiles have
    no ports to their sides), once."""

    def uses(design: ArrayDesign) -> Iterator[Use]:
        counts: dict[int, int] = {}
        for flow in design.flows:
            column = flow.source.tile[0]
            farthest = max((step * (e.tile[0] - column) for e in flow.targets), default=0)
            for n in range(farthest):
                counts[column + step * n] = counts.get(column + step * n, 0) + 1
        yield from ((f"the way from column {c} to column {c + step}", n) for c, n in counts.items())

    return uses


def _arguments(design: ArrayDesign) -> Iterator[Use]:
    yield "the host's call", len(design.tensors)


def _columns(design: ArrayDesign) -> Iterator[Use]:
    yield from (("the design", tile[0] + 1) for tile in design.tiles())


def _rows(design: ArrayDesign) -> Iterator[Use]:
    yield from ((f"column {tile[0]}", tile[1] - 1) for tile in design.tiles())


def _limit(name: str, what: str, fact: str, uses: Callable[[ArrayDesign], Iterator[Use]]) -> Limit:
    return Limit(name=name, what=what, limit=lambda spec, array: int(getattr(array, fact)), uses=uses)


LIMITS: tuple[Limit, ...] = (
    Limit(name="columns", what="columns", limit=lambda spec, array: spec.columns or 0, uses=_columns),
    _limit("rows", "rows of cores", "rows", _rows),
    _limit("core memory", "bytes of core memory (with the stack)", "core_memory_bytes", _memory("core")),
    _limit("memtile memory", "bytes of memory", "memtile_memory_bytes", _memory("memtile")),
    *(_limit(f"{k} input channels", "input channels", f"{k}_in_channels", _channels(k, "in")) for k in KINDS),
    *(_limit(f"{k} output channels", "output channels", f"{k}_out_channels", _channels(k, "out")) for k in KINDS),
    *(_limit(f"{k} descriptors", "buffer descriptors", f"{k}_descriptors", _descriptors(k)) for k in KINDS),
    Limit(name="memtile descriptors of a channel", what="descriptors for the even or the odd channels", limit=lambda spec, array: DESCRIPTOR_BANK, uses=_bank),
    *(_limit(f"{k} locks", "locks", f"{k}_locks", _locks(k)) for k in KINDS),
    _limit("lock value", "as a value", "lock_maximum", _lock_values),
    *(_limit(f"{k} transfer dimensions", "dimensions", f"{k}_dimensions", _dimensions(k)) for k in KINDS),
    *(_limit(f"{k} transfer wrap", "as the size of a dimension (words along the innermost)", f"{k}_wrap", _wraps(k)) for k in KINDS),
    *(_limit(f"{k} transfer step", "words as a stride", f"{k}_step_words", _steps(k)) for k in KINDS),
    *(_limit(f"{k} transfer length", "words in one transfer", f"{k}_length_words", _lengths(k)) for k in KINDS),
    _limit("memtile streams to cores", "streams to cores", "memtile_north_streams", _streams(True)),
    _limit("memtile streams from cores", "streams from cores", "memtile_south_streams", _streams(False)),
    *(
        Limit(name=f"streams {word}", what="streams", limit=lambda spec, array: array.side_streams * array.rows, uses=_sideways(step))
        for word, step in (("eastwards", 1), ("westwards", -1))
    ),
    _limit("arguments", "tensors", "arguments", _arguments),
    _limit("iterations", "iterations of a transfer", "iterations", _iterations),
    _limit("repeats", "repeats of a task", "repeats", _repeats),
    _limit("shim queue", "tasks at a time", "shim_queue_tasks", _pending),
)
