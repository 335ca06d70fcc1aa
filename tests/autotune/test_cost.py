"""Predicted costs: what must be faster is predicted faster, roofs are not broken, and the number explains itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.autotune.kernels import MATMUL, SAXPY, op
from tests.differential.subjects import WRITTEN, written_subject
from tridsl.autotune.cost import Cost, predict, roofline, time_text
from tridsl.backend import load_backend
from tridsl.devices.spec import DeviceSpec, load_chip
from tridsl.ir.op import Op
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import SCHEDULE, TO_KERNEL, Build, run
from tridsl.schedule.automatic import automatic, choose
from tridsl.schedule.decisions import Answer
from tridsl.schedule.steps import Schedule

SPEC = replace(load_chip("zen4"), cores=1)


def cost(what: Op, sizes: dict[str, int], schedule: Schedule, spec: DeviceSpec = SPEC) -> Cost:
    build = Build(spec=spec, backend=load_backend("reference"), schedule=schedule, facts=Specialisation(sizes=tuple(sizes.items())))
    return predict(run(what, (*TO_KERNEL, *SCHEDULE), build), spec, sizes, op=what)


def matmul(size: int, spec: DeviceSpec = SPEC, **answers: Answer) -> Cost:
    what, sizes = op(MATMUL), {"M": size, "N": size, "K": size}
    return cost(what, sizes, choose(what, spec, sizes, {f"C.{n}": a for n, a in answers.items()}), spec)


def test_a_good_matmul_is_predicted_near_its_peak() -> None:
    found = matmul(512)
    peak = 2 * 512**3 / SPEC.peak_f32_ops_per_second_per_core  # type: ignore[operator]  # this chip file has the fact
    assert found.bound == "arithmetic" and peak <= found.seconds <= 1.4 * peak
    assert found.ideal_seconds == pytest.approx(peak, rel=0.01)


def test_what_is_better_is_predicted_better() -> None:
    good = matmul(512).seconds
    assert good < matmul(512, rows=1).seconds, "one row reuses nothing"
    assert good < matmul(512, vectors=4, rows=8).seconds, "thirty-two accumulators and their operands do not fit"
    assert good < matmul(512, pack=False).seconds * 1.05
    assert matmul(512, vectors=1, rows=2).seconds > matmul(512, vectors=1, rows=8).seconds, "two chains wait for each other"
    none = cost(op(MATMUL), {"M": 256, "N": 256, "K": 256}, ())
    assert none.seconds > 5 * matmul(256).seconds, "no steps: no vectors, no reuse"


def test_vectors_tails_and_types_count() -> None:
    what = op(SAXPY)
    scalar, vector = (cost(what, {"N": 4096}, s).seconds for s in ((), automatic(what, SPEC, {"N": 4096})))
    assert vector < scalar / 4
    whole, tail = (cost(op(MATMUL), s, automatic(op(MATMUL), SPEC, s)) for s in ({"M": 96, "N": 96, "K": 96}, {"M": 96, "N": 97, "K": 96}))
    assert tail.seconds > 1.1 * whole.seconds


def test_threads_share_arithmetic_but_not_memory() -> None:
    two = replace(SPEC, cores=2)
    assert matmul(512).seconds / matmul(512, two).seconds == pytest.approx(2, rel=0.1)
    big = {"N": 1 << 24}
    what = op(SAXPY)
    one, both = (cost(what, big, automatic(what, s, big), s) for s in (SPEC, two))
    assert both.bound == "memory" and both.seconds > 0.8 * one.seconds
    assert matmul(32, two, threads=True).seconds > matmul(32, two, threads=False).seconds, "starting a team costs more than this"


def test_memory_bound_ops_take_what_their_bytes_take() -> None:
    sizes = {"N": 1 << 24}
    spec = replace(SPEC, peak_copy_bytes_per_second=10e9)
    found = cost(op(SAXPY), sizes, automatic(op(SAXPY), spec, sizes), spec)
    least = 3 * 4 * sizes["N"] / 10e9
    assert least <= found.seconds <= 1.7 * least and found.bound == "memory"
    assert roofline(op(SAXPY), spec, sizes) == pytest.approx(least, rel=0.01)


def test_numbers_explain_themselves() -> None:
    text = str(matmul(512, replace(SPEC, cores=2)))
    assert text.startswith("predicted ") and "bound by arithmetic" in text
    for words in ("register tile of 24 vectors, 27 of 32 registers", "L2 to L1:", "2 threads", "roofline"):
        assert words in text, text
    assert "registers are needed" in str(matmul(512, vectors=4, rows=8))
    assert [time_text(s) for s in (1.5, 2e-3, 3e-6, 4e-9)] == ["1.5 s", "2 ms", "3 µs", "4 ns"]


@pytest.mark.parametrize("name", WRITTEN)
def test_every_kernel_has_a_finite_cost(name: str) -> None:
    for seed in range(3):
        subject = written_subject(name, seed)
        found = cost(subject.op, subject.sizes, automatic(subject.op, SPEC, subject.sizes))
        assert math.isfinite(found.seconds) and found.seconds >= 0
        unknown = predict(
            run(subject.op, TO_KERNEL, Build(spec=SPEC, backend=load_backend("reference"), schedule=())), SPEC, {}
        )
        assert math.isfinite(unknown.seconds) and unknown.seconds > 0
