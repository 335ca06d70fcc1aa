"""`C.store(l1, at=…)` on a stage: what is staged where, blocks of matrix instructions, whole tiles; and what cannot be staged."""

from __future__ import annotations

import pytest

from tests.schedule import programs
from tridsl.check.resolve import bind
from tridsl.check.types import check_op
from tridsl.devices.spec import load_chip
from tridsl.diagnostics import SourceFile, TriError
from tridsl.ir.loop import Copy, For, Kernel
from tridsl.ir.op import Reduce
from tridsl.ir.printer import print_kernel
from tridsl.ir.walk import walk
from tridsl.passes.boundaries import boundaries
from tridsl.passes.simplify import simplify
from tridsl.passes.specialise import Specialisation, specialise
from tridsl.passes.to_loops import to_loops
from tridsl.schedule.apply import apply_schedule
from tridsl.schedule.contraction import worth_packing
from tridsl.schedule.text import text_schedule
from tridsl.syntax.parse import parse

MAP = "op f(x: f32[N]) -> y: f32[N] { y[i] = 2 * x[i] }\n"
ROWS = "op f(x: f32[R, N], g: f32[N]) -> y: f32[R, N] { y[r, n] = x[r, n] * g[n] }\n"
PRODUCT = "op f(A: i8[M, K], B: i8[K, N]) -> C: i32[M, N] { C[i, j] = sum[k; acc=i32](A[i, k] * B[k, j]) }\n"
TILED = """tile(i=16, j=16)
  C.split(k, 16)
  C.split(i.i, 8)
  C.split(j.i, 8)
  C.split(k.i, 8)
  C.order(i.o, j.o, k.o, i.i.o, j.i.o, k.i.o, i.i.i, j.i.i, k.i.i)
  C.intrin("mmul_i8_8x8x8")
  C.store(l1, at=k.o, buffers=2)"""


def staged(op: str, directives: str, **sizes: int) -> Kernel:
    text = f"{op}schedule f for npu {{\n  {directives}\n}}\n"
    bound = bind(parse(SourceFile(name="<test>", text=text)), lambda module, name: None)
    checked = check_op(bound, bound.operations["f"][0], {})
    spec = load_chip("aie2p")
    steps = text_schedule(bound.schedules["f"], checked, spec, sizes)
    assert steps is not None
    return apply_schedule(boundaries(specialise(to_loops(checked), Specialisation(sizes=tuple(sizes.items())))), steps, spec)


def copies(kernel: Kernel) -> dict[str, Copy]:
    """By the panel's name."""
    found = [n for p in kernel.phases for n in walk(p) if isinstance(n, Copy)]
    return {(c.target.tensor if c.target.tensor.endswith(".l1") else c.source.tensor): c for c in found}


def body(kernel: Kernel) -> str:
    return "\n".join(line[2:] for line in print_kernel(kernel).splitlines()[1:] if line.strip())


def test_what_a_loop_touches_is_copied_in_front_of_it_and_behind() -> None:
    assert body(staged(MAP, "y.split(i, 64)\n  y.store(l1, at=i.o, buffers=2)", N=100)) == """\
for i.o < 2
  alloc x.l1: f32[64] in l1 padded
  copy x[x.l1.d0 + i.o*64] -> x.l1[x.l1.d0] for x.l1.d0 < min(64, 100 - i.o*64) of 64, pad 0, buffers 2
  alloc y.l1: f32[64] in l1 padded
  for i.i < 64
    y.l1[i.i] = 2 * x.l1[i.i]
  copy y.l1[y.l1.d0] -> y[y.l1.d0 + i.o*64] for y.l1.d0 < min(64, 100 - i.o*64) of 64, buffers 2"""


def test_what_the_loop_does_not_move_is_copied_once_and_rows_begin_aligned() -> None:
    kernel = staged(ROWS, "y.split(r, 4)\n  y.store(l1, at=r.o, buffers=2)", R=10, N=20)
    lines = body(kernel).splitlines()
    assert lines[:2] == ["alloc g.l1: f32[32] in l1 padded", "copy g[g.l1.d0] -> g.l1[g.l1.d0] for g.l1.d0 < 20 of 20, pad 0"]
    assert "  alloc x.l1: f32[4, 32] in l1 padded" in lines
    assert [c.buffers for c in copies(kernel).values()] == [1, 2, 2]


def test_operands_of_an_instruction_lie_in_its_blocks() -> None:
    kernel = staged(PRODUCT, f"C.{TILED}", M=32, N=48, K=64)
    shapes = {name: [str(i) for i in (c.target if name != "C.l1" else c.source).index] for name, c in copies(kernel).items()}
    assert all(len(index) == 4 for index in shapes.values())
    text = print_kernel(kernel)
    for declared in ("A.l1: i8[2, 2, 8, 8]", "B.l1: i8[2, 2, 8, 8]", "C.l1: i32[2, 2, 8, 8]"):
        assert f"alloc {declared} in l1" in text
    assert "C.l1[i.i.o, j.i.o, i.i.i, j.i.i] += i32(A.l1[i.i.o, k.i.o, i.i.i, k.i.i]) * i32(B.l1[k.i.o, j.i.o, k.i.i, j.i.i])" in text


def test_a_result_is_copied_outside_the_loops_that_add_to_it() -> None:
    kernel = staged(PRODUCT, f"C.{TILED}", M=32, N=48, K=64)
    loops = {n.var: n for p in kernel.phases for n in walk(p) if isinstance(n, For)}
    assert isinstance(loops["C:j.o"].body[-1], Copy) and not any(n.source.tensor == "C.l1" for n in walk(loops["C:k.o"]) if isinstance(n, Copy))


def test_sums_of_products_go_on_over_what_lies_outside() -> None:
    kernel = staged(PRODUCT, f"C.{TILED}", M=5, N=7, K=20)
    assert all(str(n.extent.value) in "12 8" for p in kernel.phases for n in walk(p) if isinstance(n, For))
    axes = [axis for copy in copies(simplify(kernel)).values() for axis in copy.axes]
    assert {axis.bound for axis in axes} == {16}


def test_a_panel_larger_than_its_tensor_keeps_its_layout() -> None:
    """What is filled has places of its own, although only one row is copied."""
    copy = copies(simplify(staged(PRODUCT, f"C.{TILED}", M=1, N=16, K=16)))["A.l1"]
    assert copy.axes[0].bound == 16 and len({str(i) for i in copy.target.index}) == 4


CHOSEN = "op f(x: f32[H, D], o: i32[K]) -> y: f32[K, D] { y[j, d] = x[o[j], d; pad=0] }\n"


def test_an_axis_along_which_elements_choose_is_staged_as_a_whole() -> None:
    """And what is outside there is still asked for."""
    text = body(staged(CHOSEN, "y.split(d, 16)\n  y.order(d.o, j, d.i)\n  y.store(l1, at=d.o)", H=30, D=40, K=5))
    assert "  alloc x.l1: f32[30, 16] in l1 padded" in text.splitlines()
    assert "y.l1[j, d.i] = if i64(o.l1[j]) >= 0 and i64(o.l1[j]) < 30 then x.l1[i64(o.l1[j]), d.i] else 0" in text


def test_a_single_number_is_staged_without_a_loop() -> None:
    text = body(staged("op f(x: f32[N]) -> y: f32 {\n  s = sum[n](x[n])\n  y = s / 2\n}\n", "y.store(l1)", N=40))
    assert text.splitlines()[-5:] == [
        "  alloc y.l1: f32[1] in l1 padded", "  alloc s.l1: f32[1] in l1 padded", "  copy s[] -> s.l1[s.l1.d0] for s.l1.d0 < 1 of 1, pad 0",
        "  y.l1[0] = s.l1[0] / 2", "  copy y.l1[y.l1.d0] -> y[] for y.l1.d0 < 1 of 1",
    ]  # fmt: skip


def test_rows_that_a_vector_walks_as_one_lie_one_behind_another() -> None:
    """Whatever a row of its own would be padded to: here two of 16 halves."""
    op = "op f(x: f32[R, N]) -> y: bf16[R, N] { y[r, n] = bf16(x[r, n]) }\n"
    text = body(staged(op, "y.fuse(r, n)\n  y.split(r.n, 32)\n  y.vector(r.n.i)\n  y.store(l1, at=r.n.o)", R=43, N=16))
    assert "y.l1: bf16[32]" in text and "y.l1[r.n.i] = x.l1[r.n.i]" in text


def test_rows_have_room_for_vectors_that_begin_inside_of_them() -> None:
    """The second vector of 16 goes from 36 to 52."""
    text = body(staged("op f(x: f32[R, 40]) -> y: f32[R, 20] { y[r, m] = x[r, m] + x[r, m + 20] }\n", "y.vector(m)\n  y.split(r, 1)\n  y.store(l1, at=r.o)", R=3))
    assert "x.l1: f32[1, 64]" in text and "y.l1: f32[1, 32]" in text


@pytest.mark.parametrize(
    ("op", "directives", "sizes", "code"),
    [
        ("op f(x: f32[N]) -> y: f32[N] { y[i] = x[i] + x[N - 1 - i] }\n", "y.split(i, 64)\n  y.store(l1, at=i.o)", {"N": 256}, "E0441"),
        (MAP, "y.split(i, 64)\n  y.store(l1, at=i.o)", {}, "E0441"),
        ("op f(x: f32[R, N]) -> y: f32[R] { y[r] = max[n](x[r, n]) }\n", "y.split(n, 64)\n  y.store(l1, at=n.o)", {"R": 4, "N": 100}, "E0442"),
        (MAP, "y.split(i, 64)\n  y.store(l1, at=q)", {"N": 256}, "E0402"),
    ],
)
def test_what_cannot_be_staged(op: str, directives: str, sizes: dict[str, int], code: str) -> None:
    with pytest.raises(TriError) as found:
        staged(op, directives, **sizes)
    assert found.value.diagnostics[0].code == code


def test_a_product_with_a_vector_is_not_worth_packing() -> None:
    """It has no second axis along which elements would be used again."""
    op = programs.op_of("op f(A: f32[K, M], x: f32[K]) -> y: f32[M] {\n  y[i] = sum[k](A[k, i] * x[k])\n}\n")
    (stage,) = (stage for stage in op.stages if isinstance(stage, Reduce))
    assert not worth_packing(stage, programs.CPU, {"M": 4096, "K": 4096})
