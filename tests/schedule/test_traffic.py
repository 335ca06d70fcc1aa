"""What is stored around the caches, and which rows are fetched ahead, follows from the chip's facts and the sizes alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.schedule.programs import CPU, op_of
from tridsl.devices.spec import DeviceSpec, load_chip
from tridsl.schedule.automatic import automatic
from tridsl.schedule.steps import Pipeline, StoreIn

SOFTMAX = """op f(x: f32[R, N]) -> y: f32[R, N] {
  m[r]    = max[n](x[r, n])
  e[r, n] = exp(x[r, n] - m[r])
  s[r]    = sum[n](e[r, n])
  y[r, n] = e[r, n] / s[r]
}
"""
MIB = 1 << 20


def steps(spec: DeviceSpec, size: int) -> tuple[bool, bool]:
    """Whether a result of `size` bytes is streamed, and whether the input's rows are fetched ahead."""
    found = automatic(op_of(SOFTMAX), spec, {"R": size // 4096, "N": 1024})
    streamed = any(isinstance(s, StoreIn) and s.stage == "y" and s.space == "stream" for s in found)
    return streamed, any(isinstance(s, Pipeline) and s.stage == "x" for s in found)


@pytest.mark.parametrize(
    ("facts", "size", "streamed"),
    [
        ({"l3_bytes": 32 * MIB}, 32 * MIB, False),
        ({"l3_bytes": 32 * MIB}, 33 * MIB, True),
        ({"l3_bytes": 260 * MIB, "stream_bytes": 4 * MIB}, 4 * MIB, True),  # a part of a cache that many cores share
        ({"l3_bytes": 260 * MIB, "stream_bytes": 4 * MIB}, 3 * MIB, False),
        ({"l3_bytes": None}, 64 * MIB, False),  # nothing is known: nothing is risked
    ],
)
def test_large_results_go_around_the_caches(facts: dict[str, int | None], size: int, streamed: bool) -> None:
    assert steps(replace(CPU, **facts), size)[0] is streamed  # type: ignore[arg-type]


def test_rows_beyond_the_nearest_cache_are_fetched_ahead() -> None:
    assert CPU.l1_bytes == 32768
    assert not steps(CPU, 32768)[1] and steps(CPU, 65536)[1]


def test_the_chip_file_of_a_shared_mesh_says_so() -> None:
    assert load_chip("sapphire_rapids").stream_bytes == 4 * MIB
    assert load_chip("zen4").stream_bytes is None
