"""One trial: a subject under a random legal schedule, with sizes known or not and arrays laid out in odd ways.

    python -m tests.differential.trial random:3:17 42        # the same trial again, and its schedule made as short as it can be
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from tests.differential.schedules import random_schedule, schedule_text
from tests.differential.subjects import Subject, find
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import CheckFailed, TriError
from tridsl.ir.evaluate import evaluate_kernel
from tridsl.ir.loop import Kernel
from tridsl.ir.printer import print_kernel
from tridsl.ir.verify import LOWERED, SCHEDULED, describe, verify
from tridsl.passes.specialise import Specialisation
from tridsl.pipeline import LOWER, SCHEDULE, TO_KERNEL, Build, run
from tridsl.schedule.apply import apply_schedule
from tridsl.schedule.automatic import automatic
from tridsl.schedule.steps import Schedule

SPECS = {
    "wide": DeviceSpec(
        name="wide", kind="cpu", vector_bits=512, vector_registers=32, has_masks=True, cores=2, l1_bytes=1 << 15, l2_bytes=1 << 20,
        l3_bytes=1 << 25, features=frozenset({"avx512vnni", "avx512bf16"}),
    ),
    "narrow": DeviceSpec(name="narrow", kind="cpu", vector_bits=128, vector_registers=16, cores=4, l1_bytes=1 << 15, l2_bytes=1 << 18),
    "gpu": DeviceSpec(name="gpu", kind="gpu", subgroup_sizes=(32,), shared_bytes=1 << 15, max_group_lanes=1024),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """`seed` decides everything that is not said: spec, facts and schedule."""

    subject: Subject
    seed: int
    spec: DeviceSpec
    facts: Specialisation
    schedule: Schedule

    def __repr__(self) -> str:
        shapes = {n: f"{a.dtype}{list(a.shape)}" if isinstance(a, np.ndarray) else a for n, a in self.subject.arguments.items()}
        return (
            f"replay: python -m tests.differential.trial {self.subject.name} {self.seed}\n{self.subject.text}\n"
            f"arguments: {shapes}\nsizes: {self.subject.sizes}, known: {dict(self.facts.sizes)}\n"
            f"strides: {dict(self.facts.strides)}\non {self.spec.name}:\n{schedule_text(self.schedule) or '  (no steps)'}"
        )

    def with_schedule(self, schedule: Schedule) -> Trial:
        return Trial(subject=self.subject, seed=self.seed, spec=self.spec, facts=self.facts, schedule=schedule)

    @property
    def build(self) -> Build:
        return Build(spec=self.spec, backend=None, schedule=self.schedule, facts=self.facts)  # type: ignore[arg-type]


def trial_of(subject: Subject, seed: int, specs: tuple[DeviceSpec, ...] = tuple(SPECS.values())) -> Trial:
    random = Random(f"{subject.name}/{seed}")
    spec = random.choice(specs)
    subject, strides = _laid_out(subject, random)
    how = random.random()
    known = {n: v for n, v in subject.sizes.items() if how < 0.45 or (how > 0.8 and random.random() < 0.5)}
    facts = Specialisation(sizes=tuple(known.items()), constants=subject.constants, strides=strides)
    kernel = run(subject.op, TO_KERNEL, Build(spec=spec, backend=None, schedule=(), facts=facts))  # type: ignore[arg-type]
    if random.random() < 0.15:
        return Trial(subject=subject, seed=seed, spec=spec, facts=facts, schedule=automatic(subject.op, spec, known))
    if random.random() < 0.1:  # the automatic schedule, distorted
        first = automatic(subject.op, spec, known)
        steps, _ = random_schedule(apply_schedule(kernel, first, spec), spec, random, subject.sizes, attempts=8)
        return Trial(subject=subject, seed=seed, spec=spec, facts=facts, schedule=(*first, *steps))
    steps, scheduled = random_schedule(kernel, spec, random, subject.sizes)
    again = apply_schedule(kernel, steps, spec)
    assert again == scheduled, f"applied as one schedule, these steps give another kernel:\n{schedule_text(steps)}"
    return Trial(subject=subject, seed=seed, spec=spec, facts=facts, schedule=steps)


def _laid_out(subject: Subject, random: Random) -> tuple[Subject, tuple[tuple[str, tuple[int, ...]], ...]]:
    """Strides for some arrays: reversed, transposed, with gaps, or repeated (whose contents then repeat too)."""
    strides: dict[str, tuple[int, ...]] = {}
    changed: dict[str, Any] = {}
    for tensor in subject.op.tensors:
        if not tensor.shape or random.random() < 0.6 or tensor.length:
            continue
        array = subject.arguments.get(tensor.name, subject.want.get(tensor.name))
        assert isinstance(array, np.ndarray)
        laid = _strides(array.shape, random, repeat=tensor.role == "input")
        strides[tensor.name] = laid
        if 0 in laid and array.size:
            first = array[tuple(slice(0, 1) if s == 0 else slice(None) for s in laid)]
            changed[tensor.name] = np.ascontiguousarray(np.broadcast_to(first, array.shape))
    if changed:
        subject = subject.with_arguments({**subject.arguments, **changed})
    return subject, tuple(strides.items())


def _strides(shape: tuple[int, ...], random: Random, *, repeat: bool) -> tuple[int, ...]:
    order = list(range(len(shape)))
    if random.random() < 0.5:
        random.shuffle(order)
    step = random.choice((1, 1, 1, 2, 3))
    laid = [0] * len(shape)
    for axis in reversed(order):
        if repeat and random.random() < 0.15:
            continue
        laid[axis] = step * random.choice((1, 1, 1, -1))
        step *= max(1, shape[axis]) + random.choice((0, 0, 1))
    return tuple(laid)


Check = Callable[[Trial], None]


def check_oracle(trial: Trial) -> None:
    """The scheduled and the lowered kernel mean what the op means, and are well formed."""
    kernel = run(trial.subject.op, (*TO_KERNEL, *SCHEDULE), trial.build)
    _means(trial, kernel, "schedule")
    problems = verify(kernel, SCHEDULED)
    assert not problems, f"after schedule: {describe(problems)}\n{print_kernel(kernel)}"
    kernel = run(kernel, LOWER, trial.build)
    problems = verify(kernel, LOWERED)
    assert not problems, f"after lowering: {describe(problems)}\n{print_kernel(kernel)}"
    _means(trial, kernel, "lowering")


def _means(trial: Trial, kernel: Kernel, stage: str) -> None:
    subject = trial.subject
    try:
        got = evaluate_kernel(kernel, subject.arguments, {n: subject.sizes[n] for n in kernel.sizes})
        subject.same(got, subject.want)
    except Exception as problem:
        problem.add_note(f"after {stage}:\n{print_kernel(kernel)}")
        raise


def fails(trial: Trial, check: Check) -> Exception | None:
    try:
        check(trial)
    except CheckFailed as problem:  # an answer, and a wrong one
        return problem
    except TriError:
        return None
    except Exception as problem:  # noqa: BLE001 (whatever it is, it is what is looked for)
        return problem
    return None


def shortened(trial: Trial, check: Check) -> Trial:
    """The trial with every step left out whose absence does not make it pass (or illegal)."""
    steps = list(trial.schedule)
    position = len(steps) - 1
    while position >= 0:
        shorter = trial.with_schedule(tuple(steps[:position] + steps[position + 1 :]))
        if fails(shorter, check):
            steps = list(shorter.schedule)
            position = min(position, len(steps))
        position -= 1
    return trial.with_schedule(tuple(steps))


def attempt(subject: Subject, seed: int, check: Check, specs: tuple[DeviceSpec, ...] = tuple(SPECS.values())) -> None:
    """Runs one trial; a failure says all that is needed to see it again."""
    trial: Trial | None = None
    try:
        trial = trial_of(subject, seed, specs)
        check(trial)
    except Exception as problem:
        problem.add_note(repr(trial) if trial else f"replay: python -m tests.differential.trial {subject.name} {seed}\n{subject.text}")
        raise


def main(name: str, seed: str) -> None:
    trial = trial_of(find(name), int(seed))
    problem = fails(trial, check_oracle)
    print(repr(trial))
    if problem is None:
        print("passes")
        return
    short = shortened(trial, check_oracle)
    print(f"\nstill fails with:\n{schedule_text(short.schedule)}\n")
    raise fails(short, check_oracle) or problem


if __name__ == "__main__":
    main(*sys.argv[1:])
