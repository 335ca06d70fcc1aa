"""The generator draws only valid ops, and the two oracles and the IR's texts agree on all of them."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from tests.properties.ops import Case, agree, ops
from tridsl.check.overloads import select
from tridsl.check.resolve import bind
from tridsl.check.sizes import solve
from tridsl.check.types import check_op
from tridsl.diagnostics import SourceFile
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Op, Tensor
from tridsl.ir.printer import print_kernel, print_op
from tridsl.ir.serial import from_json, to_json
from tridsl.ir.verify import LOOPS, OP, SCHEDULED, describe, verify
from tridsl.passes.boundaries import boundaries
from tridsl.passes.to_loops import to_loops
from tridsl.syntax.parse import parse

FAST = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def checked(case: Case) -> tuple[Op, dict[str, int]]:
    bound = bind(parse(SourceFile(name="<random>", text=case.text)), lambda module, name: None)
    overload = bound.operations[case.name][0]
    op = check_op(bound, overload, {})
    shapes = {t.name: case.arguments[t.name].shape for t in op.params if isinstance(t, Tensor) and t.role != "output"}
    scalars = {p.name: case.arguments[p.name] for p in op.params if not isinstance(p, Tensor)}
    sizes = solve(op, shapes, scalars)
    assert {n: v for n, v in sizes.items() if n in case.sizes} == {n: case.sizes[n] for n in sizes}
    return op, sizes


@given(ops())
@FAST
def test_random_ops_mean_the_same_as_ops_and_as_loops(case: Case) -> None:
    op, sizes = checked(case)
    assert not verify(op, OP), describe(verify(op, OP))
    want = evaluate_op(op, case.arguments, sizes, exact=case.regime == "computed")
    agree(case, evaluate_op(op, case.arguments, sizes), want)
    naive = to_loops(op)
    assert not verify(naive, LOOPS), describe(verify(naive, LOOPS))
    agree(case, evaluate_kernel(naive, case.arguments, sizes), want)
    mapped = boundaries(naive)
    assert not verify(mapped, SCHEDULED), describe(verify(mapped, SCHEDULED))
    agree(case, evaluate_kernel(mapped, case.arguments, sizes), want)


@given(ops())
@settings(FAST, max_examples=50)
def test_random_ops_print_deterministically_and_survive_json(case: Case) -> None:
    op, _ = checked(case)
    kernel = to_loops(op)
    assert print_op(op) == print_op(checked(case)[0])
    assert print_kernel(kernel) == print_kernel(to_loops(checked(case)[0]))
    assert from_json(to_json(kernel), Kernel) == kernel
    assert from_json(to_json(op), Op) == op


def test_calls_select_the_only_overload() -> None:
    bound = bind(
        parse(SourceFile(name="<text>", text="op f(x: f32[N]) -> y: f32[N] { y[i] = x[i] }")), lambda module, name: None
    )
    assert select(bound, "f", [None], [1])[1] == {}
