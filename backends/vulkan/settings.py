"""What a Vulkan driver may be told. Part of nothing's cache key: none of it changes the code."""

from __future__ import annotations

from dataclasses import dataclass

from tridsl.backends.vulkan.api import DECLARATIONS, LOADERS


@dataclass(frozen=True, slots=True, kw_only=True)
class VulkanSettings:
    """`validation`: Khronos' validation layer, whose messages `VulkanDriver.messages` collects. `timeout_seconds` bounds one
    call (None: as `tridsl.timeout` says). `staging`: copy through host memory even where the device shares it (tests; discrete GPUs always do).
    `block_bytes`: the least size of one block of the memory pool. `watch_seconds`: how long a call watches for its end before it sleeps.
    `import_bytes`: the least size of arrays that devices use where they lie instead of in a copy; None copies all.
    """

    validation: bool = False
    timeout_seconds: float | None = None
    staging: bool = False
    block_bytes: int = 1 << 20
    watch_seconds: float = 200e-6
    import_bytes: int | None = 1 << 18
    loaders: tuple[str, ...] = LOADERS
    declarations: str = DECLARATIONS
