"""One small design made by hand: eight words go through a memory tile to a core, which adds one to each, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridsl.backends.npu.design import (
    Acquire,
    Argument,
    ArrayDesign,
    Await,
    Buffer,
    Chain,
    Core,
    Descriptor,
    Dimension,
    End,
    Flow,
    Function,
    HostTensor,
    Invoke,
    Lock,
    Place,
    Port,
    Release,
    Repeat,
    Task,
)

WORDS = 8
ROUNDS = 4
LINE = (Dimension(size=WORDS, stride=1),)
CORE, MEMTILE, SHIM = (0, 2), (0, 1), (0, 0)


def buffer(name: str, tile: Place, address: int, shape: tuple[int, ...] = (WORDS,), element_bytes: int = 4) -> Buffer:
    return Buffer(name=name, tile=tile, dtype="i32", shape=shape, element_bytes=element_bytes, address=address)


def pair(name: str, tile: Place, number: int) -> tuple[Lock, Lock]:
    return Lock(name=f"{name}_empty", tile=tile, number=number, initial=1), Lock(name=f"{name}_full", tile=tile, number=number + 1, initial=0)


def moving(number: int, name: str, fills: bool, dimensions: tuple[Dimension, ...] = LINE, offset: int = 0) -> Descriptor:
    first, last = ("empty", "full") if fills else ("full", "empty")
    return Descriptor(
        number=number, buffer=name, offset=offset, dimensions=dimensions, acquire=f"{name}_{first}", release=f"{name}_{last}", following=number
    )


def chain(tile: Place, direction: Any, channel: int, *descriptors: Descriptor) -> Chain:
    return Chain(tile=tile, direction=direction, channel=channel, descriptors=descriptors)


def end(tile: Place, direction: Any, channel: int = 0) -> End:
    return End(tile=tile, direction=direction, channel=channel)


def task(direction: Any, tensor: str, **more: Any) -> Task:
    settings: dict[str, Any] = {"number": 0 if direction == "out" else 8, "offset": 0, "dimensions": (Dimension(size=ROUNDS * WORDS, stride=1),)}
    return Task(tile=SHIM, direction=direction, channel=0, tensor=tensor, token=direction == "in", **(settings | more))


PROGRAM = (
    Repeat(
        variable="t",
        count=ROUNDS,
        body=(
            Acquire(port="x"),
            Acquire(port="y"),
            Invoke(function="f", arguments=(Argument(port="x"), Argument(port="y"))),
            Release(port="x"),
            Release(port="y"),
        ),
    ),
)


def tensor(name: str, role: Any, shape: tuple[int, ...] = (ROUNDS * WORDS,)) -> HostTensor:
    return HostTensor(name=name, dtype="i32", element_bytes=4, given=shape, shape=shape, axes=tuple(range(len(shape))), role=role)


def small() -> ArrayDesign:
    return ArrayDesign(
        name="small",
        generation="aie2",
        columns=1,
        buffers=(buffer("mx", MEMTILE, 0), buffer("my", MEMTILE, 64), buffer("cx", CORE, 4096), buffer("cy", CORE, 4160)),
        locks=(*pair("mx", MEMTILE, 0), *pair("my", MEMTILE, 2), *pair("cx", CORE, 0), *pair("cy", CORE, 2)),
        chains=(
            chain(MEMTILE, "in", 0, moving(0, "mx", True)),
            chain(MEMTILE, "out", 0, moving(1, "mx", False)),
            chain(CORE, "in", 0, moving(0, "cx", True)),
            chain(CORE, "out", 0, moving(1, "cy", False)),
            chain(MEMTILE, "in", 1, moving(24, "my", True)),
            chain(MEMTILE, "out", 1, moving(25, "my", False)),
        ),
        flows=(
            Flow(source=end(SHIM, "out"), targets=(end(MEMTILE, "in"),)),
            Flow(source=end(MEMTILE, "out"), targets=(end(CORE, "in"),)),
            Flow(source=end(CORE, "out"), targets=(end(MEMTILE, "in", 1),)),
            Flow(source=end(MEMTILE, "out", 1), targets=(end(SHIM, "in"),)),
        ),
        cores=(
            Core(
                tile=CORE,
                ports=(
                    Port(name="x", buffers=("cx",), acquire="cx_full", release="cx_empty", writes=False),
                    Port(name="y", buffers=("cy",), acquire="cy_empty", release="cy_full", writes=True),
                ),
                program=PROGRAM,
                stack_bytes=1024,
            ),
        ),
        tensors=(tensor("x", "input"), tensor("y", "output")),
        scalars=(),
        functions=(Function(name="f", parameters=(("x", "i32", True), ("y", "i32", True))),),
        sequence=(task("out", "x"), task("in", "y"), Await(tile=SHIM, direction="in", channel=0)),
    )


@dataclass
class AddOne:
    """The core's function, without a compiler (`simulate.Kernels`)."""

    calls: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    beyond: int = 0

    def call(self, name: str, arguments: Any, pointers: Any) -> str | None:
        self.calls.append((name, tuple(arguments)))
        x, y = (np.ctypeslib.as_array((np.ctypeslib.ctypes.c_int32 * (WORDS + self.beyond)).from_address(a)) for a in arguments)
        y[:] = x + 1
        return None


def run(design: ArrayDesign, kernels: Any = None, **tensors: NDArray[Any]) -> NDArray[Any]:
    """The result of one dispatch."""
    from tridsl.backends.npu.simulate import Simulator

    x = np.arange(ROUNDS * WORDS, dtype=np.int32)
    y = np.zeros(ROUNDS * WORDS, np.int32)
    Simulator(design, kernels or AddOne(), 63, 4).run({"x": x, "y": y, **tensors}, {})
    return y
