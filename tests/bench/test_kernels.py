"""The kernels of the benchmarks that are not part of the suite stay whole: each has sizes, a formula and loops, and they compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tridsl
from tests.bench.polybench import formulas, loops, products
from tests.bench.polybench.cases import MAKERS, cases
from tridsl.cli.bench.cases import bench_blocks
from tridsl.cli.settings import Settings
from tridsl.cli.targets import find_module, find_target, services_for

HERE = Path(__file__).parent
SAMPLE = ("atax", "blend", "fdtd2d", "histogram16", "syr2k", "trmm")


def test_every_kernel_has_sizes_a_formula_and_loops() -> None:
    names = set(find_module(str(HERE / "polybench" / "kernels.tri"), services_for(Settings())).ops)
    assert names == set(MAKERS) == {case.kernel for case in cases()}
    for name in names:
        assert hasattr(formulas, name) and (hasattr(loops, name) != hasattr(products, name)), name


@pytest.mark.parametrize("name", SAMPLE)
def test_everybody_computes_the_same(name: str) -> None:
    """At the smallest size; the loops without Numba."""
    case = next(c for c in cases() if c.kernel == name)
    arguments = case.make(np.random.default_rng(0))
    got = getattr(tridsl.load(HERE / "polybench" / "kernels.tri"), name)(*arguments)
    mine = got if isinstance(got, tuple) else (got,)
    theirs = tuple(map(np.empty_like, mine))
    (getattr(products, name, None) or getattr(loops, name))(*arguments, *theirs)
    formula = getattr(formulas, name)(np, *arguments)
    for one, other, exact in zip(mine, theirs, formula if isinstance(formula, tuple) else (formula,), strict=True):
        np.testing.assert_allclose(one, exact, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(other, exact, rtol=1e-6, atol=1e-9)


def test_every_untuned_op_has_a_size() -> None:
    services = services_for(Settings())
    file = str(HERE / "untuned.tri")
    names = find_module(file, services).ops
    assert len(names) >= 16 and all(bench_blocks(f"{file}:{name}", find_target(f"{file}:{name}", services)) for name in names)
