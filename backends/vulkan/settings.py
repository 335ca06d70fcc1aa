"""What a Vulkan driver may be told. Part of nothing's cache key: none of it changes the code."""

from __future__ import annotations

from dataclasses import dataclass

from tridsl.backends.vulkan.api import DECLARATIONS, LOADERS

IMPORTED = 1 << 18
"""Bytes of which a copy takes as long as an import by lavapipe and what Python does for it (12 us, *measured*)."""
FETCHED = 1 << 24
"""The same for an NVIDIA H100 (driver 580), which pins the pages: 0.4 ms an import; of 16 MiB in and out 5.4 ms instead of 6.2, of 64 MiB
15.2 instead of 25.3 (*measured*)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VulkanSettings:
    """`validation`: Khronos' validation layer, whose messages `VulkanDriver.messages` collects. `timeout_seconds` bounds one
    call (None: as `tridsl.timeout` says). `staging`: copy through host memory even where the device shares it (tests; discrete GPUs always do).
    `block_bytes`: the least size of one block of the memory pool. `watch_seconds`: how long a call watches for its end before it sleeps.
    `import_bytes`: the least size of arrays that devices use where they lie instead of in a copy, and of those that devices with memory of
    their own fetch from there; None copies all.
    """

    validation: bool = False
    timeout_seconds: float | None = None
    staging: bool = False
    block_bytes: int = 1 << 20
    watch_seconds: float = 200e-6
    import_bytes: tuple[int, int] | None = (IMPORTED, FETCHED)
    loaders: tuple[str, ...] = LOADERS
    declarations: str = DECLARATIONS
