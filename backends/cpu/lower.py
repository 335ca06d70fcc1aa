"""Target passes of the CPU, run after the shared ones."""

from __future__ import annotations

from tridsl.backend import LowerStage
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.loop import Kernel


def _tiles(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    from tridsl.backends.cpu.lower_tiles import tiles  # start-up time: who runs a cached kernel lowers none

    return tiles(kernel, spec)


LOWER: tuple[LowerStage, ...] = (LowerStage(name="tiles", run=_tiles),)
