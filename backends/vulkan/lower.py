"""The target passes of the Vulkan backend, in order."""

from __future__ import annotations

from tridsl.backend import LowerStage
from tridsl.backends.vulkan.lower_barriers import barriers
from tridsl.backends.vulkan.lower_bind import bind
from tridsl.backends.vulkan.lower_decided import decided
from tridsl.backends.vulkan.lower_forward import forward
from tridsl.backends.vulkan.lower_fragments import fragments
from tridsl.backends.vulkan.lower_hoist import hoist
from tridsl.backends.vulkan.lower_interchange import interchange
from tridsl.backends.vulkan.lower_limits import limits
from tridsl.backends.vulkan.lower_longest import longest
from tridsl.backends.vulkan.lower_operands import operands
from tridsl.backends.vulkan.lower_packed import packed
from tridsl.backends.vulkan.lower_panels import panels
from tridsl.backends.vulkan.lower_partials import partials
from tridsl.backends.vulkan.lower_registers import registers
from tridsl.backends.vulkan.lower_rows import rows
from tridsl.backends.vulkan.lower_running import running
from tridsl.backends.vulkan.lower_spaces import spaces
from tridsl.backends.vulkan.lower_stage import stage
from tridsl.backends.vulkan.lower_tiles import tiles
from tridsl.backends.vulkan.lower_wide import wide

LOWER: tuple[LowerStage, ...] = (
    LowerStage(name="bind", run=bind),
    LowerStage(name="interchange", run=interchange),  # after bind, before whoever asks what a lane does alone
    LowerStage(name="running", run=running),  # before wide, for which it makes vector loops
    LowerStage(name="panels", run=panels),
    LowerStage(name="stage", run=stage),  # what a lane fetches ahead lies in registers
    LowerStage(name="registers", run=registers),
    LowerStage(name="rows", run=rows),
    LowerStage(name="decided", run=decided),  # behind rows, which leave nests over single fragments
    LowerStage(name="tiles", run=tiles),  # behind rows, whose fragments have tiles, too
    LowerStage(name="fragments", run=fragments),
    LowerStage(name="spaces", run=spaces),  # after bind: where a buffer lives depends on the lanes around it
    LowerStage(name="forward", run=forward),  # behind spaces, which say what is shared
    LowerStage(name="partials", run=partials),
    LowerStage(name="limits", run=limits),
    LowerStage(name="wide", run=wide),
    LowerStage(name="packed", run=packed),  # behind limits, which count the loops that are written out here
    LowerStage(name="operands", run=operands),  # behind wide, which leaves unrolled loops
    LowerStage(name="hoist", run=hoist),  # what operands has put into fragments
    LowerStage(name="longest", run=longest),
    LowerStage(name="barriers", run=barriers),  # last: needs to see every access
)
