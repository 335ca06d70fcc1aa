"""What each row must reach (`floor`) and aims at (`goal`), and what the best peer reached on the machine where that was decided.

Source: the goals of this project for one pinned core of a Zen 4 server at 3.64 GHz (PyTorch 2.15, NumPy 2.4, onnxruntime, Numba, JAX,
OpenCV 5.0, Halide; peers measured there, interleaved, in one process).

Fractions of a peak mean the same on every machine: the peak is probed beside the reading. Times do not, so a row in seconds has two
verdicts. The absolute one compares with the floor as written. The one that counts, `floor_of_peer`, carries the floor over by the
peers: the floor on this machine is (floor / the table's best peer) times the best peer measured in this run. Where the table's best
peer is not installed, the best of the table's peers that is here takes its place, so that a weaker field does not lower the bar.

A fraction of the multiply-adds whose floor was possible only because the machine of the table read fast enough is carried over, too
(`roofline`): the product of 8 rows does 4 FLOP for each byte that must be read, the Zen 4 read 32 GB/s, so that its roofline there was its peak, and
the written bounds were shares of it. What counts is the same share of min(peak, rate of reading probed beside x FLOP a byte); the fraction of the
peak stays the row's figure, and whether it reaches the floor as written is said beside it, with the most that reading allows.
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.structs import dataclass, replace

UNITS: dict[str, float] = {"ms": 1e-3, "µs": 1e-6, "ns": 1e-9, "ns/pixel": 1e-9, "ns/element": 1e-9}
"""Units that are times, in seconds. Every other unit is a ratio or a rate, and more is better."""
FULL = 100.0
"""Percent."""
RATES: dict[str, float] = {"TFLOP/s": 1e12, "TOP/s": 1e12}
"""Units that are rates, in operations a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """`peers`: figures of the table's machine by library, best first, in `unit`. `goal` None: as good as the best peer in the run.
    `roofline`: the bounds are shares of what reading leaves of the peak, which was all of it on the table's machine."""

    unit: str
    floor: float
    goal: float | None
    peers: Mapping[str, float]
    roofline: bool = False

    @property
    def more(self) -> bool:
        """Whether larger is better."""
        return self.unit not in UNITS

    def level(self, value: float, scale: float = 1.0, best: float | None = None) -> str:
        """`goal`, `floor` or `missed`, with both bounds times `scale`. `best`: the best peer's value."""
        goal = self.goal if self.goal is not None else best
        bounds = (("goal", goal), ("floor", self.floor))
        reached = (n for n, b in bounds if b is not None and (value >= b * scale if self.more else value <= b * scale))
        return next(reached, "missed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`counts` is `by_peer` for times where a peer of the table was measured, that of the roofline's share (`share`, in percent) where the
    goal is one and the roofline is below the peak, else `absolute`. `bound`: the floor carried over."""

    counts: str
    absolute: str
    by_peer: str | None = None
    bound: float | None = None
    through: str = ""
    share: float | None = None

    def data(self) -> dict[str, object]:
        found: dict[str, object] = {"verdict": self.counts, "absolute": self.absolute, "by_peer": self.by_peer, "floor_of_peer": self.bound, "through": self.through}
        return found if self.share is None else found | {"share_of_roofline": self.share}


def judge(goal: Goal, value: float, measured: Mapping[str, float], ceiling: float | None = None) -> Verdict:
    """The verdict on `value`; `measured` are the peers' values of the same run, by contestant (`onnxruntime prepacked`). `ceiling`: the
    value at which nothing takes time but to read every byte once."""
    best = (max if goal.more else min)(measured.values(), default=None)
    absolute = goal.level(value, best=best)
    if goal.roofline and ceiling is not None and ceiling < FULL:
        share = FULL * value / ceiling
        return Verdict(counts=goal.level(share, best=best), absolute=absolute, share=share)
    if goal.more or best is None:
        return Verdict(counts=absolute, absolute=absolute)
    libraries = {name.partition(" ")[0] for name in measured}
    through = next((library for library in goal.peers if library in libraries), None)
    if through is None:
        return Verdict(counts=absolute, absolute=absolute)
    scale = best / goal.peers[through]
    found = goal.level(value, scale)
    return Verdict(counts=found, absolute=absolute, by_peer=found, bound=goal.floor * scale, through=through)


def _share(peak: str, floor: float, goal: float, **peers: float) -> Goal:
    return Goal(unit=f"% of {peak}", floor=floor, goal=goal, peers=peers)


def _time(unit: str, floor: float, goal: float, **peers: float) -> Goal:
    return Goal(unit=unit, floor=floor, goal=goal, peers=peers)


GOALS: dict[str, Goal] = {
    "f32 matmul 512": _share("fma", 90, 98, onnxruntime=98, numpy=91, torch=89),
    "f32 matmul 1024": _share("fma", 88, 95, numpy=89, torch=88, onnxruntime=86),
    "f32 matmul 2048": _share("fma", 88, 95, numpy=90, torch=87, onnxruntime=84),
    "f32 matmul 8": _time("µs", 0.9, 0.35, numpy=0.98, torch=1.11),
    "f32 matmul 32": _time("µs", 1.4, 0.9, numpy=1.6, torch=1.96),
    "f32 matmul 64": _time("µs", 5.2, 4.7, numpy=5.64, torch=6.97),
    "f32 matmul 8x4096x4096": replace(_share("fma", 60, 85, torch=24, numpy=16), roofline=True),
    "f32 matmul 4096x4096x64": _share("fma", 85, 92, onnxruntime=88, torch=68, numpy=68),
    "bf16 matmul 512": _share("bf16", 88, 96, torch=96),
    "bf16 matmul 1024": _share("bf16", 88, 96, torch=94),
    "bf16 matmul 2048": _share("bf16", 88, 96, torch=93),
    "int8 matmul 512": _share("vnni", 88, 97, onnxruntime=96, torch=94),
    "int8 matmul 1024": _share("vnni", 88, 97, torch=96, onnxruntime=95),
    "int8 matmul 2048": _share("vnni", 88, 97, torch=97, onnxruntime=91),
    "int16 matmul 512": _share("vnni16", 85, 95),
    "int16 matmul 1024": _share("vnni16", 85, 95),
    "int16 matmul 2048": _share("vnni16", 85, 95),
    "ternary product 2560x6912, 512 tokens": _share("vnni", 72, 93, **{"ik_llama.cpp": 86, "bitnet.cpp": 67, "ggml": 31}),
    "ternary product 2560x6912, 8 tokens": _share("vnni", 60, 88, **{"ik_llama.cpp": 75, "bitnet.cpp": 68, "ggml": 30}),
    "ternary product 6912x2560, 512 tokens": _share("vnni", 72, 93, **{"ik_llama.cpp": 90, "bitnet.cpp": 62, "ggml": 30}),
    "ternary product 6912x2560, 8 tokens": _share("vnni", 60, 88, **{"ik_llama.cpp": 69, "bitnet.cpp": 62, "ggml": 28}),
    "ternary vector 2560x6912": _share("read", 80, 95, **{"bitnet.cpp": 79, "ik_llama.cpp": 63, "ggml": 56}),
    "ternary vector 6912x2560": _share("read", 75, 92, **{"ik_llama.cpp": 65, "bitnet.cpp": 60, "ggml": 52}),
    "softmax 4096x4096": _share("copy", 60, 92, onnxruntime=34, torch=23),
    "softmax 1024x1024": _share("copy", 45, 70, onnxruntime=30, torch=15),
    "softmax 64x512": _share("copy", 35, 55, onnxruntime=19, torch=11),
    "layernorm 4096x4096": _share("copy", 60, 92, numba=44, torch=28),
    "layernorm 1024x1024": _share("copy", 65, 85, numba=62, jax=31),
    "layernorm 64x512": _share("copy", 60, 80, numba=55, onnxruntime=13),
    "rmsnorm 4096x4096": _share("copy", 65, 95, numba=59, jax=29),
    "rmsnorm 1024x1024": _share("copy", 75, 90, numba=73, jax=58),
    "rmsnorm 64x512": _share("copy", 80, 90, numba=78, torch=14),
    "attention 16x1024x64 f32": _share("fma", 72, 85, torch=73, ggml=58),
    "attention 16x1024x64 f32, causal": _share("fma", 60, 80, torch=48),
    "attention 16x1024x64 bf16": _share("bf16", 50, 75, torch=35),
    "decode 32x4096x128 f32": _share("read", 70, 90, ggml=48, torch=24),
    "decode 32x4096x128 bf16": _share("read", 70, 90, ggml=48, torch=27),
    "edges 1920x1080": _time("ns/pixel", 0.35, 0.2, halide=0.245, opencv=0.94),
    "Sobel edges 1920x1080": _time("ns/pixel", 0.4, 0.2, halide=0.256, opencv=1.49),
    "above 10^7": _time("ns/element", 0.35, 0.2, numba=0.46, numpy=1.56, torch=6.2),
    "cumsum 10^7": _time("ns/element", 0.6, 0.3, numba=0.82, torch=0.95, numpy=3.28),
    "exp(-x^2)a + tanh(bx) 10^7": _time("ns/element", 0.5, 0.25, jax=0.79, numpy=1.75),
    "exp(-x^2)a + tanh(bx) 10^4": _time("ns/element", 0.45, 0.2, numpy=1.48, jax=1.91),
    "two threads over one, matmul 1024": Goal(unit="x", floor=1.85, goal=1.96, peers={"numpy": 1.96, "torch": 1.96}),
    "two threads over one, rmsnorm 4096x4096": Goal(unit="x", floor=1.0, goal=None, peers={}),
    "call on three arrays of 16": _time("ns", 500, 200, numba=245, numpy=364, torch=1026),
    "import tridsl": _time("ms", 250, 110, numpy=72),
    "first softmax, empty cache": _time("ms", 150, 50, jax=62, numba=389),
    "first softmax, warm cache": Goal(unit="ms", floor=30, goal=5, peers={}),
    "compile f32 matmul 1024, empty cache": Goal(unit="ms", floor=200, goal=200, peers={}),
    "compile f32 matmul 1024, warm cache": Goal(unit="ms", floor=5, goal=5, peers={}),
}
"""By row. Peers in times: numpy's import is 72 ms with the interpreter's own start, 62 ms without; the row is without."""


NVIDIA_SAMPLE = {"f16": 184.0, "int8": 224.0}
"""T(FL)OP/s of 4096^3 by NVIDIA's own sample of cooperative matrices on an H200 through Vulkan (driver 580), which the goals name."""

GPU_GOALS: dict[str, Goal] = {
    "rows": _share("copy", 90, 97),
    "f16 matmul": Goal(unit="x torch", floor=0.38, goal=0.5, peers={}),
    "f16 matmul, sample": Goal(unit="TFLOP/s", floor=1.4 * NVIDIA_SAMPLE["f16"], goal=1.85 * NVIDIA_SAMPLE["f16"], peers={}),
    "int8 matmul": Goal(unit="TOP/s", floor=1.2 * NVIDIA_SAMPLE["int8"], goal=1.8 * NVIDIA_SAMPLE["int8"], peers={}),
    "f32 matmul": Goal(unit="x torch", floor=0.75, goal=0.95, peers={}),
    "ternary vector": _share("copy", 60, 85),
    "attention": Goal(unit="x torch", floor=0.15, goal=0.35, peers={}),
    "ten launches replayed": Goal(unit="x torch", floor=0.5, goal=1.0, peers={}),
}
"""By kind of row: of one H200 through Vulkan. `x torch` is the speed of PyTorch (cuBLAS, its attention, a CUDA graph) in the same run."""
