"""Faults planted into whole designs and kernels: each is caught by the simulator, the stand-in of the AIE API, the checker, or the numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from msgspec.structs import replace

from tests.backends.npu.designs import Subject, agree, chip, subject
from tridsl.backends.npu.design import ArrayDesign, Release, Repeat, Task
from tridsl.backends.npu.limits import check
from tridsl.backends.npu.simulate import Deadlock, Fault, Race

RANDOM = np.random.default_rng(3)


@cache
def product() -> Subject:
    a, b = (RANDOM.standard_normal(shape).astype(ml_dtypes.bfloat16) for shape in ((40, 100), (100, 60)))
    return subject("matmul", a, b, generation="aie2", decisions={"C.sum.columns": 2, "C.sum.depth": 32})


def without_release(design: ArrayDesign, port: str) -> ArrayDesign:
    def kept(steps: Any) -> Any:
        out = []
        for step in steps:
            if isinstance(step, Repeat):
                step = replace(step, body=kept(step.body))
            if not (isinstance(step, Release) and step.port == port):
                out.append(step)
        return tuple(out)

    first, *others = design.cores
    return replace(design, cores=(replace(first, program=kept(first.program)), *others))


def swapped_strides(design: ArrayDesign) -> ArrayDesign:
    """The two outermost dimensions of the first transfer that has several."""
    chains = list(design.chains)
    n = next(n for n, c in enumerate(chains) if len(c.descriptors[0].dimensions) > 2)

    def swap(d: Any) -> Any:
        first, second, *rest = d.dimensions
        return replace(d, dimensions=(replace(first, stride=second.stride), replace(second, stride=first.stride), *rest))

    chains[n] = replace(chains[n], descriptors=tuple(map(swap, chains[n].descriptors)))
    return replace(design, chains=tuple(chains))


def changed_task(change: Callable[[Task], Task]) -> Callable[[ArrayDesign], ArrayDesign]:
    def made(design: ArrayDesign) -> ArrayDesign:
        n = next(n for n, c in enumerate(design.sequence) if isinstance(c, Task) and c.direction == "out")
        commands = list(design.sequence)
        first = commands[n]
        assert isinstance(first, Task)
        commands[n] = change(first)
        return replace(design, sequence=tuple(commands))

    return made


def test_the_design_without_a_fault_is_right() -> None:
    agree(product().results(), product().want())


@pytest.mark.parametrize("port", ["A.l1", "C.l1"])
def test_a_missing_release(port: str) -> None:
    with pytest.raises(Deadlock):
        product().results(product().simulator(without_release(product().design, port)))


def test_a_wrong_repeat() -> None:
    with pytest.raises(Fault):
        product().results(product().simulator(changed_task(lambda t: replace(t, repeats=2))(product().design)))


def test_swapped_strides() -> None:
    with pytest.raises((AssertionError, Fault)):
        agree(product().results(product().simulator(swapped_strides(product().design))), product().want())


def test_a_transfer_from_the_wrong_place() -> None:
    with pytest.raises(AssertionError):
        agree(product().results(product().simulator(changed_task(lambda t: replace(t, offset=t.offset + 2))(product().design))), product().want())


def test_a_lock_that_lets_everybody_in() -> None:
    design = product().design
    locks = tuple(replace(lock, initial=lock.initial + 1) if lock.name.startswith("A_0") and lock.name.endswith("empty") else lock for lock in design.locks)
    with pytest.raises((Race, Fault, AssertionError)):
        agree(product().results(product().simulator(replace(design, locks=locks))), product().want())


def test_forgotten_rounding() -> None:
    """Cores start with rounding to floor, and so does the stand-in."""
    text = product().kernels.replace("aie::set_rounding(aie::rounding_mode::conv_even);", "")
    with pytest.raises(AssertionError):
        agree(product().results(product().simulator(kernels=text)), product().want())


def test_a_row_that_is_not_aligned() -> None:
    text = product().kernels
    at = text.index("load_v<mmul_bf16_4x8x4::size_A>(A_l1")
    moved = text[:at] + text[at:].replace("(A_l1", "(A_l1 + 2", 1)
    with pytest.raises(Fault, match="not aligned"):
        product().results(product().simulator(kernels=moved))


def test_a_shape_that_the_generation_lacks() -> None:
    text = product().kernels.replace("aie::mmul<4, 8, 4,", "aie::mmul<4, 8, 8,")
    with pytest.raises(RuntimeError, match="no such matrix instruction"):
        product().simulator(kernels=text)


def test_too_few_descriptors() -> None:
    """Every transfer through the same descriptor: one is given out while it is in use."""
    design = product().design
    commands = tuple(replace(c, number=0) if isinstance(c, Task) else c for c in design.sequence)
    found = check(replace(design, sequence=commands), chip("aie2"))
    assert [d.code for d in found] == ["E0772"] and "descriptors free" in found[0].message
