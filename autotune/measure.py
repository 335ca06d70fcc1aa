"""The parent's side of measuring: shared arrays, one killable process per candidate, answers checked before anything is timed,
and turns taken in random blocks under the machine-wide lock.

What is measured is the time of a call of the loaded kernel by the device's own clock, without the call layer and without Python
(`backend.Timed`). An op that updates an argument gets fresh contents before each run, so its runs are timed from outside one by one.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from random import Random
from statistics import median
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tridsl.autotune import lock as machine_lock
from tridsl.autotune import packed
from tridsl.autotune.answers import TOLERANCE, compare
from tridsl.autotune.lock import PATIENCE_SECONDS, bench_lock
from tridsl.autotune.worker import (
    Answer,
    Failed,
    Job,
    Place,
    Prepare,
    Ready,
    Times,
    Turn,
    parameters,
    prepare,
    read_answer,
    view,
)
from tridsl.autotune.zygote import ZygoteGone, zygote
from tridsl.backend import Device
from tridsl.diagnostics import TriError
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.affine import evaluate_index
from tridsl.ir.evaluate import evaluate_op
from tridsl.ir.op import Op, Scalar
from tridsl.passes.specialise import Specialisation
from tridsl.schedule.analyse import axes_of, over_of, points
from tridsl.schedule.steps import Schedule
from tridsl.structs import dataclass

VERSION = "3"
"""Of how things are measured: part of every trial, and changed whenever times would come out otherwise."""

ORACLE_POINTS = 1 << 28
"""Iterations of an op up to which the oracle computes the answer (about a second per 2^26); beyond, the first candidate's answer
is what the others must agree with, and the result says so."""

MOST_COPIES, COPIED_BYTES = 8, 1 << 28
"""Copies of the arrays that blocks take in turn, and what all of them may take. Which pages of the machine an array lies in decides how
it falls into the sets of the caches: measured, the ratio of two candidates for a matrix of 256 KB moved by 9% from allocation to
allocation, and by 0.3% within one."""

ROUNDING, WILD = 8.0, 0.01
"""A candidate may be off by so many times what the interpreter is when it rounds like the op's types; beyond the second number (relative
to the result) that says nothing any more."""

FEW, DRAWS = 16, 8
"""Results of fewer elements have no typical size of their own; so many other draws of the arguments say what it is."""

SETTLE_SECONDS = 0.002
"""Between turns: the idle threads of an OpenMP team look for work for about a millisecond before they sleep."""

POISON = 0xAB
"""What results, and the bytes around them, are filled with before the run that is checked."""

SAID_BYTES = 4096
"""Of what a candidate prints, that are kept: the first ones."""

LAST_WORDS_SECONDS = 0.5
"""How long a process that has closed its pipe may take to end."""

Outcome = Literal["ok", "compile_error", "wrong_result", "timeout", "crash", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one candidate's process, in seconds and bytes (beyond the arrays). `turn`: how long a candidate runs when it is its turn; `lock`:
    how long others on this machine are waited for."""

    compile_seconds: float = 30.0
    run_seconds: float = 10.0
    memory_bytes: int = 2 << 30
    turn_seconds: float = 0.005
    lock_seconds: float = PATIENCE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is measured: an op, without `const` parameters, for one device at sizes. `arguments`: contents of
    the inputs by name."""

    op: Op
    device: Device
    sizes: Mapping[str, int]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    threads: int = 1

    @property
    def facts(self) -> Specialisation:
        fixed = tuple((n, v) for n, v in sorted(self.sizes.items()) if n not in self.op.dynamic)
        return Specialisation(sizes=fixed)


class Failure(NamedTuple):
    outcome: Outcome
    reason: str


def arguments_of(op: Op, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Any]:
    """Contents for every input, always the same for a seed: floats uniform in -1..1, integers small enough to be summed, scalars
    their default, or 1."""
    random = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for param in op.inputs:
        if isinstance(param, Scalar):
            made[param.name] = param.default.value if param.default is not None else 1
            continue
        shape = tuple(evaluate_index(n, sizes) for n in param.shape)
        kind = NUMPY_TYPES[param.dtype]
        if param.dtype.is_float:
            made[param.name] = random.uniform(-1, 1, shape).astype(kind)
        elif param.dtype.kind == "bool":
            made[param.name] = random.integers(0, 2, shape).astype(kind)
        else:
            low, high = max(-16, param.dtype.low or 0), min(16, param.dtype.high or 1)
            made[param.name] = random.integers(low, high, shape, endpoint=True).astype(kind)
    return made


class Bench:
    """The shared arrays of a subject, and the processes that run candidates on them. Use as a context: it ends them all."""

    def __init__(self, subject: Subject, limits: Limits | None = None, *, make: Prepare = prepare, lock: Path | None = None) -> None:
        self.subject = subject
        self.limits = limits or Limits()
        self.make = make
        self.lock = lock or machine_lock.LOCK
        self.locked = True
        self.on_wait: Callable[[], None] | None = None
        self.oracle = _iterations(subject) <= ORACLE_POINTS
        """Whether answers are checked against the oracle; otherwise against the first candidate's."""
        inputs = {**arguments_of(subject.op, subject.sizes), **packed.elements(subject.op, subject.sizes, subject.arguments)}
        self._scalars = {n: v for n, v in inputs.items() if not isinstance(v, np.ndarray)}
        self._inputs = {n: v for n, v in inputs.items() if isinstance(v, np.ndarray)}
        self._expected: Mapping[str, NDArray[Any]] | None = None
        self._off: float | None = None
        self._runners: list[Runner] = []
        self._places, sizes = _layout(subject)
        self._sizes = sizes
        self.copies = max(1, min(MOST_COPIES, COPIED_BYTES // max(1, sum(sizes))))
        self._turns = 0
        self._handles = [os.memfd_create(f"tridsl-{name}", os.MFD_CLOEXEC) for name in ("inputs", "results")]
        try:
            for handle, size in zip(self._handles, sizes):
                os.ftruncate(handle, self.copies * size)
        except OSError:  # a limit on the size of files counts for these, too (`ulimit -f`): one copy has to do
            self.copies = 1
            for handle, size in zip(self._handles, sizes):
                os.ftruncate(handle, size)
        self._inside, self._outside = (mmap.mmap(h, self.copies * n) for h, n in zip(self._handles, sizes))
        self.size = self.copies * sum(sizes)
        self._guards = {where: np.frombuffer(self._outside, np.uint8, end - start, start) for where, start, end in _gaps(self._places, sizes[1])}
        for name, array in self._inputs.items():
            place, content = self._places[name], packed.stored(subject.op, name, array)
            for copy in range(self.copies):
                view(self._inside, place, place.fresh, base=copy * sizes[0])[...] = content

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for runner in tuple(self._runners):
            self.end(runner)
        while self._handles:
            os.close(self._handles.pop())

    def start(self, schedules: Sequence[Schedule | None]) -> list[Runner | Failure]:
        """Compile candidates, each in a process of its own, as many at a time as there are processors; then check the answer of
        each. What fails has said why, and its process has ended."""
        started: list[Runner | Failure] = []
        group = max(1, len(os.sched_getaffinity(0)))
        for first in range(0, len(schedules), group):
            runners = [self._spawn(s) for s in schedules[first : first + group]]
            for runner in runners:
                failure = runner.prepare(self.limits.compile_seconds) or self._check(runner)
                if failure is not None:
                    self.end(runner)
                started.append(failure or runner)
        return started

    def blocks(self, runners: Sequence[Runner], count: int, random: Random) -> dict[Runner, list[float] | Failure]:
        """Median seconds of each runner's turn in each of `count` blocks; within a block, the order is random and all work on the
        same copy of the arrays; the next block takes the next copy.

        The lock of the machine is held for a block at a time. A runner that fails takes no further part; its process ends.
        """
        found: dict[Runner, list[float] | Failure] = {r: [] for r in runners}
        for _ in range(count):
            self._turns += 1
            with bench_lock(self.lock, patience=self.limits.lock_seconds, waiting=self.on_wait) as held:
                self.locked = self.locked and held
                for runner in random.sample(list(runners), len(runners)):
                    times = found[runner]
                    if isinstance(times, Failure):
                        continue
                    time.sleep(SETTLE_SECONDS)
                    turn = runner.turn(self.limits.turn_seconds, self.limits.run_seconds + self.limits.turn_seconds, self._turns % self.copies)
                    if isinstance(turn, Failure):
                        found[runner] = turn
                        self.end(runner)
                    else:
                        times.append(median(turn))
        return found

    def end(self, runner: Runner) -> None:
        runner.end()
        if runner in self._runners:
            self._runners.remove(runner)

    def _spawn(self, schedule: Schedule | None) -> Runner:
        subject = self.subject
        job = Job(
            op=subject.op, device=subject.device, schedule=schedule, facts=subject.facts, sizes=dict(subject.sizes), scalars=self._scalars,
            places=self._places, limit=self.limits.memory_bytes + self.size, copies=self.copies, sizes_in_bytes=self._sizes,
            threads=subject.threads,
        )  # fmt: skip
        runner = Runner(job, self.make, self._handles)
        self._runners.append(runner)
        return runner

    def _check(self, runner: Runner) -> Failure | None:
        """One run on poisoned results, compared with what is right. Nothing beside the results may have changed."""
        results = {n: view(self._outside, p) for n, p in self._places.items() if p.role != "input"}
        for bytes_ in (*(a.reshape(-1).view(np.uint8) for a in results.values()), *self._guards.values()):
            bytes_[...] = POISON
        turn = runner.turn(0.0, self.limits.run_seconds)
        if isinstance(turn, Failure):
            return turn
        for where, guard in self._guards.items():
            if changed := int(np.count_nonzero(guard != POISON)):
                return Failure("wrong_result", f"it wrote outside of its results: {changed} bytes {where}")
        if self._expected is None:
            self._expected = self._right(results)
        agreement = compare(self.subject.op, results, self._expected)
        if agreement.right or agreement.worst <= self._rounding():
            return None
        return Failure("wrong_result", agreement.reason)

    def _rounding(self) -> float:
        """How far a right answer may be off for another reason than its type: the interpreter is as far off when it rounds as the op's
        types say, or the result is one number that happens to be small among those that such arguments give. 0 for integers,
        and where there is no oracle. Worked out when a candidate seems wrong."""
        if self._off is None:
            op, floats = self.subject.op, all(t.dtype.is_float for t in self.subject.op.tensors if t.role != "input")
            self._off = 0.0
            if floats and self.oracle and self._expected is not None:
                rounded = evaluate_op(op, {**self._inputs, **self._scalars}, self.subject.sizes)
                off = max(ROUNDING * compare(op, rounded, self._expected).worst, self._small_by_chance())
                self._off = off if off < WILD else 0.0
        return self._off

    def _small_by_chance(self) -> float:
        """The tolerance of results of a few elements, relative to their typical size over other arguments of the same kind."""
        expected = self._expected or {}
        few = [t for t in self.subject.op.tensors if t.role == "output" and t.length is None and 0 < expected[t.name].size < FEW]
        if not few:
            return 0.0
        draws = []
        for seed in range(1, DRAWS + 1):
            given = packed.elements(self.subject.op, self.subject.sizes, self.subject.arguments)
            inputs = {**arguments_of(self.subject.op, self.subject.sizes, seed), **given}
            draws.append(evaluate_op(self.subject.op, inputs, self.subject.sizes, exact=True))
        found = 0.0
        for tensor in few:
            own = float(np.sqrt(np.mean(np.square(expected[tensor.name], dtype=np.float64))))
            typical = float(np.sqrt(np.mean([np.mean(np.square(d[tensor.name], dtype=np.float64)) for d in draws])))
            found = max(found, TOLERANCE[tensor.dtype] * typical / own if own else 0.0)
        return found

    def _right(self, first: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        if not self.oracle:
            return {n: a.copy() for n, a in first.items()}
        floats = any(p.dtype.is_float for p in self.subject.op.params)
        return evaluate_op(self.subject.op, {**self._inputs, **self._scalars}, self.subject.sizes, exact=floats)


class Runner:
    """One candidate's process. Compared by identity."""

    def __init__(self, job: Job, make: Prepare, memory: Sequence[int]) -> None:
        self.schedule = job.schedule
        self.compile_seconds = 0.0
        self.code = ""
        self._said = _small_file()
        try:
            self._process = zygote().fork((self._said, *memory))
        except TriError:
            os.close(self._said)
            raise
        self._pipe = self._process.pipe
        with suppress(OSError):  # a process that is gone already is noticed when its answer is due
            self._pipe.send((job, make))

    def prepare(self, seconds: float) -> Failure | None:
        """Wait until it is compiled."""
        answer = self._answer(seconds, "compiling")
        if isinstance(answer, Ready):
            self.compile_seconds, self.code = answer.compile_seconds, answer.code
            return None
        return answer if isinstance(answer, Failure) else _NO_ANSWER

    def turn(self, seconds: float, most: float, copy: int = 0) -> tuple[float, ...] | Failure:
        """Its turn: seconds of each run. `timeout` after `most` seconds beside the turn."""
        try:
            self._pipe.send(Turn(seconds, copy))
        except OSError:
            return self._gone()
        answer = self._answer(seconds + most, "running")
        if isinstance(answer, Times):
            return answer.seconds
        return answer if isinstance(answer, Failure) else _NO_ANSWER

    def end(self) -> None:
        """Kill the process, whatever it is doing."""
        self._process.kill()
        if self._said >= 0:
            os.close(self._said)
            self._said = -1

    def _answer(self, seconds: float, doing: str) -> Ready | Times | Failure:
        try:
            answer: Answer = read_answer(self._process.receive(seconds))
        except TimeoutError:  # a pipe that it has passed on stays open when it ends
            return self._ended(0.0) or Failure("timeout", f"still {doing} after {seconds:.3g} s")
        except (EOFError, OSError):
            return self._gone()
        except ValueError:
            return _NO_ANSWER
        return Failure(answer.outcome, answer.reason) if isinstance(answer, Failed) else answer

    def _gone(self) -> Failure:
        return self._ended(LAST_WORDS_SECONDS) or Failure("crash", "it closed its pipe and went on")

    def _ended(self, seconds: float) -> Failure | None:
        """How it ended within `seconds`, None if it has not. That the zygote was killed is no fault of the candidate."""
        try:
            code = self._process.wait(seconds)
        except ZygoteGone:
            return Failure("skipped", "the process that starts candidates was killed")
        if code is None:
            return None
        ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"the process ended with status {code}"
        return Failure("crash", ended + self._last_words())

    def _last_words(self) -> str:
        """The last line that it printed (`free(): invalid pointer`), without what a terminal would obey."""
        lines = os.pread(self._said, SAID_BYTES, 0).rstrip(b"\0").decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f": {''.join(c if c.isprintable() else '?' for c in last.strip())[:200]}" if last else ""


_NO_ANSWER = Failure("crash", "it sent what is no answer")


def _small_file() -> int:
    """For what a candidate prints. It cannot grow: one that prints without end fills neither memory nor disk, and nobody has to read."""
    handle = os.memfd_create("tridsl-said", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(handle, SAID_BYTES)
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    return handle


def _layout(subject: Subject) -> tuple[dict[str, Place], tuple[int, int]]:
    """Places of all arrays and the sizes of both memories: pages of their own, at different offsets, so that no two start in the same set of the cache."""
    op = packed.as_stored(subject.op)
    shapes = {t.name: tuple(evaluate_index(n, subject.sizes) for n in t.shape) for t in op.tensors}
    places: dict[str, Place] = {}
    ends = [0, 0]
    for number, (name, (shape, dtype, role)) in enumerate(parameters(op, shapes).items()):
        size = int(np.prod(shape, dtype=np.int64)) * NUMPY_TYPES[dtype].itemsize
        starts = []
        for memory in {"input": (0,), "inout": (1, 0), "output": (1,)}[role]:
            starts.append(-(-ends[memory] // 4096) * 4096 + 256 * (number % 8))
            ends[memory] = starts[-1] + size + 64
        places[name] = Place(offset=starts[0], shape=shape, dtype=dtype, role=role, fresh=starts[1] if role == "inout" else None)
    inputs, results = (max(4096, -(-end // 4096) * 4096) for end in ends)
    return places, (inputs, results)


def _gaps(places: Mapping[str, Place], size: int) -> list[tuple[str, int, int]]:
    """Stretches of the memory for results that no result has, in bytes from its start: before the first and behind each."""
    taken = sorted((p.offset, p.offset + int(np.prod(p.shape, dtype=np.int64)) * NUMPY_TYPES[p.dtype].itemsize, n) for n, p in places.items() if p.role != "input")
    starts = [*(start for start, _, _ in taken), size]
    gaps = [("before the first", 0, starts[0]), *((f"behind `{name}`", end, after) for (_, end, name), after in zip(taken, starts[1:]))]
    return [gap for gap in gaps if gap[1] < gap[2]]


def _iterations(subject: Subject) -> int:
    return sum(points((*axes_of(s), *over_of(s)), subject.sizes) or 0 for s in subject.op.stages)
