"""Candidates that misbehave on purpose: what a code generator's worst bug does, in place of a kernel.

A schedule of one step names what is planted: a mistake that runs in place of the kernel, or `slow <ms> <what>`, a good kernel that takes so
much longer (and is another candidate for every <what>).
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tridsl.autotune.space import Asked, Space
from tridsl.autotune.worker import Job, Prepared, prepare
from tridsl.backend import Executable
from tridsl.schedule.steps import Schedule, Unroll

LIBC = ctypes.CDLL(None)


def planted(mistake: str) -> Schedule:
    """A schedule that `make` takes for a candidate with this mistake."""
    return (Unroll(stage="planted", axis=mistake),)


def space_with(names: Sequence[str], steps: Callable[[str], Schedule] = planted) -> Space:
    """One choice, `mistake`, among these names; the first is the default."""

    def schedule(given: object) -> Schedule:
        return steps(dict(given)["mistake"])  # type: ignore[call-overload]  # a space's answers are a mapping

    return Space(name="planted", ask=lambda given: (Asked(name="mistake", values=tuple(names)),), allows=lambda given: True, steps=schedule)


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def pipe() -> int:
    """The file of the pipe to the parent: the only socket of a candidate's process."""
    return next(n for n in map(int, os.listdir("/proc/self/fd")) if _kind(n).startswith("socket:"))


def _kind(file: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{file}")
    except OSError:
        return ""


def send(message: bytes, times: int = 1) -> None:
    os.write(pipe(), (struct.pack("!i", len(message)) + message) * times)


EXECUTED: list[int] = []
"""Not empty in a process that has executed what a candidate sent."""


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def eat() -> None:
    eaten = []
    while True:
        eaten.append(np.zeros(1 << 22, np.uint8))
        eaten[-1][:: 1 << 16] = 1


def fork(stay: bool, daemon: bool = False) -> None:
    """A process that spins for an hour; `stay`: the candidate does not end. `daemon`: in a session of its own, and orphaned."""
    if os.fork() == 0:
        if daemon:
            os.setsid()
            if os.fork():
                os._exit(0)
        spin(3600)
        os._exit(0)
    if not stay:
        os.abort()


def say(text: bytes, times: int) -> int:
    """As machine code would: what cannot be printed is not noticed."""
    for _ in range(times):
        LIBC.write(2, text, len(text))
    return 0


def half_a_message() -> None:
    os.write(pipe(), b"\0\0\1\0{")
    time.sleep(3600)


def closes_its_pipe() -> None:
    os.close(pipe())
    time.sleep(3600)


MISTAKES: dict[str, Callable[[], object]] = {
    "segfault": lambda: ctypes.string_at(0),
    "hang": lambda: time.sleep(3600),
    "spin": lambda: spin(3600),
    "memory": lambda: np.ones(1 << 36, np.uint8),
    "memory, step by step": eat,
    "abort": LIBC.abort,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "kill the group": lambda: os.kill(0, signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "exit": lambda: os._exit(0),
    "close the pipe": closes_its_pipe,
    "garbage": lambda: os.write(pipe(), b"\x80\x04cos\nsystem\n(S'true'\ntR." * 10),
    "endless garbage": lambda: os.write(pipe(), b"\0\x0f\0\0") and [os.write(pipe(), b"x" * 1000) for _ in range(1 << 20)],
    "half a message": half_a_message,
    "a pickle": lambda: send(b'cbuiltins\nexec\n(S"import tests.autotune.planted as p; p.EXECUTED.append(1)"\ntR.'),
    "more messages": lambda: send(b'{"type":"Times","seconds":[1e-30]}', 2),
    "another message": lambda: send(b'{"type":"Ready","compile_seconds":1,"code":"x"}'),
    "say and abort": lambda: say(b"a warning\nfree(): \x1b[31minvalid pointer\n", 1) or LIBC.abort(),
    "print and abort": lambda: say(b"x" * 4096, 2000) or LIBC.abort(),
    "fork": lambda: fork(stay=True),
    "fork and abort": lambda: fork(stay=False),
}
"""What runs without looking at the arrays."""


class Faulty:
    """Runs a mistake in place of the kernel."""

    def __init__(self, mistake: str) -> None:
        self.mistake = mistake

    def __call__(self, slots: Sequence[Any], threads: int) -> None:
        results = [a for a in slots if isinstance(a, np.ndarray) and a.flags.writeable]
        match self.mistake:
            case "wrong":
                for array in results:
                    array[...] = 1
            case "writes an input":
                ctypes.memset(address(slots[1]), 0, 8)
            case "raise":
                raise IndexError("element 7 is outside")
            case mistake:
                MISTAKES[mistake]()


class Beside:
    """A good kernel with something beside it: `do(slots)` after each run."""

    def __init__(self, good: Executable, do: Callable[[Sequence[Any]], object]) -> None:
        self.good, self.do = good, do

    def __call__(self, slots: Sequence[Any], threads: int) -> None:
        self.good(slots, threads)
        self.do(slots)


def _beyond(slots: Sequence[Any]) -> None:
    result = next(a for a in slots if isinstance(a, np.ndarray) and a.flags.writeable)
    ctypes.memset(address(result) + result.nbytes, 0, 4)


LIFE: list[float] = []


def _dies_later(slots: Sequence[Any]) -> None:
    """0.4 s after its first run."""
    LIFE.append(time.monotonic())
    if LIFE[-1] - LIFE[0] > 0.4:
        os.abort()


BESIDE: dict[str, Callable[[Sequence[Any]], object]] = {
    "writes beyond": _beyond,
    "prints": lambda slots: say(b"x" * 4096, 2000),
    "dies later": _dies_later,
    "leaves a daemon": lambda slots: fork(stay=True, daemon=True),
}
"""What a kernel with the right answer does besides."""


def make(job: Job) -> Prepared:
    """`worker.prepare`, but for planted schedules."""
    steps = job.schedule or ()
    if not steps or steps[0].stage != "planted":
        return prepare(job)
    mistake = steps[0].axis if isinstance(steps[0], Unroll) else ""
    if mistake == "hang while compiling":
        time.sleep(3600)
    if mistake == "bug":
        raise KeyError("no such loop")
    if mistake in BESIDE or mistake.startswith("slow "):
        good = prepare(replace(job, schedule=None))
        delay = 1e-3 * float(mistake.split()[1]) if mistake.startswith("slow ") else 0.0
        return good._replace(executable=Beside(good.executable, BESIDE.get(mistake, lambda slots: spin(delay))), code=mistake)
    return Prepared(executable=Faulty(mistake), slots=tuple(job.places), code=mistake)


def make_slower(job: Job) -> Prepared:
    """`make` under software that has made the candidate `slow 1 winner` slower."""
    return make(replace(job, schedule=planted("slow 9 winner")) if job.schedule == planted("slow 1 winner") else job)
