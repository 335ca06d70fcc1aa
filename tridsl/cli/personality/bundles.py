"""`tridsl personality diff|export|import|merge`: evidence as files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tridsl.cli.evidence import add_row, candidate_data, count, kept, open_whole_store, report, short, table
from tridsl.cli.output import Report
from tridsl.cli.settings import Settings
from tridsl.diagnostics import Diagnostic, TriError, error
from tridsl.personality import belief, bundle
from tridsl.personality.belief import Winner
from tridsl.personality.bundle import Bundle
from tridsl.personality.evidence import Forget, Key, Pin, Record, Trial, subject_of
from tridsl.personality.fingerprint import Fingerprint
from tridsl.structs import dataclass

STORE = "."
"""How this machine's store is named among bundles."""


def export(path: Path, settings: Settings) -> Report:
    """All that the store has, as a file. A file that is no bundle is not overwritten. E0903, E0905."""
    store, notes = open_whole_store(settings)
    _overwritable(path)
    made = bundle.export(store, path)
    kinds = _kinds(made)
    text = f"{count(len(made.records), 'record')} written to {path}: {_told(kinds)}"
    return report({"file": str(path), "records": len(made.records), **kinds}, [text], notes)


def take(path: Path, settings: Settings, *, decisions: bool = False) -> Report:
    """Import what is good in a file. E0902, E0903, E0905; a file that is not sound is taken in part, with a note (E0904)."""
    store, notes = open_whole_store(settings)
    found = bundle.read(path)
    partly = bundle.report(found, path)
    taken = bundle.take(store, path, decisions=decisions)
    kept(store, notes)
    text = [f"{path}: {count(taken.new, 'record')} taken, {taken.known} known already, {count(len(taken.skipped), 'line')} skipped"]
    if taken.decisions:
        text.append(f"{count(taken.decisions, 'decision')} of others left out (pins, forgotten records): --decisions takes them too")
    if taken.new:
        text.append("Imported evidence is a prior: a hint that is not served until its winner has run on this machine.")
        text.append("`tridsl personality verify` prints the commands that try them.")
    data = {
        "file": str(path), "new": taken.new, "known": taken.known, "decisions_left_out": taken.decisions, "complete": found.complete,
        "skipped": [line._asdict() for line in taken.skipped],
    }  # fmt: skip
    return report(data, text, [*([partly] if partly is not None else []), *notes])


def merge(output: Path, files: tuple[Path, ...]) -> Report:
    """The union of bundles as a new one; the store is not looked at. E0903, E0905; notes (E0904) for files that are not sound."""
    found = [(path, bundle.read(path)) for path in files]
    _overwritable(output)
    union = bundle.merge(*(one for _, one in found))
    bundle.write(union, output)
    kinds = _kinds(union)
    notes = [note for path, one in found if (note := bundle.report(one, path)) is not None]
    inputs = [{"file": str(path), "records": len(one.records), "skipped": len(one.skipped), "complete": one.complete} for path, one in found]
    text = [f"{path}: {count(len(one.records), 'record')}" for path, one in found]
    text.append(f"{output}: {count(len(union.records), 'record')}: {_told(kinds)}")
    return report({"file": str(output), "records": len(union.records), **kinds, "inputs": inputs}, text, notes)


def _overwritable(path: Path) -> None:
    """E0903 for a file that is something else: a name that was meant for another argument costs nobody a file."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    try:
        bundle.read(path)
    except TriError as problem:
        if problem.code != "E0903":
            raise
        raise error("E0903", f"`{path}` is there and is no bundle, so it is not overwritten", help="name another file, or remove this one") from None


def _kinds(of: Bundle) -> dict[str, int]:
    names = {Trial: "trials", Pin: "pins", Forget: "forgotten", Fingerprint: "machines"}
    counts = Counter(names[type(record)] for record in of.records.values())
    return {name: counts[name] for name in names.values()}


def _told(kinds: Mapping[str, int]) -> str:
    return f"{count(kinds['trials'], 'trial')}, {count(kinds['pins'] + kinds['forgotten'], 'decision')}, {count(kinds['machines'], 'machine')}"


# Differences --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """What one side has of a subject. `trials`: how many the other side lacks, `decisions` likewise; `winner`: as it was served
    where the side's latest own trial was taken."""

    trials: int
    decisions: int
    winner: Winner | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    key: Key
    left: _Side
    right: _Side
    both: int

    @property
    def differ(self) -> bool:
        """Whether both sides have a winner, and not the same."""
        left, right = self.left.winner, self.right.winner
        return left is not None and right is not None and left.candidate != right.candidate


def diff(left: str, right: str, settings: Settings) -> Report:
    """What two bundles, or a bundle and this machine's store (`.`), know of each subject. E0903, E0905."""
    notes: list[Diagnostic] = []
    sides = [_read(name, settings, notes) for name in (left, right)]
    names = bundle.difference(*sides)
    found = tuple(_compare(sides[0], sides[1], {*names.left}, {*names.right}))
    shown = [c for c in found if c.differ or any((c.left.trials, c.left.decisions, c.right.trials, c.right.decisions))]
    data = {
        "left": left, "right": right, "same": not names.left and not names.right, "records": {"left": len(names.left), "right": len(names.right), "both": len(names.both)},
        "subjects": [_data(c) for c in found],
    }  # fmt: skip
    return report(data, _text(left, right, found, shown), notes)


def _read(name: str, settings: Settings, notes: list[Diagnostic]) -> Bundle:
    if name == STORE:
        store, told = open_whole_store(settings)
        made = bundle.of(store.records())
        notes += told
        return made
    found = bundle.read(Path(name))
    partly = bundle.report(found, Path(name))
    notes += [partly] if partly is not None else []
    return found


def _compare(left: Bundle, right: Bundle, only_left: set[str], only_right: set[str]) -> Iterator[_Compared]:
    mine, theirs = _by_subject(left), _by_subject(right)
    found = []
    for subject in mine.keys() | theirs.keys():
        one, other = mine.get(subject, {}), theirs.get(subject, {})
        keys = [record.key for record in (*one.values(), *other.values()) if isinstance(record, (Trial, Pin))]
        if keys:  # a forgotten record alone does not say of what it was
            both = sum(isinstance(record, Trial) for name, record in one.items() if name in other)
            key = min(keys, key=lambda key: (key.text, str(key.fingerprint)))
            found.append(_Compared(key=key, left=_side(one, only_left), right=_side(other, only_right), both=both))
    yield from sorted(found, key=lambda c: (c.key.text, c.key.subject))


def _by_subject(of: Bundle) -> dict[str, dict[str, Record]]:
    found: dict[str, dict[str, Record]] = {}
    for name, record in of.records.items():
        if not isinstance(record, Fingerprint):
            found.setdefault(subject_of(record), {})[name] = record
    return found


def _side(records: Mapping[str, Record], only: set[str]) -> _Side:
    own = [record for name, record in records.items() if name in only]
    trials = sum(isinstance(record, Trial) for record in own)
    return _Side(trials=trials, decisions=len(own) - trials, winner=_winner(records))


def _winner(records: Mapping[str, Record]) -> Winner | None:
    gone = {name for record in records.values() if isinstance(record, Forget) for name in record.ids}
    counting = [record for name, record in records.items() if name not in gone]
    trials = [record for record in counting if isinstance(record, Trial)]
    pin = max((record for record in counting if isinstance(record, Pin)), key=lambda p: (p.time, p.id), default=None)
    latest = max(trials, key=lambda t: (not t.origin, t.time, t.id), default=None)  # what was imported says nothing of this side's place
    place = latest or pin
    return None if place is None else belief.winner(trials, place.key.fingerprint, pin=pin.candidate if pin is not None else None)


def _data(compared: _Compared) -> dict[str, Any]:
    key = compared.key
    sides = {
        name: {"trials": side.trials, "decisions": side.decisions, "winner": None if side.winner is None else {**candidate_data(side.winner.candidate), "status": side.winner.status}}
        for name, side in (("left", compared.left), ("right", compared.right))
    }  # fmt: skip
    return {"subject": key.subject, "title": key.text, "op": key.op, "bucket": key.bucket, "device": key.device, **sides, "both": compared.both, "winners_differ": compared.differ}


def _text(left: str, right: str, found: tuple[_Compared, ...], shown: list[_Compared]) -> Iterator[Any]:
    yield f"left: {_name(left)}\nright: {_name(right)}"
    if not shown:
        yield f"both have the same evidence of {count(len(found), 'subject')}"
        return
    yield ""
    made = table("subject", "only left", "only right", "both", "winner left", "winner right", "", fixed=("winner left", "winner right"))
    for c in shown:
        winners = ("" if w is None else f"{short(w.candidate)} {w.status}" for w in (c.left.winner, c.right.winner))
        add_row(made, c.key.text, _only(c.left), _only(c.right), count(c.both, "trial"), *winners, "winners differ" if c.differ else "")
    yield made
    if len(found) > len(shown):
        yield f"{count(len(found) - len(shown), 'subject')} more with the same evidence on both sides"


def _only(side: _Side) -> str:
    parts = [count(number, noun) for number, noun in ((side.trials, "trial"), (side.decisions, "decision")) if number]
    return ", ".join(parts) or "nothing"


def _name(side: str) -> str:
    return "this machine's store" if side == STORE else side
