"""The machine code of the CPU backend against the oracle: random legal schedules and the automatic one, teams of one to three
threads, every array flush against a page that may not be touched. Each test is a process that runs many small kernels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.differential.subjects import WRITTEN, library_kinds

ROOT = Path(__file__).parents[2]
GROUP = 40
"""Kernels of one process."""


def run(trials: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.differential.native", *trials], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode == 0:
        return
    running = [line.removeprefix("running ") for line in done.stdout.splitlines() if line.startswith("running ")]
    last = running[-1] if running else "nothing yet"
    how = f"died with signal {-done.returncode} in {last}" if done.returncode < 0 else "gave wrong answers"
    pytest.fail(
        f"the process {how}\nreplay: python -m tests.differential.native {last}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}", pytrace=False
    )


def groups(trials: Iterator[str]) -> list[list[str]]:
    every = list(trials)
    return [every[n : n + GROUP] for n in range(0, len(every), GROUP)]


def random_ops(batch: int, count: int, seed: int = 100) -> list[str]:
    return [f"random:{batch}:{n}/{seed}" for n in range(count)]


@pytest.mark.parametrize("batch", range(2))
def test_random_ops(batch: int) -> None:
    run(random_ops(100 + batch, 60))


WRITTEN_TRIALS = [f"written:{name}:{variant}" for name in sorted(WRITTEN) for variant in (*(f"{n}/100" for n in range(8)), "0/automatic")]


@pytest.mark.parametrize("trials", groups(iter(WRITTEN_TRIALS)), ids=lambda trials: trials[0].split(":")[1])
def test_written_ops(trials: list[str]) -> None:
    run(trials)


LIBRARY = [f"library:{':'.join(map(str, kind))}:0/100" for kind in library_kinds()]


@pytest.mark.parametrize("trials", groups(iter(LIBRARY)), ids=lambda trials: trials[0].split(":")[1])
def test_library(trials: list[str]) -> None:
    run(trials)


@pytest.mark.full
@pytest.mark.parametrize("batch", range(60))
def test_random_ops_more(batch: int) -> None:
    run(random_ops(200 + batch, 100))


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_written_ops_more(name: str) -> None:
    run([f"written:{name}:{variant}/100" for variant in range(8, 200)])


@pytest.mark.full
@pytest.mark.parametrize("seed", range(101, 105))
def test_library_more(seed: int) -> None:
    for trials in groups(trial.replace("/100", f"/{seed}") for trial in LIBRARY):
        run(trials)
