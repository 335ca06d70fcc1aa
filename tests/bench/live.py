"""Live searches on this machine: do they find the same every time, beside a busy neighbour, and is what they find ever a loss?

    python -m tests.bench.live repeats [--repeats 50] [--budget 6s] [--case "stdlib:matmul M=128,K=128,N=128 T=f32"] [--json]
    python -m tests.bench.live defaults [--budget 5s] [--ops softmax,matmul] [--json]

Not part of the suite, and alone on the machine: 50 repeats of three cases take a quarter of an hour, all defaults about as long.

`repeats`: beside a process that keeps one core busy (arithmetic and memory traffic for random stretches), whole searches from an empty
store, each with another seed. Then, without that process, all distinct winners and the default once more in turns, in fresh processes
several times: their true ratios. Reported are the repeats whose winner was the best of these, those within 2% of it (at least 95%
must be), and the worst gap.

`defaults`: every op of the library with a bench block, at sizes that make a run short, is tuned; winner and default are compared in
turns, in fresh processes several times. A winner may not be slower than the default by more than the noise floor, which comes from a
second process of the default among them.

A case is an op, what `tridsl tune --shape` takes, and perhaps what `--set` takes. Progress goes to stderr. Ctrl-C ends the measuring;
what is known by then is printed. Exit status 1 when a promise is not kept.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, TypeAlias

import numpy as np
from rich.console import Console
from rich.table import Table

from tridsl import stdlib
from tridsl.api.devices import find
from tridsl.autotune import stats
from tridsl.autotune.measure import Bench, Failure, Runner, Subject
from tridsl.autotune.predicted import Predictor
from tridsl.autotune.request import Memory, Request, Result
from tridsl.autotune.space import space_of
from tridsl.autotune.tune import tune
from tridsl.cli.bench.cases import Case, bench_blocks
from tridsl.cli.settings import Settings
from tridsl.cli.subjects import Question, request_for, subjects
from tridsl.cli.targets import find_target, services_for
from tridsl.cli.tune import seconds as parse_seconds
from tridsl.personality.belief import duration
from tridsl.schedule.analyse import axes_of, over_of, points
from tridsl.schedule.steps import Schedule

ROOT = Path(__file__).parents[2]
CASES = ("stdlib:softmax x=64x512", "stdlib:matmul M=128,K=128,N=128 T=f32", "stdlib:rmsnorm x=256x256")
NEAR = math.log(1.02)
WANTED = 0.95
"""Part of the repeats whose winner must be that near to the best."""
SHORT_SECONDS = 0.005
"""A run of an op in `defaults` takes less than this."""
CHECKED_POINTS = 1 << 25
"""Iterations of such an op at most: the oracle runs them, too."""
SMALLEST = 16
"""Sizes are not halved below this."""
TWIN = "the default again"

Say: TypeAlias = Callable[[str], None]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# Measuring ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """How often is compared: `rounds` times fresh processes, `blocks` in each."""

    rounds: int = 5
    blocks: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Log-ratios to the default, a block each, by name; seconds of the default; what failed, and why. `floor`: what two processes of the
    default differ by."""

    ratios: Mapping[str, tuple[float, ...]]
    seconds: float
    failed: Mapping[str, str]
    floor: float


class DefaultFails(Exception):
    """What everything is compared with does not run."""


def compare(subject: Subject, default: Schedule, others: Mapping[str, Schedule], how: Rounds) -> Compared:
    """`others` and the default in turns of random order. Raises DefaultFails, KeyboardInterrupt."""
    ratios: dict[str, list[float]] = {name: [] for name in (TWIN, *others)}
    failed: dict[str, str] = {}
    taken: list[float] = []
    with Bench(subject) as bench:
        for number in range(how.rounds):
            names = [n for n in ratios if n not in failed]
            anchor, *started = bench.start([default, *(default if n == TWIN else others[n] for n in names)])
            if isinstance(anchor, Failure):
                raise DefaultFails(f"the default fails: {anchor.reason}")
            runners = {n: r for n, r in zip(names, started) if isinstance(r, Runner)}
            failed |= {n: r.reason for n, r in zip(names, started) if isinstance(r, Failure)}
            times = bench.blocks([anchor, *runners.values()], how.blocks, Random(number))
            beside = times[anchor]
            if isinstance(beside, Failure):
                raise DefaultFails(f"the default fails: {beside.reason}")
            taken += beside
            for name, runner in runners.items():
                mine = times[runner]
                if isinstance(mine, Failure):
                    failed[name] = mine.reason
                else:
                    ratios[name] += stats.log_ratios(mine, beside)
            for runner in (anchor, *runners.values()):
                bench.end(runner)
    same = ratios.pop(TWIN)
    floor = max(stats.noise_floor(same, len(same)), abs(stats.interval(same).middle)) if same else math.inf
    return Compared(ratios={n: tuple(r) for n, r in ratios.items() if r and n not in failed}, seconds=median(taken), failed=failed, floor=floor)


@contextmanager
def hog(seed: int = 0) -> Iterator[None]:
    """A process that keeps one core busy, wherever the system puts it. Ctrl-C does not reach it."""
    with subprocess.Popen([sys.executable, "-m", "tests.bench.live", "hog", str(seed)], cwd=ROOT, start_new_session=True) as process:
        try:
            yield
        finally:
            process.kill()


def keep_busy(seed: int) -> None:
    """Stretches of 50 ms on average, of arithmetic in the cache or of copies that go to the memory, until the parent is gone."""
    random, parent = Random(seed), os.getppid()
    small, large, other = np.full(4096, 1.5), np.ones(1 << 22), np.empty(1 << 22)
    while os.getppid() == parent:
        end = time.monotonic() + random.expovariate(20)
        work: Callable[[], object] = random.choice((lambda: np.sqrt(small), lambda: np.copyto(other, large)))
        while time.monotonic() < end:
            work()


def search(request: Request, budget: float, seed: int) -> Result:
    """From an empty store. Raises KeyboardInterrupt."""
    found = tune(request, budget_seconds=budget, seed=seed, store=Memory())
    if found.state == "interrupted":
        raise KeyboardInterrupt
    return found


# Repeats -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """Of one case. Gaps are ratios less one, of a repeat's winner to the best winner; `gain`: of the best to the default. `wanted`: repeats
    that were asked for."""

    case: str
    wanted: int
    repeats: int
    winners: Mapping[str, int]
    same: int
    near: int
    worst: float
    gain: float
    trials: float
    seconds: float
    floor: float
    failed: Mapping[str, str]

    @property
    def kept(self) -> bool:
        return self.repeats > 0 and self.near >= WANTED * self.repeats


def repeats(case: str, count: int, budget: float, how: Rounds, told: Say = say) -> tuple[Repeats | None, bool]:
    """What came of `count` searches, None when there was none; and whether it was interrupted."""
    (subject,) = subjects(question(case), services_for(Settings()), Settings())
    found: list[Result] = []
    interrupted = False
    try:
        with hog():
            for number in range(count):
                found.append(search(subject.request, budget, number))
                told(f"{case}: repeat {number + 1} of {count}: {_winner(found[-1])} in {found[-1].trials} trials")
    except KeyboardInterrupt:
        interrupted = True
    if not found:
        return None, interrupted
    default = found[0].incumbent
    named = {_winner(r): r.schedule for r in found if r.schedule is not None and r.schedule != default.schedule}
    told(f"{case}: comparing {len(named)} winners and the default")
    try:
        compared = compare(subject.request.subject, default.schedule, named, how)
    except KeyboardInterrupt:
        return None, True
    return judged(case, count, found, compared), interrupted


def judged(case: str, wanted: int, found: Sequence[Result], compared: Compared) -> Repeats:
    """Each repeat by the true time of its winner; one whose winner failed, or that has none, is as far off as can be."""
    true = {n: stats.interval(r).middle for n, r in compared.ratios.items()} | {found[0].incumbent.text: 0.0}
    best = min(true.values())
    gaps = [true.get(_winner(r), math.inf) - best for r in found]
    return Repeats(
        case=case, wanted=wanted, repeats=len(found), winners=dict(Counter(map(_winner, found)).most_common()), same=sum(g == 0 for g in gaps),
        near=sum(g <= NEAR for g in gaps), worst=math.expm1(min(max(gaps), 50.0)), gain=math.expm1(best), trials=median(r.trials for r in found),
        seconds=compared.seconds, floor=math.expm1(compared.floor), failed=compared.failed,
    )  # fmt: skip


def question(case: str) -> Question:
    """`stdlib:matmul M=128,K=128,N=128 T=f32`."""
    operation, shape, *values = case.split()
    return Question(operation=operation, shape=(shape,), values=tuple(values), threads=1)


def _winner(result: Result) -> str:
    return result.winner.text if result.winner is not None else "nothing"


# Defaults ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """A winner beside the default: its time over the default's, with the 95% interval. `winner` empty: the default won. `problem`: why there
    is no comparison."""

    case: str
    winner: str = ""
    seconds: float = 0.0
    ratio: float = 1.0
    low: float = 1.0
    high: float = 1.0
    floor: float = 0.0
    trials: int = 0
    problem: str = ""

    @property
    def loss(self) -> bool:
        return bool(self.problem) or self.ratio > 1 + self.floor

    @property
    def verdict(self) -> str:
        if self.problem:
            return self.problem
        return "LOSS" if self.loss else "the default" if not self.winner else "faster" if self.ratio < 1 - self.floor else "tie"


def against(title: str, request: Request, budget: float, how: Rounds) -> Against:
    """Raises KeyboardInterrupt."""
    found = search(request, budget, 0)
    if found.winner is None:
        return Against(case=title, problem=f"nothing measured: {next(iter(found.reasons.values()), '')}")
    if found.schedule is None or found.schedule == found.incumbent.schedule:
        return Against(case=title, seconds=found.seconds or 0.0, trials=found.trials, floor=math.expm1(found.floor))
    compared = compare(request.subject, found.incumbent.schedule, {"winner": found.schedule}, how)
    if "winner" not in compared.ratios:
        return Against(case=title, winner=found.winner.text, problem=f"the winner fails: {compared.failed.get('winner', '')}")
    middle, low, high = (math.exp(x) for x in _three(compared.ratios["winner"]))
    return Against(
        case=title, winner=found.winner.text, seconds=compared.seconds, ratio=middle, low=low, high=high, floor=math.expm1(compared.floor), trials=found.trials
    )


def _three(ratios: Sequence[float]) -> tuple[float, float, float]:
    found = stats.interval(ratios)
    return found.middle, found.low, found.high


def reduced(operation: str, case: Case) -> Request:
    """The case at sizes that make a run short by prediction: the largest size is halved until it is."""
    target = find_target(operation, services_for(Settings()))
    said = case.given
    device = find("cpu").device
    while True:
        request = request_for(target, said, device, 1)
        largest = max(request.sizes, key=lambda n: request.sizes[n])
        if _short(request) or request.sizes[largest] // 2 < SMALLEST:
            return request
        said = replace(said, sizes={**request.sizes, largest: request.sizes[largest] // 2})


def _short(request: Request) -> bool:
    op, subject = request.op, request.subject
    count = sum(points((*axes_of(s), *over_of(s)), request.sizes) or 0 for s in op.stages)
    space = space_of(op, subject.device.spec, request.sizes, request.blocks)
    predicted = Predictor(subject).cost(space.schedule(space.default())).seconds
    return count <= CHECKED_POINTS and predicted < SHORT_SECONDS / 2  # predictions may be off


def library(ops: Sequence[str]) -> dict[str, Request]:
    """Requests by title; all ops with a bench block, or those named."""
    found: dict[str, Request] = {}
    for name in ops or stdlib.names():
        operation = f"stdlib:{name}"
        target = find_target(operation, services_for(Settings()))
        if not ops and not target.module.bound.benches.get(name):
            continue
        for case in bench_blocks(operation, target):
            request = reduced(operation, case)
            found.setdefault(request.key.text, request)
    return found


def defaults(requests: Mapping[str, Request], budget: float, how: Rounds, told: Say = say) -> tuple[list[Against], bool]:
    """In order, and whether it was interrupted."""
    rows: list[Against] = []
    for title, request in requests.items():
        try:
            rows.append(against(title, request, budget, how))
        except KeyboardInterrupt:
            return rows, True
        except DefaultFails as problem:
            rows.append(Against(case=title, problem=str(problem)))
        told(f"[{len(rows)}/{len(requests)}] {title}: {rows[-1].verdict}, {rows[-1].ratio:.3f} of the default's time")
    return rows, False


# Printing ----------------------------------------------------------------------------------------------------------------


def print_repeats(found: Sequence[Repeats]) -> None:
    table = Table("case", "repeats", "same winner", "within 2%", "worst gap", "best, default = 1", "trials", "default", "noise floor", "verdict", box=None, pad_edge=False)
    for row in found:
        share = f"{row.near} ({100 * row.near / row.repeats:.0f}%)"
        table.add_row(
            row.case, f"{row.repeats} of {row.wanted}", str(row.same), share, f"{100 * row.worst:.1f}%", f"{1 + row.gain:.3f}", f"{row.trials:g}",
            duration(row.seconds), f"{100 * row.floor:.1f}%", "kept" if row.kept else "MISSED",
        )  # fmt: skip
    _console().print(table, "all figures are measured")


def print_defaults(rows: Sequence[Against]) -> None:
    table = Table("op", "default", "winner's ratio", "95%", "noise floor", "trials", "verdict", "winner", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row.case, duration(row.seconds), f"{row.ratio:.3f}", f"{row.low:.3f} to {row.high:.3f}", f"{100 * row.floor:.1f}%", str(row.trials), row.verdict, row.winner
        )
    losses = sum(row.loss for row in rows)
    _console().print(table, f"all figures are measured; {len(rows)} cases, {losses} losses")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 220)


def _machine() -> dict[str, Any]:
    return {"device": find("cpu").device.description, "cores": sorted(os.sched_getaffinity(0)), "load": os.getloadavg()[0], "label": "measured"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tests.bench.live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    repeated, compared, busy = (commands.add_parser(name) for name in ("repeats", "defaults", "hog"))
    repeated.add_argument("--repeats", type=int, default=50)
    repeated.add_argument("--budget", type=parse_seconds, default=6.0)
    repeated.add_argument("--case", action="append")
    compared.add_argument("--budget", type=parse_seconds, default=5.0)
    compared.add_argument("--ops", default="")
    for command in (repeated, compared):
        command.add_argument("--rounds", type=int, default=5, help="fresh processes in a comparison")
        command.add_argument("--blocks", type=int, default=8, help="blocks with each")
        command.add_argument("--json", action="store_true", help="print one JSON document")
    busy.add_argument("seed", type=int)
    given = parser.parse_args(arguments)
    if given.command == "hog":
        keep_busy(given.seed)
        return 0
    how = Rounds(rounds=given.rounds, blocks=given.blocks)
    if given.command == "defaults":
        rows, interrupted = defaults(library(tuple(filter(None, given.ops.split(",")))), given.budget, how)
        _print(given.json, [asdict(r) | {"verdict": r.verdict, "loss": r.loss} for r in rows], interrupted, lambda: print_defaults(rows))
        return 1 if any(r.loss for r in rows) else 0
    found: list[Repeats] = []
    interrupted = False
    for case in given.case or CASES:
        one, interrupted = repeats(case, given.repeats, given.budget, how)
        found += [one] if one is not None else []
        if interrupted:
            break
    _print(given.json, [asdict(r) | {"kept": r.kept} for r in found], interrupted, lambda: print_repeats(found))
    return 0 if found and all(r.kept for r in found) else 1


def _print(as_json: bool, rows: Sequence[Mapping[str, Any]], interrupted: bool, show: Callable[[], None]) -> None:
    if as_json:
        print(json.dumps({"machine": _machine(), "interrupted": interrupted, "rows": rows}, indent=2))
        return
    show()
    if interrupted:
        say("interrupted: this is what was known by then")


if __name__ == "__main__":
    sys.exit(main())
