"""`tridsl run --check-stages`: the reference interpreter runs every stage; the first that gives another answer made the mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridsl import pipeline
from tridsl.api.devices import find
from tridsl.autotune.answers import Agreement, compare
from tridsl.backend import Binary, Signature
from tridsl.cli.lower import Stages, prepared
from tridsl.cli.output import OK, OUR_BUG, Report
from tridsl.cli.targets import Given, Target
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.evaluate import KernelFault, evaluate_kernel, evaluate_op
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Op, Tensor
from tridsl.schedule.text import text_schedule
from tridsl.structs import replace

Arguments = Mapping[str, Any]


def check_stages(target: Target, op: Op, said: Given, arguments: Arguments, sizes: Mapping[str, int], device: str, threads: int) -> Report:
    """Compares the op in f64 with: the op, its kernel at every stage, and the machine code on the device.

    `op` is mapped over leading axes already. Status 70 when a stage is wrong: that is a bug of tridsl.
    """
    here = find(device)
    exact = evaluate_op(op, arguments, sizes, exact=True)
    rows: list[dict[str, Any]] = [_row("check", compare(op, evaluate_op(op, arguments, sizes), exact))]
    said = replace(said, sizes=dict(sizes))
    constant, build = prepared(op, said, here.device.spec, here.backend)
    blocks = target.module.bound.schedules.get(target.name, ())
    stages = Stages(seen=[])
    pipeline.lower(constant, replace(build, schedule=text_schedule(blocks, op, here.device.spec, sizes)), until="build", on_stage=stages)
    previous: Kernel | None = None
    for name, value, _ in stages.seen:
        if isinstance(value, Kernel):
            if value != previous:
                rows.append(_row(name, _kernel(op, value, arguments, sizes, exact)))
            previous = value
        elif isinstance(value, Binary):
            executable = here.backend.driver().load(value, here.device)
            rows.append(_row(f"build, run on {here.device}", compare(op, _execute(executable, value.signature, op, arguments, sizes, exact, threads), exact)))
    wrong = next((row for row in rows if not row["right"]), None)
    lines = [f"{row['stage']:28} {'right' if row['right'] else 'WRONG':6} {row['text']}" for row in rows]
    if wrong is not None:
        lines.append(f"\nThe first stage that is wrong is `{wrong['stage']}`. This is a bug of tridsl; `tridsl lower --dump DIR` writes all stages for a report.")
    data = {"device": str(here.device), "stages": rows, "first_wrong": wrong and wrong["stage"]}
    return Report(data=data, text=("\n".join(lines),), status=OK if wrong is None else OUR_BUG)


def _row(stage: str, agreement: Agreement) -> dict[str, Any]:
    text = agreement.reason or f"largest error {agreement.worst:.2g} of {agreement.limit:.2g}"
    return {"stage": stage, "right": agreement.right, "worst": agreement.worst, "limit": agreement.limit, "text": text}


def _kernel(op: Op, kernel: Kernel, arguments: Arguments, sizes: Mapping[str, int], exact: Mapping[str, NDArray[Any]]) -> Agreement:
    kept = {p.name for p in kernel.params}
    passed = {name: value for name, value in arguments.items() if name in kept}
    try:
        return compare(op, evaluate_kernel(kernel, passed, {name: sizes[name] for name in kernel.sizes}), exact)
    except KernelFault as fault:
        return Agreement(worst=np.inf, limit=0, reason=str(fault))


def _execute(
    executable: Any, signature: Signature, op: Op, arguments: Arguments, sizes: Mapping[str, int], exact: Mapping[str, NDArray[Any]], threads: int
) -> dict[str, NDArray[Any]]:
    """What the machine code leaves in results and `inout` parameters."""
    found: dict[str, Any] = {}
    slots: list[Any] = []
    lengths = {t.length for t in op.tensors if t.length}
    roles = {t.name: t.role for t in op.tensors}
    for parameter in signature.params:
        if not isinstance(parameter, Tensor):
            slots.append(arguments[parameter.name])
            continue
        if parameter.name in lengths:
            value = np.zeros((), np.int64)
        elif roles[parameter.name] == "output":
            value = np.zeros(exact[parameter.name].shape, NUMPY_TYPES[parameter.dtype])
        else:
            value = np.array(arguments[parameter.name], order="C")
        found[parameter.name] = value
        slots.append(value)
    executable([*slots, *(sizes[name] for name in signature.sizes)], threads)
    return found
