"""What `why` and `personality` share: the store with what it reports, a subject's evidence, and how both are shown."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from tridsl.cli.output import OK, Report, diagnostic_data
from tridsl.cli.settings import Settings
from tridsl.cli.subjects import Question, Subject
from tridsl.diagnostics import Diagnostic, TriError
from tridsl.personality import belief
from tridsl.personality.belief import Ranking, Standing, Status
from tridsl.personality.candidate import Candidate, TypeName
from tridsl.personality.evidence import Key, Pin, Trial
from tridsl.personality.lines import Skipped
from tridsl.personality.store import Store
from tridsl.structs import dataclass, replace

SHORT = 8
"""Hexadecimal digits of a candidate's identity that tables show; `pin` takes any number from `LEAST` on."""
LEAST = 4

LABELS: Mapping[Status, str] = {"fresh": "measured", "suspect": "measured", "prior": "measured elsewhere"}
"""What a time is: `measured` means on this machine."""


class Notes(list[Diagnostic]):
    """What a store reports, to be shown beside the answer; that something cannot be read is said once."""

    def __call__(self, diagnostic: Diagnostic) -> None:
        if diagnostic.code != "E0905" or all(known.code != "E0905" for known in self):
            self.append(diagnostic)


def open_store(settings: Settings) -> tuple[Store, Notes]:
    """The user's evidence. A folder that is missing is empty; one that cannot be read is a note (E0905)."""
    notes = Notes()
    store = Store(settings.personality, report=notes)
    for problem in _unreadable(store.folder):
        notes(problem)
    return store, notes


def open_whole_store(settings: Settings) -> tuple[Store, Notes]:
    """For who would be misled by a part. Raises TriError E0905 for a folder that cannot be read."""
    store, notes = open_store(settings)
    if notes:
        raise TriError(*notes)
    return store, notes


def kept(store: Store, notes: Notes) -> None:
    """Raises TriError E0902 when what was added is only in memory: this process ends now."""
    if store.in_memory:
        raise TriError(*(note for note in notes if note.code == "E0902"))


def _unreadable(folder: Path) -> Iterator[Diagnostic]:
    """A folder that cannot be listed looks like an empty one to a glob, so each is opened here."""
    problems: list[OSError] = []
    try:
        os.scandir(folder).close()
        for _ in os.walk(folder / "evidence", onerror=problems.append):
            pass
    except OSError as told:
        problems.append(told)
    for problem in problems:
        if problem.errno != errno.ENOENT:
            yield Diagnostic(
                code="E0905",
                message=f"a folder of the personality cannot be read: {os.strerror(problem.errno or errno.EIO)}",
                notes=(f"what is in {problem.filename} does not count",),
                help="give permission to read it, or set TRIDSL_PERSONALITY to a folder of yours",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The evidence of a subject at a place (`key.fingerprint`). `reference`: whom the ratios of `ranking` refer to: the winner, or
    the best candidate when a pin was never measured."""

    key: Key
    trials: tuple[Trial, ...]
    pin: Pin | None
    ranking: Ranking
    reference: Candidate | None

    @property
    def served(self) -> str:
        """`winner`, or `default`: the automatic schedule, as long as the winner is a prior or there is none."""
        won = self.ranking.winner
        return "winner" if won is not None and won.servable else "default"

    @property
    def ties(self) -> bool:
        """Whether more than one candidate of a class cannot be told from its fastest."""
        tied = [s.status for s in self.ranking.standings if s.tie]
        return len(tied) > len(set(tied))

    @property
    def floor_label(self) -> str:
        """What the noise floor is: of the class of the reference."""
        return next((LABELS[s.status] for s in self.ranking.standings if s.candidate == self.reference), "measured")

    @property
    def standing(self) -> Standing | None:
        """The winner's; None without a winner, and for a pin that was never measured."""
        won = self.ranking.winner
        return None if won is None else next((s for s in self.ranking.standings if s.candidate == won.candidate), None)


def known(store: Store, key: Key) -> Known:
    """What the store has of the key's subject."""
    trials, pin = store.trials(key), store.pinned(key)
    chosen = pin.candidate if pin is not None else None
    best = belief.rank(trials, key.fingerprint)
    reference = best.winner.candidate if best.winner is not None else None
    if chosen is None:
        return Known(key=key, trials=trials, pin=pin, ranking=best, reference=reference)
    if any(s.candidate == chosen for s in best.standings):
        reference = chosen
    ranking = belief.rank(trials, key.fingerprint, incumbent=reference, pin=chosen)
    return Known(key=key, trials=trials, pin=pin, ranking=ranking, reference=reference)


# As data and as text ------------------------------------------------------------------------------------------------------


def short(candidate: Candidate) -> str:
    """The beginning of its identity, as `pin` takes it."""
    return candidate.id[:SHORT]


def candidate_data(candidate: Candidate) -> dict[str, Any]:
    """`point`: values of the tunables by name."""
    point = {name: value.dtype if isinstance(value, TypeName) else value for name, value in candidate.point}
    return {"id": candidate.id, "candidate": candidate.text, "point": point}


def key_data(key: Key) -> dict[str, Any]:
    """What a subject is: `subject` is its identity, `title` its name for people."""
    return {
        "subject": key.subject, "title": key.text, "op": key.op, "bucket": key.bucket, "dtypes": dict(key.dtypes), "layouts": dict(key.layouts),
        "device": key.device, "kernel": key.kernel,
    }  # fmt: skip


def winner_data(found: Known) -> dict[str, Any] | None:
    """`seconds` None: a pin that was never measured. `trials`: that the choice rests on."""
    won = found.ranking.winner
    if won is None:
        return None
    label = LABELS[found.standing.status] if found.standing is not None else None
    return {**candidate_data(won.candidate), "status": won.status, "seconds": won.seconds, "label": label, "trials": won.trials}


def skipped_data(skipped: Mapping[Path, Iterable[Skipped]]) -> list[dict[str, Any]]:
    """Lines that do not count; `offset` in bytes."""
    return [{"file": str(path), **line._asdict()} for path, lines in sorted(skipped.items()) for line in lines]


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def command_line(verb: str, question: Question, *more: str) -> str:
    """What to type to do this (`tune`, `why`, `personality forget`) to exactly these subjects."""
    words = ["tridsl", *verb.split(), question.operation]
    for option, texts in (("--shape", question.shape), ("--set", question.values), ("--layout", question.layouts)):
        words += [option, ",".join(texts)] if texts else []
    words += ["--device", question.device]
    if question.threads and verb != "personality forget":  # what is forgotten is forgotten for every number of threads
        words += ["--threads", str(question.threads)]
    return shlex.join((*words, *more))


def asked(question: Question, subject: Subject) -> Question:
    """The part of a question that is this subject's: its op and device. Bench blocks stay as they are."""
    return replace(question, operation=subject.operation, device=str(subject.request.device))


def table(*columns: str, fixed: Iterable[str] = ()) -> Table:
    """An empty table; the columns of `fixed` are never broken."""
    made = Table(box=None, pad_edge=False)
    for name in columns:
        made.add_column(name, no_wrap=name in tuple(fixed), overflow="fold")
    return made


def add_row(to: Table, *cells: str) -> None:
    """Texts of bundles come from anywhere: neither markup nor control characters are obeyed."""
    to.add_row(*(Text(safe(cell)) for cell in cells))


def safe(text: str) -> str:
    """What a terminal would obey becomes `?`; line ends stay."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def report(data: Mapping[str, Any], text: Iterable[Any], notes: Iterable[Diagnostic], status: int = OK) -> Report:
    """A report with its notes: behind the text, and in the data as `notes`."""
    told = tuple(notes)
    lines = tuple(safe(part) if isinstance(part, str) else part for part in text)
    below = tuple(safe("\n" + note.render().replace("error[", "note[", 1)) for note in told)
    return Report(data={**data, "notes": [diagnostic_data(note) for note in told]}, text=(*lines, *below), status=status)
