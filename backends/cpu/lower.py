"""Target passes of the CPU, run after the shared ones."""

from __future__ import annotations

from tridsl.backend import LowerStage

LOWER: tuple[LowerStage, ...] = ()
"""None: the shared passes leave nothing that `emit` does not take."""
