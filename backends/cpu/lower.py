"""Target passes of the CPU, run after the shared ones."""

from __future__ import annotations

from tridsl.backend import LowerStage
from tridsl.backends.cpu.lower_tiles import tiles

LOWER: tuple[LowerStage, ...] = (LowerStage(name="tiles", run=tiles),)
