"""Candidates in processes of their own: right ones are timed, bad ones are put aside with their reason, and nothing else suffers."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.autotune.kernels import MATMUL, SAXPY, SELECTED, UPDATE, cpu, op
from tests.autotune.planted import make, planted
from tridsl.autotune.lock import bench_lock
from tridsl.autotune.measure import Bench, Failure, Limits, Runner, Subject, arguments_of
from tridsl.schedule.automatic import automatic, choose
from tridsl.schedule.steps import Vector

QUICK = Limits(turn_seconds=0.001, run_seconds=2.0, compile_seconds=20.0, memory_bytes=1 << 30)


def subject(text: str, **sizes: int) -> Subject:
    return Subject(op=op(text), device=cpu(), sizes=sizes)


def children() -> set[int]:
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent == os.getpid():
                found.add(int(entry))
    return found


def test_bad_candidates_are_put_aside_and_the_rest_is_measured(tmp_path: Path) -> None:
    what = subject(SAXPY, N=1000)
    good = automatic(what.op, what.device.spec, what.sizes)
    mistakes = {
        "segfault": ("crash", "SIGSEGV"),
        "abort": ("crash", "SIGABRT"),
        "hang": ("timeout", "still running"),
        "wrong": ("wrong_result", "`z`"),
        "writes an input": ("crash", "SIGSEGV"),
        "memory": ("crash", "out of memory"),
        "raise": ("wrong_result", "element 7"),
        "bug": ("compile_error", "KeyError"),
    }
    limits = Limits(turn_seconds=0.001, run_seconds=0.5, compile_seconds=20.0, memory_bytes=1 << 30)
    with Bench(what, limits, make=make, lock=tmp_path / "lock") as bench:
        found = bench.start([good, *map(planted, mistakes), (Vector(stage="z", axis="nowhere"),), good])
        assert isinstance(found[0], Runner) and isinstance(found[-1], Runner)
        for failure, (outcome, words) in zip(found[1:], mistakes.values()):
            assert isinstance(failure, Failure) and failure.outcome == outcome and words in failure.reason, failure
        illegal = found[-2]
        assert isinstance(illegal, Failure) and illegal.outcome == "compile_error" and illegal.reason.startswith("E04")
        times = bench.blocks([found[0], found[-1]], 3, Random(0))
        assert [len(t) for t in times.values() if isinstance(t, list)] == [3, 3]
        assert all(0 < t < 1 for series in times.values() for t in series)
    assert not children() - {p for p in children() if "resource_tracker" in Path(f"/proc/{p}/cmdline").read_text()}


def test_a_candidate_that_hangs_while_compiling_is_ended(tmp_path: Path) -> None:
    limits = Limits(compile_seconds=0.5)
    with Bench(subject(SAXPY, N=10), limits, make=make, lock=tmp_path / "lock") as bench:
        (failure,) = bench.start([planted("hang while compiling")])
        assert isinstance(failure, Failure) and failure.outcome == "timeout" and "compiling" in failure.reason


@pytest.mark.parametrize(("text", "sizes"), [(UPDATE, {"N": 100}), (SELECTED, {"N": 500}), (MATMUL, {"M": 33, "N": 17, "K": 5})])
def test_updates_lengths_and_sums_are_checked(text: str, sizes: dict[str, int], tmp_path: Path) -> None:
    with Bench(subject(text, **sizes), QUICK, make=make, lock=tmp_path / "lock") as bench:
        good, bad = bench.start([None, planted("wrong")])
        assert isinstance(good, Runner) and bench.oracle
        assert isinstance(bad, Failure) and bad.outcome == "wrong_result"
        times = bench.blocks([good], 2, Random(1))[good]
        assert isinstance(times, list) and len(times) == 2


def test_every_decision_runs(tmp_path: Path) -> None:
    what = subject(MATMUL, M=64, N=64, K=64)
    schedules = [choose(what.op, what.device.spec, what.sizes, a) for a in ({"C.rows": 3}, {"C.vectors": 1, "C.rows": 8})]
    with Bench(what, QUICK, lock=tmp_path / "lock") as bench:
        assert all(isinstance(r, Runner) for r in bench.start(schedules))


def test_arguments_are_the_same_every_time() -> None:
    what = op(MATMUL)
    one, two = (arguments_of(what, {"M": 3, "N": 4, "K": 5}, seed=7) for _ in range(2))
    assert set(one) == {"A", "B"} and all(np.array_equal(one[n], two[n]) for n in one)
    assert one["A"].shape == (3, 5) and one["A"].dtype == np.float32 and abs(one["A"]).max() <= 1


def test_one_measurement_at_a_time(tmp_path: Path) -> None:
    held: list[str] = []

    def other() -> None:
        with bench_lock(tmp_path / "lock") as locked:
            held.append(f"other {locked}")

    with bench_lock(tmp_path / "lock") as locked:
        assert locked
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.05)
        held.append("first")
    thread.join(5)
    assert held == ["first", "other True"]


def test_without_a_place_for_the_lock_measuring_goes_on(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for path in (tmp_path / "missing" / "lock", tmp_path / "link"):
        with bench_lock(path) as locked:
            assert not locked
    assert not (tmp_path / "target").exists()
