"""Host memory that a device uses where it lies (VK_EXT_external_memory_host).

Whole pages are imported: those that the bytes lie in. The rest of the first and the last page belongs to others, who may go on using it,
since a shader touches its own bytes only; so an array needs no alignment of its own. Arrays that share a page are imported as one range.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tridsl.backends.vulkan.api import Api, VulkanError
from tridsl.backends.vulkan.instance import Instance
from tridsl.backends.vulkan.memory import USAGE, Block, DeviceArray

EXTENSION = "VK_EXT_external_memory_host"
HOST_POINTER = "VK_EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT"


@dataclass(frozen=True, slots=True)
class Span:
    """Host bytes from `low` up to `high`."""

    low: int
    high: int


def span_of(array: np.ndarray[Any, Any]) -> Span:
    """The bytes of a contiguous array."""
    low: int = array.__array_interface__["data"][0]
    return Span(low, low + array.nbytes)


def page_bytes(instance: Instance, handle: Any) -> int:
    """What imported ranges of a physical device with the extension must be multiples of; 0 where it takes no buffers made of host memory,
    or wants more than this machine's pages, which arrays need not fill."""
    api = instance.api
    kind = api.constant(HOST_POINTER)
    asked = api.new("VkPhysicalDeviceExternalBufferInfo", usage=sum(map(api.constant, USAGE)), handleType=kind)
    answer = api.new("VkExternalBufferProperties")
    api.lib.vkGetPhysicalDeviceExternalBufferProperties(handle, asked, answer)
    if not answer.externalMemoryProperties.externalMemoryFeatures & api.constant("VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT"):
        return 0
    host = api.new("VkPhysicalDeviceExternalMemoryHostPropertiesEXT")
    api.lib.vkGetPhysicalDeviceProperties2(handle, api.new("VkPhysicalDeviceProperties2", pNext=host))
    alignment = int(host.minImportedHostPointerAlignment)
    return mmap.PAGESIZE if 0 < alignment <= mmap.PAGESIZE else 0


class _Request:
    """The structures of an import, made once: what differs from one to the next is filled in each time."""

    __slots__ = ("allocation", "buffer", "handles", "kind", "needs", "properties", "source", "where")

    def __init__(self, api: Api) -> None:
        self.kind = api.constant(HOST_POINTER)
        self.properties = api.new("VkMemoryHostPointerPropertiesEXT")
        external = api.new("VkExternalMemoryBufferCreateInfo", handleTypes=self.kind)
        self.buffer = api.new("VkBufferCreateInfo", pNext=external, usage=sum(map(api.constant, USAGE)))
        flags = api.new("VkMemoryAllocateFlagsInfo", flags=api.constant("VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT"))
        self.source = api.new("VkImportMemoryHostPointerInfoEXT", pNext=flags, handleType=self.kind)
        self.allocation = api.new("VkMemoryAllocateInfo", pNext=self.source)
        self.needs = api.ffi.new("VkMemoryRequirements *")
        self.where = api.new("VkBufferDeviceAddressInfo")
        self.handles = api.ffi.new("VkBuffer *"), api.ffi.new("VkDeviceMemory *")


@dataclass(slots=True, kw_only=True, eq=False)
class HostImports:
    """Of one device, whose lock the caller holds. `memory_types`: those that imported memory may have, as bits. `live` ranges are imported at
    this moment, `imported_bytes` were so far; `refused` imports became copies."""

    api: Api
    device: Any
    memory_types: int
    least_bytes: int
    query: Any
    live: int = 0
    imported_bytes: int = 0
    refused: int = 0
    _made: int = 0
    _request: _Request | None = None

    def take(self, spans: Sequence[Span]) -> dict[Span, DeviceArray]:
        """Each of `spans` as memory of the device, those left out that are too small to be worth it or that the driver does not take.
        Give the blocks back with `release` once the device is done; until then the memory must stay."""
        large = sorted({span for span in spans if span.high - span.low >= self.least_bytes}, key=lambda span: (span.low, span.high))
        found: dict[Span, DeviceArray] = {}
        for group in _sharing_pages(large):
            low, high = _pages(group)
            try:
                block = self._import(low, high - low)
            except VulkanError:  # memory that the driver cannot pin, of a file for example
                self.refused += 1
                continue
            for span in group:
                size = span.high - span.low
                found[span] = DeviceArray(block=block, offset=span.low - low, address=block.address + span.low - low, size=size, reserved=size, host=None)
        return found

    def release(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            self.api.lib.vkDestroyBuffer(self.device, block.buffer, self.api.ffi.NULL)
            self.api.lib.vkFreeMemory(self.device, block.memory, self.api.ffi.NULL)
            self.live -= 1

    def _import(self, address: int, size: int) -> Block:
        api, lib, none = self.api, self.api.lib, self.api.ffi.NULL
        request = self._request = self._request or _Request(api)
        request.source.pHostPointer = api.ffi.cast("void *", address)
        result = int(self.query(self.device, request.kind, request.source.pHostPointer, request.properties))
        usable = request.properties.memoryTypeBits & self.memory_types
        if result or not usable:
            raise VulkanError(result, "no memory type for a host pointer", "vkGetMemoryHostPointerPropertiesEXT")
        request.buffer.size = request.allocation.allocationSize = size
        buffers, memories = request.handles
        memories[0] = none
        api.check("vkCreateBuffer", self.device, request.buffer, none, buffers)
        try:
            lib.vkGetBufferMemoryRequirements(self.device, buffers[0], request.needs)
            usable &= request.needs.memoryTypeBits
            if not usable or request.needs.size > size:
                raise VulkanError(0, "no memory type for such a buffer", "vkGetBufferMemoryRequirements")
            request.allocation.memoryTypeIndex = (usable & -usable).bit_length() - 1
            api.check("vkAllocateMemory", self.device, request.allocation, none, memories)
            api.check("vkBindBufferMemory", self.device, buffers[0], memories[0], 0)
        except VulkanError:
            lib.vkDestroyBuffer(self.device, buffers[0], none)
            lib.vkFreeMemory(self.device, memories[0], none)
            raise
        request.where.buffer = buffers[0]
        self._made += 1
        self.live += 1
        self.imported_bytes += size
        address = int(lib.vkGetBufferDeviceAddress(self.device, request.where))
        serial = -self._made  # those of pools are positive
        return Block(memory=memories[0], buffer=buffers[0], address=address, size=size, mapped=None, free=[], serial=serial)


def _pages(group: Sequence[Span]) -> tuple[int, int]:
    low, high = min(span.low for span in group), max(span.high for span in group)
    return low - low % mmap.PAGESIZE, high + -high % mmap.PAGESIZE


def _sharing_pages(spans: Sequence[Span]) -> list[list[Span]]:
    """Sorted spans in groups, so that no two groups have a page in common."""
    groups: list[list[Span]] = []
    for span in spans:
        if groups and _pages((span,))[0] < _pages(groups[-1])[1]:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups
