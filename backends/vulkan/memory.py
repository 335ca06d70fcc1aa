"""Device memory: a pool of blocks that grows with use and gives whole blocks back, and arrays inside it."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tridsl.backends.vulkan.api import Api, VulkanError
from tridsl.diagnostics import error

ALIGNMENT = 256
"""Bytes. At least every alignment Vulkan can ask of a storage buffer or a host read (`nonCoherentAtomSize` ≤ 256)."""

KEPT_IDLE = 2
"""What the last call used is kept for the next one; what it did not use is given back."""

OUT_OF_MEMORY = ("VK_ERROR_OUT_OF_DEVICE_MEMORY", "VK_ERROR_OUT_OF_HOST_MEMORY")

USAGE = (
    "VK_BUFFER_USAGE_STORAGE_BUFFER_BIT",
    "VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT",
    "VK_BUFFER_USAGE_TRANSFER_SRC_BIT",
    "VK_BUFFER_USAGE_TRANSFER_DST_BIT",
)


@dataclass(slots=True, kw_only=True, eq=False)
class Block:
    """One `VkDeviceMemory` under one buffer. `free` are the gaps `(offset, bytes)`, sorted, never adjacent to each other.

    `serial` tells it from every other block of its pool, also from one that gets its address later; `idle` counts the times that the
    whole pool came to rest since this block was last used.
    """

    memory: Any
    buffer: Any
    address: int
    size: int
    mapped: Any
    free: list[tuple[int, int]]
    serial: int
    idle: int = 0

    @property
    def is_empty(self) -> bool:
        return self.free == [(0, self.size)]

    def take(self, size: int) -> int | None:
        """The offset of `size` bytes cut from the first gap that holds them."""
        for position, (offset, length) in enumerate(self.free):
            if length >= size:
                self.free[position : position + 1] = [(offset + size, length - size)] if length > size else []
                return offset
        return None

    def give(self, offset: int, size: int) -> None:
        """Put a range back and merge it with its neighbours."""
        insort(self.free, (offset, size))
        merged: list[tuple[int, int]] = []
        for start, length in self.free:
            if merged and merged[-1][0] + merged[-1][1] == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((start, length))
        self.free = merged


@dataclass(slots=True, kw_only=True, eq=False)
class DeviceArray:
    """`size` bytes of device memory at device address `address`; `host` is a writable view of them where the pool is mapped.

    It has no owner but whoever allocated it: give it back with `MemoryPool.release`.
    """

    block: Block
    offset: int
    address: int
    size: int
    reserved: int
    host: memoryview | None

    @property
    def view(self) -> memoryview:
        """`host`, of an array that is known to be mapped."""
        if self.host is None:
            raise RuntimeError("this memory is not mapped, or was released")
        return self.host


@dataclass(slots=True, kw_only=True, eq=False)
class MemoryPool:
    """Memory of one type of one device.

    Blocks start at `block_bytes` and double with the pool, up to 64 MiB; larger requests get a block of their own. A block that the
    last call did not use is given back, all but one; so is every empty one when memory is short. `available` tells the bytes
    still free on the device, for the message of E0602.
    """

    api: Api
    device: Any
    memory_type: int
    mapped: bool
    block_bytes: int
    available: Callable[[], int]
    what: str
    blocks: list[Block] = field(default_factory=list)
    used_bytes: int = 0
    _made: int = 0

    @property
    def reserved_bytes(self) -> int:
        return sum(block.size for block in self.blocks)

    def allocate(self, size: int) -> DeviceArray:
        """`size` bytes, uninitialised. Raises TriError E0602."""
        reserved = max(ALIGNMENT, (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)
        for block in self.blocks:
            offset = block.take(reserved)
            if offset is not None:
                block.idle = 0
                break
        else:
            block = self._grow(reserved)
            offset = block.take(reserved)
            assert offset is not None
        self.used_bytes += reserved
        host = memoryview(self.api.ffi.buffer(block.mapped + offset, size)) if self.mapped else None
        return DeviceArray(block=block, offset=offset, address=block.address + offset, size=size, reserved=reserved, host=host)

    def release(self, array: DeviceArray) -> None:
        array.host = None
        array.block.give(array.offset, array.reserved)
        self.used_bytes -= array.reserved
        if not self.used_bytes:  # a call is over
            for block in self.blocks:
                block.idle += 1
            self._trim(keep=1, idle=KEPT_IDLE)

    def close(self) -> None:
        for block in self.blocks:
            self._free(block)
        self.blocks.clear()

    def _grow(self, size: int) -> Block:
        preferred = min(max(self.block_bytes, self.reserved_bytes), 64 << 20)
        left = self.available()
        if size > left:  # lavapipe's malloc would promise it and the process would die of it
            self._trim(keep=0)
            left = self.available()
            if size > left:
                raise self._out_of_memory(size)
        for attempt in (max(size, min(preferred, left)), size):
            try:
                block = self._make_block(attempt)
                break
            except VulkanError as problem:
                if problem.name not in OUT_OF_MEMORY:
                    raise
                self._trim(keep=0)
        else:
            raise self._out_of_memory(size)
        self.blocks.append(block)
        return block

    def _out_of_memory(self, size: int) -> Exception:
        return error(
            "E0602",
            f"{self.what} is out of memory: asked for {size} bytes, {self.available()} bytes available",
            help="use smaller arrays, or release arrays that are no longer needed",
        )

    def _make_block(self, size: int) -> Block:
        api = self.api
        info = api.new(
            "VkBufferCreateInfo",
            size=size,
            usage=sum(api.constant(name) for name in USAGE),
            sharingMode=api.constant("VK_SHARING_MODE_EXCLUSIVE"),
        )
        buffer = api.create("vkCreateBuffer", "VkBuffer", self.device, info, api.ffi.NULL)
        memory = api.ffi.NULL
        try:
            needs = api.ffi.new("VkMemoryRequirements *")
            api.lib.vkGetBufferMemoryRequirements(self.device, buffer, needs)
            flags = api.new("VkMemoryAllocateFlagsInfo", flags=api.constant("VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT"))
            request = api.new(
                "VkMemoryAllocateInfo", pNext=flags, allocationSize=needs.size, memoryTypeIndex=self.memory_type
            )
            memory = api.create("vkAllocateMemory", "VkDeviceMemory", self.device, request, api.ffi.NULL)
            api.check("vkBindBufferMemory", self.device, buffer, memory, 0)
            mapped = None
            if self.mapped:
                out = api.ffi.new("void **")
                api.check("vkMapMemory", self.device, memory, 0, size, 0, out)
                mapped = api.ffi.cast("char *", out[0])
        except VulkanError:
            api.lib.vkDestroyBuffer(self.device, buffer, api.ffi.NULL)
            api.lib.vkFreeMemory(self.device, memory, api.ffi.NULL)
            raise
        where = api.new("VkBufferDeviceAddressInfo", buffer=buffer)
        address = int(api.lib.vkGetBufferDeviceAddress(self.device, where))
        self._made += 1
        return Block(memory=memory, buffer=buffer, address=address, size=size, mapped=mapped, free=[(0, size)], serial=self._made)

    def _trim(self, keep: int, idle: int = 0) -> None:
        """Give back empty blocks that were not used for `idle` calls, all but the `keep` last used."""
        empty = sorted((block for block in self.blocks if block.is_empty), key=lambda block: (block.idle, -block.size))
        for block in empty[keep:]:
            if block.idle >= idle:
                self.blocks.remove(block)
                self._free(block)

    def _free(self, block: Block) -> None:
        self.api.lib.vkDestroyBuffer(self.device, block.buffer, self.api.ffi.NULL)
        self.api.lib.vkFreeMemory(self.device, block.memory, self.api.ffi.NULL)
