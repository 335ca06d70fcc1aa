"""GPU kernels through Vulkan, measured by the device's own clock, with PyTorch beside them where it is installed.

    python -m tests.bench.gpu [--device gpu:0] [--only softmax] [--runs 30] [--decide y.lanes=128]

Arguments lie in device memory before the clock starts. Printed: the median of the runs behind the first five, as bandwidth (each
input read once, each output written once) over that of a device copy in the same process, or as arithmetic over PyTorch's.
Every result is compared with NumPy in f64 first (matmul: on sampled rows).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.stdlib.calling import prepared
from tridsl.backends.vulkan import BACKEND
from tridsl.backends.vulkan.commands import download, record_copy, upload
from tridsl.backends.vulkan.device import LogicalDevice
from tridsl.backends.vulkan.driver import VulkanDriver
from tridsl.backends.vulkan.memory import DeviceArray
from tridsl.backends.vulkan.timing import timed_runs
from tridsl.diagnostics import TriError
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.op import Scalar, Tensor
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import Build, build
from tridsl.schedule.automatic import choose

WARM_UP = 5
WARM_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`inputs`: shapes; `dtypes`: of the inputs; `exact`: the result in f64 for the sampled `rows`; `flops`: 0 where bytes count."""

    name: str
    op: str
    inputs: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    exact: Callable[..., np.ndarray]
    peer: Callable[[Any, Sequence[Any]], Any]
    tolerance: float = 1e-5
    flops: float = 0.0
    scalars: tuple[float, ...] = ()
    types: tuple[tuple[str, str], ...] = ()


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layernorm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gamma + beta


def rmsnorm(x: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * gamma


def rows(dtype: str, columns: int) -> tuple[int, int]:
    """512 MiB of rows."""
    return (1 << 29) // (columns * np.dtype(dtype).itemsize), columns


def cases() -> list[Case]:
    found = [
        Case(name="saxpy f32", op="saxpy", inputs=((1 << 27,), (1 << 27,)), dtypes=("float32", "float32"), scalars=(2.0,),
             exact=lambda x, y: 2.0 * x + y, peer=lambda t, a: t.add(a[1], a[0], alpha=2.0)),
        Case(name="silu_mul f16", op="silu_mul", inputs=((1 << 28,), (1 << 28,)), dtypes=("float16", "float16"), tolerance=2e-3,
             exact=lambda x, y: x / (1 + np.exp(-x)) * y, peer=lambda t, a: t.nn.functional.silu(a[0]) * a[1]),
        Case(name="gelu f32", op="gelu", inputs=((1 << 27,),), dtypes=("float32",), exact=_gelu, peer=lambda t, a: t.nn.functional.gelu(a[0])),
    ]  # fmt: skip
    for columns in (1024, 4096, 16384):
        for dtype in ("float32", "float16"):
            narrow = {"float32": 1e-5, "float16": 2e-3}[dtype]
            shape, one = rows(dtype, columns), (columns,)
            label = f"{dtype[0]}{dtype[-2:]} {shape[0]}x{columns}"
            found += [
                Case(name=f"softmax {label}", op="softmax", inputs=(shape,), dtypes=(dtype,), exact=softmax, tolerance=narrow,
                     peer=lambda t, a: t.softmax(a[0], -1)),
                Case(name=f"layernorm {label}", op="layernorm", inputs=(shape, one, one), dtypes=(dtype,) * 3, exact=layernorm,
                     tolerance=narrow, peer=lambda t, a: t.nn.functional.layer_norm(a[0], a[1].shape, a[1], a[2], 1e-5)),
                Case(name=f"rmsnorm {label}", op="rmsnorm", inputs=(shape, one), dtypes=(dtype,) * 2, exact=rmsnorm, tolerance=narrow,
                     peer=lambda t, a: t.nn.functional.rms_norm(a[0], a[1].shape, a[1], 1e-5)),
            ]  # fmt: skip
    for size in (1024, 4096):
        for dtype, types in (("float32", ()), ("float16", (("U", "f32"),)), ("int8", ())):
            found.append(
                Case(name=f"matmul {dtype} {size}", op="matmul", inputs=((size, size), (size, size)), dtypes=(dtype,) * 2, exact=np.matmul,
                     types=types, tolerance=1e-4, flops=2.0 * size**3, peer=_peer_matmul)
            )  # fmt: skip
    return found


def _gelu(x: np.ndarray) -> np.ndarray:
    from math import erf  # over a sample only

    return 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def _peer_matmul(torch: Any, arguments: Sequence[Any]) -> Any:
    a, b = arguments
    return torch._int_mm(a, b) if a.dtype == torch.int8 else a @ b


def measure(case: Case, driver: VulkanDriver, name: str, runs: int, decisions: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds (median) and the greatest error over the sampled rows, relative to the largest value there."""
    device = next(d for d in driver.devices() if d.name == name)
    logical = driver.open(name)
    hosts = [values(dtype, shape) for dtype, shape in zip(case.dtypes, case.inputs)]
    op, given, sizes = prepared(case.op, (*case.scalars, *hosts), dict(case.types), {})
    given |= {p.name: p.default.value for p in op.inputs if isinstance(p, Scalar) and p.name not in given and p.default}
    facts = Specialisation(sizes=tuple(sizes.items()))
    binary = build(op, Build(spec=device.spec, backend=BACKEND, facts=facts, schedule=choose(op, device.spec, sizes, decisions)))
    executable = driver.load(binary, device)
    arrays: list[DeviceArray] = []
    slots: list[Any] = []
    result: DeviceArray | None = None
    for param in binary.signature.params:
        if isinstance(param, Scalar):
            slots.append(given[param.name])
            continue
        assert isinstance(param, Tensor)
        count = int(np.prod([n.value for n in param.shape]))  # type: ignore[union-attr]
        arrays.append(logical.memory.allocate(count * np.dtype(NUMPY_TYPES[param.dtype]).itemsize))
        slots.append(arrays[-1])
        if param.role == "output":
            result, shape, dtype = arrays[-1], [n.value for n in param.shape], NUMPY_TYPES[param.dtype]  # type: ignore[union-attr]
        else:
            upload(logical, memoryview(np.ascontiguousarray(given[param.name])).cast("B"), arrays[-1])
    assert result is not None
    warm = 0.0
    while warm < WARM_SECONDS:  # a device that has idled takes a while to reach its clocks
        warm += sum(executable.device_seconds(slots, WARM_UP))
    times = executable.device_seconds(slots, WARM_UP + runs)[WARM_UP:]
    found = np.empty(shape, dtype)
    download(logical, result, memoryview(found).cast("B"))
    for array in arrays:
        logical.memory.release(array)
    return statistics.median(times), error(case, hosts, found)


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(len(shape) + shape[0])
    if dtype == "int8":
        return rng.integers(-128, 127, shape, endpoint=True, dtype=np.int8)
    block = rng.standard_normal(min(1 << 24, int(np.prod(shape))), np.float32).astype(dtype)
    return np.resize(block, shape)


def error(case: Case, hosts: Sequence[np.ndarray], found: np.ndarray) -> float:
    chosen = np.linspace(0, len(found) - 1, min(len(found), 8 if found.ndim > 1 else 100_000)).astype(int)
    integers = case.dtypes[0].startswith("int")
    wide = [h.astype(np.int64 if integers else np.float64) for h in (h[chosen] if n == 0 or h.shape == hosts[0].shape and not case.flops else h for n, h in enumerate(hosts))]
    exact = case.exact(*wide)
    return float(np.abs(found[chosen].astype(exact.dtype) - exact).max() / np.abs(exact).max())


def copy_bandwidth(logical: LogicalDevice, size: int, runs: int) -> float:
    """Bytes read and written per second by a copy of `size` bytes."""
    source, target = logical.memory.allocate(size), logical.memory.allocate(size)
    times = timed_runs(logical, lambda commands: record_copy(logical.api, commands, source, target), (), WARM_UP + runs)[WARM_UP:]
    for array in (source, target):
        logical.memory.release(array)
    return 2 * size / statistics.median(times)


def peer_seconds(torch: Any, case: Case, runs: int) -> float:
    arguments = [torch.from_numpy(values(dtype, shape)).cuda() for dtype, shape in zip(case.dtypes, case.inputs)]
    times = []
    for _ in range(WARM_UP + runs):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        case.peer(torch, arguments)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times[WARM_UP:])


def peer_copy(torch: Any, size: int, runs: int) -> float:
    """Bytes read and written per second by PyTorch's copy of `size` bytes."""
    source = torch.empty(size, dtype=torch.uint8, device="cuda")
    copy = Case(name="copy", op="", inputs=(), dtypes=(), exact=softmax, peer=lambda t, a: target.copy_(source))
    target = torch.empty_like(source)
    return 2 * size / peer_seconds(torch, copy, runs)


def moved_bytes(case: Case) -> float:
    sizes = [float(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in zip(case.inputs, case.dtypes)]
    return sum(sizes) + sizes[0]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--scale", type=int, default=1, help="divide the leading sizes by this (to try the script on a slow device)")
    parser.add_argument("--decide", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args(argv)
    decisions = {k: {"true": True, "false": False}.get(v, int(v) if v.isdigit() else v) for k, _, v in (d.partition("=") for d in options.decide)}
    driver = VulkanDriver()
    name = options.device or driver.devices()[0].name
    torch = None
    if not options.no_peer:
        try:
            import torch
        except ImportError:
            print("no PyTorch here")
    yardstick = copy_bandwidth(driver.open(name), (1 << 30) // options.scale, options.runs)
    by_transfer = yardstick
    if torch is not None and torch.cuda.is_available():  # a copy by a kernel, as ours are
        yardstick = max(yardstick, peer_copy(torch, (1 << 30) // options.scale, options.runs))
    print(f"{driver.devices()[0].description}\ncopy: {yardstick / 1e12:.3f} TB/s (vkCmdCopyBuffer {by_transfer / 1e12:.3f})")
    for case in cases():
        if options.only not in case.name:
            continue
        if options.scale > 1:
            case = replace(case, inputs=tuple((max(1, s[0] // options.scale), *s[1:]) if i == 0 or not case.flops and s == case.inputs[0] else s for i, s in enumerate(case.inputs)), flops=case.flops / options.scale)
        try:
            seconds, wrong = measure(case, driver, name, options.runs, decisions)
        except (TriError, RuntimeError, MemoryError) as problem:  # one row that fails is a row of the table
            print(f"{case.name:32} failed: {type(problem).__name__}: {str(problem)[:300]}")
            continue
        other = peer_seconds(torch, case, options.runs) if torch is not None and torch.cuda.is_available() else float("nan")
        rate, unit = (case.flops / 1e12, "TFLOP/s") if case.flops else (moved_bytes(case) / 1e12, "TB/s")
        share = "" if case.flops else f"  {rate * 1e12 / seconds / yardstick:6.1%} of copy (PyTorch {rate * 1e12 / other / yardstick:6.1%})"
        verdict = "" if wrong <= case.tolerance else f"  WRONG by {wrong:.2g}"
        print(f"{case.name:32} {rate / seconds:8.3f} {unit:8}{share}  {other / seconds:5.2f} x PyTorch ({rate / other:.3f}){verdict}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
