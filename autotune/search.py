"""Strategies: which points to try next. One protocol, ask and tell; each is a generator of questions, deterministic under its seed.

A strategy sees log-ratios of a point's time to the incumbent's (in pairs, so they are comparable across the run) and failures.
It never sees a clock: who serves the answers - a machine, a recording, a model - decides when the budget is spent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import field
from random import Random
from statistics import median
from typing import Any, Protocol
from zlib import crc32

from tridsl.autotune.correction import Correction, Encoding
from tridsl.autotune.space import Point, Space
from tridsl.diagnostics import error
from tridsl.schedule.values import Value
from tridsl.structs import dataclass

Predict = Callable[[Point], float | None]
"""Predicted seconds of a point; None where its schedule is not legal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Measure these points, interleaved with the incumbent, in this many blocks (three: a burst in one of them is outvoted)."""

    points: tuple[Point, ...]
    blocks: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`predict` ranks (a strategy need not use it). `noise`: standard deviation of one block's log-ratio; `floor`: log-ratios
    closer than this are a tie. `limit`: spaces with more points are sampled, not listed; `sample`: that many points at first."""

    space: Space
    predict: Predict
    seed: int = 0
    noise: float = 0.02
    floor: float = 0.01
    limit: int = 4000
    sample: int = 200


@dataclass(slots=True)
class History:
    """Everything told so far. `failed`: points that cannot be used, with the reason."""

    ratios: dict[Point, list[float]] = field(default_factory=dict)
    failed: dict[Point, str] = field(default_factory=dict)

    def middle(self, point: Point) -> float:
        return median(self.ratios[point])

    def ranked(self) -> list[Point]:
        """Measured points, best first; ties in the order of measuring."""
        return sorted(self.ratios, key=self.middle)

    def best(self, noise: float) -> Point | None:
        """The point to use: least log-ratio, where few blocks count against a point (the luckiest of many looks too good)."""

        def surely(point: Point) -> float:
            return self.middle(point) + 2 * noise / math.sqrt(len(self.ratios[point]))

        return min(self.ratios, key=surely, default=None)

    def known(self, point: Point) -> bool:
        return point in self.ratios or point in self.failed


class Strategy(Protocol):
    """`ask` gives the next question, None when nothing is left that is worth its time; `tell` one answer of it."""

    history: History

    def ask(self) -> Ask | None: ...

    def tell(self, point: Point, ratios: Sequence[float], failure: str = "") -> None:
        """Log-ratios of a point's blocks to the incumbent, or why there are none."""


Plan = Generator[Ask, None, None]


class Planned:
    """A strategy written as a generator of questions over the history."""

    def __init__(self, plan: Callable[[Problem, History], Plan], problem: Problem) -> None:
        self.history = History()
        self._plan = plan(problem, self.history)

    def ask(self) -> Ask | None:
        return next(self._plan, None)

    def tell(self, point: Point, ratios: Sequence[float], failure: str = "") -> None:
        if failure:
            self.history.failed[point] = failure
        elif ratios:
            self.history.ratios.setdefault(point, []).extend(ratios)


FIRST = 6
"""Points of the first race: the best predicted ones that differ."""
BATCH = 3
"""Points asked together later: enough to share the incumbent's turns, few enough to learn from."""
CONTENDERS, RACED = 4, 12
"""Points that are raced against the best at a time, and blocks after which a point needs no more."""
SURE = 6
"""Blocks that a leader needs before it is believed: of a hundred points the luckiest three blocks look good."""
BRANCHES = 4
"""Branches of a space whose best points' neighbours are looked at."""
PATIENCE, HOPE = 4, 0.25
"""Questions in a row that may promise less than this part of the floor before the search ends."""


def ranked(problem: Problem, history: History) -> Plan:
    """Ours. The analytic ranking picks a diverse first race; then a correction of the ranking, learned from what was measured,
    picks by expected improvement among all points and the neighbours of the best; near the best, points are raced. When the expected
    gain is below the noise floor, it looks at more of a space that is too large to be listed, and ends where there is no more.

    Jones, Schonlau and Welch, "Efficient global optimization", 1998 (expected improvement); Maron and Moore, "Hoeffding races", 1993.
    """
    random = Random(problem.seed)
    pool = Pool(problem, random)
    yield Ask(points=pool.diverse(FIRST))
    yield from _race(problem, history)
    quiet = 0
    while quiet < PATIENCE or pool.grow():
        quiet = 0 if quiet >= PATIENCE else quiet
        order = history.ranked()
        for point in _leaders(order):
            pool.extend(problem.space.neighbours(point))
        open_ = [p for p in pool.points if not history.known(p)]
        if not open_:
            quiet = PATIENCE
            continue
        if not order:
            yield Ask(points=tuple(random.sample(open_, min(BATCH, len(open_)))))
            continue
        correction = Correction.fit(pool.encoding(), [(p, history.middle(p), len(history.ratios[p])) for p in order], problem.noise)
        batch, gain = correction.choose(open_, history.middle(order[0]), BATCH)
        near = [p for p in problem.space.neighbours(order[0]) if p in pool.predicted and not history.known(p) and p not in batch]
        if near and gain < 4 * problem.floor:
            batch = (*batch[: BATCH - 1], correction.best_of(near))
        quiet = quiet + 1 if gain < HOPE * problem.floor else 0
        yield Ask(points=batch)
        yield from _race(problem, history)


def _leaders(order: Sequence[Point]) -> tuple[Point, ...]:
    """The two best points, and the best of every branch of the space (its points are asked the same choices): each branch is a hill of
    its own, and the best one's foot may lie below another's top."""
    branches: dict[tuple[str, ...], Point] = {}
    for point in order:
        branches.setdefault(tuple(name for name, _ in point), point)
    return tuple(dict.fromkeys((*order[:2], *list(branches.values())[:BRANCHES])))


def _race(problem: Problem, history: History) -> Plan:
    """More blocks for a new leader, and for the points that cannot be told from it yet, fewer each time."""
    count = CONTENDERS
    while count > 1:
        order = history.ranked()
        if not order:
            return
        best = history.middle(order[0])

        def reach(point: Point) -> float:
            return history.middle(point) - 2 * problem.noise / math.sqrt(len(history.ratios[point]))

        close = [p for p in order if reach(p) <= best + problem.floor and len(history.ratios[p]) < RACED][:count]
        if not close or (close == order[:1] and len(history.ratios[order[0]]) >= SURE):
            return
        yield Ask(points=tuple(close), blocks=3)
        count -= len(close) > 1


class Pool:
    """Points with predictions: all of a small space, a sample of a large one, and whatever is added on the way."""

    def __init__(self, problem: Problem, random: Random) -> None:
        self.problem = problem
        self.predicted: dict[Point, float] = {}
        self._refused: set[Point] = set()
        self._encoding: Encoding | None = None
        self._random = random
        self._whole = False
        self.extend([problem.space.default()])
        listed = problem.space.listing(problem.limit)
        self._whole = listed is not None
        self.extend(listed if listed is not None else self._sampled(random))

    def grow(self) -> bool:
        """More random points of a space that was not listed; whether there are any."""
        if self._whole:
            return False
        before = len(self.predicted)
        self.extend(self.problem.space.sample(self._random) for _ in range(self.problem.sample))
        return len(self.predicted) > before

    def _sampled(self, random: Random) -> Iterator[Point]:
        """Random points, and descents on the predicted time from the best of them."""
        space = self.problem.space
        for _ in range(self.problem.sample):
            yield space.sample(random)
        for start in sorted(self.predicted, key=lambda p: self.predicted[p])[:3]:
            here = start
            for _ in range(self.problem.sample // 16):
                around = list(space.neighbours(here))
                self.extend(around)
                better = min((p for p in around if p in self.predicted), key=lambda p: self.predicted[p], default=here)
                if self.predicted[better] >= self.predicted[here]:
                    break
                here = better

    @property
    def points(self) -> tuple[Point, ...]:
        return tuple(self.predicted)

    def extend(self, points: Sequence[Point] | Iterator[Point]) -> None:
        for point in points:
            if point in self.predicted or point in self._refused:
                continue
            seconds = self.problem.predict(point)
            if seconds is None or seconds <= 0:
                self._refused.add(point)
            else:
                self.predicted[point] = math.log(seconds)
                self._encoding = None

    def encoding(self) -> Encoding:
        if self._encoding is None:
            self._encoding = Encoding.of(self.predicted)
        return self._encoding

    def diverse(self, count: int) -> tuple[Point, ...]:
        """The best predicted point, then each time the one whose prediction is good and that is unlike those chosen."""
        order = sorted(self.predicted, key=lambda p: self.predicted[p])[: 40 * count]
        chosen = order[:1]
        best = self.predicted[chosen[0]] if chosen else 0.0
        while len(chosen) < min(count, len(order)):
            left = [p for p in order if p not in chosen]

            def worth(point: Point) -> float:
                apart = min(self.problem.space.distance(point, c) for c in chosen)
                return min(apart, 4.0) * 0.15 - (self.predicted[point] - best)

            chosen.append(max(left, key=worth))
        return tuple(chosen)


def random_search(problem: Problem, history: History) -> Plan:
    """Uniform without replacement where the space can be listed, else random walks down its tree."""
    random = Random(problem.seed)
    listed = problem.space.listing(problem.limit)
    if listed is not None:
        for point in random.sample(listed, len(listed)):
            yield Ask(points=(point,))
        return
    while (drawn := _unknown(lambda: problem.space.sample(random), history)) is not None:
        yield Ask(points=(drawn,))


def evolutionary(problem: Problem, history: History) -> Plan:
    """Tournaments among the best, uniform crossover, one mutation. Steady state, a population of twelve."""
    random = Random(problem.seed)
    space = problem.space
    for _ in range(8):
        drawn = _unknown(lambda: space.sample(random), history)
        if drawn is not None:
            yield Ask(points=(drawn,))

    def child() -> Point:
        population = history.ranked()[:12]
        if not population or random.random() < 0.05:
            return space.sample(random)
        a, b = (population[min(random.choices(range(len(population)), k=3))] for _ in range(2))
        mixed: Mapping[str, Value] = {**dict(a), **{n: v for n, v in b if random.random() < 0.5}}
        point = space.near(mixed)
        around = list(space.neighbours(point)) if point else []
        return random.choice(around) if around else space.sample(random)

    while (point := _unknown(child, history)) is not None:
        yield Ask(points=(point,))


def _unknown(draw: Callable[[], Point], history: History) -> Point | None:
    """A drawn point that was not measured; None when two hundred draws gave none."""
    for _ in range(200):
        point = draw()
        if not history.known(point):
            return point
    return None


def optuna_search(problem: Problem, history: History) -> Plan:
    """Optuna's tree-structured Parzen estimator over the same tree of choices. E0954: Optuna is not installed."""
    try:
        import optuna  # an optional extra
    except ImportError:
        raise error("E0954", "the strategy `optuna` needs Optuna, which is not installed", help="pip install optuna") from None
    library: Any = optuna
    library.logging.set_verbosity(library.logging.ERROR)
    study = library.create_study(sampler=library.samplers.TPESampler(seed=problem.seed))
    for _ in range(10 * problem.limit):
        trial = study.ask()
        given: dict[str, Value] = {}
        while len(asked := problem.space.ask(given)) > len(given):
            choice = asked[len(given)]
            labels = [f"{n}" for n in range(len(choice.values))]  # the same name may have other values elsewhere in the tree
            label = trial.suggest_categorical(f"{choice.name}/{crc32(repr(choice.values).encode()):x}", labels)
            given[choice.name] = choice.values[int(label)]
        point = tuple(given.items())
        if not problem.space.allows(given):
            study.tell(trial, state=library.trial.TrialState.FAIL)
            continue
        if not history.known(point):
            yield Ask(points=(point,))
        if point in history.ratios:
            study.tell(trial, history.middle(point))
        else:
            study.tell(trial, state=library.trial.TrialState.FAIL)


STRATEGIES: dict[str, Callable[[Problem, History], Plan]] = {
    "ranked": ranked,
    "random": random_search,
    "evolutionary": evolutionary,
    "optuna": optuna_search,
}


def strategy(name: str, problem: Problem) -> Strategy:
    """E0955: no strategy has the name."""
    if name not in STRATEGIES:
        raise error("E0955", f"there is no strategy `{name}`", help=f"choose one of {', '.join(STRATEGIES)}")
    return Planned(STRATEGIES[name], problem)
