"""The model against published tables (fitted: one bandwidth a chip), and what it says of designs. Nothing here is measured by this project."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.npu.designs import GENERATIONS, chip, subject
from tridsl.devices.array_model import EFFICIENCY, Product, peak_macs, seconds
from tridsl.devices.intrinsics import INTRINSICS
from tridsl.schedule.contraction_npu import tile_of

ROWS = tomllib.loads(Path(__file__).with_name("published.toml").read_text())["row"]
BYTES = {"i8": 1, "i16": 2, "i32": 4, "bf16": 2}


def product_of(row: dict[str, Any], tile: tuple[int, int, int] | None = None) -> Product:
    m, k, n = row["kernel"]
    whole_m, whole_k, whole_n = row["product"]
    source, result = row["types"]
    return Product(
        m=whole_m, n=whole_n, k=whole_k, tile=tile or (m, n, k), columns=chip(row["chip"]).columns or 0, rows=4,
        bytes_a=BYTES[source], bytes_b=BYTES[source], bytes_c=BYTES[result],
    )  # fmt: skip


@pytest.mark.parametrize(("generation", "mean", "most"), [("aie2", 0.014, 0.025), ("aie2p", 0.031, 0.05)])
def test_the_model_reproduces_the_published_products(generation: str, mean: float, most: float) -> None:
    """With each kernel's own published rate; the error is stated in the model's description."""
    array = chip(generation).array
    assert array is not None
    errors = []
    for row in (r for r in ROWS if r["chip"] == generation):
        m, k, n = row["product"]
        predicted = 2 * m * k * n / seconds(product_of(row), array, row["macs"]) / 1e12
        errors.append(abs(predicted / row["tops"] - 1))
    assert len(errors) == 8
    assert np.mean(errors) < mean and max(errors) < most


INSTRUCTIONS = {("aie2", "i8"): "mmul_i8_4x8x8", ("aie2p", "i8"): "mmul_i8_8x8x8", ("aie2", "bf16"): "mmul_bf16_4x8x4", ("aie2p", "bf16"): "mmul_bf16_8x8x8"}


@pytest.mark.parametrize("row", [r for r in ROWS if tuple(r["types"]) in (("i8", "i32"), ("bf16", "bf16"))], ids=lambda r: f"{r['chip']}-{r['types'][0]}-{r['kernel']}")
def test_the_chosen_tiles_are_as_fast_as_the_published_ones(row: dict[str, Any]) -> None:
    """By the model, at one rate for both. Our bf16 kernels keep their sums in f32 beside the result (six bytes an element, not two), so their tiles are
    smaller than the published ones, and the model says what that costs."""
    array = chip(row["chip"]).array
    assert array is not None
    macs = EFFICIENCY * peak_macs(array, row["types"][0])
    m, k, n = row["product"]
    instruction = INTRINSICS[INSTRUCTIONS[row["chip"], row["types"][0]]]
    wide = row["types"][1] == "bf16"
    chosen = tile_of(instruction, array, (m, n, k), chip(row["chip"]).columns or 0, BYTES[row["types"][1]], wide)
    times = [seconds(replace(product_of(row, tile), by_tiles=True), array, macs) for tile in (chosen, None)]
    ratio = times[0] / times[1]
    assert ratio < (1.5 if wide else 1.05), (chosen, ratio)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_prediction_says_what_it_is(generation: str) -> None:
    given = subject("saxpy", 2.0, np.zeros(100000, np.float32), np.zeros(100000, np.float32), generation=generation)
    prediction = given.laid.prediction
    assert str(given.laid).startswith("# predicted ")
    array = chip(generation).array
    assert array is not None
    assert prediction.memory >= 3 * 4 * 100000 / array.memory_bytes_per_second
    assert prediction.seconds == max(prediction.memory, prediction.streams, prediction.cores) + array.dispatch_seconds


def test_more_columns_are_predicted_to_help_what_the_cores_bound() -> None:
    x = np.zeros((256, 512), np.float32)
    found = [subject("softmax", x, decisions={"y.columns": n}).laid.prediction.cores for n in (1, 2, 4, 8)]
    assert found == sorted(found, reverse=True) and found[0] > 6 * found[3]
