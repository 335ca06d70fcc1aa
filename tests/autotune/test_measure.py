"""Candidates in processes of their own: right ones are timed, bad ones are put aside with their reason, and nothing else suffers."""

from __future__ import annotations

import os
import subprocess
import sys
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
from tridsl.backend import Timed, load_backend
from tridsl.pipeline import Build, build
from tridsl.schedule.automatic import automatic, choose
from tridsl.schedule.steps import Vector

ROOT = Path(__file__).parents[2]
QUICK = Limits(turn_seconds=0.001, run_seconds=2.0, compile_seconds=20.0, memory_bytes=1 << 30)


def subject(text: str, **sizes: int) -> Subject:
    return Subject(op=op(text), device=cpu(), sizes=sizes)


def children(of: int) -> set[int]:
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if parent == of:
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
    (parent,) = children(os.getpid())
    assert not children(parent), "the zygote still has processes of candidates"


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


def test_a_lock_that_is_never_given_back_does_not_stop_the_rest(tmp_path: Path) -> None:
    waited: list[str] = []
    with bench_lock(tmp_path / "lock"), bench_lock(tmp_path / "lock", patience=1.2, waiting=lambda: waited.append("once")) as locked:
        assert not locked and waited == ["once"]


def test_without_a_place_for_the_lock_measuring_goes_on(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for path in (tmp_path / "missing" / "lock", tmp_path / "link"):
        with bench_lock(path) as locked:
            assert not locked
    assert not (tmp_path / "target").exists()


SCRIPT = """
import sys
from pathlib import Path
from tests.autotune.test_measure import QUICK, SAXPY, make, planted, subject
from tridsl.autotune.measure import Bench
print("begun", flush=True)
bench = Bench(subject(SAXPY, N=10), QUICK, make=make, lock=Path(sys.argv[1]))
(good,) = bench.start([None])
print(good._process.pid, flush=True)
bench._spawn(planted("hang while compiling"))
print("spawned", flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_when_the_tuner_is_killed(tmp_path: Path) -> None:
    """Neither a process that waits for its turn nor one that hangs; and a script without a main guard is not run again."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = [sys.executable, str(script), str(tmp_path / "lock")]
    with subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == "begun\n"
        pid = int(session.stdout.readline())
        assert session.stdout.readline() == "spawned\n"
        (zygote,) = children(session.pid)
        both = children(zygote)
        assert pid in both and len(both) == 2
        session.kill()
    end = time.monotonic() + 5
    while any(Path(f"/proc/{p}").exists() for p in (zygote, *both)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{p}").exists() for p in (zygote, *both))


def test_runs_are_timed_from_machine_code() -> None:
    """A kernel of a few nanoseconds takes a few nanoseconds, not the microseconds that a call from Python takes."""
    what = subject(SAXPY, N=16)
    backend = load_backend("cpu")
    executable = backend.driver().load(build(what.op, Build(spec=what.device.spec, backend=backend, facts=what.facts)), what.device)
    assert isinstance(executable, Timed)
    x = np.ones(16, np.float32)
    z = np.zeros_like(x)
    times = executable.timed([2.0, x, x, z], 1, 0.001, 50)
    assert 3 <= len(times) <= 50 and all(0 < t < 1e-3 for t in times) and (z == 3).all()


SUM = "op f(x: f32[N]) -> y: f32 {\n  y = sum[i](x[i])\n}\n"


def test_sums_of_millions_that_cancel_are_judged_by_what_rounding_does(tmp_path: Path) -> None:
    """The terms are up to 1 and the sum is small: no order of f32 sums is near the exact one. A wrong answer is still one."""
    with Bench(subject(SUM, N=3_000_000), QUICK, make=make, lock=tmp_path / "lock") as bench:
        good, bad = bench.start([None, planted("wrong")])
        assert isinstance(good, Runner), good
        assert isinstance(bad, Failure) and bad.outcome == "wrong_result"
