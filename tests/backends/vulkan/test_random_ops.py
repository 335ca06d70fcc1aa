"""Random ops by their automatic schedules on the GPU of the run, against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tridsl
from tests.differential.subjects import BATCH, random_subject
from tridsl.ir.op import Tensor


def agrees(gpu: str, batch: int, position: int) -> None:
    subject = random_subject(batch, position)
    try:
        found: Any = tridsl.compile(subject.text)[subject.op.name](**subject.arguments, device=gpu)
    except tridsl.TriError as refused:
        if refused.code != "E0707":  # a function that GLSL has not for the type
            raise
        return
    outputs = [p.name for p in subject.op.params if isinstance(p, Tensor) and p.role != "input"]
    got = dict(zip(outputs, map(np.asarray, found if isinstance(found, tuple) else (found,))))
    # A call gives run-time lengths as shapes, the oracle as results of their own.
    lengths = {name: subject.want.get(f"{name}.len") for name in outputs}
    want = {n: subject.want[n] if lengths[n] is None else subject.want[n][: int(lengths[n])] for n in outputs}
    subject.same(got, want)


@pytest.mark.parametrize("position", range(0, BATCH, 3))
def test_random_ops(gpu: str, position: int) -> None:
    agrees(gpu, 100, position)


@pytest.mark.full
@pytest.mark.parametrize("batch", range(101, 111))
def test_random_ops_more(gpu: str, batch: int) -> None:
    for position in range(BATCH):
        agrees(gpu, batch, position)
