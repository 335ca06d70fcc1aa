"""`tridsl doctor --npu-report`: what somebody with an NPU can paste back. No NPU has run anything of this project, so every line helps.

What is here, part by part; for a few ops on each generation a hash of each emitted file and whether the simulated answer is the oracle's; and, only
where the device and all that it takes are here, the same for answers of the device, labelled **measured**.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from importlib import metadata
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tridsl import stdlib
from tridsl.backends.npu.emit import files_of
from tridsl.backends.npu.facts import absent, npu_on_bus, this_machine
from tridsl.cli.doctor import npu_parts
from tridsl.cli.output import OK, OUR_BUG, Report
from tridsl.cli.settings import Settings
from tridsl.diagnostics import TriError
from tridsl.structs import dataclass

GENERATIONS = ("aie2", "aie2p")
HASH_DIGITS = 12
TOLERANCE = {4: 1e-5, 2: 1e-2}
"""Of the largest value of a result, by bytes of a float (reference/kernels.md 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One op on one generation. `files`: name and hash; `simulated`, `measured`: how the answer compares with the oracle's, or why there is none."""

    op: str
    generation: str
    files: dict[str, str]
    simulated: str
    measured: str = ""


def npu_report(settings: Settings) -> Report:
    """The whole self-check. Status 70 when a simulated answer is not the oracle's: that is our bug."""
    machine = this_machine(settings.peano)
    present, missing = npu_on_bus(machine), absent(machine)
    system = {
        "tridsl": metadata.version("tridsl"), "python": platform.python_version(), "numpy": np.__version__, "kernel": platform.release(),
        "system": platform.platform(),
    }  # fmt: skip
    parts = tuple(npu_parts(machine))
    rows = tuple(_rows(present.generation if present is not None and missing is None else None))
    lines = ["tridsl NPU report", *(f"  {name:12}{value}" for name, value in system.items()), "", "parts"]
    lines += [f"  {f.state:6}{f.part:22}{f.found}" for f in parts]
    lines += ["", "designs (sha256 of each emitted file; answers compared with the oracle)"]
    for row in rows:
        lines += [f"  {row.op} on {row.generation}", *(f"    {name:14}{digest}" for name, digest in row.files.items())]
        lines += [f"    {word:14}{text}" for word, text in (("simulated", row.simulated), ("**measured**", row.measured)) if text]
    if missing is not None:
        lines += ["", f"Nothing was run on an NPU ({missing.message})."]
    data = {"system": system, "parts": [asdict(f) for f in parts], "designs": [asdict(row) for row in rows]}
    wrong = any(row.simulated.startswith(WRONG) for row in rows)
    return Report(data=data, text=("\n".join(lines),), status=OUR_BUG if wrong else OK)


WRONG = "wrong"


def _rows(here: str | None) -> Iterator[Row]:
    """`here`: the generation of the NPU that can be used."""
    for generation in GENERATIONS:
        for name, arguments in _cases():
            op, label = getattr(stdlib, name), f"{name} {arguments[-1].dtype}"
            try:
                files = files_of(op.lower(*arguments, device=f"npu:sim:{generation}"))
            except TriError as problem:
                yield Row(op=label, generation=generation, files={}, simulated=_reason(problem))
                continue
            yield Row(
                op=label,
                generation=generation,
                files={file: sha256(text.encode()).hexdigest()[:HASH_DIGITS] for file, text in files.items()},
                simulated=_compared(op, arguments, f"npu:sim:{generation}"),
                measured=_compared(op, arguments, "npu") if generation == here else "",
            )


def _cases() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """A map with a scalar, a row operation, products of both kinds of numbers; sizes that tiles do not divide."""
    yield "saxpy", (np.float32(1.5), _numbers(1000), _numbers(1000)[::-1].copy())
    yield "softmax", (_numbers(12, 72),)
    whole = (np.arange(40 * 100) % 251 - 125).astype(np.int8)
    yield "matmul", (whole.reshape(40, 100), whole[::-1].reshape(100, 40).copy())
    yield "matmul", (_numbers(40, 48).astype(ml_dtypes.bfloat16), _numbers(48, 40).astype(ml_dtypes.bfloat16))


def _numbers(*shape: int) -> NDArray[np.float32]:
    """The same on every machine: nothing here depends on a generator of random numbers."""
    steps = np.arange(int(np.prod(shape)), dtype=np.int64) * 7919 % 2003
    return ((steps - 1001) / 512).astype(np.float32).reshape(shape)


def _compared(op: Any, arguments: tuple[Any, ...], device: str) -> str:
    try:
        found = op(*arguments, device=device)
    except TriError as problem:
        return _reason(problem)
    wanted = op.reference(*arguments)
    if wanted.dtype.kind in "iu":
        differing = int((found != wanted).sum())
        return "equal" if not differing else f"{WRONG}: {differing} of {wanted.size} integers differ"
    error = float(np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max() / np.abs(wanted.astype(np.float64)).max())
    within = error <= TOLERANCE[wanted.dtype.itemsize]
    return f"{'within' if within else f'{WRONG}: beyond'} {TOLERANCE[wanted.dtype.itemsize]:g} of the largest value ({error:.1e})"


def _reason(problem: TriError) -> str:
    first = problem.diagnostics[0]
    return f"none: {first.code} {first.message}"
