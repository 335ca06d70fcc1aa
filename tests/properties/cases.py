"""A call of a random op, and when two answers to it are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tridsl.dtypes import BF16, F16, F32, F64, NUMPY_TYPES, DType

Regime = Literal["integers", "moved", "computed"]
FLOATS = (F32, F64, F16, BF16)
_FLOAT_TYPES = tuple(NUMPY_TYPES[t] for t in FLOATS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call: `text` defines op `name`; `arguments` are its arrays and scalars by name, `sizes` the extents they imply."""

    text: str
    name: str
    arguments: dict[str, Any]
    sizes: dict[str, int]
    regime: Regime
    narrowest: DType | None

    def __repr__(self) -> str:
        shapes = {n: f"{a.dtype}{list(a.shape)}" if isinstance(a, np.ndarray) else a for n, a in self.arguments.items()}
        return f"Case({self.regime}, {shapes})\n{self.text}"


def agree(case: Case, got: dict[str, np.ndarray[Any, Any]], want: dict[str, np.ndarray[Any, Any]]) -> None:
    """Asserts that `got` is as good as `want` (the oracle's answer; with `exact=True` where the regime is `computed`).

    The elements of a compaction past its length are not compared.
    """
    assert set(got) >= set(want), f"{sorted(want)} expected, {sorted(got)} given"
    bits = {BF16: 7, F16: 10, F32: 21, F64: 46}[case.narrowest] if case.narrowest else 52
    for name, reference in want.items():
        length = int(want[f"{name}.len"]) if f"{name}.len" in want else None
        a, b = (x[:length] if length is not None else x for x in (got[name], reference))
        assert a.shape == b.shape, f"{name}: shape {a.shape}, expected {b.shape}"
        wide, exact = (
            x.astype(np.float64) if x.dtype in _FLOAT_TYPES else x for x in (a, b)
        )  # bf16's NaN equals nothing
        if case.regime != "computed" or wide.dtype.kind != "f":
            np.testing.assert_array_equal(wide, exact, err_msg=f"{name}\n{case!r}")
        else:
            np.testing.assert_allclose(
                wide, exact, rtol=64 * 2.0**-bits, atol=64 * 2.0**-bits, err_msg=f"{name}\n{case!r}"
            )
