"""The picture of a design: every tile, buffer and stream is in it, inside its frame, and it is the same each time."""

from __future__ import annotations

from xml.etree import ElementTree

import ml_dtypes
import numpy as np
import pytest

from tests.backends.npu.designs import Subject, chip, subject
from tridsl.backends.npu.draw import draw, tensors_of_channels

SVG = "{http://www.w3.org/2000/svg}"


def product() -> Subject:
    a, b = (np.zeros(shape, ml_dtypes.bfloat16) for shape in ((40, 100), (100, 60)))
    return subject("matmul", a, b, generation="aie2", decisions={"C.sum.columns": 2})


def attention() -> Subject:
    rows, keys = np.zeros((4, 40, 16), ml_dtypes.bfloat16), np.zeros((2, 90, 16), ml_dtypes.bfloat16)
    return subject("attention", rows, keys, keys, 0.25, True)


def picture(given: Subject) -> ElementTree.Element:
    facts = chip(given.generation).array
    assert facts is not None
    text = draw(given.design, given.laid.prediction, facts)
    assert text == given.laid.svg()
    return ElementTree.fromstring(text)


def of_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [e for e in root.iter() if name in (e.get("class") or "").split()]


@pytest.mark.parametrize("make", [product, lambda: subject("softmax", np.zeros((9, 77), np.float32), generation="aie2p"), lambda: subject("edges", np.zeros((9, 70, 4), np.uint8), 100), attention])
def test_everything_is_drawn_once(make: object) -> None:
    given = make()  # type: ignore[operator]  # parameters of a test have no types of their own
    root, design = picture(given), given.design
    assert len(of_class(root, "tile")) == len(design.tiles())
    assert len(of_class(root, "buffer")) == len(design.buffers)
    assert len(of_class(root, "stack")) == len(design.cores)
    assert len(of_class(root, "flow")) == sum(len(f.targets) for f in design.flows)
    assert len(of_class(root, "legend")) == len(design.tensors)
    assert len(of_class(root, "time")) == 3 and len(of_class(root, "bottleneck")) == 1
    words = " ".join(e.text or "" for e in root.iter(f"{SVG}text"))
    assert f"bound by {given.laid.prediction.bottleneck}" in words and "predicted" in words
    for tile in design.tiles():
        assert f"{tile[0]}, {tile[1]}" in words


def test_all_of_it_lies_in_the_frame_and_buffers_in_their_tiles() -> None:
    root = picture(product())
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    for e in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(e.get(k) or 0) for k in ("x", "y", "width", "height"))
        assert x >= 0 and x + w <= width and y >= 0 and y + h <= height
    bars = [(float(m.get("x") or 0), float(m.get("y") or 0), float(m.get("width") or 0)) for m in of_class(root, "memory")]
    for b in of_class(root, "buffer"):
        x, y, w = (float(b.get(k) or 0) for k in ("x", "y", "width"))
        assert any(by == y and bx <= x and x + w <= bx + bw + 0.6 for bx, by, bw in bars)


def test_a_stream_has_the_tensor_that_goes_through_it() -> None:
    design = product().design
    moved = tensors_of_channels(design)
    for flow in design.flows:
        ends = [flow.source, *flow.targets]
        assert len({moved[e.tile, e.direction, e.channel] for e in ends}) == 1
    assert {name for names in moved.values() for name in names} == {"A", "B", "C"}
