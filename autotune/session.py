"""A tuning session: asks a strategy, measures in pairs, keeps every trial, and says what is to be believed in the end.

Whatever ends it - the budget, the strategy, Ctrl-C, `kill -9` - what was measured is in the store, one write a trial, and a session
with the same seed goes on from there without measuring it again.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tridsl.autotune import stats
from tridsl.autotune.cost import roofline, time_text
from tridsl.autotune.measure import VERSION, Bench, Failure, Runner
from tridsl.autotune.predicted import Predictor
from tridsl.autotune.request import Evidence, Progress, Request, Result, State
from tridsl.autotune.search import Ask, Problem, Strategy, strategy
from tridsl.autotune.space import Point, Space, describe, space_of
from tridsl.diagnostics import TriError
from tridsl.personality import belief
from tridsl.personality.candidate import Candidate, candidate
from tridsl.personality.evidence import Outcome, Pairing, Trial
from tridsl.personality.keys import here
from tridsl.schedule.steps import Schedule

FINAL, FINAL_ROUNDS, FINAL_BLOCKS = 4, 2, 8
"""Candidates that are compared once more at the end, in how many fresh processes each, and in how many blocks there: where code and
data come to lie differs from process to process, and no number of blocks in one averages that."""
NOISE_BLOCKS = 8
"""Turns of the incumbent beside itself, in two processes, which say how noisy the machine is."""
VERIFIED = 3
"""Former winners that are tried before the search."""
ALIVE = 12
"""Processes that are kept for another round."""
RESERVED = 0.2
"""Part of the budget for the final comparison."""
PREDICTING, MOST_LISTED = 0.25, 4000
"""Part of the budget for ranking points before the first is measured, and points that are ranked at most."""
LOSSES = 3
"""How often the incumbent's process is started again."""


class _Unmeasurable(Exception):
    """The incumbent, which everything is measured beside, does not run any more: the session ends with what it has."""


class Session:
    """The state of one call of `tune`. `run` is its life: the incumbent, what was best before, the search, the final comparison."""

    def __init__(
        self, request: Request, budget: float, strategy: str, seed: int, store: Evidence,
        on_progress: Callable[[Progress], None] | None, space: Space | None,
    ) -> None:  # fmt: skip
        self.start = time.monotonic()
        self.budget, self.seed, self.store, self.on_progress, self.name = budget, seed, store, on_progress, strategy
        self.subject = request.subject
        op, device = self.subject.op, self.subject.device
        spec = device.spec
        self.space = space or space_of(op, spec, request.sizes, request.blocks)
        self.predictor = Predictor(self.subject)
        place = here(device, request.team)
        self.operating = place.operating
        store.know(place)
        self.key = request.key
        default = self.space.default()
        self.incumbent = self.candidate(default)
        self.ideal = roofline(op, spec, request.sizes, threads=self.subject.threads)
        self.predictions: dict[Schedule, float | None] = {}
        self.runners: dict[Candidate, Runner] = {}
        self.reasons: dict[str, str] = {}
        self.failures: Counter[str] = Counter()
        self.tried: set[Candidate] = set()
        self.reused: set[Candidate] = set()
        self.alone: Sequence[float] = ()
        self.known, self.broken = self._remembered()
        self.noise = 0.0
        self.floor = stats.LEAST_FLOOR
        self.anchor: Runner | None = None
        self.losses = 0
        self.notes: list[str] = []
        self.bench: Bench | None = None
        self.best: tuple[Candidate, float] | None = None

    # Before the search.

    def candidate(self, point: Point) -> Candidate:
        return candidate(self.space.schedule(point), dict(point))

    def _remembered(self) -> tuple[dict[Candidate, list[float]], dict[Candidate, str]]:
        """Log-ratios to this incumbent, and failures, that are evidence already, measured under this very software."""
        ratios: dict[Candidate, list[float]] = {}
        here = self.key.fingerprint
        mine = [t for t in self.store.trials(self.key) if t.key.fingerprint == here and not t.origin and t.measurer == VERSION]
        for trial in sorted(mine, key=lambda t: (t.time, t.id)):
            if trial.outcome != "ok":
                continue
            if trial.candidate == self.incumbent and trial.pairing is None:
                self.alone = trial.samples
            elif trial.pairing is not None and trial.pairing.incumbent == self.incumbent:
                pairs = min(len(trial.samples), len(trial.pairing.samples))  # a record need not be one of ours
                ratios.setdefault(trial.candidate, []).extend(stats.log_ratios(trial.samples[:pairs], trial.pairing.samples[:pairs]))
        # What is quarantined, and not whatever failed once: a time-out among many good trials is the machine's.
        return ratios, {q.candidate: q.reasons[0] for q in belief.rank(mine, here).quarantined}

    def predict(self, point: Point) -> float | None:
        """Predicted seconds, None for a schedule that is not legal."""
        steps = self.space.schedule(point)
        if steps not in self.predictions:
            try:
                self.predictions[steps] = self.predictor.cost(steps).seconds
            except TriError as problem:
                self.predictions[steps] = None
                self.reasons[describe(point)] = f"not legal: {problem.diagnostics[0].code}: {problem.diagnostics[0].message}"
        return self.predictions[steps]

    # The search.

    def run(self, bench: Bench) -> Result:
        self.bench = bench
        bench.on_wait = lambda: self._tell("waiting for another measurement on this machine")
        interrupted = False
        try:
            self._tell("compiling the schedule that is used now")
            if self._begin():
                self._verify()
                self._search()
                self._final()
        except _Unmeasurable as problem:
            self.notes.append(f"the search was ended: {problem}")
        except KeyboardInterrupt:
            interrupted = True
        return self._result(interrupted)

    def _begin(self) -> bool:
        """The incumbent, and how noisy it is against itself; False when it cannot be run."""
        assert self.bench is not None
        started, twin = self.bench.start([self.incumbent.schedule] * 2)
        if isinstance(started, Failure):
            self._failed(self.incumbent, started)
            return False
        self.anchor = started
        ratios = stats.against_itself(self.alone)
        if not self.alone:
            both = [started] if isinstance(twin, Failure) else [started, twin]
            found = self.bench.blocks(both, NOISE_BLOCKS, Random(self.seed))
            times, beside = found[started], found[both[-1]]
            if isinstance(times, Failure):
                self._failed(self.incumbent, times)
                return False
            self._keep(self.incumbent, started, times, None)
            self.alone = times
            ratios = stats.against_itself(times) if len(both) == 1 or isinstance(beside, Failure) else stats.log_ratios(times, beside)
        if not isinstance(twin, Failure):
            self.bench.end(twin)
        self.noise = max(0.005, stats.spread(ratios))
        self.floor = stats.noise_floor(ratios, 2 * len(ratios))
        self.best = self.incumbent, sorted(self.alone)[len(self.alone) // 2]
        return True

    def _verify(self) -> None:
        """What was best under other software, or on another machine, is tried before anything is searched."""
        old = [s.candidate for s in self._ranking().standings if s.status in ("suspect", "prior") and s.candidate.steps != self.incumbent.steps]
        if old:
            self._tell("verifying what was best before")
            self._measure(old[:VERIFIED], NOISE_BLOCKS)

    def _search(self) -> None:
        start = time.perf_counter()
        self.predict(self.space.default())
        affordable = int(PREDICTING * self.budget / max(1e-4, time.perf_counter() - start))
        problem = Problem(
            space=self.space, predict=self.predict, seed=self.seed, noise=self.noise, floor=max(self.floor, belief.SMALLEST_FLOOR),
            limit=max(24, min(MOST_LISTED, affordable)), sample=max(16, min(200, affordable // 3)),
        )  # fmt: skip
        self._tell("ranking by predicted time")
        chosen = strategy(self.name, problem)
        while self.left > RESERVED * self.budget:
            ask = chosen.ask()
            if ask is None:
                break
            self._answer(ask, chosen)
            self._tell("searching")

    @property
    def left(self) -> float:
        return self.budget - (time.monotonic() - self.start)

    def _answer(self, ask: Ask, chosen: Strategy) -> None:
        """From evidence where there is enough of it, else from the machine."""
        open_: dict[Point, tuple[Candidate, int]] = {}
        for point in ask.points:
            one = self.candidate(point)
            told = self.known.get(one, [])[: ask.blocks]
            if one.steps == self.incumbent.steps:
                chosen.tell(point, (0.0,) * ask.blocks)
            elif one in self.broken:
                self.reused.add(one)
                chosen.tell(point, (), self.broken[one])
            elif len(told) == ask.blocks:
                self.reused.add(one)
                del self.known[one][: ask.blocks]
                chosen.tell(point, told)
            else:
                open_[point] = one, ask.blocks
        if not open_:
            return
        found = self._measure([one for one, _ in open_.values()], ask.blocks)
        for point, (one, _) in open_.items():
            answer = found[one]
            if isinstance(answer, Failure):
                chosen.tell(point, (), answer.reason)
            else:
                chosen.tell(point, answer)

    def _measure(self, wanted: Sequence[Candidate], blocks: int) -> dict[Candidate, Sequence[float] | Failure]:
        """Log-ratios of candidates to the incumbent in interleaved blocks; every one is kept as evidence at once.

        When the incumbent's process, or the one that starts candidates, ends beside them (the system took it for its memory), that
        is no fault of theirs: they are measured again. Raises _Unmeasurable when it has happened too often."""
        found: dict[Candidate, Sequence[float] | Failure] = {}
        while open_ := [one for one in wanted if one not in found]:
            answers = self._measure_once(open_, blocks)
            lost = {one: a for one, a in answers.items() if isinstance(a, Failure) and a.outcome == "skipped"}
            found |= {one: a for one, a in answers.items() if one not in lost}
            if lost:
                self._lost(next(iter(lost.values())))
        return found

    def _measure_once(self, wanted: Sequence[Candidate], blocks: int) -> dict[Candidate, Sequence[float] | Failure]:
        """`skipped` for those that could not be measured for no fault of theirs."""
        assert self.bench is not None
        self.anchor = self.anchor or self._started_again()
        found: dict[Candidate, Sequence[float] | Failure] = {}
        missing = [one for one in wanted if one not in self.runners]
        for one, started in zip(missing, self.bench.start([m.schedule for m in missing])):
            self.tried.add(one)
            if isinstance(started, Failure):
                self._failed(one, started)
                found[one] = started
            else:
                self.runners[one] = started
        running = {one: self.runners[one] for one in wanted if one not in found}
        if running:
            times = self.bench.blocks([self.anchor, *running.values()], blocks, Random(f"{self.seed}/{len(self.tried)}"))
            beside = times[self.anchor]
            if isinstance(beside, Failure):
                self.anchor = None
            for one, runner in running.items():
                mine = times[runner]
                if isinstance(mine, Failure):
                    self._failed(one, mine)
                    self.runners.pop(one, None)
                    found[one] = mine
                    continue
                if isinstance(beside, Failure):
                    found[one] = Failure("skipped", beside.reason)
                    continue
                self._keep(one, runner, mine, beside)
                found[one] = stats.log_ratios(mine, beside)
                middle = sorted(mine)[len(mine) // 2]
                if self.best is None or middle < self.best[1]:
                    self.best = one, middle
        for one in list(self.runners)[: max(0, len(self.runners) - ALIVE)]:
            self.bench.end(self.runners.pop(one))
        return found

    def _lost(self, failure: Failure) -> None:
        self.losses += 1
        if self.losses > LOSSES:
            raise _Unmeasurable(f"what candidates are measured beside ended {self.losses} times, the last time: {failure.reason}")

    def _started_again(self) -> Runner:
        assert self.bench is not None
        (started,) = self.bench.start([self.incumbent.schedule])
        if isinstance(started, Failure):
            raise _Unmeasurable(f"the incumbent, which ran before, failed: {started.reason}")
        return started

    def _final(self) -> None:
        """The few best once more, in turns, each in processes of its own that are new."""
        self._tell("comparing the best once more")
        order = [s.candidate for s in self._ranking().standings if s.status == "fresh" and s.candidate != self.incumbent]
        best = [one for one in order if one.steps != self.incumbent.steps][:FINAL]
        for number in range(FINAL_ROUNDS):
            if not best or (number > 1 and self.left < 0):
                return
            self._leave(best)
            found = self._measure(best, FINAL_BLOCKS)
            best = [one for one in best if not isinstance(found[one], Failure)]

    def _leave(self, wanted: Sequence[Candidate]) -> None:
        """End the processes of these candidates and of the incumbent; the next measurement starts new ones."""
        assert self.bench is not None
        for runner in (self.anchor, *(self.runners.pop(one, None) for one in wanted)):
            if runner is not None:
                self.bench.end(runner)
        self.anchor = None

    # What is kept and said.

    def _keep(self, one: Candidate, runner: Runner, times: Sequence[float], beside: Sequence[float] | None) -> None:
        assert self.bench is not None
        pairing = None if beside is None else Pairing(block=uuid.uuid4().hex, incumbent=self.incumbent, samples=tuple(beside))
        self.store.add(
            self._trial(one, "ok", samples=tuple(times), pairing=pairing, compile_seconds=runner.compile_seconds or None, code=runner.code)
        )

    def _failed(self, one: Candidate, failure: Failure) -> None:
        if failure.outcome == "skipped":  # no fault of the candidate: it is measured again
            return
        self.failures[failure.outcome] += 1
        self.reasons[one.text] = f"{failure.outcome}: {failure.reason}"
        self.broken[one] = failure.reason
        self.store.add(self._trial(one, failure.outcome, reason=failure.reason))

    def _trial(self, one: Candidate, outcome: Outcome, **more: Any) -> Trial:
        locked = "held" if self.bench is None or self.bench.locked else "not held"
        return Trial(
            key=self.key, sizes=tuple(sorted(self.subject.sizes.items())), candidate=one, outcome=outcome, measurer=VERSION, time=time.time(),
            operating=tuple(sorted((*self.operating, ("bench lock", locked)))), **more,
        )  # fmt: skip

    def _ranking(self) -> belief.Ranking:
        return belief.rank(self.store.trials(self.key), self.key.fingerprint, incumbent=self.incumbent)

    def _tell(self, doing: str) -> None:
        if self.on_progress is None:
            return
        elapsed = time.monotonic() - self.start
        seconds = self.best[1] if self.best else None
        base = next((s.seconds for s in self._ranking().standings if s.candidate == self.incumbent), None) if self.best else None
        self.on_progress(
            Progress(
                elapsed_seconds=elapsed, budget_seconds=self.budget, eta_seconds=max(0.0, self.budget - elapsed), trials=len(self.tried),
                reused=len(self.reused), best=self.best[0].text if self.best else "", best_seconds=seconds,
                ratio=seconds / base if seconds and base else None, share=self.ideal / seconds if seconds and self.ideal else None,
                failures=dict(self.failures), doing=doing,
            )
        )  # fmt: skip

    def _result(self, interrupted: bool) -> Result:
        ranking = self._ranking()
        won = ranking.winner
        better = won is not None and won.candidate.steps != self.incumbent.steps
        state: State = "tuned" if better else "kept"
        if interrupted:
            state = "interrupted"
        elif self.best is None or won is None:
            state = "nothing measured"
        notes = [*self.notes, *([f"the noise floor is {100 * self.floor:.1f}%"] if self.best else [])]
        if self.ideal and won and won.seconds:
            notes.append(f"{time_text(won.seconds)} is {100 * self.ideal / won.seconds:.0f}% of the predicted roofline, {time_text(self.ideal)}")
        if self.bench is not None and not self.bench.locked:
            notes.append("the machine-wide lock could not be taken: something else may have been measured at the same time")
        if self.bench is not None and not self.bench.oracle:
            notes.append("the op is too large for the oracle: answers were compared with the incumbent's")
        return Result(
            state=state, key=self.key, winner=won.candidate if won else None, seconds=won.seconds if won else None, incumbent=self.incumbent,
            ranking=ranking, floor=self.floor, trials=len(self.tried), reused=len(self.reused), elapsed_seconds=time.monotonic() - self.start,
            failures=dict(self.failures), reasons=dict(self.reasons), notes=tuple(notes), ideal_seconds=self.ideal,
        )  # fmt: skip
