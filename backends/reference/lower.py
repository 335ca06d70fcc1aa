"""Target passes: none. The oracle runs a kernel of any stage."""

from tridsl.backend import LowerStage

LOWER: tuple[LowerStage, ...] = ()
