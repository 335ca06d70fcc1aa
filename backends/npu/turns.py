"""Streams that share channels: which, and in which order their tiles go.

A core has two channels for what comes in. Where it needs more streams than that, those that go to the same cores as often as one another take
turns: x, b, x, b, … through the channels of the memory tile and the core, and through one of the host's if its column has none left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm

from tridsl.backends.npu.lower_streams import Lane
from tridsl.devices.spec import ArraySpec

MEMTILE_DEPTH = 2
"""Pieces of a stream that a memory tile holds: one comes while another goes. Where a piece is one tile and goes to (or comes from) each of several cores
in turn, those of the others move meanwhile, and one of each is enough."""
Group = tuple[Lane, ...]


def depth_of(lane: Lane) -> int:
    if lane.kept:
        return lane.kept
    return MEMTILE_DEPTH if lane.rounds > lane.piece and (len(lane.parts) == 1 or lane.piece > 1) else 1


def groups_of(lanes: Sequence[Lane], facts: ArraySpec) -> tuple[Group, ...]:
    """Lanes that share channels: what the same cores get once, behind one another; and what does not fit otherwise."""
    found: list[Group] = []
    for lane in lanes:
        once = not lane.moved.writes and not lane.moved.loops and len(lane.parts) == 1
        at = next((n for n, g in enumerate(found) if once and not g[0].moved.loops and _alike(g[0], lane)), None)
        if at is None:
            found.append((lane,))
        else:
            found[at] = (*found[at], lane)
    while (pair := _needed(found, facts)) is not None:
        first, second = pair
        found[first] += found.pop(second)
    return tuple(found)


def _alike(a: Lane, b: Lane) -> bool:
    """Whether they go to the same cores through the same column, as often as each other."""
    goes = [(x.column, tuple(p.cores for p in x.parts), x.moved.loops, x.moved.writes) for x in (a, b)]
    return goes[0] == goes[1] and not a.moved.writes and not any(x.kept or x.strips > 1 for x in (a, b))


def _needed(found: Sequence[Group], facts: ArraySpec) -> tuple[int, int] | None:
    """Two groups that have to share: a core, a memory tile or the host's edge has too few channels for both. The smallest tiles first."""
    coming: dict[tuple[str, object], list[int]] = {}
    taken: dict[tuple[str, object], int] = {}
    for n, group in enumerate(found):
        lane = group[0]
        places: list[tuple[str, object]] = [("memtile", lane.column), ("shim", lane.column)]
        places += [("core", core) for part in lane.parts for core in part.cores]
        for place in places if not lane.moved.writes else []:
            coming.setdefault(place, []).append(n)
            taken[place] = taken.get(place, 0) + (len(lane.parts) if place[0] == "memtile" else 1)
        if lane.moved.writes:
            taken["memtile", lane.column] = taken.get(("memtile", lane.column), 0) + 1
    most = {"core": facts.core_in_channels, "memtile": facts.memtile_out_channels, "shim": facts.shim_out_channels}
    for place, numbers in coming.items():
        if taken[place] <= most[place[0]]:
            continue
        pairs = [(a, b) for a in numbers for b in numbers if a < b and _alike(found[a][0], found[b][0])]
        if pairs:
            return min(pairs, key=lambda pair: sum(lane.elements * lane.tensor.element_bytes for n in pair for lane in found[n]))
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One transfer: of lane `lane` of its group, for part `part`, into or out of its buffer `buffer`, tile `tile` of the piece there."""

    lane: int
    part: int
    buffer: int
    tile: int = 0


def together(group: Group) -> int:
    """Tiles of each lane between two of its turns in a shared channel of the host: whole pieces of every lane."""
    return lcm(*(lane.piece for lane in group))


def arrivals(group: Group) -> Iterator[Turn]:
    """Pieces in the order in which one channel of the host sends them, until everything begins again."""
    whole = together(group)
    for start in range(0, lcm(*(depth_of(lane) * lane.piece for lane in group)), whole):
        for n, lane in enumerate(group):
            for tile in range(start, start + whole, lane.piece):
                for part in range(len(lane.parts)):
                    yield Turn(lane=n, part=part, buffer=tile // lane.piece % depth_of(lane))


def departures(group: Group, part: int) -> Iterator[Turn]:
    """Tiles in the order in which the cores of `part` get them, until everything begins again; of what is kept whole pieces."""
    if group[0].kept:
        yield from (Turn(lane=0, part=part, buffer=n) for n in range(group[0].kept))
        return
    for tile in range(lcm(*(depth_of(lane) * lane.piece for lane in group))):
        for n, lane in enumerate(group):
            yield Turn(lane=n, part=part, buffer=tile // lane.piece % depth_of(lane), tile=tile % lane.piece)
