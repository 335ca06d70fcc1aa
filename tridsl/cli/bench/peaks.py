"""What this machine can do at most, measured by kernels of our own beside every reading.

`fma`, `bf16`, `vnni`, `vnni16`, and (where the processor multiplies blocks) `amx_bf16`, `amx_i8`: products in registers, each multiply-add
counted as two operations. `read_plain`, `read_streams` (four
parts side by side), `copy_plain`, `copy_around` (non-temporal stores): bytes read plus written, at the size of the reading that they
stand beside, in the cache or rotated as it is. `read` and `copy` are the faster of the two ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from functools import partial
from typing import Any

import numpy as np

from tridsl.backend import Binary, Code, Device, Signature, load_backend
from tridsl.backends.cpu.amx import CONFIGURATION
from tridsl.cli.bench.arrays import aligned
from tridsl.cli.bench.peak_kernels import BLOCKS, CHAINS, STREAMS, TILES, chains
from tridsl.cli.bench.peak_kernels import blocks as block_chains
from tridsl.cli.bench.sampling import Call, Reading
from tridsl.dtypes import F32
from tridsl.ir.expr import Var
from tridsl.ir.op import Tensor
from tridsl.structs import dataclass

CHAIN_LENGTH = 1 << 19
"""Instructions of one chain in a call: some milliseconds. Behind a stream through memory the clock needs a part of one to come up
again (measured: 0.3 ms of them reach 75 to 90% of what 3 ms do)."""
BLOCK_CYCLES = 16
"""By how much longer an instruction for blocks takes than one for vectors."""
LEAST_STREAM_BYTES = 4 << 20
"""A stream in the cache goes over its bytes again until it has moved so many, one out of the cache takes so many at once."""
TURN = 16 * 64
"""Bytes that are a multiple of what every stream moves in one turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A kernel at one limit of the machine. One call does `amount` of `unit` (FLOP, OP, or bytes read plus written)."""

    name: str
    unit: str
    amount: float
    call: Call


@dataclass(slots=True, kw_only=True, eq=False)
class Peaks:
    """The probes of one device on `threads` threads. `rotation`: bytes that cold streams go round in."""

    device: Device
    threads: int
    rotation: int
    _kernels: dict[str, Any] = field(default_factory=dict)
    _arena: Any = None
    _pool: ThreadPoolExecutor | None = None

    def arithmetic(self, name: str) -> Probe | None:
        """None where the processor lacks the instruction."""
        spec = self.device.spec
        chain = CHAINS[name]
        lanes = max(1, (spec.vector_bits or 128) // 32)
        if chain.feature and (chain.feature not in spec.features or lanes < 16):
            return None
        accumulators = 24 if (spec.vector_registers or 16) >= 32 else 12
        kernel = self._kernel(name, lambda: chains(name, lanes, accumulators))
        scratch = [np.full((2 + accumulators) * lanes, 0.5, np.float32) for _ in range(self.threads)]
        amount = 2.0 * chain.deep * CHAIN_LENGTH * accumulators * lanes * self.threads
        unit = "FLOP/s" if chain.accumulator == "float" else "OP/s"
        return Probe(name=name, unit=unit, amount=amount, call=self._together([partial(kernel, [s, s, CHAIN_LENGTH, 1], 1) for s in scratch]))

    def blocks(self, name: str) -> Probe | None:
        """That of an instruction for blocks; None where the processor lacks it."""
        kind = BLOCKS[name]
        if kind.feature not in self.device.spec.features:
            return None
        kernel = self._kernel(name, lambda: block_chains(name))
        configuration = np.array(CONFIGURATION, np.uint8).view(np.float32)
        length = CHAIN_LENGTH // BLOCK_CYCLES
        amount = 2.0 * kind.products * (TILES - 2) * length * self.threads
        parts = [partial(kernel, [configuration, configuration, length, 1], 1) for _ in range(self.threads)]
        return Probe(name=name, unit=kind.unit, amount=amount, call=self._together(parts))

    def memory(self, moved: int, *, cold: bool) -> tuple[Probe, ...]:
        """Streams of `moved` bytes in all, again and again the same ones, or (`cold`) the next ones of the rotation."""
        share = max(2 * TURN, -(-(max(moved, LEAST_STREAM_BYTES) if cold else moved) // self.threads // (2 * TURN)) * 2 * TURN)
        slots = max(1, self.rotation // (share * self.threads)) if cold else 1
        if self._arena is None or self._arena.size < share * self.threads * slots:
            self._arena = aligned((max(share * self.threads * slots, self.rotation if cold else 0),), np.uint8)
            self._arena.fill(1)
        rounds = 1 if cold else -(-LEAST_STREAM_BYTES // share)
        return tuple(self._stream(name, share, slots, rounds) for name in STREAMS)

    def _stream(self, name: str, share: int, slots: int, rounds: int) -> Probe:
        lanes = max(1, (self.device.spec.vector_bits or 128) // 32)
        kernel = self._kernel(name, lambda: STREAMS[name](lanes))
        half = share if name.startswith("read") else share // 2
        sink = aligned((64,), np.float32)
        parts = []
        for slot in range(slots):
            row = []
            for thread in range(self.threads):
                begin = (slot * self.threads + thread) * share
                x = self._arena[begin : begin + half].view(np.float32)
                y = sink if name.startswith("read") else self._arena[begin + half : begin + share].view(np.float32)
                row.append(partial(kernel, [x, y, half // 4, rounds], 1))
            parts.append(self._together(row))
        return Probe(name=name, unit="B/s", amount=float(share * rounds * self.threads), call=lambda number: parts[number % slots](number))

    def _together(self, parts: Sequence[Callable[[], None]]) -> Call:
        if len(parts) == 1:
            (only,) = parts
            return lambda number: only()
        pool = self._pool = self._pool or ThreadPoolExecutor(self.threads)
        return lambda number: [future.result() for future in [pool.submit(part) for part in parts]]

    def _kernel(self, name: str, text: Callable[[], str]) -> Any:
        if name not in self._kernels:
            self._kernels[name] = _load(text(), self.device)
        return self._kernels[name]


def rates(probes: Iterable[Probe], readings: Mapping[str, Reading]) -> dict[str, float]:
    """What was reached, per second; `read` and `copy` are the better of the two ways to do it."""
    found = {p.name: p.amount / readings[p.name].median for p in probes}
    ways = {what: [rate for name, rate in found.items() if name.startswith(f"{what}_")] for what in ("read", "copy")}
    return found | {what: max(several) for what, several in ways.items() if several}


def _load(text: str, device: Device) -> Any:
    n = Var(name="n")
    tensors = tuple(Tensor(name=name, dtype=F32, shape=(n,), role=role) for name, role in (("x", "input"), ("y", "output")))  # type: ignore[arg-type]
    backend = load_backend(device.backend)
    header = f'target triple = "{device.spec.target_triple}"\n'
    code = Code(entry="probe", text=header + text, extension="ll", signature=Signature(params=tensors, sizes=("n", "rounds")))
    binary: Binary = backend.build(code, device.spec)
    return backend.driver().load(binary, device)
