"""What follows from evidence: who wins, how surely, and who is not to be run. Pure functions of trials, pin and place.

Equal sets of trials give equal answers, in any order and in every process; nothing is drawn at random, so there is no seed.

1. Trials fall into three classes: measured here under this software (`fresh`), here under another (`suspect`), elsewhere or
   imported (`prior`). Another family of processors says nothing about which candidate wins and is left out.
2. Within a class candidates are compared by `estimate`. The fastest is found cautiously; whoever it cannot be told from - within
   the noise floor - ties with it, and the simplest of the tie wins.
3. The fresh winner is served, unless the suspect one was never tried under the new software and was faster: then that one is
   served until it has been. With neither, the best prior is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from tridsl.personality.candidate import Candidate
from tridsl.personality.estimate import Z95, Estimates, Interval, estimate
from tridsl.personality.evidence import FAILURES, Outcome, Trial
from tridsl.personality.fingerprint import Fingerprint, Hashes, changes, compare_hashes, grade
from tridsl.structs import dataclass

VERSION = 1
"""Changes whenever the same evidence would give another answer."""

Status = Literal["pinned", "fresh", "suspect", "prior"]

SMALLEST_FLOOR, LARGEST_FLOOR = 0.005, 0.05
"""Differences below the first are no reason for a more complicated schedule; above the second they are never called noise, and
what may be slower by more than the second ties with nobody."""

FATAL: frozenset[Outcome] = FAILURES - {"timeout"}
"""One of these is enough. A time-out may be the machine's: there must be as many as there are good trials."""


class Winner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`seconds`: its median; None for a pin that was never measured. `trials`: of the subject, that the choice rests on."""

    candidate: Candidate
    status: Status
    seconds: float | None
    trials: int

    @property
    def servable(self) -> bool:
        """Whether it may be run for a caller. A prior has to pass its canary in a worker process first: that it was fast
        elsewhere does not say that it works here."""
        return self.status != "prior"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A candidate among those of its class. `against`: its time over the reference's (the winner's, or the incumbent that was
    asked for), less one; None when the reference is of another class. `tie`: not to be told from the fastest."""

    candidate: Candidate
    status: Status
    seconds: float
    against: Interval | None
    tie: bool
    trials: int
    samples: int
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A candidate that must not be run: what happened, how often, and the reasons given, each once."""

    candidate: Candidate
    status: Status
    outcome: Outcome
    times: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """`standings`: fresh, then suspect, then prior ones not yet known better; best first in each. `winner` is None when
    nothing good was measured and nothing is pinned. `floor`: the noise floor of the winner's class, as a ratio."""

    winner: Winner | None
    standings: tuple[Standing, ...]
    quarantined: tuple[Quarantined, ...]
    floor: float
    trials: int


@dataclass(frozen=True, slots=True, eq=False)
class _Class:
    """The evidence of one status. `order`: positions in `estimates`, best first; `ties` those that tie with the fastest."""

    status: Status
    estimates: Estimates | None
    order: tuple[int, ...]
    ties: frozenset[int]
    floor: float
    tried: frozenset[Candidate]
    trials: int

    @property
    def best(self) -> Candidate | None:
        return self.estimates.candidates[self.order[0]] if self.estimates is not None and self.order else None

    @property
    def seconds(self) -> float:
        assert self.estimates is not None
        return self.estimates.seconds[self.order[0]]


def status_of(trial: Trial, here: Hashes) -> Status | None:
    """What a trial is worth at `here`; None: nothing."""
    level = compare_hashes(trial.key.fingerprint, here)
    if level == "family":
        return None
    if trial.origin or grade(level) == "foreign":
        return "prior"
    return "suspect" if grade(level) == "suspect" else "fresh"


def rank(
    trials: Sequence[Trial], here: Hashes, *, incumbent: Candidate | None = None, pin: Candidate | None = None
) -> Ranking:
    """All candidates of one subject's trials. `incumbent`: whom the ratios refer to, by default the winner."""
    sorted_out = _sort_out(trials, here)
    quarantined = _quarantine(sorted_out)
    barred = frozenset(q.candidate for q in quarantined)
    classes = {status: _class(status, found, barred) for status, found in sorted_out.items()}
    chosen = _choose(classes["fresh"], classes["suspect"], classes["prior"])
    standings: list[Standing] = []
    for found in classes.values():
        known = {standing.candidate for standing in standings}
        reference = incumbent or (chosen.best if chosen is not None else None)
        standings += [s for s in _standings(found, reference) if s.candidate not in known]
    count = sum(map(len, sorted_out.values()))
    return Ranking(
        winner=_winner(chosen, standings, pin, count),
        standings=tuple(standings),
        quarantined=quarantined,
        floor=chosen.floor if chosen is not None else LARGEST_FLOOR,
        trials=count,
    )


def _sort_out(trials: Sequence[Trial], here: Hashes) -> dict[Status, list[Trial]]:
    classes: dict[Status, list[Trial]] = {"fresh": [], "suspect": [], "prior": []}
    for trial in trials:
        status = status_of(trial, here)
        if status is not None:
            classes[status].append(trial)
    return classes


def winner(trials: Sequence[Trial], here: Hashes, *, pin: Candidate | None = None) -> Winner | None:
    """The candidate to use at `here`, or None without evidence and pin."""
    return rank(trials, here, pin=pin).winner


def _winner(chosen: _Class | None, standings: Sequence[Standing], pin: Candidate | None, trials: int) -> Winner | None:
    if pin is not None:
        seconds = next((s.seconds for s in standings if s.candidate == pin), None)
        return Winner(candidate=pin, status="pinned", seconds=seconds, trials=trials)
    if chosen is None or chosen.best is None:
        return None
    return Winner(candidate=chosen.best, status=chosen.status, seconds=chosen.seconds, trials=chosen.trials)


def _choose(fresh: _Class, suspect: _Class, prior: _Class) -> _Class | None:
    untried = suspect.best is not None and suspect.best not in fresh.tried
    if untried and (fresh.best is None or suspect.seconds * (1 + suspect.floor) < fresh.seconds):
        return suspect
    return next((found for found in (fresh, suspect, prior) if found.best is not None), None)


def _class(status: Status, trials: Sequence[Trial], barred: frozenset[Candidate]) -> _Class:
    estimates = estimate(trials)
    tried = frozenset(t.candidate for t in trials if t.outcome != "skipped") | frozenset(estimates.candidates if estimates is not None else ())
    allowed = [i for i, c in enumerate(estimates.candidates) if c not in barred] if estimates is not None else []
    if estimates is None or not allowed:
        return _Class(status, None, (), frozenset(), LARGEST_FLOOR, tried, len(trials))
    fastest = estimates.fastest(allowed)
    floor = noise_floor(estimates, fastest)
    against = {i: estimates.against(i, fastest) for i in allowed}
    ties = frozenset(i for i in allowed if i == fastest or _ties(against[i], floor))
    order = sorted(allowed, key=lambda i: (i not in ties, estimates.candidates[i].simplicity if i in ties else against[i].ratio, i))
    return _Class(status, estimates, tuple(order), ties, floor, tried, len(trials))


def noise_floor(estimates: Estimates, fastest: int) -> float:
    """What two equal candidates differ by in 95 of 100 cases, each known by as many pairs as the fastest, within limits."""
    half = Z95 * estimates.spread * math.sqrt(math.pi / max(1, estimates.pairs[fastest]))
    return min(max(half, SMALLEST_FLOOR), LARGEST_FLOOR)


def _ties(against: Interval, floor: float) -> bool:
    """Not measurably slower, and surely not much slower: what was hardly measured is not equal, it is unknown."""
    close = against.ratio <= SMALLEST_FLOOR or (against.ratio <= floor and against.low <= 0)
    return close and against.high <= LARGEST_FLOOR


def _standings(found: _Class, reference: Candidate | None) -> list[Standing]:
    estimates = found.estimates
    if estimates is None:
        return []
    beside = next((i for i, c in enumerate(estimates.candidates) if c == reference), None)
    return [
        Standing(
            candidate=estimates.candidates[i],
            status=found.status,
            seconds=estimates.seconds[i],
            against=None if beside is None else estimates.against(i, beside),
            tie=i in found.ties,
            trials=estimates.trials[i],
            samples=estimates.samples[i],
            pairs=estimates.pairs[i],
        )
        for i in found.order
    ]


def _quarantine(classes: Mapping[Status, Sequence[Trial]]) -> tuple[Quarantined, ...]:
    """By the best class that has tried a candidate: what failed under an older driver may work under this one."""
    out: list[Quarantined] = []
    judged: set[Candidate] = set()
    for status, trials in classes.items():
        tried: dict[Candidate, list[Trial]] = {}
        for trial in trials:
            if trial.outcome != "skipped" and trial.candidate not in judged:
                tried.setdefault(trial.candidate, []).append(trial)
        judged |= tried.keys()
        out += [q for candidate, found in tried.items() if (q := _judge(candidate, status, found)) is not None]
    return tuple(sorted(out, key=lambda q: (q.outcome, q.candidate.id)))


def _judge(candidate: Candidate, status: Status, trials: Sequence[Trial]) -> Quarantined | None:
    counts: dict[Outcome, int] = {}
    for trial in trials:
        counts[trial.outcome] = counts.get(trial.outcome, 0) + 1
    worst = next((outcome for outcome in sorted(FATAL) if outcome in counts), None)
    if worst is None and counts.get("timeout", 0) > 0 and counts["timeout"] >= counts.get("ok", 0):
        worst = "timeout"
    if worst is None:
        return None
    reasons = tuple(sorted({t.reason for t in trials if t.outcome == worst}))
    return Quarantined(candidate=candidate, status=status, outcome=worst, times=counts[worst], reasons=reasons)


def explain(
    trials: Sequence[Trial], here: Hashes, machines: Mapping[Hashes, Fingerprint] | None = None, *, pin: Candidate | None = None
) -> tuple[str, ...]:
    """Why the winner is the winner: sentences with numbers. `machines`: the facts behind hashes, as `Store.machines`."""
    ranking = rank(trials, here, pin=pin)
    name = min((f"{t.key.op} {t.key.bucket}".rstrip() for t in trials), default="this op")
    return (
        *_about_winner(ranking, name, trials),
        *_about_change(trials, here, machines or {}, name),
        *_about_rivals(ranking),
        *(_about_quarantined(q) for q in ranking.quarantined),
    )


def _about_winner(ranking: Ranking, name: str, trials: Sequence[Trial]) -> Iterator[str]:
    won = ranking.winner
    if won is None:
        yield f"{name}: nothing that works was measured; the default is used"
        return
    took = f", {duration(won.seconds)}" if won.seconds is not None else ", never measured"
    places = sorted({t.origin or "another machine" for t in trials})
    because = {
        "pinned": "pinned by the user",
        "fresh": f"measured here in {_count(won.trials, 'trial')}",
        "suspect": f"measured here in {_count(won.trials, 'trial')} under other software: used, and to be verified",
        "prior": f"measured in {_count(won.trials, 'trial')} on {', '.join(places)}: a hint until it was run here",
    }
    yield f"{name}: {won.candidate.text}{took}, {because[won.status]}"


def _about_change(
    trials: Sequence[Trial], here: Hashes, machines: Mapping[Hashes, Fingerprint], name: str
) -> Iterator[str]:
    """`driver 25.1→25.2: matmul M=512 −7%, re-ranked in 11 trials`."""
    classes = _sort_out(trials, here)
    old = [t for t in classes["suspect"] if t.outcome == "ok"]
    if not old:
        return
    before = _latest(old)
    barred = frozenset(q.candidate for q in _quarantine(classes))
    was = _class("suspect", [t for t in old if t.key.fingerprint == before], frozenset())
    now = _class("fresh", classes["fresh"], barred)
    what = _difference(before, here, machines)
    if now.best is None or was.best is None:
        yield f"{what}: {name} is used as it was until it has been measured again"
        return
    verdict = "kept" if now.best == was.best else "re-ranked"
    yield f"{what}: {name} {percent(now.seconds / was.seconds - 1)}, {verdict} in {_count(now.trials, 'trial')}"


def changed(trials: Sequence[Trial], here: Hashes, machines: Mapping[Hashes, Fingerprint]) -> str:
    """What became of the software since the suspect trials were taken: `generator 4→5, threads 1→2`; empty without such trials."""
    old = [t for t in _sort_out(trials, here)["suspect"] if t.outcome == "ok"]
    return _difference(_latest(old), here, machines) if old else ""


def _latest(trials: Sequence[Trial]) -> Hashes:
    return max(trials, key=lambda t: (t.time, t.id)).key.fingerprint


def _difference(before: Hashes, here: Hashes, machines: Mapping[Hashes, Fingerprint]) -> str:
    if before in machines and here in machines:
        return ", ".join(c.text for c in changes(machines[before], machines[here]) if c.level == "software") or "other software"
    return "other software"


def _about_rivals(ranking: Ranking) -> Iterator[str]:
    won = ranking.winner
    if won is None:
        return
    rivals = [s for s in ranking.standings if s.candidate != won.candidate and s.status == won.status]
    ties = [s for s in rivals if s.tie]
    if ties:
        yield f"{_count(len(ties), 'other')} within the noise floor of {100 * ranking.floor:.1f}%: the simplest is taken"
    rest = [s for s in rivals if not s.tie and s.against is not None]
    if rest and rest[0].against is not None:
        ratio, low, high = rest[0].against
        yield f"next: {rest[0].candidate.text}, {percent(ratio)} (95%: {percent(low)} to {percent(high)})"
        if len(rest) > 1 and rest[-1].against is not None:
            yield f"{len(rest)} slower ones, up to {percent(rest[-1].against.ratio)}"


def _about_quarantined(found: Quarantined) -> str:
    times = "" if found.times == 1 else f" {found.times} times"
    return f"not run: {found.candidate.text}: {found.outcome.replace('_', ' ')}{times}: {'; '.join(found.reasons)[:400]}"


def percent(ratio: float) -> str:
    """`−7%`, `+0.4%`: a relative difference, in whole percents from 2 on."""
    value = 100 * ratio
    text = f"{abs(value):.0f}" if abs(value) >= 2 else f"{abs(value):.1f}"
    return f"{'±' if text == '0.0' else '−' if value < 0 else '+'}{text}%"


def duration(seconds: float) -> str:
    """`1.84 ms`: three digits and the unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
