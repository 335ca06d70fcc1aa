"""Attention on the simulated array: every form of the library's ops, against the interpreter, and what its designs are."""

from __future__ import annotations

from math import prod
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tridsl
from tests.backends.npu.designs import GENERATIONS, Subject, chip, subject
from tests.backends.npu.test_kernels import normal
from tridsl import stdlib
from tridsl.backends.npu.design import MEMTILE, Task
from tridsl.schedule.automatic import choices

BF16 = ml_dtypes.bfloat16
TYPES = (np.float32, BF16)


def attention(h: int, g: int, s: int, l: int, d: int, e: int, *, causal: bool = False, dtype: Any = np.float32, generation: str = "aie2p", **decisions: Any) -> Subject:
    random = np.random.default_rng(h + 10 * s + 100 * l)
    given = [random.standard_normal(shape).astype(dtype) for shape in ((h, s, d), (g, l, d), (g, l, e))]
    return subject("attention", *given, 0.25, causal, generation=generation, decisions={f"O.softmax_wsum.{name}": value for name, value in decisions.items()})


def right(given: Subject) -> None:
    """Twice, so that what a core keeps is begun anew. Weights of bf16 are rounded to it, as the result is."""
    got, want = given.results(dispatches=2)["O"].astype(np.float64), given.want()["O"].astype(np.float64)
    rounded = given.op.outputs[0].dtype.storage_bytes == 2
    np.testing.assert_allclose(got, want, rtol=8e-3 if rounded else 1e-5, atol=float(np.abs(want).max()) * (4e-3 if rounded else 2e-6))


SHAPES = [
    (2, 2, 20, 33, 20, 20), (4, 1, 7, 5, 3, 2), (6, 3, 9, 70, 8, 40), (1, 1, 100, 50, 16, 16), (5, 5, 1, 90, 24, 6), (1, 1, 1, 1, 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(("place", "shape"), list(enumerate(SHAPES)), ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_every_form(place: int, shape: tuple[int, ...], causal: bool) -> None:
    """Heads that share keys, masks, rows that see nothing, blocks that are not whole."""
    right(attention(*shape, causal=causal, dtype=TYPES[(place + causal) % 2], generation=GENERATIONS[place // 2 % 2]))


@pytest.mark.full
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", TYPES, ids=["f32", "bf16"])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_random_shapes(seed: int, dtype: Any, generation: str) -> None:
    random = np.random.default_rng(seed)
    g, n = (int(v) for v in random.integers(1, 4, 2))
    s, l, d, e = (int(v) for v in random.integers(1, (90, 200, 70, 70)))
    right(attention(g * n, g, s, l, d, e, causal=bool(seed % 2), dtype=dtype, generation=generation))


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("columns", [2, 8, *(pytest.param(n, marks=pytest.mark.full) for n in (1, 4))])
def test_every_number_of_columns(columns: int, generation: str) -> None:
    """Heads go to columns; where there are too few of them, blocks of rows do."""
    if columns > (chip(generation).columns or 0):
        return
    many, one = attention(4, 2, 20, 24, 8, 8, generation=generation, columns=columns), attention(1, 1, 64 * columns, 20, 8, 8, generation=generation, columns=columns, block_rows=16)
    right(many)
    right(one)
    assert one.design.columns == columns and many.design.columns == min(columns, 2)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_context_that_no_memory_tile_holds_is_streamed(generation: str) -> None:
    given = attention(1, 1, 4, 3000, 64, 64, dtype=BF16, generation=generation)
    right(given)
    array = chip(generation).array
    assert array is not None
    held = sum(b.bytes for b in given.design.buffers if b.tile[1] == MEMTILE and b.name[0] in "KV")
    assert held < array.memtile_memory_bytes < 2 * 2 * 3000 * 64


@pytest.mark.parametrize(("heads", "generation"), [(8, "aie2"), (8, "aie2p"), (6, "aie2p")])
def test_one_step_of_decoding_reads_every_key_once(heads: int, generation: str) -> None:
    """The heads that share keys are the rows of a core."""
    given = attention(heads, 2, 1, 70, 16, 20, causal=True, dtype=TYPES[heads % 3 == 0], generation=generation)
    right(given)
    keys = next(t for t in given.design.tensors if t.name == "K")
    moved = sum(prod(d.size for d in t.dimensions) * t.repeats for t in given.design.sequence if isinstance(t, Task) and t.tensor == "K")
    assert moved <= prod(keys.shape)


def test_blocks_that_a_mask_hides_cost_nothing_in_the_cores() -> None:
    plain, masked = (attention(1, 1, 256, 256, 16, 16, causal=causal, block=32, block_rows=32) for causal in (False, True))
    right(masked)
    assert "if (O_softmax_wsum_t_o <" in masked.kernels and "if (" not in plain.kernels
    assert masked.laid.prediction.cores < 0.75 * plain.laid.prediction.cores


def test_keys_and_values_take_turns_and_rows_have_a_channel() -> None:
    """A core has two channels for what comes in."""
    given = attention(2, 2, 40, 100, 16, 16)
    core = [c for c in given.design.chains if c.tile == (0, 2) and c.direction == "in"]
    buffers = [{d.buffer.partition("_")[0] for d in chain.descriptors} for chain in core]
    assert sorted(map(sorted, buffers)) == [["K", "V"], ["Q"]]


@pytest.mark.parametrize(("rows", "generation"), [(5, "aie2"), (40, "aie2p")])
def test_sums_that_no_core_holds_are_made_in_parts_of_their_width(rows: int, generation: str) -> None:
    right(attention(2, 1, rows, 20, 16, 1100, causal=True, generation=generation))


def test_weights_are_rounded_by_choice() -> None:
    errors = []
    for rounds in (True, False):
        given = attention(2, 2, 16, 64, 16, 16, dtype=BF16, round_weights=rounds)
        right(given)
        want = given.want()["O"].astype(np.float64)
        errors.append(float(np.abs(given.results()["O"].astype(np.float64) - want).mean()))
        assert ("bfloat16 *__restrict O_softmax_wsum_weight" in given.kernels) is rounds
    assert errors[1] < errors[0]


def test_infinities_and_nans_are_those_of_the_oracle() -> None:
    q, k, v = normal(1, 6, 8), normal(1, 20, 8), normal(1, 20, 8)
    q[0, 2, 3], k[0, 5, 1], v[0, 7, 2] = np.nan, np.inf, np.nan
    with np.errstate(all="ignore"):
        want = stdlib.attention.reference(q, k, v, 0.5)
        got = stdlib.attention(q, k, v, 0.5, device="npu:sim")
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_what_is_too_large_is_refused_by_the_limits_name() -> None:
    shapes = ((1, 16, 4096), (1, 16, 4096), (1, 16, 4096))
    with pytest.raises(tridsl.TriError, match="limit `core memory`"):
        stdlib.attention(*(np.zeros(s, np.float32) for s in shapes), 1.0, device="npu:sim")


def test_the_prediction_grows_with_the_keys_and_falls_with_the_cores() -> None:
    short, long = attention(2, 2, 32, 64, 32, 32, block=32), attention(2, 2, 32, 256, 32, 32, block=32)
    assert 3 < long.laid.prediction.cores / short.laid.prediction.cores < 4.5
    alone = attention(8, 8, 32, 64, 32, 32, columns=1)
    assert alone.laid.prediction.cores > 6 * attention(8, 8, 32, 64, 32, 32, columns=8).laid.prediction.cores


def test_what_is_decided_has_names() -> None:
    plain = attention(2, 2, 256, 64, 16, 16, dtype=BF16)
    names = {c.name for c in choices(plain.op, chip("aie2p"), plain.sizes, {})}
    assert {f"O.softmax_wsum.{n}" for n in ("block", "block_rows", "columns", "round_weights")} <= names


LATENT = [(3, 9, 20, 16, 8, 24, 12), (8, 1, 50, 8, 5, 9, 11), (2, 4, 4, 3, 3, 3, 3)]


@pytest.mark.parametrize("name", ["mla", "mla_absorbed"])
@pytest.mark.parametrize(("place", "shape"), list(enumerate(LATENT)), ids=str)
def test_latent_caches(name: str, place: int, shape: tuple[int, ...]) -> None:
    """Many queries and one; parts of a cached row that begin between two words."""
    h, s, l, n, r, m, e = shape
    dtype = TYPES[place % 2]
    given = [normal(*sizes).astype(dtype) for sizes in ((h, s, n), (h, s, r), (l, m + r), (h, m, n), (h, m, e))]
    op = getattr(stdlib, name)
    want = op.reference(*given, 0.25, place != 2).astype(np.float64)
    got = op(*given, 0.25, place != 2, device=f"npu:sim:{GENERATIONS[place % 2]}").astype(np.float64)
    rounded = np.dtype(dtype).itemsize == 2
    np.testing.assert_allclose(got, want, rtol=8e-3 if rounded else 1e-5, atol=float(np.abs(want).max()) * (4e-3 if rounded else 4e-6))
