"""The target passes of the Vulkan backend, in order."""

from __future__ import annotations

from tridsl.backend import LowerStage
from tridsl.backends.vulkan.lower_barriers import barriers
from tridsl.backends.vulkan.lower_bind import bind
from tridsl.backends.vulkan.lower_partials import partials
from tridsl.backends.vulkan.lower_spaces import spaces

LOWER: tuple[LowerStage, ...] = (
    LowerStage(name="bind", run=bind),
    LowerStage(name="spaces", run=spaces),  # after bind: where a buffer lives depends on the lanes around it
    LowerStage(name="partials", run=partials),
    LowerStage(name="barriers", run=barriers),  # last: needs to see every access
)
