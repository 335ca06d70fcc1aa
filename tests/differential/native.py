"""Kernels of the CPU backend between guard pages, in a process of their own: a fault kills this process and not the suite.

    python -m tests.differential.native random:3:17/42 …       # name of a subject / seed of the trial, or `automatic`

Prints `running NAME/SEED` before each trial, so that whoever started it knows what a dead process died of, and `failed
NAME/SEED` with the reasons for each that gave a wrong answer.
"""

from __future__ import annotations

import sys
import traceback
from functools import cache
from typing import Any

import numpy as np

from tests.differential.guarded import Guarded
from tests.differential.subjects import Subject, find
from tests.differential.trial import Trial, fails, shortened, trial_of
from tridsl.backend import Device, Executable
from tridsl.backends.cpu import BACKEND
from tridsl.backends.cpu.driver import driver
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.affine import evaluate_index
from tridsl.ir.op import Tensor
from tridsl.ir.printer import print_kernel
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import LOWER, SCHEDULE, TO_KERNEL, Build, build, run
from tridsl.schedule.automatic import automatic


@cache
def host() -> Device:
    return driver().devices()[0]


def compiled(trial: Trial) -> Executable:
    binary = build(trial.subject.op, Build(spec=trial.spec, backend=BACKEND, schedule=trial.schedule, facts=trial.facts))
    return driver().load(binary, host())


def check_native(trial: Trial) -> None:
    """The machine code gives the oracle's answer for teams of 1, 2 and 3 threads, the same bits for each, and touches nothing
    but its results."""
    executable = compiled(trial)
    try:
        results = [once(trial, executable, threads, high) for threads, high in ((1, True), (2, False), (3, True))]
        for got in results:
            trial.subject.same(got, trial.subject.want)
        for name in results[0]:
            length = int(results[0][f"{name}.len"]) if f"{name}.len" in results[0] else None
            cut = [(r[name][:length] if length is not None else r[name]).tobytes() for r in results]
            assert len(set(cut)) == 1, f"{name} changes with the number of threads"
    except Exception as problem:
        kernel = run(trial.subject.op, (*TO_KERNEL, *SCHEDULE, *LOWER), trial.build)
        problem.add_note(f"lowered:\n{print_kernel(kernel)}")
        raise


def once(trial: Trial, executable: Executable, threads: int, high: bool) -> dict[str, np.ndarray[Any, Any]]:
    """What one run leaves in the results."""
    subject, strides = trial.subject, dict(trial.facts.strides)
    signature = executable.signature  # type: ignore[attr-defined]
    buffers: dict[str, Guarded] = {}
    slots: list[Any] = []
    for param in signature.params:
        if not isinstance(param, Tensor):
            slots.append(subject.arguments[param.name])
            continue
        shape = tuple(evaluate_index(n, subject.sizes) for n in param.shape)
        given = subject.arguments.get(param.name)
        buffer = Guarded(shape, strides.get(param.name, _contiguous(shape)), NUMPY_TYPES[param.dtype], high=high)
        if given is not None:
            buffer.array[...] = given
        buffers[param.name] = buffer
        slots.append(buffer.array)
    executable([*slots, *(subject.sizes[n] for n in signature.sizes)], threads)
    results = {}
    for param in signature.params:
        if not isinstance(param, Tensor):
            continue
        buffer = buffers[param.name]
        assert buffer.untouched(), f"bytes between or around the elements of {param.name} were written"
        if param.role == "input":
            same = buffer.array.tobytes() == np.ascontiguousarray(subject.arguments[param.name]).tobytes()
            assert same, f"the input {param.name} was written"
        else:
            results[param.name] = buffer.array.copy()
    for buffer in buffers.values():
        buffer.close()
    return results


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.insert(0, step)
        step *= max(1, extent)
    return tuple(strides)


def automatic_trial(subject: Subject) -> Trial:
    """What calls use when no size is known."""
    spec = host().spec
    facts = Specialisation(constants=subject.constants)
    return Trial(subject=subject, seed=0, spec=spec, facts=facts, schedule=automatic(subject.op, spec, {}))


def specs() -> tuple[DeviceSpec, ...]:
    return (host().spec,)


def main(trials: list[str]) -> int:
    bad = 0
    for text in trials:
        name, _, seed = text.partition("/")
        print(f"running {text}", flush=True)
        trial: Trial | None = None
        try:
            trial = automatic_trial(find(name)) if seed == "automatic" else trial_of(find(name), int(seed), specs())
            check_native(trial)
        except Exception:  # noqa: BLE001 (whatever it is, it is what is looked for)
            bad += 1
            print(f"failed {text}\n{traceback.format_exc()}\n{trial!r}", flush=True)
            if len(trials) == 1 and trial is not None:
                short = shortened(trial, check_native)
                print(f"\nshortest schedule that fails:\n{short!r}\n{fails(short, check_native)}")
    return bad


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
