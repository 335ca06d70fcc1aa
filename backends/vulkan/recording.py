"""A program's launches on one device: recorded once, replayed with one submit.

The memory of a call comes from the pool and goes back to it, so that programs that are not running hold none; a pool that is asked
for the same sizes in the same order gives the same addresses, and then the commands of the last call are replayed as they are.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tridsl.backend import Held, RecordedLaunch
from tridsl.backends.vulkan.commands import record_barrier, record_bytes, record_copy, record_fill
from tridsl.backends.vulkan.device import LogicalDevice
from tridsl.backends.vulkan.executable import NO_FAILURE, VulkanExecutable, scalar_word
from tridsl.backends.vulkan.imports import Span, span_of
from tridsl.backends.vulkan.memory import ALIGNMENT, DeviceArray, MemoryPool
from tridsl.diagnostics import CheckFailed
from tridsl.ir.op import Scalar

STATUS_BYTES = 4
"""A launch's word: the number of its first check that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Byte offsets in the recording's own memory: of each launch's scratch buffers, argument block and status word."""

    scratches: tuple[tuple[int, ...], ...]
    blocks: tuple[int, ...]
    status: int
    checked: tuple[int, ...]
    bytes: int


@dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
class VulkanRecording:
    """`outer`: those of `arrays` that are the caller's. `slots` of a call: these, in order, contiguous NumPy arrays (used where they lie,
    or copied to the device and back) or `DeviceArray`s of this device (used in place)."""

    device: LogicalDevice
    launches: tuple[RecordedLaunch, ...]
    arrays: tuple[Held, ...]
    outer: tuple[Held, ...]
    layout: _Layout
    commands: Any
    _recorded: tuple[int, ...] | None = None
    _call: _Call | None = None

    def __call__(self, slots: Sequence[Any], threads: int = 1) -> None:
        with self.device.lock:
            self.begin(slots)
            self.finish()

    def begin(self, slots: Sequence[Any]) -> None:
        """Submit a run; nothing waits. The caller holds the device's lock until `finish`."""
        self.device.require_alive()
        self._call = call = _Call(recording=self)
        try:
            call.place(slots)
            if call.addresses != self._recorded:
                self._recorded = None
                self._record(call)
                self._recorded = call.addresses
            self.device.enqueue(self.commands)
        except BaseException:  # also Ctrl-C: what was taken goes back
            self._release()
            raise

    def finish(self) -> None:
        """Wait for the run that `begin` started and bring its results. Raises like a call."""
        assert self._call is not None
        try:
            self.device.wait()
            self._call.collect()
        finally:
            self._release()

    def _release(self) -> None:
        if self._call is not None:
            self._call.release()
        self._call = None

    def _record(self, call: _Call) -> None:
        api, commands, own = self.device.api, self.commands, call.own
        api.check("vkBeginCommandBuffer", commands, api.new("VkCommandBufferBeginInfo"))
        pushes = [self._arguments(launch, number, call) for number, launch in enumerate(self.launches)]
        for number, (launch, push) in enumerate(zip(self.launches, pushes)):
            if _executable(launch).facts["arguments"] == "buffer":
                record_bytes(api, commands, own, self.layout.blocks[number], push)
                pushes[number] = struct.pack("<Q", own.address + self.layout.blocks[number])
        if self.layout.checked:
            record_fill(api, commands, own, self.layout.status, STATUS_BYTES * len(self.layout.checked), NO_FAILURE)
        uploads = [(staging, array) for array, staging, held in call.staged if held.upload]
        for staging, array in uploads:
            record_copy(api, commands, staging, array)
        if uploads or self.layout.checked or any(_executable(launch).facts["arguments"] == "buffer" for launch in self.launches):
            record_barrier(api, commands, "TRANSFER", "COMPUTE_SHADER")
        touched: list[_Range] = []
        for launch, push in zip(self.launches, pushes):
            mine = _ranges(launch, call)
            if any(a.conflicts(b) for a in mine for b in touched):
                record_barrier(api, commands, "COMPUTE_SHADER", "COMPUTE_SHADER")
                touched = []
            touched += mine
            executable = _executable(launch)
            executable.record_phases(push, executable.groups(launch.slots), commands)
        downloads = [(array, staging) for array, staging, held in call.staged if held.download]
        if downloads or call.status is not None:
            record_barrier(api, commands, "COMPUTE_SHADER", "TRANSFER")
            for array, staging in downloads:
                record_copy(api, commands, array, staging)
            if call.status is not None:
                record_copy(api, commands, own, call.status, self.layout.status)
            record_barrier(api, commands, "TRANSFER", "HOST")
        if self.device.staging is None:  # else the host sees nothing of what shaders write
            record_barrier(api, commands, "COMPUTE_SHADER", "HOST")
        api.check("vkEndCommandBuffer", commands)

    def _arguments(self, launch: RecordedLaunch, number: int, call: _Call) -> bytes:
        """The slots of a launch as the shader reads them."""
        signature = _executable(launch).signature
        words = []
        for param, slot in zip(signature.params, launch.slots):
            words.append(scalar_word(param, slot) if isinstance(param, Scalar) else struct.pack("<Q", call.where[int(slot)]))
        words += [struct.pack("<q", int(size)) for size in launch.slots[len(signature.params) :]]
        words += [struct.pack("<Q", call.own.address + offset) for offset in self.layout.scratches[number]]
        if number in self.layout.checked:
            offset = self.layout.status + STATUS_BYTES * self.layout.checked.index(number)
            words.append(struct.pack("<Q", call.own.address + offset))
        return b"".join(words)


@dataclass(slots=True, kw_only=True, eq=False)
class _Call:
    """What one run took from the pools. `outer`: device addresses of the caller's arrays; `staged`: those that are copied by the device."""

    recording: VulkanRecording
    taken: list[tuple[MemoryPool, DeviceArray]] = field(default_factory=list)
    outer: list[int] = field(default_factory=list)
    staged: list[tuple[DeviceArray, DeviceArray, Held]] = field(default_factory=list)
    results: list[tuple[memoryview, DeviceArray]] = field(default_factory=list)
    imported: dict[Span, DeviceArray] = field(default_factory=dict)
    owners: tuple[Any, ...] = ()
    status: DeviceArray | None = None
    addresses: tuple[int, ...] = ()
    _own: DeviceArray | None = None
    _where: list[int] = field(default_factory=list)

    @property
    def own(self) -> DeviceArray:
        assert self._own is not None
        return self._own

    def place(self, slots: Sequence[Any]) -> None:
        """Find memory for everything and put the caller's arrays where the device or its copies find them."""
        recording, device = self.recording, self.recording.device
        self._own = own = self._take(device.memory, recording.layout.bytes)
        self.owners = tuple(slots)
        if all(isinstance(slot, DeviceArray) for slot in slots):
            self.outer = [slot.address for slot in slots]
            self.addresses = (own.address, own.block.serial, *self.outer)
            self._take_status()
            return
        if device.imports is not None:
            self.imported = device.imports.take([span_of(slot) for slot in slots if not isinstance(slot, DeviceArray)])
        identity = [own.address, own.block.serial]
        for slot, held in zip(slots, recording.outer):
            if isinstance(slot, DeviceArray):
                self.outer.append(slot.address)
                identity.append(slot.address)
                continue
            mine = self.imported.get(span_of(slot)) if self.imported else None
            if mine is not None and device.staging is None:
                self.outer.append(mine.address)
                identity.append(mine.address)
                continue
            array = self._take(device.memory, held.bytes)
            window = array
            if device.staging is not None and held.bytes:
                window = mine or self._take(device.staging, held.bytes)
                self.staged.append((array, window, held))
            self.outer.append(array.address)
            identity += (array.address, array.block.serial, window.address, window.block.serial)
            if mine is not None:
                continue
            host = memoryview(slot.reshape(-1).view(np.uint8).data)
            if held.upload and held.bytes:
                window.view[:] = host
                device.copied_bytes += held.bytes
            if held.download and held.bytes:
                self.results.append((host, window))
        self.addresses = tuple(identity)
        self._take_status()

    def _take_status(self) -> None:
        """Memory for the launches' status words, where the host reads it."""
        checked, device = self.recording.layout.checked, self.recording.device
        if checked:
            self.status = status = self._take(device.staging or device.memory, STATUS_BYTES * len(checked))
            self.addresses += (status.address, status.block.serial)

    @property
    def where(self) -> list[int]:
        """Device addresses of all arrays. Only who records commands asks for them: a replay has them in its commands."""
        if not self._where:
            outer, own = iter(self.outer), self.own.address
            self._where = [next(outer) if held.offset is None else own + held.offset for held in self.recording.arrays]
        return self._where

    def collect(self) -> None:
        """Results to the caller. Raises CheckFailed for the first launch with a check that failed."""
        for host, window in self.results:
            host[:] = window.view
            self.recording.device.copied_bytes += len(host)
        if self.status is None:
            return
        for launch, word in zip(self.recording.layout.checked, np.frombuffer(self.status.view, np.uint32)):
            if word != NO_FAILURE:
                raise CheckFailed(_executable(self.recording.launches[launch]).signature.messages[int(word)])

    def release(self) -> None:
        """Give everything back, unless the device failed: then it may still be writing there."""
        device = self.recording.device
        if not device.failure:
            for pool, array in reversed(self.taken):
                pool.release(array)
        if self.imported:
            device.let_go(self.imported.values(), self.owners)

    def _take(self, pool: MemoryPool, size: int) -> DeviceArray:
        array = pool.allocate(size)
        self.taken.append((pool, array))
        return array


@dataclass(frozen=True, slots=True)
class _Range:
    """Device addresses `low` to `high` (without it) that a launch uses."""

    low: int
    high: int
    written: bool

    def conflicts(self, other: _Range) -> bool:
        return (self.written or other.written) and self.low < other.high and other.low < self.high


def _ranges(launch: RecordedLaunch, call: _Call) -> list[_Range]:
    found = []
    for param, slot in zip(_executable(launch).signature.params, launch.slots):
        if not isinstance(param, Scalar):
            low = call.where[int(slot)]
            found.append(_Range(low, low + call.recording.arrays[int(slot)].bytes, param.role != "input"))
    return found


def load_recording(device: LogicalDevice, launches: Sequence[RecordedLaunch], arrays: Sequence[Held], memory_bytes: int) -> VulkanRecording:
    """`backend.Recorder.record` on one device; the executables of `launches` were loaded there."""
    layout = _layout(launches, memory_bytes)
    with device.lock:
        device.require_alive()
        commands = device.command_buffer()
    outer = tuple(held for held in arrays if held.offset is None)
    recording = VulkanRecording(device=device, launches=tuple(launches), arrays=tuple(arrays), outer=outer, layout=layout, commands=commands)
    weakref.finalize(recording, _unload, device, commands)
    return recording


def _unload(device: LogicalDevice, commands: Any) -> None:
    with device.lock:
        if not device.failure:  # it may still be running them
            device.free_commands(commands)


def _layout(launches: Sequence[RecordedLaunch], memory_bytes: int) -> _Layout:
    end = _aligned(memory_bytes)
    scratches: list[tuple[int, ...]] = []
    blocks: list[int] = []
    for launch in launches:
        executable = _executable(launch)
        mine = []
        for size in executable.scratch_bytes(launch.slots):
            mine.append(end)
            end = _aligned(end + size)
        scratches.append(tuple(mine))
        blocks.append(end)
        if executable.facts["arguments"] == "buffer":
            end = _aligned(end + 8 * executable.slot_count)
    checked = tuple(number for number, launch in enumerate(launches) if _executable(launch).facts.get("status"))
    return _Layout(
        scratches=tuple(scratches), blocks=tuple(blocks), status=end, checked=checked, bytes=end + STATUS_BYTES * len(checked)
    )


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _executable(launch: RecordedLaunch) -> VulkanExecutable:
    assert isinstance(launch.executable, VulkanExecutable)
    return launch.executable
