"""A logical device: one compute queue, its memory, its pipelines; and what happens when it fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from tridsl.backends.vulkan.api import Api, VulkanError
from tridsl.backends.vulkan.facts import (
    BFLOAT16,
    DOTS,
    FEATURES,
    FLEXIBLE_MATRICES,
    MATRICES,
    SUBGROUP_SIZES,
    PhysicalDevice,
    available_bytes,
    feature_chain,
    feature_holder,
)
from tridsl.backends.vulkan.imports import EXTENSION as HOST_POINTERS
from tridsl.backends.vulkan.imports import HostImports
from tridsl.backends.vulkan.memory import DeviceArray, MemoryPool
from tridsl.backends.vulkan.newer import enable_bfloat16, enable_flexible
from tridsl.backends.vulkan.settings import VulkanSettings
from tridsl.diagnostics import TriError, error
from tridsl.timeout import timeout_seconds

FATAL = ("VK_ERROR_DEVICE_LOST", "VK_ERROR_INITIALIZATION_FAILED")

FOR_EVER = (1 << 64) - 1
FOR_EVER_SECONDS = 1e9
"""Nanoseconds that Vulkan never counts to the end of, and the seconds from which on they are taken."""

_MEMORY_PROPERTIES = ("HOST_VISIBLE", "HOST_COHERENT", "HOST_CACHED", "DEVICE_LOCAL")


class Submission:
    """The structures of a submit and of its wait, made once: `value` and `commands` are filled in each time."""

    __slots__ = ("commands", "no_fence", "submit", "value", "wait")

    def __init__(self, api: Api, timeline: Any) -> None:
        semaphores = api.ffi.new("VkSemaphore[]", [timeline])
        self.value = api.ffi.new("uint64_t[]", 1)
        self.commands = api.ffi.new("VkCommandBuffer[]", 1)
        self.no_fence = api.ffi.cast("VkFence", 0)
        signal = api.new("VkTimelineSemaphoreSubmitInfo", signalSemaphoreValueCount=1, pSignalSemaphoreValues=self.value)
        self.submit = api.new(
            "VkSubmitInfo",
            pNext=signal,
            commandBufferCount=1,
            pCommandBuffers=self.commands,
            signalSemaphoreCount=1,
            pSignalSemaphores=semaphores,
        )
        self.wait = api.new("VkSemaphoreWaitInfo", semaphoreCount=1, pSemaphores=semaphores, pValues=self.value)


@dataclass(slots=True, kw_only=True, eq=False)
class LogicalDevice:
    """`name` is the device's name for users. One call at a time holds `lock`; `failure` is set once and for good.

    `memory` is where kernels work; `staging` is host memory the device can copy from and to, None where `memory` is mapped. `imports` makes
    arrays of the caller such memory, where the device does that; `copied_bytes` went between arrays and either of them so far. `left` is what
    the device may still be writing to after a failure.
    """

    api: Api
    name: str
    physical: PhysicalDevice
    settings: VulkanSettings
    handle: Any
    queue: Any
    command_pool: Any
    timeline: Any
    pipeline_cache: Any
    memory: MemoryPool
    staging: MemoryPool | None
    imports: HostImports | None = None
    copied_bytes: int = 0
    left: list[Any] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    submitted: int = 0
    failure: str = ""
    process: int = field(default_factory=os.getpid)
    _submission: Submission | None = None

    def submit(self, commands: Any) -> None:
        """Run a command buffer to completion. Raises TriError E0705 when the device fails or takes too long."""
        self.enqueue(commands)
        self.wait()

    def enqueue(self, commands: Any) -> None:
        """Start a command buffer; `wait` says when it is done. Raises TriError E0705."""
        self.require_alive()
        api = self.api
        self.submitted += 1
        submission = self._submission = self._submission or Submission(api, self.timeline)
        submission.value[0] = self.submitted
        submission.commands[0] = commands
        try:
            api.check("vkQueueSubmit", self.queue, 1, submission.submit, submission.no_fence)
        except VulkanError as problem:
            raise self.fail(f"failed ({problem})") from None

    def wait(self) -> None:
        """Until all that was enqueued is done. Raises TriError E0705 when the device fails or takes too long."""
        assert self._submission is not None
        seconds = self.timeout_seconds
        try:
            if not self.physical.spec.software and self._done_soon():
                return
            nanoseconds = round(seconds * 1e9) if seconds < FOR_EVER_SECONDS else FOR_EVER
            late = self.api.check("vkWaitSemaphores", self.handle, self._submission.wait, nanoseconds, allow=("VK_TIMEOUT",))
        except VulkanError as problem:
            raise self.fail(f"failed ({problem})") from None
        if late:
            raise self.fail(f"did not finish within {seconds:g} s", "where a kernel needs longer, say so: tridsl.set_timeout(60), or TRIDSL_TIMEOUT=60")

    @property
    def timeout_seconds(self) -> float:
        """Of one call. Raises E0855 where the environment's makes no sense."""
        given = self.settings.timeout_seconds
        return timeout_seconds() if given is None else given

    def _done_soon(self) -> bool:
        """Look for the end of all that was enqueued for a while: a thread that sleeps is woken tens of microseconds late, and each microsecond between two
        looks is waited for by half."""
        look, handle, timeline, reached = self.api.lib.vkGetSemaphoreCounterValue, self.handle, self.timeline, self.api.ffi.new("uint64_t *")
        until = perf_counter() + self.settings.watch_seconds
        while look(handle, timeline, reached) == 0 and reached[0] < self.submitted:
            if perf_counter() >= until:
                return False
        return self._reached()

    def let_go(self, imported: Iterable[DeviceArray], owners: Any) -> None:
        """Give the blocks of imported arrays back. `owners` of their memory are kept for good where the device may still be at work on it."""
        blocks = tuple({array.block.serial: array.block for array in imported}.values())
        if not blocks:
            return
        assert self.imports is not None
        if self.failure or not self._reached():
            self.left.append((blocks, owners))
        else:
            self.imports.release(blocks)

    def _reached(self) -> bool:
        """Whether all that was enqueued is done."""
        reached = self.api.ffi.new("uint64_t *")
        self.api.check("vkGetSemaphoreCounterValue", self.handle, self.timeline, reached)
        return bool(reached[0] >= self.submitted)

    def command_buffer(self) -> Any:
        """A new primary command buffer; the caller holds the lock."""
        info = self.api.new(
            "VkCommandBufferAllocateInfo",
            commandPool=self.command_pool,
            level=self.api.constant("VK_COMMAND_BUFFER_LEVEL_PRIMARY"),
            commandBufferCount=1,
        )
        return self.api.create("vkAllocateCommandBuffers", "VkCommandBuffer", self.handle, info)

    def free_commands(self, commands: Any) -> None:
        """Give a command buffer back that is not running; the caller holds the lock."""
        buffers = self.api.ffi.new("VkCommandBuffer[]", [commands])
        self.api.lib.vkFreeCommandBuffers(self.handle, self.command_pool, 1, buffers)

    def fail(self, what: str, advice: str = "") -> TriError:
        """Take the device out of use; its memory is left alone, since it may still be written to."""
        self.failure = self.failure or what
        return self._gone(advice)

    def require_alive(self) -> None:
        if os.getpid() != self.process:  # the driver's threads and files stayed with the parent
            self.failure = "was opened before this process was forked"
        if self.failure:
            raise self._gone()

    def _gone(self, advice: str = "") -> TriError:
        return error(
            "E0705",
            f"device `{self.name}` ({self.physical.spec.name}) {self.failure} and is out of use in this process",
            help='run on another device, for example `device="cpu"`; restart the process to try this one again' + (f"; {advice}" if advice else ""),
        )

    def close(self) -> None:
        """Release everything; the device must be idle. A failed device is left as it is."""
        if self.failure:
            return
        self.failure = "was closed"
        api, none = self.api, self.api.ffi.NULL
        api.lib.vkDeviceWaitIdle(self.handle)
        self.memory.close()
        if self.staging is not None:
            self.staging.close()
        api.lib.vkDestroyPipelineCache(self.handle, self.pipeline_cache, none)
        api.lib.vkDestroySemaphore(self.handle, self.timeline, none)
        api.lib.vkDestroyCommandPool(self.handle, self.command_pool, none)
        api.lib.vkDestroyDevice(self.handle, none)


def open_device(api: Api, name: str, physical: PhysicalDevice, settings: VulkanSettings) -> LogicalDevice:
    """A logical device with the features of `FEATURES` that the hardware has. Raises TriError E0705 when it does not open, E0855 for an
    environment that no call could wait by."""
    if settings.timeout_seconds is None:
        timeout_seconds()
    try:
        return _open(api, name, physical, settings)
    except VulkanError as problem:
        raise error("E0705", f"device `{name}` ({physical.spec.name}) does not open: {problem}") from None


def _open(api: Api, name: str, physical: PhysicalDevice, settings: VulkanSettings) -> LogicalDevice:
    none = api.ffi.NULL
    features = feature_chain(api)
    for feature, position, member in FEATURES:
        if feature in physical.spec.features:
            setattr(feature_holder(features, position), member, 1)
    queue_info = api.new(
        "VkDeviceQueueCreateInfo", queueFamilyIndex=physical.queue_family, queueCount=1, pQueuePriorities=(1.0,)
    )
    chain, extensions = features[0], []
    matrices = any(feature.startswith("cooperative_matrix") for feature in physical.spec.features)
    choice = "subgroup_size_choice" in physical.spec.features
    if matrices:
        chain = api.new("VkPhysicalDeviceCooperativeMatrixFeaturesKHR", pNext=chain, cooperativeMatrix=1)
        extensions.append(MATRICES.encode())
    if matrices or choice:
        chain = api.new("VkPhysicalDeviceSubgroupSizeControlFeatures", pNext=chain, computeFullSubgroups=matrices, subgroupSizeControl=choice)
        extensions.append(SUBGROUP_SIZES.encode())
    if "integer_dot_product" in physical.spec.features:  # every device that has the extension has its feature
        chain = api.new("VkPhysicalDeviceShaderIntegerDotProductFeatures", pNext=chain, shaderIntegerDotProduct=1)
        extensions.append(DOTS.encode())
    if FLEXIBLE_MATRICES in physical.extensions and matrices:
        chain = enable_flexible(api, chain, physical.spec.features)
        extensions.append(FLEXIBLE_MATRICES.encode())
    if "cooperative_matrix_bf16" in physical.spec.features:
        chain = enable_bfloat16(api, chain)
        extensions.append(BFLOAT16.encode())
    if physical.imports_pages:
        extensions.append(HOST_POINTERS.encode())
    info = api.new(
        "VkDeviceCreateInfo",
        pNext=chain,
        queueCreateInfoCount=1,
        pQueueCreateInfos=queue_info,
        enabledExtensionCount=len(extensions),
        ppEnabledExtensionNames=tuple(extensions),
    )
    handle = api.create("vkCreateDevice", "VkDevice", physical.handle, info, none)
    queue = api.ffi.new("VkQueue *")
    api.lib.vkGetDeviceQueue(handle, physical.queue_family, 0, queue)
    pool_info = api.new(
        "VkCommandPoolCreateInfo",
        flags=api.constant("VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT"),
        queueFamilyIndex=physical.queue_family,
    )
    kind = api.new(
        "VkSemaphoreTypeCreateInfo", semaphoreType=api.constant("VK_SEMAPHORE_TYPE_TIMELINE"), initialValue=0
    )

    pools: list[MemoryPool] = []

    def available() -> int:
        """Without a budget from the driver, only what this process took is known to be gone."""
        mine = 0 if "memory_budget" in physical.spec.features else sum(pool.reserved_bytes for pool in pools)
        return max(0, available_bytes(api, physical.handle, physical.extensions) - mine)

    def pool(memory_type: int, mapped: bool) -> MemoryPool:
        made = MemoryPool(
            api=api,
            device=handle,
            memory_type=memory_type,
            mapped=mapped,
            block_bytes=settings.block_bytes,
            available=available,
            what=f"device `{name}`",
        )
        pools.append(made)
        return made

    direct = physical.shares_memory and not settings.staging
    host = _memory_type(
        api, physical, ("HOST_VISIBLE", "HOST_COHERENT"), ("DEVICE_LOCAL",) if direct else ("HOST_CACHED",)
    )
    local = host if direct else _memory_type(api, physical, ("DEVICE_LOCAL",), ())
    return LogicalDevice(
        api=api,
        name=name,
        physical=physical,
        settings=settings,
        handle=handle,
        queue=queue[0],
        command_pool=api.create("vkCreateCommandPool", "VkCommandPool", handle, pool_info, none),
        timeline=api.create(
            "vkCreateSemaphore", "VkSemaphore", handle, api.new("VkSemaphoreCreateInfo", pNext=kind), none
        ),
        pipeline_cache=api.create(
            "vkCreatePipelineCache", "VkPipelineCache", handle, api.new("VkPipelineCacheCreateInfo"), none
        ),
        memory=pool(local, mapped=direct),
        staging=None if direct else pool(host, mapped=True),
        imports=_imports(api, physical, settings, handle, direct=direct),
    )


def _imports(api: Api, physical: PhysicalDevice, settings: VulkanSettings, handle: Any, *, direct: bool) -> HostImports | None:
    if not physical.imports_pages or settings.import_bytes is None:
        return None
    query = api.lib.vkGetDeviceProcAddr(handle, b"vkGetMemoryHostPointerPropertiesEXT")
    return HostImports(
        api=api,
        device=handle,
        memory_types=sum(1 << position for position in _memory_types(api, physical, ("HOST_VISIBLE", "HOST_COHERENT"))),
        least_bytes=settings.import_bytes[0 if direct else 1],
        query=api.ffi.cast("PFN_vkGetMemoryHostPointerPropertiesEXT", query),
    )


def _memory_type(api: Api, physical: PhysicalDevice, required: tuple[str, ...], preferred: tuple[str, ...]) -> int:
    """The first memory type with all `required` properties and the most of the `preferred` ones."""
    candidates = _memory_types(api, physical, required)
    if not candidates:
        raise VulkanError(-3, "VK_ERROR_INITIALIZATION_FAILED", f"choosing memory that is {' and '.join(required)}")
    return max(candidates, key=lambda position: (sum(name in candidates[position] for name in preferred), -position))


def _memory_types(api: Api, physical: PhysicalDevice, required: tuple[str, ...]) -> dict[int, frozenset[str]]:
    """Memory types with all `required` properties, and which properties each has."""
    properties = api.new("VkPhysicalDeviceMemoryProperties2")
    api.lib.vkGetPhysicalDeviceMemoryProperties2(physical.handle, properties)
    memory = properties.memoryProperties
    bits = {name: api.constant(f"VK_MEMORY_PROPERTY_{name}_BIT") for name in _MEMORY_PROPERTIES}
    found = {
        position: frozenset(name for name, bit in bits.items() if memory.memoryTypes[position].propertyFlags & bit)
        for position in range(memory.memoryTypeCount)
    }
    return {position: names for position, names in found.items() if names.issuperset(required)}
