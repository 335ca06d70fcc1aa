"""The rows of the suites: ops at sizes, what figure of theirs counts, and which goal it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Literal

from tridsl.cli.bench.cases import Case
from tridsl.cli.bench.goals import GOALS, GPU_GOALS, RATES, UNITS, Goal
from tridsl.cli.bench.peak_kernels import BLOCKS
from tridsl.diagnostics import error
from tridsl.dtypes import BF16, F16, F32, I8, I16, DType
from tridsl.structs import dataclass, replace

Regime = Literal["hot", "cold"]
REGIMES: tuple[Regime, ...] = ("hot", "cold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An op at sizes. `amount`: the operations (or bytes; None: all that the arguments and results have) of a call that the peak in the
    goal's unit is compared with, or the elements that a time is shared by. The goal is for `regime`: the arrays are in the cache, or
    not. `sampled`: results do not depend on each other along the first axis, so a part of them may be compared. `loose`: by how many times
    more than their type allows results may be off. `tiled`: where the processor multiplies blocks, their peak is the one that counts."""

    name: str
    case: Case
    goal: Goal | None = None
    regime: Regime = "hot"
    amount: int | None = None
    sampled: bool = False
    loose: float = 1.0
    tiled: bool = False

    @property
    def against(self) -> str | None:
        """The peer whose speed is the goal's unit (`x torch`)."""
        unit = self.goal.unit if self.goal else ""
        return unit.removeprefix("x ") if unit.startswith("x ") else None

    @property
    def peak(self) -> str | None:
        """The peak that the goal is a fraction of."""
        unit = self.goal.unit if self.goal else ""
        return unit.removeprefix("% of ") if unit.startswith("% of ") else None

    def value(self, seconds: float, rates: Mapping[str, float], moved: int) -> float | None:
        """The figure in the goal's unit; None where the peak does not exist here."""
        if self.goal is None:
            return None
        if self.goal.unit in UNITS:
            return seconds / UNITS[self.goal.unit] / (self.amount or 1)
        if self.goal.unit in RATES:
            return (self.amount or 0) / seconds / RATES[self.goal.unit]
        blocks = (rates.get(name) for name, kind in BLOCKS.items() if self.tiled and kind.of == self.peak)
        rate = next((r for r in blocks if r is not None), rates.get(self.peak or ""))
        return None if rate is None else 100 * (moved if self.amount is None else self.amount) / seconds / rate


def _row(name: str, case: Case, amount: int | None = None, regime: Regime = "hot") -> Row:
    return Row(name=name, case=case, goal=GOALS[name], amount=amount, regime=regime)


def matmul(m: int, k: int, n: int, dtype: DType = F32) -> Case:
    """C[m, n] = A[m, k] B[k, n]."""
    return Case(operation="stdlib:matmul", sizes={"M": m, "K": k, "N": n}, types={"T": dtype})


def _square(word: str, dtype: DType, size: int, *, timed: bool = False) -> Row:
    return replace(_row(f"{word} matmul {size}", matmul(size, size, size, dtype), 1 if timed else 2 * size**3), tiled=True)


def _rows(op: str, rows: int, columns: int) -> Row:
    return _row(f"{op} {rows}x{columns}", Case(operation=f"stdlib:{op}", shapes={"x": (rows, columns)}), 8 * rows * columns)


def attention(heads: int, queries: int, keys: int, width: int, dtype: DType, *, causal: bool = False) -> Case:
    """Two products of 2 x queries x keys x width FLOP per head, half of them masked when causal."""
    sizes = {"H": heads, "G": heads, "S": queries, "L": keys, "D": width, "E": width}
    flop = 4 * heads * queries * keys * width // (2 if causal else 1)
    scalars: dict[str, int | float | bool] = {"scale": width**-0.5, "causal": causal}
    return Case(operation="stdlib:attention", sizes=sizes, types={"T": dtype}, scalars=scalars, flop=flop)


def _attention(name: str, heads: int, queries: int, keys: int, width: int, dtype: DType, *, causal: bool = False, regime: Regime = "hot") -> Row:
    """A single query reads K and V."""
    case = attention(heads, queries, keys, width, dtype, causal=causal)
    return _row(name, case, 2 * heads * keys * width * dtype.storage_bytes if queries == 1 else case.flop, regime)


def _ternary(m: int, k: int, tokens: int) -> Row:
    if tokens == 1:
        case = Case(operation="stdlib:tgemv", sizes={"M": m, "K": k}, scalars={"sx": 0.01})
        return _row(f"ternary vector {m}x{k}", case, None, "cold")
    case = Case(operation="stdlib:tgemm", sizes={"M": m, "K": k, "N": tokens})
    return _row(f"ternary product {m}x{k}, {tokens} tokens", case, 2 * m * k * tokens)


def _picture(name: str, op: str, height: int, width: int) -> Row:
    return _row(name, Case(operation=f"stdlib:{op}", sizes={"H": height, "W": width}, scalars={"threshold": 100}), height * width)


def _list(name: str, operation: str, count: int, **scalars: float) -> Row:
    return _row(name, Case(operation=operation, sizes={"N": count}, scalars=scalars), count)


TEN_MILLION, TEN_THOUSAND = 10**7, 10**4

CPU: tuple[Row, ...] = (
    *(_square("f32", F32, size) for size in (512, 1024, 2048)),
    *(_square("f32", F32, size, timed=True) for size in (8, 32, 64)),
    _row("f32 matmul 8x4096x4096", matmul(8, 4096, 4096), 2 * 8 * 4096**2),
    _row("f32 matmul 4096x4096x64", matmul(4096, 64, 4096), 2 * 64 * 4096**2),
    *(_square("bf16", BF16, size) for size in (512, 1024, 2048)),
    *(_square("int8", I8, size) for size in (512, 1024, 2048)),
    *(_square("int16", I16, size) for size in (512, 1024, 2048)),
    *(_ternary(m, k, tokens) for tokens in (512, 8, 1) for m, k in ((2560, 6912), (6912, 2560))),
    *(_rows(op, rows, columns) for op in ("softmax", "layernorm", "rmsnorm") for rows, columns in ((4096, 4096), (1024, 1024), (64, 512))),
    _attention("attention 16x1024x64 f32", 16, 1024, 1024, 64, F32),
    _attention("attention 16x1024x64 f32, causal", 16, 1024, 1024, 64, F32, causal=True),
    _attention("attention 16x1024x64 bf16", 16, 1024, 1024, 64, BF16),
    _attention("decode 32x4096x128 f32", 32, 1, 4096, 128, F32, regime="cold"),
    _attention("decode 32x4096x128 bf16", 32, 1, 4096, 128, BF16, regime="cold"),
    _picture("edges 1920x1080", "edges", 1080, 1920), _picture("Sobel edges 1920x1080", "sobel_edges", 1080, 1920),
    _list("above 10^7", "stdlib:above", TEN_MILLION, t=0.5), _list("cumsum 10^7", "stdlib:cumsum", TEN_MILLION),
    _list("exp(-x^2)a + tanh(bx) 10^7", "bench:waves", TEN_MILLION, a=1.5, b=0.5),
    _list("exp(-x^2)a + tanh(bx) 10^4", "bench:waves", TEN_THOUSAND, a=1.5, b=0.5),
)  # fmt: skip
"""Every row of the table of goals that is one op. The others are in `extras`."""

LARGE = 1 << 28
"""Bytes of the largest array of a row that must come from memory: several times the last cache of any GPU of today."""


MATRIX_INSTRUCTIONS = 10.0
"""Sums of f16 products by matrix instructions, which keep fewer bits than f32 between the terms of one (NVIDIA's align them to the largest
and truncate: Fasi et al. 2021, "Numerical behavior of NVIDIA tensor cores"): 2e-5 of the result at 4096 terms was seen on an H100."""


FEW_KEYS = 2.0
"""Queries of a causal mask that see few keys have larger results than most, with larger roundings of their f16 weights, and all are judged by the
size of the whole result: the worst of ours and of PyTorch were both 3.0e-3 of it on an H200."""


def _large(name: str, operation: str, dtype: DType, columns: int = 0, **scalars: float) -> Row:
    """Elementwise, or (`columns`) row by row, over 256 MiB."""
    elements = LARGE // dtype.storage_bytes
    sizes = {} if columns else {"N": elements}
    shapes = {"x": (elements // columns, columns)} if columns else {}
    case = Case(operation=operation, sizes=sizes, shapes=shapes, types={} if operation == "stdlib:saxpy" else {"T": dtype}, scalars=scalars)
    return Row(name=name, case=case, goal=GPU_GOALS["rows"], sampled=True)


def _product(word: str, size: int, dtype: DType, result: DType | None = None, goal: str | None = None, said: str = "") -> Row:
    case = matmul(size, size, size, dtype)
    case = case if result is None else replace(case, types={**case.types, "U": result})
    loose = MATRIX_INSTRUCTIONS if dtype == F16 else 1.0
    aim = None if goal is None else GPU_GOALS[goal]
    return Row(name=f"{word} matmul {size}{said}", case=case, goal=aim, amount=2 * size**3, sampled=True, loose=loose)


def _weights(m: int, k: int, *, judged: bool = False) -> Row:
    case = Case(operation="stdlib:tgemv", sizes={"M": m, "K": k}, scalars={"sx": 0.01})
    return Row(name=f"ternary vector {m}x{k}", case=case, goal=GPU_GOALS["ternary vector"] if judged else None, sampled=True)


GPU: tuple[Row, ...] = (
    _large("saxpy f32", "stdlib:saxpy", F32, a=2.0), _large("silu_mul f16", "stdlib:silu_mul", F16), _large("gelu f32", "stdlib:gelu", F32),
    *(
        _large(f"{op} {dtype} rows of {columns}", f"stdlib:{op}", dtype, columns)
        for columns in (1024, 4096, 16384) for dtype in (F32, F16) for op in ("softmax", "layernorm", "rmsnorm")
    ),
    _product("f16", 4096, F16, F32, "f16 matmul"), _product("f16", 4096, F16, F32, "f16 matmul, sample", ", beside NVIDIA's sample"),
    _product("int8", 4096, I8, None, "int8 matmul"), _product("f32", 4096, F32, None, "f32 matmul"),
    _product("f16", 4096, F16, said=" of f16 results"), _product("f16", 1024, F16, F32), _product("int8", 1024, I8), _product("f32", 1024, F32),
    _weights(8192, 28672, judged=True), _weights(2560, 6912), _weights(6912, 2560),
    Row(name="attention 16x2048x64 f16", case=attention(16, 2048, 2048, 64, F16), goal=GPU_GOALS["attention"]),
    Row(name="attention 16x2047x64 f16", case=attention(16, 2047, 2047, 64, F16)),
    Row(name="attention 16x2047x64 f16, causal", case=attention(16, 2047, 2047, 64, F16, causal=True), loose=FEW_KEYS),
    Row(name="attention 32x8x4096x128 f16", case=attention(32, 8, 4096, 128, F16)),
    Row(name="decode 32x4096x128 f16", case=attention(32, 1, 4096, 128, F16)), Row(name="decode 8x32768x128 f16", case=attention(8, 1, 32768, 128, F16)),
    *(
        Row(name=f"{name} {word}", case=Case(operation=f"stdlib:{name}", sizes={"N": count}, scalars=scalars))
        for word, count in (("10^7", TEN_MILLION), ("2^26", 1 << 26)) for name, scalars in (("cumsum", {}), ("above", {"t": 0.5}), ("sum", {}))
    ),
    Row(name="argmax 10^7", case=Case(operation="stdlib:argmax", sizes={"N": TEN_MILLION})),
    *(Row(name=f"topk {word}, 16", case=Case(operation="stdlib:topk", sizes={"N": count}, scalars={"k": 16})) for word, count in (("10^5", 10**5), ("10^7", TEN_MILLION))),
)  # fmt: skip
"""The rows of the goals of a GPU, and products, scans and reductions beside them that have none. Arrays lie on the device."""

SUITES: dict[str, tuple[Row, ...]] = {
    "cpu": CPU,
    "gpu": GPU,
    "quick": tuple(
        Row(name=case.operation, case=case) for case in (
            matmul(64, 64, 64), Case(operation="stdlib:softmax", shapes={"x": (64, 512)}),
            Case(operation="stdlib:edges", sizes={"H": 270, "W": 480}, scalars={"threshold": 100}),
        )
    ),
}  # fmt: skip
"""`cpu`, `gpu`: what the project measures itself by. `quick`: three small cases, to try the command."""

DEVICES = {"gpu": "gpu"}
"""What a suite runs on where the user names no device, if not on the CPU."""


def own_kernels() -> str:
    """The file of the ops that only this command has."""
    return str(resources.files("tridsl.cli.bench").joinpath("kernels.tri"))


def suite(name: str) -> tuple[Row, ...]:
    """E0814."""
    if name not in SUITES:
        raise error("E0814", f"there is no suite `{name}`", help=f"suites: {', '.join(SUITES)}")
    return SUITES[name]


def matching(names: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The names that contain one of the words of `--only`, in any case; all of them when there are none. E0814: nothing does."""
    kept = tuple(name for name in names if not wanted or any(word.casefold() in name.casefold() for word in wanted))
    if not kept:
        raise error("E0814", f"no row is named like {' or '.join(wanted)}", help="rows: " + "; ".join(names))
    return kept
