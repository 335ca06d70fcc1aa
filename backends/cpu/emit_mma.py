"""Matrix instructions."""

from __future__ import annotations

from tridsl.backends.cpu.emit_frame import Frame
from tridsl.ir.loop import Mma


def emit_mma(frame: Frame, statement: Mma) -> None:
    raise AssertionError(statement)
