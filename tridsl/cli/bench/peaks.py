"""What this machine can do at most, measured by kernels of our own: multiply-adds in registers, a copy past the caches."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tridsl.backend import Binary, Code, Device, Signature, load_backend
from tridsl.cli.bench.sampling import Call
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import F32
from tridsl.ir.expr import Var
from tridsl.ir.op import Tensor

FMA_ROUNDS = 1 << 17
LEAST_COPY_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A kernel that runs at one limit of the machine. One call does `amount` of `unit` (FLOP, or bytes read plus written)."""

    name: str
    unit: str
    amount: float
    call: Call


def probes(device: Device, threads: int) -> tuple[Probe, ...]:
    """`fma`: f32 multiply-adds on registers, two operations each. `copy`: non-temporal stores, arrays twice the last-level cache.

    With several threads each runs the kernel on its own part.
    """
    spec = device.spec
    lanes = max(1, (spec.vector_bits or 128) // 32)
    accumulators = 24 if (spec.vector_registers or 16) >= 32 else 12
    pool = ThreadPoolExecutor(threads) if threads > 1 else None
    fma = _load(_fma_text(lanes, accumulators), device)
    copy = _load(_copy_text(lanes), device)
    scratch = [np.full(2 * lanes + accumulators * lanes, 0.5, np.float32) for _ in range(threads)]
    count = max(LEAST_COPY_BYTES, 2 * (spec.l3_bytes or spec.l2_bytes or 0)) // 4 // (4 * lanes * threads) * (4 * lanes)
    arrays = [(_aligned(count), _aligned(count)) for _ in range(threads)]
    return (
        Probe(name="fma", unit="FLOP/s", amount=2.0 * FMA_ROUNDS * accumulators * lanes * threads,
              call=_together(pool, [partial(fma, [s, s, FMA_ROUNDS], 1) for s in scratch])),
        Probe(name="copy", unit="B/s", amount=8.0 * count * threads,
              call=_together(pool, [partial(copy, [*a, count], 1) for a in arrays])),
    )  # fmt: skip


def _together(pool: ThreadPoolExecutor | None, parts: list[Callable[[], None]]) -> Call:
    if pool is None:
        (only,) = parts
        return lambda number: only()
    return lambda number: [future.result() for future in [pool.submit(part) for part in parts]]


def _load(text: str, device: Device) -> Any:
    n = Var(name="n")
    tensors = tuple(Tensor(name=name, dtype=F32, shape=(n,), role=role) for name, role in (("x", "input"), ("y", "output")))  # type: ignore[arg-type]
    backend = load_backend(device.backend)
    code = Code(entry="probe", text=_header(device.spec) + text, extension="ll", signature=Signature(params=tensors, sizes=("n",)))
    binary: Binary = backend.build(code, device.spec)
    return backend.driver().load(binary, device)


def _header(spec: DeviceSpec) -> str:
    return f'target triple = "{spec.target_triple}"\n'


_ENTRY = """define i32 @probe(ptr %slots, i64 %threads) "prefer-vector-width"="{bits}" {{
entry:
  %x = load ptr, ptr %slots
  %y.slot = getelementptr i64, ptr %slots, i64 1
  %y = load ptr, ptr %y.slot
  %n.slot = getelementptr i64, ptr %slots, i64 2
  %n = load i64, ptr %n.slot
{start}  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
{body}  %next = add i64 %i, {step}
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %end
end:
{finish}  ret i32 0
}}
"""


def _fma_text(lanes: int, accumulators: int) -> str:
    """Independent chains `a = a * 0.5 + 0.5`, as many as registers allow, which is more than the latency of one needs."""
    vector = f"<{lanes} x float>"
    start = f"  %m = load {vector}, ptr %x, align 4\n  %c.at = getelementptr {vector}, ptr %x, i64 1\n  %c = load {vector}, ptr %c.at, align 4\n"
    phis, body, finish = "", "", ""
    for i in range(accumulators):
        start += f"  %s{i}.at = getelementptr {vector}, ptr %x, i64 {2 + i}\n  %s{i} = load {vector}, ptr %s{i}.at, align 4\n"
        phis += f"  %a{i} = phi {vector} [ %s{i}, %entry ], [ %b{i}, %loop ]\n"
        body += f"  %b{i} = call {vector} @llvm.fma.v{lanes}f32({vector} %a{i}, {vector} %m, {vector} %c)\n"
        finish += f"  store {vector} %b{i}, ptr %s{i}.at, align 4\n"
    return _ENTRY.format(bits=32 * lanes, start=start, body=phis + body, finish=finish, step=1) + f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})\n"


def _copy_text(lanes: int) -> str:
    """Four vectors a round, with stores that go around the caches."""
    vector = f"<{lanes} x float>"
    body = ""
    for i in range(4):
        body += f"  %p{i} = add i64 %i, {i * lanes}\n  %f{i} = getelementptr float, ptr %x, i64 %p{i}\n  %t{i} = getelementptr float, ptr %y, i64 %p{i}\n"
        body += f"  %v{i} = load {vector}, ptr %f{i}, align {4 * lanes}\n  store {vector} %v{i}, ptr %t{i}, align {4 * lanes}, !nontemporal !0\n"
    return _ENTRY.format(bits=32 * lanes, start="", body=body, finish="  fence seq_cst\n", step=4 * lanes) + "!0 = !{i32 1}\n"


def _aligned(count: int) -> Any:
    """Zeros that begin at a multiple of 64 bytes, every page touched."""
    raw = np.ones(count + 16, np.float32)
    skip = -raw.ctypes.data % 64 // 4
    return raw[skip : skip + count]
