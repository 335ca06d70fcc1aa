"""`tridsl tune`: search for better schedules of ops at sizes, and keep what was learned."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tridsl.autotune.request import Progress, Result
from tridsl.autotune.tune import tune
from tridsl.cli.output import INTERRUPTED, NOTHING_MEASURED, OK, USER, Report, diagnostic_data
from tridsl.cli.settings import Settings
from tridsl.cli.subjects import Question, Subject, subjects
from tridsl.cli.targets import services_for
from tridsl.diagnostics import Diagnostic, TriError, error
from tridsl.personality.belief import duration, percent
from tridsl.personality.store import Store
from tridsl.structs import dataclass

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
LINE_SECONDS = 5.0
"""Where there is no terminal, a line of progress is printed this often at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The arguments of the command, as written."""

    question: Question
    budget: str = "60s"
    strategy: str = "ranked"
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one subject: a result, or the user's mistake."""

    subject: Subject
    result: Result | None = None
    problem: TriError | None = None


def run(options: Options, settings: Settings) -> Report:
    """Tune every subject within the budget. E0804, E0955, and what naming and compiling the ops raises. Status 3 when nothing was
    measured, 1 when an op could not be compiled, 130 when it was interrupted; what was measured by then is kept in every case."""
    budget = seconds(options.budget)
    notes: list[Diagnostic] = []
    store = Store(settings.personality, report=notes.append)
    wanted = subjects(options.question, services_for(settings), settings)
    outcomes: list[Outcome] = []
    interrupted = False
    end = time.monotonic() + budget
    with Screen(settings, len(wanted)) as screen:
        for number, subject in enumerate(wanted):
            share = max(0.0, end - time.monotonic()) / (len(wanted) - number)
            try:
                screen.begin(number, subject)
                result = tune(subject.request, budget_seconds=share, strategy=options.strategy, seed=options.seed, store=store, on_progress=screen.show)
            except TriError as problem:
                if len(wanted) == 1 or problem.code == "E0955":
                    raise
                outcomes.append(Outcome(subject=subject, problem=problem))
                continue
            except KeyboardInterrupt:
                interrupted = True
                break
            outcomes.append(Outcome(subject=subject, result=result))
            if result.state == "interrupted":
                interrupted = True
                break
    return _report(outcomes, notes, store, wanted, interrupted)


def seconds(text: str) -> float:
    """`60s`, `5m`, `1.5h`, `90`. E0804."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not found or found[2] not in _UNITS or float(found[1]) <= 0:
        raise error("E0804", f"--budget {text}: this is no time", help="write --budget 60s, 5m or 1h")
    return float(found[1]) * _UNITS[found[2]]


class Screen:
    """Progress on stderr: one live block on a terminal, a line now and then elsewhere."""

    def __init__(self, settings: Settings, count: int) -> None:
        self._console = Console(stderr=True, no_color=not settings.colour, highlight=False, width=settings.width)
        self._live = Live(console=self._console, transient=True, auto_refresh=False) if self._console.is_terminal else None
        self._count, self._title = count, ""
        self._printed, self._last = 0.0, ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, number: int, subject: Subject) -> None:
        self._title = (f"[{number + 1}/{self._count}] " if self._count > 1 else "") + subject.title
        if self._live is None:
            print(self._title, file=sys.stderr, flush=True)

    def show(self, progress: Progress) -> None:
        if self._live is not None:
            self._live.update("\n".join((self._title, *(f"  {line}" for line in progress_lines(progress)))), refresh=True)
            return
        now = time.monotonic()
        if now - self._printed >= LINE_SECONDS or progress.doing != self._last:
            print(f"  {'; '.join(progress_lines(progress))}", file=sys.stderr, flush=True)
            self._printed, self._last = now, progress.doing


def progress_lines(progress: Progress) -> tuple[str, ...]:
    """What is being done, how far, the best so far, and what failed."""
    known = f", {progress.reused} known already" if progress.reused else ""
    first = f"{progress.doing}: {progress.trials} tried{known}, {progress.elapsed_seconds:.0f} of {progress.budget_seconds:.0f} s, at most {progress.eta_seconds:.0f} s left"
    lines = [first]
    if progress.best_seconds is not None:
        share = f", {100 * progress.share:.0f}% of the roofline (predicted)" if progress.share else ""
        against = f", {percent(progress.ratio - 1)} against the default" if progress.ratio else ""
        lines.append(f"best so far {duration(progress.best_seconds)} (measured){against}{share}: {progress.best}")
    if progress.failures:
        lines.append("failed: " + ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(progress.failures.items())))
    return tuple(lines)


def _report(outcomes: list[Outcome], notes: list[Diagnostic], store: Store, wanted: tuple[Subject, ...], interrupted: bool) -> Report:
    measured = any(o.result is not None and o.result.anything for o in outcomes)
    if interrupted:
        status = INTERRUPTED
    elif not measured:
        status = NOTHING_MEASURED
    else:
        status = USER if any(o.problem is not None for o in outcomes) else OK
    left = [s.title for s in wanted[len(outcomes) :]]
    data = {
        "results": [_data(o) for o in outcomes], "store": str(store.folder), "in_memory": store.in_memory, "interrupted": interrupted,
        "not_begun": left, "notes": [diagnostic_data(n) for n in notes],
    }  # fmt: skip
    table = Table("op", "", "default", "best", "ratio (95%)", "tried", "candidate", box=None, pad_edge=False)
    lines: list[str] = []
    for outcome in outcomes:
        table.add_row(*_row(outcome))
        lines += _sentences(outcome)
    if left:
        lines.append(f"not begun: {', '.join(left)}")
    if interrupted:
        lines.append("interrupted: everything that was measured is kept, and the same command goes on from there")
    lines += [n.render() for n in notes]
    return Report(data=data, text=(table, "times are measured", *lines) if outcomes else tuple(lines or ["nothing was measured"]), status=status)


def _row(outcome: Outcome) -> tuple[str, ...]:
    title, result = outcome.subject.title, outcome.result
    if result is None:
        assert outcome.problem is not None
        return title, "not compiled", "", "", "", "", outcome.problem.diagnostics[0].message
    standings = {s.candidate: s for s in result.ranking.standings}
    default, won = standings.get(result.incumbent), standings.get(result.winner) if result.winner else None
    if won is None:
        return title, result.state, duration(default.seconds) if default else "", "", "", str(result.trials), ""
    ratio = ""
    if won.against is not None and won.candidate != result.incumbent:
        ratio = f"{percent(won.against.ratio)} ({percent(won.against.low)} to {percent(won.against.high)})"
    tried = str(result.trials) + (f" + {result.reused} known" if result.reused else "")
    return title, result.state, duration(default.seconds) if default else "", duration(won.seconds), ratio, tried, won.candidate.text


def _sentences(outcome: Outcome) -> list[str]:
    """Notes of the session, and what became of candidates that failed, each reason once."""
    result = outcome.result
    if result is None:
        return [str(outcome.problem)]
    found = [f"{outcome.subject.title}: {note}" for note in result.notes]
    shown = list(result.reasons.items())
    found += [f"  put aside: {candidate}: {reason}" for candidate, reason in shown[:5]]
    return found + ([f"  and {len(shown) - 5} more; `tridsl why {outcome.subject.operation}` lists them"] if len(shown) > 5 else [])


def _data(outcome: Outcome) -> Mapping[str, Any]:
    basics: dict[str, Any] = {"operation": outcome.subject.operation, "subject": outcome.subject.title}
    result = outcome.result
    if result is None:
        assert outcome.problem is not None
        return basics | {"state": "not compiled", "errors": [diagnostic_data(d) for d in outcome.problem.diagnostics]}
    standings = {s.candidate: s for s in result.ranking.standings}
    default = standings.get(result.incumbent)
    against = standings[result.winner].against if result.winner in standings else None
    return basics | {
        "state": result.state, "label": "measured", "trials": result.trials, "reused": result.reused,
        "elapsed_seconds": result.elapsed_seconds, "noise_floor": result.floor,
        "default": {"candidate": result.incumbent.text, "seconds": default.seconds if default else None},
        "winner": None if result.winner is None else {"id": result.winner.id, "candidate": result.winner.text, "seconds": result.seconds},
        "ratio": None if against is None else {"ratio": 1 + against.ratio, "low": 1 + against.low, "high": 1 + against.high},
        "roofline": {"seconds": result.ideal_seconds, "label": "predicted"},
        "failures": dict(result.failures), "reasons": dict(result.reasons), "notes": list(result.notes),
    }  # fmt: skip
