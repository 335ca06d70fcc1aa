"""The two halves of a memory tile's descriptors: even channels have one, odd channels the other.

Which channel of its direction a stream gets is free, so the chains are divided such that both halves suffice.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import product

from msgspec.structs import replace

from tridsl.backends.npu.design import MEMTILE, Chain, Direction, End, Flow, Place
from tridsl.backends.npu.limits import DESCRIPTOR_BANK
from tridsl.devices.spec import ArraySpec

Key = tuple[Place, Direction, int]


def divided(chains: Iterable[Chain], flows: Iterable[Flow], facts: ArraySpec) -> tuple[tuple[Chain, ...], tuple[Flow, ...]]:
    """The same streams through other channels of their memory tiles; descriptors are numbered anew. What fits in no way stays one too many, which
    the limits report."""
    chains = list(chains)
    channels: dict[Key, int] = {}
    made: dict[int, Chain] = {}
    for tile in {c.tile for c in chains if c.tile[1] == MEMTILE}:
        places = [n for n, c in enumerate(chains) if c.tile == tile]
        halves = _halves(tuple((chains[n].direction, len(chains[n].descriptors)) for n in places), facts.memtile_in_channels, facts.memtile_out_channels)
        following = [0, DESCRIPTOR_BANK]
        free: dict[Direction, list[int]] = {"in": [0, 1], "out": [0, 1]}
        for n, half in zip(places, halves):
            chain = chains[n]
            channel = free[chain.direction][half]
            free[chain.direction][half] += 2
            channels[tile, chain.direction, chain.channel] = channel
            first, own = following[half], chain.descriptors
            following[half] += len(own)
            numbers = {d.number: first + k for k, d in enumerate(own)}
            made[n] = replace(
                chain, channel=channel, descriptors=tuple(replace(d, number=numbers[d.number], following=numbers[d.following]) for d in own)
            )

    def end(e: End) -> End:
        return replace(e, channel=channels.get((e.tile, e.direction, e.channel), e.channel))

    moved = tuple(replace(f, source=end(f.source), targets=tuple(map(end, f.targets))) for f in flows)
    return tuple(made.get(n, c) for n, c in enumerate(chains)), moved


@cache
def _halves(chains: tuple[tuple[Direction, int], ...], coming: int, leaving: int) -> tuple[int, ...]:
    """For each chain the half (0: even) that it goes to; channels in their order where that fits, otherwise the most even division."""
    order: dict[Direction, int] = {"in": 0, "out": 0}
    usual = []
    for direction, _ in chains:
        usual.append(order[direction] % 2)
        order[direction] += 1
    most: dict[Direction, int] = {"in": coming, "out": leaving}
    if any(order[d] > most[d] for d in order) or _fullest(chains, usual) <= DESCRIPTOR_BANK:
        return tuple(usual)
    possible = (
        halves for halves in product((0, 1), repeat=len(chains))
        if all(sum(h == half and c[0] == d for c, h in zip(chains, halves)) * 2 <= most[d] for d in most for half in (0, 1))
    )  # fmt: skip
    return min(possible, key=lambda halves: _fullest(chains, halves), default=tuple(usual))


def _fullest(chains: tuple[tuple[Direction, int], ...], halves: Iterable[int]) -> int:
    sums = [0, 0]
    for (_, size), half in zip(chains, halves):
        sums[half] += size
    return max(sums)
