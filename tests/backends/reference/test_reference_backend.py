"""The reference backend through its manifest: emit, build, load, call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.ir import handmade as h
from tridsl.backend import load_backend
from tridsl.backends.reference.driver import DEVICE
from tridsl.dtypes import I8, I32
from tridsl.ir.op import Op, Tensor
from tridsl.ir.printer import print_kernel
from tridsl.passes.to_loops import to_loops

BACKEND = load_backend("reference")


def executable(op: Op):  # type: ignore[no-untyped-def]
    code = BACKEND.emit(to_loops(op), DEVICE.spec)
    return BACKEND.driver().load(BACKEND.build(code, DEVICE.spec), DEVICE)


def test_a_kernel_runs_in_place_on_its_slots() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-128, 128, (3, 4), dtype=np.int8), rng.integers(-128, 128, (4, 5), dtype=np.int8)
    c = np.full((5, 3), 7, np.int32).T  # a strided result
    executable(h.matmul(I8, I32))((a, b, c, 3, 4, 5), threads=1)
    np.testing.assert_array_equal(c, a.astype(np.int32) @ b.astype(np.int32))


def test_emit_is_the_printed_kernel() -> None:
    kernel = to_loops(h.attention())
    code = BACKEND.emit(kernel, DEVICE.spec)
    assert code.text == print_kernel(kernel)
    assert code.signature.sizes == ("S", "D", "L", "E")


def test_blobs_are_data_and_deterministic() -> None:
    first, second = (BACKEND.build(BACKEND.emit(to_loops(h.matmul()), DEVICE.spec), DEVICE.spec) for _ in range(2))
    assert first == second
    assert first.blob.startswith(b"{")
    with pytest.raises(ValueError):
        BACKEND.driver().load(replace(first, blob=b"cos\nsystem\n"), DEVICE)


def test_packed_layouts_are_refused() -> None:
    kernel = to_loops(h.matmul())
    packed = tuple(replace(p, layout="t16") if isinstance(p, Tensor) and p.name == "A" else p for p in kernel.params)
    (problem,) = BACKEND.accepts(replace(kernel, params=packed), DEVICE.spec)
    assert "t16" in problem.message and not BACKEND.accepts(kernel, DEVICE.spec)


def test_the_device_is_here() -> None:
    assert [d.name for d in BACKEND.driver().devices()] == ["reference"]
