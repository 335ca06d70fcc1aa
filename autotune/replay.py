"""Strategies on recorded spaces: every point was measured once and for all, so a search takes a second and can be repeated.

A recording is a file of JSON lines (`tests/bench/replay/README.md` describes it). The replayer serves its samples to any strategy
in random order, as a machine would: one block is one sample. What is right is judged by all samples of a point together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import Any

import msgspec

from tridsl.autotune.search import Problem, Strategy, strategy
from tridsl.autotune.space import Point, Space, listed_space
from tridsl.autotune.stats import log_ratios, spread
from tridsl.diagnostics import error
from tridsl.dtypes import DTYPES, DType
from tridsl.structs import dataclass

FORMAT = 1


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The first line of a recording. `op`: how to find it (`stdlib:matmul`) with `types` and `sizes`; `lift`: leading axes
    it is mapped over; `space`: `automatic`, with the choices of `thin` cut down to so many values; `default`: the point that is the incumbent of every sample; `chip` and `software`: facts of
    where it was measured; `threads`: that ran."""

    format: int
    name: str
    op: str = ""
    overload: int = 0
    types: dict[str, str] = {}
    sizes: dict[str, int] = {}
    constants: dict[str, bool | int | float] = {}
    space: str = "automatic"
    thin: dict[str, int] = {}
    lift: int = 0
    default: dict[str, Any] = {}
    chip: dict[str, Any] = {}
    software: dict[str, str] = {}
    threads: int = 1
    commit: str = ""
    measurer: str = ""
    time: float = 0.0


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One point. `seconds[n]` was taken beside `incumbent[n]`; `predicted` is `autotune.cost`'s at the time of recording."""

    point: dict[str, Any]
    outcome: str = "ok"
    reason: str = ""
    predicted: float | None = None
    seconds: tuple[float, ...] = ()
    incumbent: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A space that was measured point by point, with log-ratios to the incumbent for every point that worked. `truth`: their medians."""

    header: Header
    ratios: Mapping[Point, tuple[float, ...]]
    failed: Mapping[Point, str] = field(default_factory=dict)
    predicted: Mapping[Point, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.header.name

    @property
    def space(self) -> Space:
        default = encode_point(self.header.default)
        rest = [p for p in (*self.ratios, *self.failed) if p != default]
        return listed_space(self.name, [default, *rest] if self.header.default else rest)

    def truth(self) -> dict[Point, float]:
        return {p: median(r) for p, r in self.ratios.items()}

    @property
    def noise(self) -> float:
        """Deviation of one sample, of a typical point."""
        return max(1e-4, median(spread(r) for r in self.ratios.values()))


def encode_point(given: Mapping[str, Any]) -> Point:
    """A point as a recording has it; element types are written `{"dtype": "f32"}`."""
    return tuple((n, DTYPES[v["dtype"]] if isinstance(v, dict) else v) for n, v in given.items())


def decode_point(point: Point) -> dict[str, Any]:
    return {n: {"dtype": v.name} if isinstance(v, DType) else v for n, v in point}


def read(path: Path) -> Recording:
    """E0956: not a recording, or of a format that this version does not know. A last line that was cut short is left out."""
    lines = path.read_bytes().split(b"\n")
    try:
        header = msgspec.json.decode(lines[0], type=Header)
        if header.format != FORMAT:
            raise ValueError(f"format {header.format} in place of {FORMAT}")
        found: dict[Point, Line] = {}
        for number, text in enumerate(lines[1:], 2):
            if not text:
                continue
            try:
                line = msgspec.json.decode(text, type=Line)
            except msgspec.MsgspecError:
                if number == len(lines):
                    break
                raise
            found[encode_point(line.point)] = line
    except (msgspec.MsgspecError, ValueError, KeyError, IndexError) as problem:
        raise error("E0956", f"{path.name} is no recording: {problem}", help="see tests/bench/replay/README.md") from None
    return Recording(
        header=header,
        ratios={p: log_ratios(l.seconds, l.incumbent) for p, l in found.items() if l.outcome == "ok"},
        failed={p: l.reason or l.outcome for p, l in found.items() if l.outcome != "ok"},
        predicted={p: l.predicted for p, l in found.items() if l.predicted},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One search on one recording. `trials[n]`: the (n+1)-th distinct point tried; `chosen[n]`: the point that the strategy
    would have given after it; `gaps[n]`: by how much that is really slower than the best, as a factor minus 1. `stopped`:
    whether the strategy ended by itself."""

    trials: tuple[Point, ...]
    gaps: tuple[float, ...]
    blocks: int
    stopped: bool

    @property
    def gap(self) -> float:
        return self.gaps[-1] if self.gaps else math.inf

    def trials_to(self, share: float) -> float:
        """Distinct points tried until the chosen one reached `share` of the best's speed; infinite if it never did."""
        return next((n + 1 for n, gap in enumerate(self.gaps) if 1 / (1 + gap) >= share), math.inf)


class Server:
    """Serves a recording's samples; counts distinct points as trials, up to `budget`."""

    def __init__(self, recording: Recording, budget: int, seed: int) -> None:
        self.recording = recording
        self.budget = budget
        self.random = Random(f"{recording.name}/{seed}")
        self.tried: dict[Point, None] = {}
        self.blocks = 0
        self.gaps: list[float] = []
        self._orders: dict[Point, list[float]] = {}
        self._truth = recording.truth()
        self._best = min(self._truth.values(), default=0.0)

    @property
    def spent(self) -> bool:
        return len(self.tried) >= self.budget

    def serve(self, point: Point, blocks: int) -> tuple[tuple[float, ...], str]:
        """Samples, or why there are none."""
        self.tried[point] = None
        self.blocks += blocks
        known = self.recording.ratios.get(point)
        if known is None:
            return (), self.recording.failed.get(point, "not recorded")
        order = self._orders.setdefault(point, [])
        while len(order) < blocks:
            order += self.random.sample(known, len(known))  # without replacement: one burst is not met again and again
        served = tuple(order[:blocks])
        del order[:blocks]
        return served, ""

    def note(self, chosen: Point | None) -> None:
        """After an answer: what the strategy holds for best now, for every trial since the last note."""
        gap = math.inf if chosen is None else math.exp(self._truth[chosen] - self._best) - 1
        self.gaps += [gap] * (len(self.tried) - len(self.gaps))
        if self.gaps:
            self.gaps[-1] = gap

    def trace(self, stopped: bool) -> Trace:
        return Trace(trials=tuple(self.tried), gaps=tuple(self.gaps), blocks=self.blocks, stopped=stopped)


def problem_of(recording: Recording, seed: int, *, floor: float | None = None) -> Problem:
    noise = recording.noise
    return Problem(
        space=recording.space, predict=recording.predicted.get, seed=seed, noise=noise, floor=floor if floor is not None else max(0.005, noise / 2)
    )


def play(make: str | Callable[[Problem], Strategy], recording: Recording, *, budget: int, seed: int) -> Trace:
    """A strategy (by name, or made for the problem) on a recording, for at most `budget` distinct points."""
    problem = problem_of(recording, seed)
    chosen = strategy(make, problem) if isinstance(make, str) else make(problem)
    server = Server(recording, budget, seed)
    while True:
        ask = chosen.ask()
        if ask is None:
            return server.trace(True)
        served = 0
        for point in ask.points:
            if server.spent and point not in server.tried:
                continue  # more blocks of what was tried are no trials, and may still be asked for
            chosen.tell(point, *server.serve(point, ask.blocks))
            server.note(chosen.history.best(problem.noise))
            served += 1
        if not served:
            return server.trace(False)


def random_curve(truth: Iterable[float]) -> list[float]:
    """Expected best time (a factor of the incumbent's) after 1, 2, … draws without replacement.

    The n-th of N sorted times is the best of t draws with probability C(N - n, t - 1) / C(N, t).
    """
    times = sorted(math.exp(t) for t in truth)
    count = len(times)
    curve = []
    for draws in range(1, count + 1):
        chance = draws / count
        expected = 0.0
        for n, time in enumerate(times):
            expected += chance * time
            if n + 1 >= count - draws + 1:
                break
            chance *= (count - n - draws) / (count - n - 1)
        curve.append(expected)
    return curve


def score(trace: Trace, truth: Mapping[Point, float]) -> float:
    """Kernel Tuner's P: (baseline - found) / (baseline - optimum), averaged over the budget that random search needs to come 95% of
    the way from the median to the optimum. 0 is random search, 1 the optimum at once.

    Willemsen, van Nieuwpoort and van Werkhoven, "A methodology for comparing optimization algorithms for auto-tuning", 2024.
    """
    curve = random_curve(truth.values())
    best, middle = math.exp(min(truth.values())), math.exp(median(truth.values()))
    end = next((n for n, time in enumerate(curve) if time <= middle - 0.95 * (middle - best)), len(curve) - 1)
    parts = []
    for n in range(end + 1):
        base = curve[n]
        found = best * (1 + (trace.gaps[min(n, len(trace.gaps) - 1)] if trace.gaps else math.inf))
        if not math.isfinite(found):
            found = math.exp(max(truth.values()))
        if base - best > 1e-12 * best:
            parts.append((base - found) / (base - best))
    return fmean(parts) if parts else 1.0


def density(truth: Mapping[Point, float], share: float = 0.95) -> float:
    """The part of a space that is within `share` of its best: without it a number of trials means nothing."""
    best = min(truth.values())
    return sum(1 for t in truth.values() if math.exp(best - t) >= share) / len(truth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A strategy on one recording over several seeds; trials that never reached the share count as one more than the budget."""

    recording: str
    strategy: str
    seeds: int
    trials: tuple[float, ...]
    gaps: tuple[float, ...]
    scores: tuple[float, ...]
    used: tuple[int, ...]


def summarise(player: Callable[[Recording, int], Trace], name: str, recording: Recording, *, budget: int, seeds: Sequence[int]) -> Summary:
    """A strategy on one recording, once a seed; `player(recording, seed)` runs it."""
    traces = [player(recording, seed) for seed in seeds]
    truth = recording.truth()
    return Summary(
        recording=recording.name,
        strategy=name,
        seeds=len(traces),
        trials=tuple(min(t.trials_to(0.95), budget + 1) for t in traces),
        gaps=tuple(t.gap for t in traces),
        scores=tuple(score(t, truth) for t in traces),
        used=tuple(len(t.trials) for t in traces),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def bootstrap(values: Sequence[float], of: Callable[[Sequence[float]], float], *, seed: int = 0, rounds: int = 400) -> tuple[float, float]:
    """A 95% percentile interval of a statistic. Efron, "Bootstrap methods", 1979."""
    random = Random(seed)
    found = sorted(of(random.choices(values, k=len(values))) for _ in range(rounds))
    return found[int(0.025 * rounds)], found[int(0.975 * rounds) - 1]
