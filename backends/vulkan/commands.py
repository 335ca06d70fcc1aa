"""Recording what is not a dispatch: copies and barriers; and copies that are run at once."""

from __future__ import annotations

from typing import Any

from tridsl.backends.vulkan.api import Api
from tridsl.backends.vulkan.device import LogicalDevice
from tridsl.backends.vulkan.memory import DeviceArray


def upload(device: LogicalDevice, host: memoryview, target: DeviceArray) -> None:
    """`host` bytes into the start of `target`. Raises TriError E0602, E0705."""
    with device.lock:
        if device.staging is None:
            target.view[: len(host)] = host
            return
        staging = device.staging.allocate(len(host))
        staging.view[:] = host
        _copy_now(device, staging, target)
        device.staging.release(staging)


def download(device: LogicalDevice, source: DeviceArray, host: memoryview) -> None:
    """All bytes of `source` into `host`, which has as many. Raises TriError E0602, E0705."""
    with device.lock:
        if device.staging is None:
            host[:] = source.view
            return
        staging = device.staging.allocate(source.size)
        _copy_now(device, source, staging)
        host[:] = staging.view
        device.staging.release(staging)


def _copy_now(device: LogicalDevice, source: DeviceArray, target: DeviceArray) -> None:
    if source.size == 0:
        return
    api = device.api
    commands = device.command_buffer()
    api.check("vkBeginCommandBuffer", commands, api.new("VkCommandBufferBeginInfo"))
    record_copy(api, commands, source, target)
    record_barrier(api, commands, "TRANSFER", "HOST")
    api.check("vkEndCommandBuffer", commands)
    device.submit(commands)
    device.free_commands(commands)


def record_copy(api: Api, commands: Any, source: DeviceArray, target: DeviceArray, start: int = 0) -> None:
    """`source` from byte `start` on to the start of `target`, as far as both reach."""
    size = min(source.size - start, target.size)
    region = api.new("VkBufferCopy", srcOffset=source.offset + start, dstOffset=target.offset, size=size)
    api.lib.vkCmdCopyBuffer(commands, source.block.buffer, target.block.buffer, 1, region)


def record_fill(api: Api, commands: Any, target: DeviceArray, start: int, size: int, word: int) -> None:
    """`size` bytes (a multiple of 4) of `target` from `start` on become copies of `word`."""
    api.lib.vkCmdFillBuffer(commands, target.block.buffer, target.offset + start, size, word)


def record_bytes(api: Api, commands: Any, target: DeviceArray, start: int, data: bytes) -> None:
    """`data` (a multiple of 4, at most 64 KiB) to `target` from `start` on, each time the commands run."""
    api.lib.vkCmdUpdateBuffer(commands, target.block.buffer, target.offset + start, len(data), api.ffi.from_buffer(data))


_ACCESS = {
    "TRANSFER": ("TRANSFER_WRITE", ("TRANSFER_READ", "TRANSFER_WRITE")),
    "COMPUTE_SHADER": ("SHADER_WRITE", ("SHADER_READ", "SHADER_WRITE")),
    "HOST": ("HOST_WRITE", ("HOST_READ",)),
}


def record_barrier(api: Api, commands: Any, before: str, after: str) -> None:
    """Everything `before` has written is seen by everything `after`."""
    barrier = api.new(
        "VkMemoryBarrier",
        srcAccessMask=api.constant(f"VK_ACCESS_{_ACCESS[before][0]}_BIT"),
        dstAccessMask=sum(api.constant(f"VK_ACCESS_{name}_BIT") for name in _ACCESS[after][1]),
    )
    stages = [api.constant(f"VK_PIPELINE_STAGE_{name}_BIT") for name in (before, after)]
    null = api.ffi.NULL
    api.lib.vkCmdPipelineBarrier(commands, *stages, 0, 1, barrier, 0, null, 0, null)
