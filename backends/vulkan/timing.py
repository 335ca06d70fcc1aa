"""The device's own clock: time stamps around recorded work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tridsl.backends.vulkan.commands import record_barrier, record_copy
from tridsl.backends.vulkan.device import LogicalDevice
from tridsl.backends.vulkan.transfer import Transfer
from tridsl.diagnostics import error


def timed_runs(device: LogicalDevice, record: Callable[[Any], None], uploads: Sequence[Transfer], runs: int) -> tuple[float, ...]:
    """Seconds that what `record` records takes, for each of `runs` times in one command buffer, behind the uploads. Each run waits
    for the one before. TriError E0711 without a clock, E0705 for a device that fails."""
    api, none = device.api, device.api.ffi.NULL
    period = device.physical.nanoseconds_per_tick
    if not period:
        raise error("E0711", f"device `{device.name}` has no time stamps", help="measure with the host's clock")
    query_info = api.new("VkQueryPoolCreateInfo", queryType=api.constant("VK_QUERY_TYPE_TIMESTAMP"), queryCount=runs + 1)
    queries = api.create("vkCreateQueryPool", "VkQueryPool", device.handle, query_info, none)
    commands = device.command_buffer()
    finished = api.constant("VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT")
    try:
        api.check("vkBeginCommandBuffer", commands, api.new("VkCommandBufferBeginInfo"))
        api.lib.vkCmdResetQueryPool(commands, queries, 0, runs + 1)
        for transfer in uploads:
            if transfer.upload:
                record_copy(api, commands, transfer.window, transfer.array)
        record_barrier(api, commands, "TRANSFER", "COMPUTE_SHADER")
        api.lib.vkCmdWriteTimestamp(commands, finished, queries, 0)
        for run in range(runs):
            record(commands)
            record_barrier(api, commands, "COMPUTE_SHADER", "COMPUTE_SHADER")
            api.lib.vkCmdWriteTimestamp(commands, finished, queries, run + 1)
        api.check("vkEndCommandBuffer", commands)
        device.submit(commands)
        stamps = api.ffi.new("uint64_t[]", runs + 1)
        flags = api.constant("VK_QUERY_RESULT_64_BIT") | api.constant("VK_QUERY_RESULT_WAIT_BIT")
        api.check("vkGetQueryPoolResults", device.handle, queries, 0, runs + 1, 8 * (runs + 1), stamps, 8, flags)
    finally:
        if not device.failure:
            api.lib.vkDestroyQueryPool(device.handle, queries, none)
            device.free_commands(commands)
    return tuple((stamps[run + 1] - stamps[run]) * period * 1e-9 for run in range(runs))
