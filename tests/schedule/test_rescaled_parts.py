"""`O.softmax_wsum.parts(t, 64, into=block)`: the elements of a softmax in parts, each a block, put together in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.schedule.test_block_gpu import MATRICES
from tests.schedule.test_lines import scheduled
from tests.stdlib.calling import prepared
from tridsl.backends.vulkan import BACKEND
from tridsl.diagnostics import TriError
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.loop import For
from tridsl.ir.op import Scalar
from tridsl.ir.verify import SCHEDULED, describe, verify
from tridsl.ir.walk import walk
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import SCHEDULE, TO_KERNEL, Build, run
from tridsl.schedule.steps import At, Inline, Parts, Schedule


def attention(shape: tuple[int, ...], steps: Schedule, *, causal: bool = False, scale: float = 0.3) -> Any:
    heads, groups, rows, keys, width, own = shape
    random = np.random.default_rng(7)
    arrays = (random.standard_normal(s).astype(np.float32) for s in ((heads, rows, width), (groups, keys, width), (groups, keys, own)))
    op, given, sizes = prepared("attention", (*arrays, np.float32(scale)), {}, {"causal": causal})
    constants = tuple((p.name, given[p.name]) for p in op.inputs if isinstance(p, Scalar) and p.const)
    build = Build(spec=MATRICES, backend=BACKEND, schedule=steps, facts=Specialisation(sizes=tuple(sizes.items()), constants=constants))
    kernel = run(op, (*TO_KERNEL, *SCHEDULE), build)
    assert not verify(kernel, SCHEDULED), describe(verify(kernel, SCHEDULED))
    wanted, found = evaluate_op(op, given, sizes)["O"], evaluate_kernel(kernel, given, {})["O"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    return kernel


PARTS = Parts(stage="O.softmax_wsum", axis="t", factor=16, into="block")
SHARED = Parts(stage="O.softmax_wsum", axis="t", factor=16, into="block", inside="q")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(2, 1, 1, 64, 8, 4), (2, 2, 3, 37, 5, 3), (1, 1, 20, 7, 4, 4), (1, 1, 2, 1, 3, 2)], ids=str)
def test_parts_come_to_the_whole(shape: tuple[int, ...], causal: bool) -> None:
    kernel = attention(shape, (PARTS,), causal=causal)
    assert [p.name for p in kernel.phases][-3:] == ["O.softmax_wsum.part", "O.softmax_wsum", "O"]
    assert {"O.softmax_wsum.part.m", "O.softmax_wsum.part.l", "O.softmax_wsum.part.o"} <= {b.name for b in kernel.scratch}


def test_scores_are_made_where_their_part_is() -> None:
    kernel = attention((2, 1, 2, 50, 8, 4), (Inline(stage="s"), Inline(stage="w"), PARTS, At(stage="s.sum", consumer="O.softmax_wsum.part", axis="t.o")))
    assert "s.sum" not in {b.name for b in kernel.scratch}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(2, 1, 8, 64, 8, 4), (2, 2, 3, 37, 5, 3), (1, 1, 2, 1, 3, 2)], ids=str)
def test_rows_that_share_a_part(shape: tuple[int, ...], causal: bool) -> None:
    kernel = attention(shape, (Inline(stage="s"), Inline(stage="w"), SHARED, At(stage="s.sum", consumer="O.softmax_wsum.part", axis="t.o")), causal=causal)
    (part,) = (p for p in kernel.phases if p.name == "O.softmax_wsum.part")
    loops = {n.var.rpartition(":")[0] for n in walk(part) if isinstance(n, For) and n.var.endswith(":q")}
    stages = {f"O.softmax_wsum.part.{name}" for name in ("key", "key.kept", "weight", "l", "l.kept", "o")}
    assert stages <= loops or shape[2] == 1


@pytest.mark.parametrize(
    ("op", "directives", "why"),
    [
        ("op f(x: f32[N]) -> y: f32 { y = sum[i](x[i]) }\n", "y.parts(i, 64, inside=j)", "blocks"),
        ("op f(x: f32[N]) -> y: f32 { y = sum[i](x[i]) }\n", "y.parts(i, 64, into=block, inside=j)", "`j` is no loop"),
        ("op f(x: f32[N]) -> y: f32 { y = sum[i](x[i]) }\n", "y.parts(i, 64, into=block)", "rescaled"),
        ("op f(x: f32[N]) -> y: f32[N] { y[i] = scan max[i](x[i]) }\n", "y.parts(i, 64, into=block)", "rescaled"),
    ],
)
def test_what_is_no_rescaled_sum(op: str, directives: str, why: str) -> None:
    with pytest.raises(TriError, match=f"E0424.*{why}"):
        scheduled(op, directives, N=99)
