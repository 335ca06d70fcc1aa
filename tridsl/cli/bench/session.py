"""One run of `tridsl bench`: its options, and what all of its rows share."""

from __future__ import annotations

from tridsl.backend import Device
from tridsl.cli.bench.peaks import Peaks
from tridsl.cli.bench.rows import REGIMES, Regime, Row
from tridsl.cli.settings import Settings
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The arguments of the command, as written. `regime`: which readings are taken, `goal` those that the goals are for. `quick`: few
    samples of those, and no times of compiling."""

    operations: tuple[str, ...] = ()
    suite: str = "cpu"
    device: str = "cpu"
    peers: bool = True
    threads: int = 1
    samples: int = 30
    only: tuple[str, ...] = ()
    regime: str = "both"
    quick: bool = False
    strict: bool = False
    markdown: bool = False


QUICK_SAMPLES = 5
SLOW_SECONDS, QUICK_SLOW_SECONDS = 0.25, 0.05
"""A peer's call that takes longer is taken once and not in turns."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Session:
    """`peaks` None: the device's peaks are not probed. `rotation`: bytes that cold readings go round in. `everything`: the
    cores that the process had before it was pinned."""

    options: Options
    settings: Settings
    device: Device
    peaks: Peaks | None
    rotation: int
    everything: tuple[int, ...] = ()

    @property
    def samples(self) -> int:
        return QUICK_SAMPLES if self.options.quick else self.options.samples

    @property
    def slow(self) -> float:
        return QUICK_SLOW_SECONDS if self.options.quick else SLOW_SECONDS

    def regimes(self, row: Row) -> tuple[Regime, ...]:
        """Which readings of a row are taken."""
        named = {"both": REGIMES, "goal": (row.regime,), "hot": REGIMES[:1], "cold": REGIMES[1:]}
        return named["goal" if self.options.quick else self.options.regime]
