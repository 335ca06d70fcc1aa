"""Tuning with packed matrices: candidates get bytes, the oracle elements, and a packed call finds what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tridsl
from tests.autotune.test_measure import QUICK
from tests.schedule.programs import op_of
from tridsl.api.devices import find
from tridsl.api.resolution import identify, resolve
from tridsl.autotune.measure import Bench, Failure, Subject
from tridsl.autotune.packed import laid_out, layouts_of, of_elements
from tridsl.autotune.request import Request
from tridsl.diagnostics import TriError
from tridsl.personality.keys import key_of

DOTS = """op dots(W: trit[M, K], x: i8[K]) -> y: i32[M] {
  y[m] = sum[k; acc=i32](W[m, k] * x[k])
}
"""
SIZES = {"M": 40, "K": 50}


@pytest.mark.parametrize("layout", ["t16", "t96"])
@pytest.mark.parametrize("given", [False, True])
def test_candidates_are_checked_on_bytes(layout: str, given: bool, tmp_path: Path) -> None:
    op = laid_out(op_of(DOTS), {"W": layout})
    w = np.random.default_rng(0).integers(-1, 2, (40, 50)).astype(np.int8)
    arguments: dict[str, Any] = {"W": tridsl.pack(w, layout).array} if given else {}
    subject = Subject(op=op, device=find("cpu").device, sizes=SIZES, arguments=arguments)
    with Bench(subject, QUICK, lock=tmp_path / "lock") as bench:
        (runner,) = bench.start([None])
        assert not isinstance(runner, Failure), runner


def test_a_packed_call_asks_for_what_was_measured() -> None:
    ops = tridsl.compile(DOTS)
    packed = tridsl.pack(np.zeros((40, 50), np.int8), "t16")
    engine = ops.dots._engine
    keys = []
    for w in (packed, np.asarray(packed)):
        call, _ = identify(engine.module, engine.name, engine.families, (w, np.zeros(50, np.int8)), {})
        asked = engine.asked(call, resolve(call), find("cpu"), 1)
        keys.append(key_of(asked.header, asked.kernel(), asked.sizes, asked.target.device, asked.threads, asked.layouts))
    request = Request(op=laid_out(op_of(DOTS), {"W": "t16"}), device=find("cpu").device, sizes=SIZES, threads=1)
    assert request.key == keys[0] != keys[1] and dict(keys[0].layouts) == {"W": "t16"}


def test_layouts_of_ops() -> None:
    op = op_of(DOTS)
    assert of_elements(laid_out(op, {"W": "t20"})) == op and layouts_of(laid_out(op, {"W": "t20"})) == {"W": "t20"}
    for layouts in ({"W": "t17"}, {"x": "t16"}, {"V": "t16"}, {"y": "t16"}):
        with pytest.raises(TriError, match="E0540"):
            laid_out(op, layouts)
