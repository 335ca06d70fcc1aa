"""Evidence for tests: places, candidates, and trials drawn from known times."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tridsl.diagnostics import Diagnostic
from tridsl.personality.candidate import Candidate, candidate
from tridsl.personality.evidence import Key, Outcome, Pairing, Trial
from tridsl.personality.fingerprint import Fingerprint
from tridsl.schedule.steps import Parallel, Split, Tile, Vector

HERE = Fingerprint(
    family=(("architecture", "x86_64"), ("model", "17")),
    sku=(("name", "AMD EPYC"),),
    unit=(("machine", "0123"),),
    software=(("driver", "25.2"), ("kernel", "6.1"), ("llvmlite", "0.50.0"), ("threads", "2")),
)
NEWER = Fingerprint(family=HERE.family, sku=HERE.sku, unit=HERE.unit, software=(("driver", "25.3"), *HERE.software[1:]))
OTHER_UNIT = Fingerprint(family=HERE.family, sku=HERE.sku, unit=(("machine", "4567"),), software=HERE.software)
OTHER_FAMILY = Fingerprint(family=(("architecture", "aarch64"),), sku=HERE.sku, unit=HERE.unit, software=HERE.software)

KERNEL = "ab" * 16


class Reports(list[Diagnostic]):
    def __call__(self, diagnostic: Diagnostic) -> None:
        self.append(diagnostic)

    @property
    def codes(self) -> list[str]:
        return [diagnostic.code for diagnostic in self]


def key(bucket: str = "K=64 M=512", at: Fingerprint = HERE, kernel: str = KERNEL, device: str = "cpu") -> Key:
    return Key(kernel=kernel, op="matmul", bucket=bucket, dtypes=(("A", "f32"),), device=device, fingerprint=at.hashes)


def tiled(size: int, *, extra: int = 0) -> Candidate:
    """One of a family of candidates; `extra` steps make it less simple."""
    more = (Vector(stage="C", axis="j.i"), Parallel(stage="C", axis="i.o"), Split(stage="C", axis="k", factor=size))[:extra]
    return candidate((Tile(stage="C", sizes=(("i", size), ("j", 32))), *more), {"size": size})


def ok(
    who: Candidate,
    samples: Sequence[float],
    against: tuple[Candidate, Sequence[float]] | None = None,
    *,
    where: Key | None = None,
    block: str = "b",
    time: float = 1000.0,
    origin: str = "",
) -> Trial:
    pairing = Pairing(block=block, incumbent=against[0], samples=tuple(against[1])) if against else None
    return Trial(
        key=where or key(), sizes=(("K", 64), ("M", 512)), candidate=who, outcome="ok", samples=tuple(samples), pairing=pairing,
        operating=(("load", "idle"),), measurer="test", time=time, origin=origin,
    )  # fmt: skip


def failed(who: Candidate, outcome: Outcome, reason: str = "SIGSEGV", where: Key | None = None, time: float = 1000.0) -> Trial:
    return Trial(key=where or key(), candidate=who, outcome=outcome, reason=reason, measurer="test", time=time)


def campaign(
    true_seconds: dict[Candidate, float],
    *,
    seed: int = 0,
    blocks: int = 3,
    pairs: int = 10,
    noise: float = 0.05,
    drift: float = 0.2,
    where: Key | None = None,
) -> list[Trial]:
    """Blocks of every candidate against the first; each block runs at a speed of its own (`drift`), each sample with `noise`."""
    draw = random.Random(seed)
    incumbent = next(iter(true_seconds))
    trials = []
    for block in range(blocks):
        for who, seconds in true_seconds.items():
            pace = draw.uniform(1 - drift, 1 + drift)
            mine = [seconds * pace * draw.lognormvariate(0, noise) for _ in range(pairs)]
            theirs = [true_seconds[incumbent] * pace * draw.lognormvariate(0, noise) for _ in range(pairs)]
            if who != incumbent:
                trials.append(ok(who, mine, (incumbent, theirs), block=f"{block}.{who.text}", where=where, time=1000.0 + block))
    return trials
