"""The rows of the suites: ops at sizes, what figure of theirs counts, and which goal it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from tridsl.cli.bench.cases import Case
from tridsl.cli.bench.goals import GOALS, UNITS, Goal
from tridsl.diagnostics import error
from tridsl.dtypes import BF16, F32, I8, I16, DType

Regime = Literal["hot", "cold"]
REGIMES: tuple[Regime, ...] = ("hot", "cold")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An op at sizes. `amount`: the operations (or bytes; None: all that the arguments and results have) of a call that the peak in the
    goal's unit is compared with, or the elements that a time is shared by. The goal is for `regime`: the arrays are in the cache, or
    not."""

    name: str
    case: Case
    goal: Goal | None = None
    regime: Regime = "hot"
    amount: int | None = None

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
        rate = rates.get(self.peak or "")
        return None if rate is None else 100 * (moved if self.amount is None else self.amount) / seconds / rate


def _row(name: str, case: Case, amount: int | None = None, regime: Regime = "hot") -> Row:
    return Row(name=name, case=case, goal=GOALS[name], amount=amount, regime=regime)


def matmul(m: int, k: int, n: int, dtype: DType = F32) -> Case:
    """C[m, n] = A[m, k] B[k, n]."""
    return Case(operation="stdlib:matmul", sizes={"M": m, "K": k, "N": n}, types={"T": dtype})


def _square(word: str, dtype: DType, size: int, *, timed: bool = False) -> Row:
    return _row(f"{word} matmul {size}", matmul(size, size, size, dtype), 1 if timed else 2 * size**3)


def _rows(op: str, rows: int, columns: int) -> Row:
    return _row(f"{op} {rows}x{columns}", Case(operation=f"stdlib:{op}", shapes={"x": (rows, columns)}), 8 * rows * columns)


def _attention(name: str, heads: int, queries: int, keys: int, width: int, dtype: DType, *, causal: bool = False, regime: Regime = "hot") -> Row:
    """Two products of 2 x queries x keys x width FLOP per head, half of them masked when causal; a single query reads K and V."""
    sizes = {"H": heads, "G": heads, "S": queries, "L": keys, "D": width, "E": width}
    flop = 4 * heads * queries * keys * width // (2 if causal else 1)
    scalars: dict[str, int | float | bool] = {"scale": width**-0.5, "causal": causal}
    case = Case(operation="stdlib:attention", sizes=sizes, types={"T": dtype}, scalars=scalars, flop=flop)
    return _row(name, case, 2 * heads * keys * width * dtype.storage_bytes if queries == 1 else flop, regime)


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

SUITES: dict[str, tuple[Row, ...]] = {
    "cpu": CPU,
    "quick": tuple(
        Row(name=case.operation, case=case) for case in (
            matmul(64, 64, 64), Case(operation="stdlib:softmax", shapes={"x": (64, 512)}),
            Case(operation="stdlib:edges", sizes={"H": 270, "W": 480}, scalars={"threshold": 100}),
        )
    ),
}  # fmt: skip
"""`cpu`: what the project measures itself by. `quick`: three small cases, to try the command."""


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
