"""More streams than channels: panels that ride along, lanes that take turns, all four rows of a column at work."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.backends.npu.designs import GENERATIONS, Subject, agree, chip, subject
from tests.backends.npu.test_kernels import normal, whole
from tridsl.backends.npu.ride import KEPT

BF16 = ml_dtypes.bfloat16
THREE = "op f(x: f32[N], y: f32[N], z: f32[N]) -> w: f32[N] {\n  w[i] = x[i] * y[i] + z[i]\n}\n"
MIXED = "op f(x: bf16[N], y: i32[N], z: f32[N], u: bf16[N]) -> w: f32[N] {\n  w[i] = f32(x[i]) * f32(y[i]) + z[i] - f32(u[i])\n}\n"
SCALED = """op f(X: i8[M, K], W: i8[N, K], sx: f32[M], sw: f32[N]) -> Y: f32[M, N] {
  Y[i, j] = f32(sum[k; acc=i32](X[i, k] * W[j, k])) * sx[i] * sw[j]
}
"""


def rows_of(given: Subject) -> int:
    return len({core.tile[1] for core in given.design.cores})


def channels(given: Subject, kind: int, direction: str) -> int:
    """The most channels of a tile in row `kind` of the array."""
    used: dict[Any, set[int]] = {}
    for flow in given.design.flows:
        for end in (flow.source, *flow.targets):
            if end.direction == direction and (end.tile[1] == kind or (kind == 2 and end.tile[1] > 2)):
                used.setdefault(end.tile, set()).add(end.channel)
    return max(map(len, used.values()))


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("columns", [1, 2, 4])
def test_all_four_rows_of_every_column_work(generation: str, columns: int) -> None:
    cases: list[tuple[str, tuple[Any, ...], str]] = [
        ("saxpy", (2.0, normal(5000), normal(5000)), "z"), (THREE, tuple(normal(5000) for _ in range(3)), "w"),
        ("layernorm", (normal(40, 77), normal(77), normal(77)), "y"),
    ]  # fmt: skip
    for name, arguments, stage in cases:
        given = subject(name, *arguments, generation=generation, decisions={f"{stage}.columns": columns})
        agree(given.results(dispatches=2), given.want())
        assert rows_of(given) == 4 and given.design.columns == columns


@pytest.mark.parametrize("generation", GENERATIONS)
def test_streams_of_several_types_take_turns(generation: str) -> None:
    given = subject(MIXED, normal(3000, dtype=BF16), whole(np.int16, 3000).astype(np.int32), normal(3000), normal(3000, dtype=BF16), generation=generation)
    agree(given.results(dispatches=2), given.want())
    facts = chip(generation).array
    assert facts is not None
    assert channels(given, 2, "in") <= facts.core_in_channels and channels(given, 0, "out") <= facts.shim_out_channels


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("columns", [1, 2, 4])
def test_a_bias_rides_with_the_weights(generation: str, columns: int) -> None:
    x, w, b = normal(90, 200, dtype=BF16), normal(70, 200, dtype=BF16), normal(70, dtype=BF16)
    given = subject("linear", x, w, b, generation=generation, decisions={"y.sum.depth": 16, "y.sum.columns": columns})
    agree(given.results(dispatches=2), given.want())
    assert any(p.name == f"b.l1{KEPT}" for p in given.design.cores[0].ports)
    assert channels(given, 2, "in") == 2


@pytest.mark.parametrize("k", [33, 55, 64])
@pytest.mark.parametrize("n", [17, 32, 64])
@pytest.mark.parametrize("piece", [1, 2])
def test_a_bias_of_any_width_rides_through_few_rounds(k: int, n: int, piece: int) -> None:
    x, w, b = normal(40, k, dtype=BF16), normal(n, k, dtype=BF16), normal(n, dtype=BF16)
    given = subject("linear", x, w, b, decisions={"y.sum.depth": 32, "y.sum.piece": piece})
    agree(given.results(), given.want())


@pytest.mark.parametrize("k", [33, 64])
@pytest.mark.parametrize(("m", "n"), [(20, 64), (40, 16), (20, 16), (3, 5)])
def test_a_bias_rides_where_the_cores_share_few_rows(m: int, n: int, k: int) -> None:
    given = subject("linear", normal(m, k, dtype=BF16), normal(n, k, dtype=BF16), normal(n, dtype=BF16), decisions={"y.sum.depth": 32})
    agree(given.results(), given.want())


@pytest.mark.parametrize("generation", GENERATIONS)
def test_scales_of_rows_and_of_columns(generation: str) -> None:
    """One rides with each factor."""
    given = subject(SCALED, whole(np.int8, 60, 160), whole(np.int8, 50, 160), normal(60), normal(50), generation=generation, decisions={"Y.sum.depth": 16})
    agree(given.results(dispatches=2), given.want())
    assert channels(given, 2, "in") == 2


def test_long_chains_are_divided_between_the_halves_of_the_descriptors() -> None:
    """Four inputs make one channel's chain half of what there is."""
    found = subject(MIXED, normal(3000, dtype=BF16), whole(np.int16, 3000).astype(np.int32), normal(3000), normal(3000, dtype=BF16)).design
    for tile in {c.tile for c in found.chains if c.tile[1] == 1}:
        numbers = {d.number: c.channel for c in found.chains if c.tile == tile for d in c.descriptors}
        assert all((n >= 24) == (channel % 2 == 1) for n, channel in numbers.items()) and max(numbers) < 48


def test_few_transfers_are_in_flight_however_deep_the_sum_is() -> None:
    """Shared channels have a transfer for each round; descriptors are used again behind waits (the checker has seen the design)."""
    x, w, b = normal(20, 3000, dtype=BF16), normal(20, 3000, dtype=BF16), normal(20, dtype=BF16)
    given = subject("linear", x, w, b, generation="aie2", decisions={"y.sum.depth": 16})
    agree(given.results(), given.want())
    facts = chip("aie2").array
    assert facts is not None
    numbers = {(t.tile, t.number) for t in given.design.sequence if hasattr(t, "number")}
    assert len(given.design.sequence) > 200 and max(n for _, n in numbers) < facts.shim_descriptors
