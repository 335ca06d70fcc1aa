"""Whole tuning sessions in processes of their own, to be killed and to be run many at once: `python -m tests.autotune.sessions …`.

    many FOLDER NUMBER SECONDS     one session on the store in FOLDER; the last line says how it ended
    killed FOLDER                  a session for each line of input, which names it; each goes on until it is killed

A session says what it is about to keep and what it has kept, each trial by its identity, at once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.autotune.kernels import MATMUL, SAXPY, TEXT, cpu, op
from tridsl.autotune.measure import Limits
from tridsl.autotune.request import Request
from tridsl.autotune.tune import tune
from tridsl.personality.evidence import Forget, Pin, Trial
from tridsl.personality.store import Store

MARK = "TRIDSL_TEST_SESSION"
"""In the environment of everything that a session starts."""
QUICK = Limits(turn_seconds=0.0005, run_seconds=5.0)


def request(number: int = 0) -> Request:
    """One of three tiny ops."""
    text, sizes = ((MATMUL, {"M": 16, "N": 32, "K": 8}), (SAXPY, {"N": 640}), (TEXT, {"M": 16, "N": 64}))[number % 3]
    return Request(op=op(text), device=cpu(), sizes=sizes, threads=1)


class Telling(Store):
    """Says what it is about to keep, and what it has kept."""

    def add(self, *records: Trial | Pin | Forget) -> bool:
        names = [r.id for r in records]
        say(*(f"begun {name}" for name in names))
        kept = super().add(*records)
        say(*(f"kept {name}" for name in names if kept))
        return kept


def say(*lines: str) -> None:
    os.write(1, "".join(f"{line}\n" for line in lines).encode())


def many(folder: Path, number: int, seconds: float) -> None:
    found = tune(request(number), budget_seconds=seconds, strategy="random", seed=number, store=Telling(folder / "personality"), limits=QUICK, lock=folder / "lock")
    say(json.dumps({"state": found.state, "notes": found.notes, "reasons": found.reasons, "trials": found.trials, "reused": found.reused}))


def killed(folder: Path) -> None:
    """Sessions are forked from this process, which has imported everything: most of their life is tuning."""
    what = request()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.environ[MARK] = line.strip()
            while True:
                tune(what, budget_seconds=300, strategy="random", store=Telling(folder / "personality"), limits=QUICK, lock=folder / "lock")
        say(f"child {child}")
        os.waitpid(child, 0)
        say("dead")


if __name__ == "__main__":
    match sys.argv[1:]:
        case "many", folder, number, seconds:
            many(Path(folder), int(number), float(seconds))
        case "killed", folder:
            killed(Path(folder))
