"""The passes of the NPU backend, in order, in place of the shared ones: copies stay copies (DMA moves them), tiles are whole already."""

from __future__ import annotations

from tridsl.backend import LowerStage
from tridsl.backends.npu.lower_array import array
from tridsl.backends.npu.ride import ride
from tridsl.passes.form_mma import form_mma
from tridsl.passes.place_init import place_init
from tridsl.passes.register_tiles import register_tiles
from tridsl.passes.simplify import simplify
from tridsl.passes.strip_vectors import strip_vectors

LOWER: tuple[LowerStage, ...] = (
    LowerStage(name="register_tiles", run=lambda kernel, spec: register_tiles(kernel, joining=False)),
    LowerStage(name="place_init", run=lambda kernel, spec: place_init(kernel)),  # what register_tiles left in memory
    LowerStage(name="form_mma", run=lambda kernel, spec: form_mma(kernel)),
    LowerStage(name="ride", run=ride),  # its own loops over vectors go through the next pass
    LowerStage(name="strip_vectors", run=strip_vectors),
    LowerStage(name="finish", run=lambda kernel, spec: simplify(kernel)),
    LowerStage(name="array", run=array),
)
