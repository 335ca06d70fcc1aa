"""Runs built designs on an NPU through XRT's Python module. Written from its source; beyond "there is no device" it has not been run by this project.

What bites, and is taken care of: arguments that are no plain `int` or buffer are silently not set; too many crash; a buffer of the wrong memory group gives untouched results; a
run without a time-out waits for ever; after one that was stopped the context is dead; a device has few contexts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridsl.backends.npu.package import KERNEL
from tridsl.diagnostics import TriError, error

CONTEXTS = {"aie2": 6, "aie2p": 16}
"""Hardware contexts of a device (amd/xdna-driver)."""
RUN_TRANSACTION = 3
"""The first argument of every kernel: what the controller is to do."""
FIRST_BUFFER = 3
"""Position of the first tensor among a kernel's arguments: behind the opcode, the instructions and their number."""
TIMEOUT_MILLISECONDS = 10_000


@dataclass(slots=True, kw_only=True)
class Loaded:
    """A design in a hardware context."""

    context: Any
    kernel: Any
    tensors: int
    instructions: Any
    written: bytes
    buffers: dict[tuple[int, int], Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Contexts:
    """The contexts of one device, least recently used first. `xrt` is the module `pyxrt`."""

    xrt: Any
    device: Any
    generation: str
    _live: OrderedDict[bytes, Loaded] = field(default_factory=OrderedDict)

    def get(self, xclbin: bytes, insts: bytes) -> Loaded:
        """The design, loaded. On XDNA1 all contexts go before one is made anew: its driver does not take one out of a full set."""
        key = xclbin
        if key in self._live:
            self._live.move_to_end(key)
            if self._live[key].written != insts:  # scalars are words of the instructions
                self._write(self._live[key].instructions, insts)
                self._live[key].written = insts
            return self._live[key]
        most = CONTEXTS[self.generation]
        if len(self._live) >= most:
            if self.generation == "aie2":
                self._live.clear()
            else:
                self._live.popitem(last=False)
        self._live[key] = self._load(xclbin, insts)
        return self._live[key]

    def drop(self, xclbin: bytes) -> None:
        self._live.pop(xclbin, None)

    def _write(self, buffer: Any, data: bytes) -> None:
        buffer.write(data, 0)
        buffer.sync(self.xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_TO_DEVICE)

    def _load(self, xclbin: bytes, insts: bytes) -> Loaded:
        from tempfile import NamedTemporaryFile

        with NamedTemporaryFile(prefix="tridsl-npu-", suffix=".xclbin") as file:
            file.write(xclbin)
            file.flush()
            container = self.xrt.xclbin(file.name)
        self.device.register_xclbin(container)
        context = self.xrt.hw_context(self.device, container.get_uuid())
        kernels = {k.get_name(): k.get_num_args() for k in container.get_kernels()}
        name = next((n for n in kernels if n.startswith(KERNEL)), None)
        if name is None:
            raise _failed(f"the container has no kernel {KERNEL}, only {', '.join(kernels) or 'none'}")
        kernel = self.xrt.kernel(context, name)
        instructions = self.xrt.bo(self.device, len(insts), self.xrt.bo.cacheable, kernel.group_id(1))
        self._write(instructions, insts)
        return Loaded(context=context, kernel=kernel, tensors=kernels[name] - FIRST_BUFFER, instructions=instructions, written=insts)

    def run(self, xclbin: bytes, insts: bytes, inputs: Sequence[NDArray[Any]], outputs: Sequence[NDArray[Any]], order: Sequence[int]) -> None:
        """One dispatch. `order[n]` is the argument that the n-th of `(*inputs, *outputs)` is. TriError E0776 when it does not complete; the context is
        then thrown away, and the next call makes a new one."""
        loaded = self.get(xclbin, insts)
        arrays = [*inputs, *outputs]
        if len(arrays) > loaded.tensors:  # XRT would crash
            raise _failed(f"the container's kernel takes {loaded.tensors} tensors, and the call has {len(arrays)}")
        buffers: list[Any] = [None] * len(arrays)
        from_device = self.xrt.xclBOSyncDirection.XCL_BO_SYNC_BO_FROM_DEVICE
        for array, position in zip(arrays, order):
            key = (position, array.nbytes)
            if key not in loaded.buffers:
                group = loaded.kernel.group_id(FIRST_BUFFER + position)
                loaded.buffers[key] = self.xrt.bo(self.device, int(array.nbytes), self.xrt.bo.host_only, group)
            buffers[position] = loaded.buffers[key]
        for array, position in zip(inputs, order):
            self._write(buffers[position], np.ascontiguousarray(array).tobytes())
        try:
            run = loaded.kernel(RUN_TRANSACTION, loaded.instructions, len(insts) // 4, *buffers)
            state = run.wait(TIMEOUT_MILLISECONDS)
        except RuntimeError as problem:
            self.drop(xclbin)
            raise _failed(f"XRT stopped the run: {problem}") from None
        if state != self.xrt.ert_cmd_state.ERT_CMD_STATE_COMPLETED:
            self.drop(xclbin)
            raise _failed(f"the run ended as {state}")
        for array, position in zip(outputs, order[len(inputs) :]):
            buffers[position].sync(from_device)
            array[...] = np.frombuffer(buffers[position].map(), array.dtype, array.size).reshape(array.shape)


def _failed(what: str) -> TriError:
    return error("E0776", f"NPU: {what}", help="`tridsl doctor` lists what a run on an NPU takes; a stopped run often means firmware and driver of different versions")
