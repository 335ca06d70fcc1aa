"""Random ops through every stage of the pipeline with the automatic schedule: each stage is well formed and means the same."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.properties.ops import Case, agree, ops
from tests.properties.test_ops import checked
from tridsl.backend import load_backend
from tridsl.devices.spec import load_chip
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.loop import Kernel
from tridsl.ir.printer import print_kernel
from tridsl.ir.verify import LOWERED, SPECS, describe, verify
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import LOWER, SCHEDULE, TO_KERNEL, Build, complete, run

REFERENCE = load_backend("reference")


def check_stages(case: Case, chip: str, specialised: bool) -> None:
    op, sizes = checked(case)
    want = evaluate_op(op, case.arguments, sizes, exact=case.regime == "computed")
    facts = Specialisation(sizes=tuple(sizes.items())) if specialised else Specialisation()

    def on_stage(name: str, kernel: Kernel, seconds: float) -> None:
        found = verify(kernel, SPECS.get(name, LOWERED))
        assert not found, f"after {name}: {describe(found)}\n{case!r}\n{print_kernel(kernel)}"
        try:
            agree(case, evaluate_kernel(kernel, case.arguments, {n: sizes[n] for n in kernel.sizes}), want)
        except Exception as problem:
            problem.add_note(f"after {name}\n{case!r}\n{print_kernel(kernel)}")
            raise

    build = complete(op, Build(spec=load_chip(chip), backend=REFERENCE, facts=facts))
    run(op, (*TO_KERNEL, *SCHEDULE, *LOWER), build, on_stage=on_stage)


@pytest.mark.parametrize(("chip", "specialised"), [("zen4", False), ("zen4", True), ("cortex_a76", True)])
def test_every_stage_keeps_the_meaning(chip: str, specialised: bool) -> None:
    @given(ops())
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def each(case: Case) -> None:
        check_stages(case, chip, specialised)

    each()
