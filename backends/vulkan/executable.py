"""A loaded Vulkan kernel: pipelines, recorded commands, and the way of the arguments to the device and back."""

from __future__ import annotations

import struct
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from tridsl.backend import Binary, Signature
from tridsl.backends.vulkan.api import Api
from tridsl.backends.vulkan.commands import record_barrier, record_copy
from tridsl.backends.vulkan.container import Constant, Module, unpack_modules
from tridsl.backends.vulkan.device import LogicalDevice
from tridsl.backends.vulkan.extent import evaluate_extent
from tridsl.backends.vulkan.imports import Span, span_of
from tridsl.backends.vulkan.memory import DeviceArray, MemoryPool
from tridsl.backends.vulkan.timing import timed_runs
from tridsl.backends.vulkan.transfer import Transfer
from tridsl.diagnostics import CheckFailed
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.op import Scalar, Tensor

SUBMITTED = 0.25
"""Of the time that a submit may take, what timed runs ask for at once."""

NO_FAILURE = 0xFFFFFFFF
"""The status word of a run in which no check failed."""


@dataclass(frozen=True, slots=True)
class _Recording:
    """What a recorded command buffer depends on."""

    push: bytes
    groups: tuple[tuple[int, int, int], ...]
    copies: tuple[tuple[int, int, int, int, int, bool, bool], ...]


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
class VulkanExecutable:
    """`slots` are NumPy arrays (used where they lie, or copied to the device and back), `DeviceArray`s of this device (used in place), and numbers.

    Calls take turns on the device. `threads` is ignored.
    """

    device: LogicalDevice
    signature: Signature
    facts: dict[str, int | str]
    pipelines: tuple[Any, ...]
    layout: Any
    commands: Any
    recorded: _Recording | None = None

    def __call__(self, slots: Sequence[Any], threads: int = 1) -> None:
        with self.device.lock:
            self.device.require_alive()
            call = _Call(executable=self, slots=tuple(slots))
            try:
                call.run()
            finally:
                call.release()

    def record(self, recording: _Recording, copies: Sequence[Transfer]) -> None:
        """Record uploads, phases and downloads, with a barrier wherever one reads what another wrote."""
        if recording == self.recorded:
            return
        self.recorded = None
        api, commands = self.device.api, self.commands
        api.check("vkBeginCommandBuffer", commands, api.new("VkCommandBufferBeginInfo"))
        if copies:
            for copy in copies:
                if copy.upload:
                    record_copy(api, commands, copy.window, copy.array)
            record_barrier(api, commands, "TRANSFER", "COMPUTE_SHADER")
        self.record_phases(recording.push, recording.groups, commands)
        if copies:
            record_barrier(api, commands, "COMPUTE_SHADER", "TRANSFER")
            for copy in copies:
                if copy.download:
                    record_copy(api, commands, copy.array, copy.window)
            record_barrier(api, commands, "TRANSFER", "HOST")
        elif self.device.staging is None:  # else the host sees nothing of what shaders write
            record_barrier(api, commands, "COMPUTE_SHADER", "HOST")
        api.check("vkEndCommandBuffer", commands)
        self.recorded = recording

    def record_phases(self, push: bytes, groups: Sequence[tuple[int, int, int]], commands: Any) -> None:
        """The kernel itself, once."""
        api = self.device.api
        if push:
            stage = api.constant("VK_SHADER_STAGE_COMPUTE_BIT")
            api.lib.vkCmdPushConstants(commands, self.layout, stage, 0, len(push), api.ffi.new("char[]", push))
        for position, (pipeline, counts) in enumerate(zip(self.pipelines, groups)):
            if position:
                record_barrier(api, commands, "COMPUTE_SHADER", "COMPUTE_SHADER")
            api.lib.vkCmdBindPipeline(commands, api.constant("VK_PIPELINE_BIND_POINT_COMPUTE"), pipeline)
            api.lib.vkCmdDispatch(commands, *counts)

    @property
    def slot_count(self) -> int:
        """8-byte words that the shader is given."""
        return _slot_count(self.signature, self.facts)

    def scratch_bytes(self, slots: Sequence[Any]) -> tuple[int, ...]:
        """Bytes of each scratch buffer of a call with these slots."""
        numbers = self._numbers(slots)
        count = int(self.facts.get("scratches", 0))
        return tuple(max(0, evaluate_extent(str(self.facts[f"scratch.{n}"]), numbers)) for n in range(count))

    def groups(self, slots: Sequence[Any]) -> tuple[tuple[int, int, int], ...]:
        """Workgroups of each phase. Emitted loops stride over the grid, so fewer than wanted are right, too."""
        numbers, limits = self._numbers(slots), self.device.physical.max_groups

        def counts(text: str) -> tuple[int, int, int]:
            x, y, z = (max(1, min(evaluate_extent(part, numbers), limit)) for part, limit in zip(text.split(";"), limits))
            return x, y, z

        return tuple(counts(str(self.facts[f"groups.{phase}"])) for phase in range(len(self.pipelines)))

    def _numbers(self, slots: Sequence[Any]) -> dict[str, int]:
        params = self.signature.params
        scalars = {p.name: int(slot) for p, slot in zip(params, slots) if isinstance(p, Scalar) and not p.dtype.is_float}
        return scalars | dict(zip(self.signature.sizes, (int(size) for size in slots[len(params) :])))

    def timed(self, slots: Sequence[Any], threads: int, seconds: float, most: int) -> tuple[float, ...]:
        """`backend.Timed`."""
        first = self.device_seconds(slots, 1)[0]
        at_once = self.device.timeout_seconds * SUBMITTED  # of a submit, so that no slow kernel takes its device out
        if 2 * first > at_once:
            return tuple(self.device_seconds(slots, 1)[0] for _ in range(min(most, 3)))
        one = max(self.device_seconds(slots, 2)[1], 1e-7)
        wanted = min(most, max(3, round(seconds / one)))
        found: list[float] = []
        while len(found) < wanted:
            found += self.device_seconds(slots, 1 + max(1, min(wanted - len(found), int(at_once / one))))[1:]
        return tuple(found)

    def device_seconds(self, slots: Sequence[Any], runs: int) -> tuple[float, ...]:
        """Seconds of each of `runs` runs in a row, by the device's own clock, without any transfer. The first ones warm it up.

        Results are written `runs` times to the device arrays among `slots`; host arrays are copied in before the clock starts and
        are not copied back. TriError E0711 where the device has no clock.
        """
        with self.device.lock:
            self.device.require_alive()
            call = _Call(executable=self, slots=tuple(slots))
            try:
                recording, staged, _ = call.prepare()
                return timed_runs(self.device, lambda commands: self.record_phases(recording.push, recording.groups, commands), staged, runs)
            finally:
                call.release()


@dataclass(slots=True, kw_only=True, eq=False)
class _Call:
    """One call: what it took from the pools, and its transfers."""

    executable: VulkanExecutable
    slots: tuple[Any, ...]
    taken: list[tuple[MemoryPool, DeviceArray]] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    imported: dict[Span, DeviceArray] = field(default_factory=dict)

    def run(self) -> None:
        executable, device = self.executable, self.executable.device
        recording, staged, status = self.prepare()
        executable.record(recording, staged)
        device.submit(executable.commands)
        for transfer in self.transfers:
            if transfer.download and transfer.host is not None:
                transfer.host[:] = transfer.window.view
                device.copied_bytes += len(transfer.host)
        if status is not None and status[0] != NO_FAILURE:
            raise CheckFailed(executable.signature.messages[int(status[0])])

    def prepare(self) -> tuple[_Recording, list[Transfer], np.ndarray[Any, Any] | None]:
        """What to record, with all arguments where the host can put them already there."""
        executable, device = self.executable, self.executable.device
        facts, signature = executable.facts, executable.signature
        spans = {
            n: _span(slot, writable=param.role != "input")
            for n, (param, slot) in enumerate(zip(signature.params, self.slots))
            if isinstance(param, Tensor) and not isinstance(slot, DeviceArray)
        }
        if device.imports is not None:
            self.imported = device.imports.take([span_of(span) for _, span in spans.values()])
        words = [self._slot(param, slot, spans.get(n)) for n, (param, slot) in enumerate(zip(signature.params, self.slots))]
        words += [struct.pack("<q", int(size)) for size in self.slots[len(signature.params) :]]
        words += [_address(self._take(device.memory, size)) for size in executable.scratch_bytes(self.slots)]
        status = self._status(words) if facts.get("status") else None
        groups = executable.groups(self.slots)
        push = b"".join(words)
        if facts["arguments"] == "buffer":
            block = np.frombuffer(bytearray(push), np.uint8)
            push = _address(self._transfer(block, upload=True, download=False))
        for transfer in self.transfers:
            if transfer.upload and transfer.host is not None:
                transfer.window.view[:] = transfer.host
                device.copied_bytes += len(transfer.host)
        staged = [transfer for transfer in self.transfers if transfer.staging is not None]
        return _Recording(push, groups, tuple(_places(transfer) for transfer in staged)), staged, status

    def release(self) -> None:
        """Give everything back, unless the device failed: then it may still be writing there."""
        device = self.executable.device
        if not device.failure:
            for pool, array in reversed(self.taken):
                pool.release(array)
        device.let_go(self.imported.values(), self.slots)

    def _slot(self, param: Tensor | Scalar, slot: Any, spanned: tuple[int, np.ndarray[Any, Any]] | None) -> bytes:
        if isinstance(param, Scalar):
            return scalar_word(param, slot)
        if spanned is None:
            return _address(slot)
        start, span = spanned
        gaps = span.nbytes != slot.nbytes  # what lies between the elements of an output must survive
        array = self._transfer(span, upload=param.role != "output" or gaps, download=param.role != "input")
        return _address(array, start)

    def _transfer(self, host: np.ndarray[Any, Any], upload: bool, download: bool) -> DeviceArray:
        device = self.executable.device
        window = self.imported.get(span_of(host)) if self.imported else None
        if window is not None and device.staging is None:
            return window
        array = self._take(device.memory, host.nbytes)
        staging = (window or self._take(device.staging, host.nbytes)) if device.staging is not None else None
        if host.nbytes:
            view = memoryview(host.data).cast("B") if window is None else None
            self.transfers.append(Transfer(host=view, array=array, staging=staging, upload=upload, download=download))
        return array

    def _status(self, words: list[bytes]) -> np.ndarray[Any, Any]:
        status = np.full(1, NO_FAILURE, np.uint32)
        words.append(_address(self._transfer(status, upload=True, download=True)))
        return status

    def _take(self, pool: MemoryPool, size: int) -> DeviceArray:
        array = pool.allocate(size)
        self.taken.append((pool, array))
        return array


def load_executable(device: LogicalDevice, binary: Binary) -> VulkanExecutable:
    """Pipelines of every phase of `binary` on `device`."""
    api, none, facts = device.api, device.api.ffi.NULL, dict(binary.facts)
    signature = binary.signature
    slots = _slot_count(signature, facts)
    size = 8 if facts["arguments"] == "buffer" else 8 * slots
    push = api.new("VkPushConstantRange", stageFlags=api.constant("VK_SHADER_STAGE_COMPUTE_BIT"), size=size)
    layout_info = api.new(
        "VkPipelineLayoutCreateInfo", pushConstantRangeCount=1 if size else 0, pPushConstantRanges=push
    )
    with device.lock:
        device.require_alive()
        layout = api.create("vkCreatePipelineLayout", "VkPipelineLayout", device.handle, layout_info, none)
        modules = unpack_modules(binary.blob)
        spec = device.physical.spec
        lanes = spec.matrix_lanes if "subgroup_size_choice" in spec.features else None
        matrices = [bool(facts[f"matrices.{n}"]) for n in range(len(modules))]
        pipelines = tuple(make_pipeline(device, layout, m, whole=w, lanes=lanes if w else None) for m, w in zip(modules, matrices))
        commands = device.command_buffer()
    executable = VulkanExecutable(
        device=device, signature=signature, facts=facts, pipelines=pipelines, layout=layout, commands=commands
    )
    weakref.finalize(executable, _unload, device, pipelines, layout, commands)
    return executable


def _slot_count(signature: Signature, facts: Mapping[str, int | str]) -> int:
    return len(signature.params) + len(signature.sizes) + int(facts.get("scratches", 0)) + int(bool(facts.get("status")))


def _unload(device: LogicalDevice, pipelines: tuple[Any, ...], layout: Any, commands: Any) -> None:
    """Free what `load_executable` made. A failed device is left as it is: it may still be running them."""
    api, none = device.api, device.api.ffi.NULL
    with device.lock:
        if device.failure:
            return
        for pipeline in pipelines:
            api.lib.vkDestroyPipeline(device.handle, pipeline, none)
        api.lib.vkDestroyPipelineLayout(device.handle, layout, none)
        device.free_commands(commands)


def make_pipeline(device: LogicalDevice, layout: Any, made: Module, *, whole: bool = False, lanes: int | None = None) -> Any:
    """`whole`: every lane of every subgroup is there, which shaders with matrices must ask for. `lanes` of a subgroup, where the driver is
    not to choose: kernels with matrices are made for one size (`DeviceSpec.matrix_lanes`)."""
    api, none = device.api, device.api.ffi.NULL
    words = api.ffi.from_buffer("uint32_t[]", np.frombuffer(made.spirv, np.uint32).copy())
    module_info = api.new("VkShaderModuleCreateInfo", codeSize=len(made.spirv), pCode=words)
    values = _specialisation(api, made.constants)  # lives until the pipeline is made
    module = api.create("vkCreateShaderModule", "VkShaderModule", device.handle, module_info, none)
    size = api.new("VkPipelineShaderStageRequiredSubgroupSizeCreateInfo", requiredSubgroupSize=lanes) if lanes else none
    try:
        stage = api.new(
            "VkPipelineShaderStageCreateInfo",
            pNext=size,
            flags=api.constant("VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT") if whole else 0,
            stage=api.constant("VK_SHADER_STAGE_COMPUTE_BIT"),
            module=module,
            pName=b"main",
            pSpecializationInfo=values,
        )
        info = api.new("VkComputePipelineCreateInfo", stage=stage, layout=layout)
        return api.create("vkCreateComputePipelines", "VkPipeline", device.handle, device.pipeline_cache, 1, info, none)
    finally:
        api.lib.vkDestroyShaderModule(device.handle, module, none)


def _specialisation(api: Api, constants: Sequence[Constant]) -> Any:
    """The `VkSpecializationInfo` of these values, NULL without any."""
    if not constants:
        return api.ffi.NULL
    starts = accumulate((constant.width for constant in constants), initial=0)
    entries = [{"constantID": c.number, "offset": start, "size": c.width} for c, start in zip(constants, starts)]
    data = b"".join(constant.data for constant in constants)
    return api.new("VkSpecializationInfo", mapEntryCount=len(entries), pMapEntries=entries, dataSize=len(data), pData=data)


def scalar_word(param: Scalar, number: Any) -> bytes:
    """A number in the low bytes of its slot."""
    return np.asarray(number).astype(NUMPY_TYPES[param.dtype]).tobytes().ljust(8, b"\0")


def _span(array: np.ndarray[Any, Any], writable: bool) -> tuple[int, np.ndarray[Any, Any]]:
    """The bytes an array lies in, from its lowest to its highest element, and where in them element 0 is."""
    if writable and not array.flags.writeable:
        raise RuntimeError("a read-only array in the place of an output")
    if array.flags.c_contiguous or array.size == 0:
        return 0, array.reshape(-1).view(np.uint8)
    below = -sum((n - 1) * stride for n, stride in zip(array.shape, array.strides) if stride < 0)
    above = sum((n - 1) * stride for n, stride in zip(array.shape, array.strides) if stride > 0) + array.itemsize
    first = array.__array_interface__["data"][0] - below
    interface = {"version": 3, "shape": (below + above,), "typestr": "|u1", "data": (first, not writable)}
    holder = _Memory(interface, array)
    return below, np.asarray(holder)


class _Memory:
    """Bytes that belong to `owner`, for NumPy."""

    def __init__(self, interface: dict[str, Any], owner: object) -> None:
        self.__array_interface__ = interface
        self.owner = owner


def _address(array: DeviceArray, offset: int = 0) -> bytes:
    return struct.pack("<Q", array.address + offset)


def _places(transfer: Transfer) -> tuple[int, int, int, int, int, bool, bool]:
    assert transfer.staging is not None
    array, staging = transfer.array, transfer.staging
    return staging.address, staging.block.serial, array.address, array.block.serial, array.size, transfer.upload, transfer.download
