"""`tridsl why`: what is served for an op, and the evidence that says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tridsl.autotune.cost import Cost, roofline
from tridsl.autotune.predicted import Predictor
from tridsl.backend import HOST_KINDS
from tridsl.cli.evidence import (
    LABELS,
    Known,
    add_row,
    asked,
    candidate_data,
    command_line,
    count,
    key_data,
    known,
    open_store,
    report,
    short,
    table,
    winner_data,
)
from tridsl.cli.output import Report
from tridsl.cli.settings import Settings
from tridsl.cli.subjects import Question, Subject, subjects
from tridsl.cli.targets import services_for
from tridsl.devices.answers import Row
from tridsl.diagnostics import TriError
from tridsl.personality import belief
from tridsl.personality.belief import Quarantined, Standing, duration, percent
from tridsl.personality.store import Store
from tridsl.schedule.automatic import unused_answers
from tridsl.schedule.shipped import row_for
from tridsl.schedule.text import text_schedule
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """All that is told of one subject. `ideal`: seconds of the op's roofline, predicted, None where it is not known; `cost`: of the
    winner's schedule, predicted, or why there is none (empty without a winner); `stale`: that schedule does not apply any more."""

    subject: Subject
    found: Known
    sentences: tuple[str, ...]
    command: str
    ideal: float | None
    cost: Cost | str
    stale: bool

    @property
    def served(self) -> str:
        """`winner`, or `default`: what does not compile is not served either."""
        return "default" if self.stale else self.found.served

    @property
    def share(self) -> float | None:
        """The predicted roofline over the winner's measured time."""
        won = self.found.ranking.winner
        return self.ideal / won.seconds if self.ideal and won is not None and won.seconds else None


def why(question: Question, settings: Settings, limit: int = 10) -> Report:
    """What is served for each subject and why; at most `limit` rows of each ranking as text. E0703, E0801, E0803, E0805, E0814."""
    store, notes = open_store(settings)
    answers = [_answer(store, subject, question) for subject in subjects(question, services_for(settings), settings)]
    text = [part for number, answer in enumerate(answers) for part in (*([""] if number else []), *_text(answer, limit))]
    return report({"subjects": [_data(answer) for answer in answers]}, text, notes)


def _answer(store: Store, subject: Subject, question: Question) -> _Answer:
    request = subject.request
    found = known(store, request.key)
    measured = request.subject
    ideal = roofline(measured.op, measured.device.spec, measured.sizes, threads=measured.threads)
    command = command_line("tune", asked(question, subject))
    cost, stale = _cost(subject, found)
    sentences = [*_sentences(store, found, command)]
    sentences += _shipped(subject)
    if stale:
        sentences.append("its schedule does not apply to the op any more, so the default schedule is used")
    return _Answer(
        subject=subject, found=found, sentences=tuple(sentences), command=command, ideal=ideal or None, cost=cost, stale=stale,
    )  # fmt: skip


def _sentences(store: Store, found: Known, command: str) -> Iterator[str]:
    key, won = found.key, found.ranking.winner
    if not found.trials and found.pin is None:
        yield f"{key.text}: nothing was measured yet, so the default schedule is used; `{command}` measures it"
        return
    pin = found.pin.candidate if found.pin is not None else None
    told = belief.explain(found.trials, key.fingerprint, store.machines(), pin=pin)
    # One sentence for each quarantined candidate comes last; they have a list of their own.
    yield from told[: len(told) - len(found.ranking.quarantined)]
    if won is None:
        yield f"`{command}` measures it"
    elif won.status == "prior":
        yield f"the default schedule is used until then; `{command}` tries it first"
    elif won.status == "suspect":
        yield f"`{command}` verifies it"


def _row(subject: Subject) -> Row | None:
    """The chip's shipped answers, where no schedule text goes before them."""
    request = subject.request
    op, spec = request.op, request.subject.device.spec
    return row_for(op, spec, request.sizes) if text_schedule(request.blocks, op, spec, request.sizes) is None else None


def _shipped(subject: Subject) -> Iterator[str]:
    row = _row(subject)
    if row is None:
        return
    op, spec, sizes = subject.request.op, subject.request.subject.device.spec, subject.request.sizes
    told = " ".join(f"{name}={value}" for name, value in row.answers.items())
    yield f"the default has the answers shipped for {spec.name}: {told} ({row.source}: {row.evidence})"
    unused = unused_answers(op, spec, sizes)
    if unused:
        yield f"of these, {', '.join(unused)} {'is' if len(unused) == 1 else 'are'} not possible here any more and keep{'s' if len(unused) == 1 else ''} the scheduler's own default"


def _cost(subject: Subject, found: Known) -> tuple[Cost | str, bool]:
    won = found.ranking.winner
    if won is None:
        return "", False
    standing = found.standing
    if standing is not None and standing.status == "prior":
        return "its schedule is from elsewhere and is not compiled before it is tried in a process of its own", False
    try:
        return Predictor(subject.request.subject).cost(won.candidate.schedule), False
    except TriError as problem:
        first = problem.diagnostics[0]
        return f"{first.code}: {first.message}", True


def _threads(subject: Subject) -> int | None:
    """Of the host; None for a device that has its own."""
    return subject.request.team if subject.request.device.spec.kind in HOST_KINDS else None


# As data ------------------------------------------------------------------------------------------------------------------


def _data(answer: _Answer) -> dict[str, Any]:
    found, request, ranking = answer.found, answer.subject.request, answer.found.ranking
    return {
        "operation": answer.subject.operation,
        **key_data(found.key),
        "sizes": dict(request.sizes),
        "threads": _threads(answer.subject),
        "fingerprint": msgspec.to_builtins(found.key.fingerprint),
        "served": answer.served,
        "winner": winner_data(found),
        "pin": None if found.pin is None else {**candidate_data(found.pin.candidate), "time": found.pin.time},
        "sentences": list(answer.sentences),
        "reference": None if found.reference is None else found.reference.id,
        "candidates": [_candidate(n, s) for n, s in enumerate(ranking.standings, 1)],
        "quarantined": [_quarantined(q) for q in ranking.quarantined],
        "trials": ranking.trials,
        "noise_floor": {"ratio": ranking.floor, "label": found.floor_label} if ranking.standings else None,
        "roofline": None if answer.ideal is None else {"seconds": answer.ideal, "label": "predicted"},
        "share_of_roofline": None if answer.share is None else {"ratio": answer.share, "label": "predicted"},
        "prediction": _prediction(answer.cost),
        "command": answer.command,
        "shipped": msgspec.to_builtins(_row(answer.subject)),
    }


def _candidate(rank: int, standing: Standing) -> dict[str, Any]:
    against = standing.against
    ratio = None if against is None else {"value": 1 + against.ratio, "low": 1 + against.low, "high": 1 + against.high, "confidence": 0.95}
    return {
        "rank": rank, **candidate_data(standing.candidate), "seconds": standing.seconds, "ratio": ratio, "tie": standing.tie,
        "status": standing.status, "trials": standing.trials, "samples": standing.samples, "pairs": standing.pairs,
        "label": LABELS[standing.status],
    }  # fmt: skip


def _quarantined(found: Quarantined) -> dict[str, Any]:
    more = {"outcome": found.outcome, "times": found.times, "reasons": list(found.reasons), "status": found.status}
    return {**candidate_data(found.candidate), **more}


def _prediction(cost: Cost | str) -> dict[str, Any] | None:
    if isinstance(cost, str):
        return {"missing": cost} if cost else None
    return {"seconds": cost.seconds, "bound": cost.bound, "reasons": list(cost.reasons), "label": "predicted"}


# As text ------------------------------------------------------------------------------------------------------------------


def _text(answer: _Answer, limit: int) -> Iterator[Any]:
    found, ranking = answer.found, answer.found.ranking
    threads = _threads(answer.subject)
    yield answer.found.key.text + (f", {count(threads, 'thread')}" if threads else "")
    yield from (f"  {sentence}" for sentence in answer.sentences)
    if ranking.standings:
        yield ""
        yield _ranked(found, limit)
        if len(ranking.standings) > limit:
            yield f"and {count(len(ranking.standings) - limit, 'more candidate')}: --limit {len(ranking.standings)} shows all"
    if ranking.quarantined:
        yield "\nquarantined, never run:"
        yield from (f"  {line}" for q in ranking.quarantined for line in _reasons(q))
    yield from _figures(answer)


def _ranked(found: Known, limit: int) -> Any:
    won = found.ranking.winner
    whose = "winner" if won is not None and won.candidate == found.reference else "best"  # a pin may never have been measured
    fixed = ("id", "median", "status")
    made = table("", "id", "candidate", "median", f"time over the {whose}'s (95%)", "tie", "status", "trials", "pairs", "", fixed=fixed)
    for standing in found.ranking.standings[:limit]:
        mark = "winner" if won is not None and standing.candidate == won.candidate else ""
        add_row(
            made, mark, short(standing.candidate), standing.candidate.text, duration(standing.seconds), _ratio(standing, found),
            "tie" if standing.tie and found.ties else "", standing.status, str(standing.trials), str(standing.pairs), LABELS[standing.status],
        )  # fmt: skip
    return made


def _ratio(standing: Standing, found: Known) -> str:
    if standing.against is None:
        return "never compared"
    if standing.candidate == found.reference:
        return "1"
    ratio, low, high = standing.against
    return f"{1 + ratio:.3g} ({1 + low:.3g} to {1 + high:.3g})"


def _reasons(found: Quarantined) -> Iterator[str]:
    times = "" if found.times == 1 else f" {found.times} times"
    yield f"{short(found.candidate)}  {found.candidate.text}: {found.outcome.replace('_', ' ')}{times} ({found.status})"
    yield from (f"          {reason[:400]}" for reason in found.reasons)


def _figures(answer: _Answer) -> Iterator[str]:
    standings = answer.found.ranking.standings
    if standings:
        yield f"\nnoise floor {100 * answer.found.ranking.floor:.1f}% ({answer.found.floor_label})"
    if answer.ideal is not None:
        reached = "" if answer.share is None else f"; the winner reaches {100 * answer.share:.0f}% of it"
        yield f"{'' if standings else chr(10)}roofline {duration(answer.ideal)} (predicted){reached}"
    if isinstance(answer.cost, str):
        if answer.cost:
            yield f"no predicted time of the winner: {answer.cost}"
        return
    yield f"why the winner is predicted to take {duration(answer.cost.seconds)}, bound by {answer.cost.bound}:"
    yield from (f"  {reason}" for reason in answer.cost.reasons)
    standing = answer.found.standing
    if standing is not None:
        yield f"  measured: {duration(standing.seconds)}, {percent(standing.seconds / answer.cost.seconds - 1)} against the prediction"
