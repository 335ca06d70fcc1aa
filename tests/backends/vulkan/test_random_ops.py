"""Random ops by their automatic schedules on the software device, against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tridsl
from tests.differential.subjects import BATCH, random_subject
from tridsl.backend import Device
from tridsl.ir.op import Tensor

SOFTWARE = "gpu:software"


def agrees(batch: int, position: int) -> None:
    subject = random_subject(batch, position)
    found: Any = tridsl.compile(subject.text)[subject.op.name](**subject.arguments, device=SOFTWARE)
    outputs = [p.name for p in subject.op.params if isinstance(p, Tensor) and p.role != "input"]
    got = dict(zip(outputs, map(np.asarray, found if isinstance(found, tuple) else (found,))))
    # A call gives run-time lengths as shapes, the oracle as results of their own.
    lengths = {name: subject.want.get(f"{name}.len") for name in outputs}
    want = {n: subject.want[n] if lengths[n] is None else subject.want[n][: int(lengths[n])] for n in outputs}
    subject.same(got, want)


@pytest.fixture(autouse=True)
def _software(device: Device) -> None:
    if str(device) != SOFTWARE:
        pytest.skip("no software GPU here")


@pytest.mark.parametrize("position", range(0, BATCH, 3))
def test_random_ops(position: int) -> None:
    agrees(100, position)


@pytest.mark.full
@pytest.mark.parametrize("batch", range(101, 111))
def test_random_ops_more(batch: int) -> None:
    for position in range(BATCH):
        agrees(batch, position)
