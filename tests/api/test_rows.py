"""Rows of model files: the bytes of each format, every code, and bytes that are no rows."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tridsl
from tridsl import stdlib
from tridsl.codecs import digits_join, digits_split
from tridsl.diagnostics import TriError
from tridsl.row_formats import ROW_FORMATS

Array = np.ndarray[Any, Any]
TRITS = np.random.default_rng(42).integers(-1, 2, (4, 512)).astype(np.int8)
POWERS = 3 ** np.arange(4, -1, -1)


def tq2_0(trits: Array, scales: Array) -> bytes:
    """Rows as ggml writes them; `scales` one for each 256."""
    codes = (trits.reshape(-1, 2, 4, 32) + 1).astype(np.uint8)
    packed = codes[:, :, 0] | codes[:, :, 1] << 2 | codes[:, :, 2] << 4 | codes[:, :, 3] << 6
    return np.concatenate([packed.reshape(-1, 64), scales.astype("<f2").reshape(-1, 1).view(np.uint8)], axis=1).tobytes()


def tq1_0(trits: Array, scales: Array) -> bytes:
    codes = (trits.reshape(-1, 256) + 1).astype(np.int64)
    parts = (codes[:, :160].reshape(-1, 5, 32), codes[:, 160:240].reshape(-1, 5, 16), codes[:, 240:].reshape(-1, 4, 4))
    numbers = [np.einsum("ndi,d->ni", part, POWERS[: part.shape[1]]) for part in parts]
    packed = [((q * 256 + 242) // 243).astype(np.uint8) for q in numbers]
    return np.concatenate([*packed, scales.astype("<f2").reshape(-1, 1).view(np.uint8)], axis=1).tobytes()


def i2_s(trits: Array, scale: float) -> bytes:
    codes = (trits.reshape(-1, 4, 32) + 1).astype(np.uint8)
    packed = codes[:, 0] << 6 | codes[:, 1] << 4 | codes[:, 2] << 2 | codes[:, 3]
    return packed.tobytes() + np.float32(scale).tobytes() + bytes(28)


HALF = np.full(8, 0.5)
VECTORS = {
    # sha256, the first 16 digits, and the first bytes, of the numbers above (reference/kernels.md 1.9)
    "tq1_0": (tq1_0(TRITS, HALF), "64f07e878bff105d", [11, 207, 166, 96, 149, 239, 28, 200]),
    "tq2_0": (tq2_0(TRITS, HALF), "3ac94956c64854e2", [16, 134, 105, 17, 137, 26, 160, 6]),
    "i2_s": (i2_s(TRITS, 0.5)[:-32], "223a441bcd2bc9a8", [4, 146, 105, 68, 98, 164, 10, 144]),
}


@pytest.mark.parametrize("layout", ["t16", "t20", "t96"])
@pytest.mark.parametrize("format", sorted(VECTORS))
def test_known_rows(format: str, layout: str) -> None:
    data, digest, first = VECTORS[format]
    assert hashlib.sha256(data).hexdigest()[:16] == digest and list(data[:8]) == first
    if format == "i2_s":
        data = i2_s(TRITS, 0.5)
    weights, scales = tridsl.pack_rows(data, format, TRITS.shape, layout=layout)  # type: ignore[arg-type]  # two axes
    assert weights.layout == layout and np.array_equal(np.asarray(weights), TRITS)
    assert scales.dtype == np.float32 and np.array_equal(scales, np.full(4, 0.5, np.float32))


def test_every_byte_of_five_digits() -> None:
    codes = np.array(np.meshgrid(*[range(3)] * 5, indexing="ij")).reshape(5, 243).T.astype(np.uint8)
    packed = digits_join(codes.reshape(243, 5, 1, 1))
    assert len(np.unique(packed)) == 243 and np.array_equal(digits_split(packed).reshape(243, 5), codes)
    blocks = np.zeros((243, 54), np.uint8)
    blocks[:, 0] = packed.ravel()
    assert np.array_equal(ROW_FORMATS["tq1_0"].codes(blocks)[:, [0, 32, 64, 96, 128]], codes)
    assert [ROW_FORMATS["tq1_0"].codes(np.full((1, 54), b, np.uint8))[0, 0] for b in (0x00, 0x80, 0xFF)] == [0, 1, 2]


def test_every_code_of_bit_pairs() -> None:
    every = np.arange(256, dtype=np.uint8)
    for format, order in (("tq2_0", (0, 2, 4, 6)), ("i2_s", (6, 4, 2, 0))):
        blocks = np.zeros((256, ROW_FORMATS[format].size), np.uint8)
        blocks[:, 3] = every
        codes = ROW_FORMATS[format].codes(blocks)
        assert np.array_equal(codes[:, [3, 35, 67, 99]], np.stack([every >> n & 3 for n in order], axis=1))


def test_products_with_rows_of_a_file() -> None:
    random = np.random.default_rng(5)
    x = random.integers(-128, 128, (3, 512)).astype(np.int8)
    dots = x.astype(np.int64) @ TRITS.T.astype(np.int64)
    w, sw = tridsl.pack_rows(tq2_0(TRITS, HALF), "tq2_0", (4, 512))
    assert np.array_equal(stdlib.tgemv(w, x[0], sw, 0.25), (dots[0] * 0.125).astype(np.float32))
    each = random.uniform(0.1, 2, 8).astype(np.float16)
    w, sw = tridsl.pack_rows(tq1_0(TRITS, each), "tq1_0", (4, 512), scales="block")
    assert sw.shape == (4, 2) and np.array_equal(sw.ravel(), each.astype(np.float32))
    parts = np.einsum("nbk,mbk->nmb", x.reshape(3, 2, 256).astype(np.float64), TRITS.reshape(4, 2, 256).astype(np.float64))
    want = np.einsum("nmb,mb->nm", parts, sw.astype(np.float64))
    for packed in (w, np.asarray(w)):
        np.testing.assert_allclose(stdlib.tgemv(packed, x[0], sw, 1.0), want[0], rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(stdlib.tgemm(packed, x, sw, np.ones(3, np.float32)), want, rtol=1e-5, atol=1e-3)


def test_zero_blocks_agree_with_any_scale() -> None:
    trits = np.array(TRITS)
    trits[1, :256] = 0
    trits[2] = 0
    scales = np.array([1, 1, 0, 2, 0, 0, 0.25, 0.25])
    w, sw = tridsl.pack_rows(tq2_0(trits, scales), "tq2_0", (4, 512))
    assert np.array_equal(sw, np.array([1, 2, 0, 0.25], np.float32)) and np.array_equal(np.asarray(w), trits)
    scales[7] = 0  # trits times zero are zero
    w, sw = tridsl.pack_rows(tq2_0(trits, scales), "tq2_0", (4, 512))
    trits[3, 256:] = 0
    assert np.array_equal(np.asarray(w), trits) and sw[3] == 0.25


@pytest.mark.parametrize(
    ("data", "format", "shape", "more", "code"),
    [
        (b"", "tq3_0", (0, 0), {}, "E0540"),
        (b"", "tq2_0", (0, 256), {"scales": "column"}, "E0540"),
        (b"", "tq2_0", (0, 256), {"layout": "t17"}, "E0540"),
        (bytes(65), "tq2_0", (1, 256), {}, "E0542"),
        (bytes(67), "tq2_0", (1, 256), {}, "E0542"),
        (bytes(66), "tq2_0", (1, 255), {}, "E0542"),
        (bytes(66), "tq2_0", (-1, -256), {}, "E0542"),
        (bytes(66), "tq2_0", 256, {}, "E0542"),
        (bytes(66), "tq2_0", (1 << 40, 1 << 40), {}, "E0542"),
        (bytes(64), "i2_s", (1, 256), {}, "E0542"),
        (bytes(64), "i2_s", (1, 128), {"scales": "block"}, "E0542"),
        ("text", "tq2_0", (1, 256), {}, "E0542"),
        (np.zeros((66, 2), np.uint8)[:, 0], "tq2_0", (1, 256), {}, "E0542"),
        (b"\xff" * 64 + b"\0\0", "tq2_0", (1, 256), {}, "E0543"),
        (b"\x55" * 64 + b"\0\x7e", "tq2_0", (1, 256), {}, "E0543"),
        (b"\x55" * 32 + b"\0\0\x80\x7f" + bytes(28), "i2_s", (1, 128), {}, "E0543"),
        (tq2_0(TRITS, np.arange(1, 9)), "tq2_0", (4, 512), {}, "E0544"),
        (b"", "tq1_0", (0, 1 << 62), {}, "E0542"),
    ],
)
def test_bytes_that_are_no_rows(data: Any, format: str, shape: Any, more: dict[str, Any], code: str) -> None:
    with pytest.raises(TriError, match=code):
        tridsl.pack_rows(data, format, shape, **more)


def test_no_rows() -> None:
    w, sw = tridsl.pack_rows(b"", "tq1_0", (0, 512))
    assert w.shape == (0, 512) and sw.shape == (0,)
    w, sw = tridsl.pack_rows(bytes(32), "i2_s", (0, 128))
    assert w.shape == (0, 128) and sw.shape == (0,)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(ROW_FORMATS)), st.binary(max_size=300), st.tuples(st.integers(-2, 4), st.sampled_from((0, 1, 128, 256, 512, 1 << 62))))
def test_any_bytes_are_rows_or_a_typed_error(format: str, data: bytes, shape: tuple[int, int]) -> None:
    try:
        weights, scales = tridsl.pack_rows(data, format, shape)
    except TriError as problem:
        assert problem.diagnostics[0].code in ("E0542", "E0543", "E0544")
    else:
        assert weights.shape == shape and np.isfinite(scales).all()
