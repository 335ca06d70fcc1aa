"""Candidates that misbehave on purpose: what a code generator's worst bug does, in place of a kernel."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tridsl.autotune.worker import Job, Prepared, prepare
from tridsl.schedule.steps import Schedule, Unroll


def planted(mistake: str) -> Schedule:
    """A schedule that `make` takes for a candidate with this mistake."""
    return (Unroll(stage="planted", axis=mistake),)


class Faulty:
    """Runs a mistake in place of the kernel."""

    def __init__(self, mistake: str) -> None:
        self.mistake = mistake

    def __call__(self, slots: Sequence[Any], threads: int) -> None:
        match self.mistake:
            case "segfault":
                ctypes.string_at(0)
            case "hang":
                time.sleep(3600)
            case "wrong":
                for array in slots:
                    if isinstance(array, np.ndarray) and array.flags.writeable:
                        array[...] = 1
            case "writes an input":
                ctypes.memset(slots[1].__array_interface__["data"][0], 0, 8)
            case "memory":
                np.ones(1 << 36, np.uint8)
            case "abort":
                ctypes.CDLL(None).abort()
            case "raise":
                raise IndexError("element 7 is outside")


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
    return Prepared(executable=Faulty(mistake), slots=tuple(job.places), code=mistake)
