"""`v.vector(slot)`: whole vectors of a top-k's list shift at once; the kernel means what the op does, also where nothing was written yet."""

from __future__ import annotations

import pytest

from tests.schedule.test_lines import same, scheduled
from tridsl.diagnostics import TriError
from tridsl.ir.loop import For
from tridsl.ir.walk import walk

TOP = "op f(x: {t}[N]) -> (v: {t}[{k}], i: i32[{k}]) {{ v, i = topk[n; k={k}](x[n]) }}\n"
STAGED = "v.split(n, {n})\n  v.store(l1, at=n.o)"


@pytest.mark.parametrize(("count", "kept"), [(40, 5), (40, 16), (70, 33), (20, 20), (9, 2), (100, 48)])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "i32"])
def test_slots_shift_in_vectors(dtype: str, count: int, kept: int) -> None:
    kernel = same(TOP.format(t=dtype, k=kept), f"{STAGED.format(n=count)}\n  v.vector(slot)", N=count)
    vectors = [n for p in kernel.phases for n in walk(p) if isinstance(n, For) and n.kind == "vector"]
    assert len(vectors) == 2 and {str(n.extent.value) for n in vectors} == {"16"}


def test_parts_and_what_puts_them_together_shift_alike() -> None:
    text = "v.parts(n, 32)\n  v.part.store(l1, at=n.o)\n  v.part.vector(slot)\n  v.split(n.o, 35)\n  v.store(l1, at=n.o.o)\n  v.vector(slot)"
    same(TOP.format(t="f32", k=7), text, N=137)


@pytest.mark.parametrize("directives", ["v.vector(slot)", "v.vector(n)", f"{STAGED.format(n=40)}\n  v.vector(n.i)"])
def test_a_list_elsewhere_and_its_elements_keep_their_order(directives: str) -> None:
    """In the host's memory there is no room for whole vectors; and each element is inserted into what the one before it left."""
    with pytest.raises(TriError, match="E0408"):
        scheduled(TOP.format(t="f32", k=5), directives, N=40)
