"""The evidence on this machine: one journal a subject, and nothing else that could be wrong.

    <folder>/machines.jsonl                     facts behind the hashes of fingerprints
    <folder>/evidence/<kernel>/<subject>.jsonl  trials, pins and forgotten records of one subject (kernel, bucket, types, …)
    <folder>/winners/<subject>.<place>          the answer of `belief.winner` for a state of the journal; may be deleted

The journals are the truth. They need no index beside them, because their names are one: a look-up by key opens one small file,
"the same kernel in other sizes" one directory, and processes that tune different things never wait for each other. That is why
`diskcache` is not used: importing it and opening its SQLite file cost more than reading the evidence of a subject; it
stores what it does not know with `pickle` (CVE-2025-69872) and evicts unless told otherwise; its database can be corrupted, and
must then be noticed and rebuilt. Nothing here can get out of step with the journals: a remembered winner names the state of
the file it was derived from and is derived again when that is another.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from tridsl.diagnostics import Diagnostic
from tridsl.environment import personality_folder
from tridsl.personality import belief
from tridsl.personality.belief import Winner
from tridsl.personality.candidate import Candidate
from tridsl.personality.evidence import Forget, Key, Pin, Record, Trial, identity, subject_of
from tridsl.personality.fingerprint import Fingerprint, Hashes
from tridsl.personality.journal import PATIENCE_SECONDS, Journal, append, better, stamp_of
from tridsl.personality.lines import Skipped, write
from tridsl.whole_files import write_whole

_SHORT_PATIENCE_SECONDS = 0.05
"""Once a write has failed, later ones do not hold up the tuning."""


def warn(diagnostic: Diagnostic) -> None:
    """The default report: a RuntimeWarning."""
    warnings.warn(diagnostic.render(), RuntimeWarning, stacklevel=4)


class _Remembered(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A winner and what it follows from; `check` is the hash of the rest."""

    version: int
    stamp: tuple[int, int, int]
    here: Hashes
    winner: Winner | None
    check: str = ""

    def checked(self) -> _Remembered:
        bare = msgspec.structs.replace(self, check="")
        return msgspec.structs.replace(self, check=hashlib.blake2b(msgspec.json.encode(bare), digest_size=16).hexdigest())


_REMEMBERED = msgspec.json.Decoder(_Remembered)


class Store:
    """The evidence in `folder` (made, mode 0700, by the first write). Safe with many processes and threads.

    What cannot be written stays in memory, counts like the rest and is tried again with each `add`; `report` is told once
    (E0902, E0905 for files that cannot be read), and once of each line that does not count (E0901).
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        report: Callable[[Diagnostic], None] = warn,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.folder = folder or personality_folder()
        self._report = report
        self._patience = patience
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._journals: dict[Path, Journal] = {}
        self._pending: dict[Path, dict[str, Record]] = {}
        self._told: set[tuple[Path, int]] = set()
        self._said_unreadable = False
        self._said_unwritable = False
        self._winners: dict[tuple[str, Hashes], tuple[tuple[int, ...], Winner | None]] = {}

    def add(self, *records: Trial | Pin | Forget) -> bool:
        """Keep records: on the disk on return, in one write a subject; whether all are (else they are in memory).

        Raises ValueError, before anything is kept, for a record whose values are out of range.
        """
        return self._add([(self._place(record), record) for record in records])

    def know(self, fingerprint: Fingerprint) -> None:
        """Keep the facts behind a fingerprint's hashes, once."""
        lasting = fingerprint.lasting
        with self._alone():
            if lasting.hashes not in self.machines():
                self._add([(self._machines, lasting)])

    def trials(self, key: Key) -> tuple[Trial, ...]:
        """All trials of the key's subject that are not forgotten, from every fingerprint, by identity."""
        return _trials(self._records(self._path(key.kernel, key.subject)))

    def related(self, key: Key) -> tuple[Trial, ...]:
        """Trials of the same kernel in all shapes, types, layouts and on all devices: what a new shape starts from."""
        return tuple(t for path in self._paths(key.kernel) for t in _trials(self._records(path)))

    def winner(self, key: Key) -> Winner | None:
        """`belief.winner` of the key's subject at the key's fingerprint. Cheap: one `stat` when the journal is as it was."""
        path, here = self._path(key.kernel, key.subject), key.fingerprint
        with self._alone():
            stamp = self._stamp(path)
            unwritten = len(self._pending.get(path, ()))
            known = self._winners.get((key.subject, here))
            if known is not None and known[0] == (*stamp, unwritten):
                return known[1]
            if not stamp[1] and not unwritten:
                return None
            note = self.folder / "winners" / f"{key.subject}.{here.software}"
            found = None if unwritten else _recall(note, stamp, here)
            if found is None:
                records = self._records(path)
                pin = _pin(records)
                won = belief.winner(_trials(records), here, pin=pin.candidate if pin else None)
                found = _Remembered(version=belief.VERSION, stamp=stamp, here=here, winner=won)
                if not unwritten:
                    _remember(note, found)
            self._winners[key.subject, here] = (*stamp, unwritten), found.winner
            return found.winner

    def pinned(self, key: Key) -> Pin | None:
        """The pin of the key's subject that holds."""
        return _pin(self._records(self._path(key.kernel, key.subject)))

    def pin(self, key: Key, candidate: Candidate, time: float) -> bool:
        """Use `candidate` for the key's subject from now on (`time`, seconds since 1970), whatever the evidence says."""
        return self.add(Pin(key=key, candidate=candidate, time=time))

    def forget(self, key: Key, time: float, *, pins_only: bool = False) -> int:
        """Let all records of the key's subject count no longer, or its pins only; how many there were."""
        records = self._records(self._path(key.kernel, key.subject))
        ids = sorted(name for name, record in records.items() if isinstance(record, (Pin,) if pins_only else (Pin, Trial)))
        chunks = [tuple(ids[start : start + 20_000]) for start in range(0, len(ids), 20_000)]
        self.add(*(Forget(kernel=key.kernel, subject=key.subject, ids=chunk, time=time) for chunk in chunks))
        return len(ids)

    def machines(self) -> Mapping[Hashes, Fingerprint]:
        """Every fingerprint that is known, by its hashes."""
        return {r.hashes: r for r in self._records(self._machines).values() if isinstance(r, Fingerprint)}

    def subjects(self) -> tuple[Key, ...]:
        """One key a subject and fingerprint that has evidence or a pin, by text."""
        found: dict[tuple[str, Hashes], Key] = {}
        for path in self._paths():
            for record in self._records(path).values():
                if isinstance(record, (Trial, Pin)):
                    found.setdefault((record.key.subject, record.key.fingerprint), record.key)
        return tuple(sorted(found.values(), key=lambda key: (key.text, key.subject, str(key.fingerprint))))

    def records(self) -> Iterator[Record]:
        """Everything, forgotten or not, by file and identity: what a bundle takes along."""
        for path in (self._machines, *self._paths()):
            with self._alone():
                records = self._all(path)
            yield from (records[name] for name in sorted(records))

    def skipped(self) -> dict[Path, tuple[Skipped, ...]]:
        """By file, the lines that do not count."""
        for path in (self._machines, *self._paths()):
            self._all(path)
        return {path: tuple(j.skipped.values()) for path, j in self._journals.items() if j.skipped}

    @property
    def in_memory(self) -> int:
        """Records that could not be written so far."""
        return sum(map(len, self._pending.values()))

    def _alone(self) -> AbstractContextManager[bool]:
        """The lock among threads; a new one after a fork, because nobody may be left to give the old one back."""
        if os.getpid() != self._process:
            self._lock, self._process = threading.RLock(), os.getpid()
        return self._lock

    @property
    def _machines(self) -> Path:
        return self.folder / "machines.jsonl"

    def _path(self, kernel: str, subject: str) -> Path:
        return self.folder / "evidence" / kernel / f"{subject}.jsonl"

    def _place(self, record: Trial | Pin | Forget) -> Path:
        return self._path(record.kernel if isinstance(record, Forget) else record.key.kernel, subject_of(record))

    def _paths(self, kernel: str = "*") -> list[Path]:
        """Journals of subjects, those that are only in memory too."""
        folder = self.folder / "evidence"
        try:
            found = set(folder.glob(f"{kernel}/*.jsonl"))
        except OSError:
            found = set()
        found |= {p for p in self._pending if p != self._machines and kernel in ("*", p.parent.name)}
        return sorted(found)

    def _add(self, records: list[tuple[Path, Record]]) -> bool:
        lines = [(path, record, write(record)) for path, record in records]  # all are looked at before one is kept
        with self._alone():
            for path, record, _ in lines:
                self._pending.setdefault(path, {})[identity(record)] = record
            for path in list(self._pending):
                self._flush(path)
            return not self._pending

    def _flush(self, path: Path) -> None:
        try:
            self._secure()
            patience = _SHORT_PATIENCE_SECONDS if self._said_unwritable else self._patience
            append(path, b"".join(map(write, self._pending[path].values())), patience=patience)
        except OSError as problem:
            self._say_unwritable(problem)
            return
        del self._pending[path]

    def _secure(self) -> None:
        """The folder, for its owner only."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        told = os.stat(self.folder)
        if stat.S_IMODE(told.st_mode) & 0o077 and told.st_uid == os.geteuid():
            os.chmod(self.folder, stat.S_IMODE(told.st_mode) & 0o700)

    def _say_unwritable(self, problem: OSError) -> None:
        if self._said_unwritable:
            return
        self._said_unwritable = True
        self._report(
            Diagnostic(
                code="E0902",
                message=f"the personality cannot be kept on the disk: {os.strerror(problem.errno or errno.EIO)}",
                notes=(f"{self.folder} cannot be written; what is measured stays in memory and is lost with the process",),
                help="make room or give permission; what is in memory is then written with the next trial",
            )
        )

    def _say_unreadable(self, path: Path, problem: OSError) -> None:
        if self._said_unreadable or self._said_unwritable:
            return
        self._said_unreadable = True
        self._report(
            Diagnostic(
                code="E0905",
                message=f"a file of the personality cannot be read: {os.strerror(problem.errno or errno.EIO)}",
                notes=(f"{path} does not count",),
                help="give permission to read it, or remove it",
            )
        )

    def _stamp(self, path: Path) -> tuple[int, int, int]:
        try:
            return stamp_of(path)
        except OSError:
            return 0, 0, 0

    def _records(self, path: Path) -> dict[str, Record]:
        """The records that count: of this file's subject, and not forgotten."""
        with self._alone():
            records = self._all(path)
        gone = {name for record in records.values() if isinstance(record, Forget) for name in record.ids}
        return {name: records[name] for name in sorted(records) if name not in gone}

    def _all(self, path: Path) -> dict[str, Record]:
        journal = self._journals.setdefault(path, Journal(path, _belongs(path)))
        try:
            if journal.refresh():
                self._say_skipped(journal)
        except OSError as problem:
            self._say_unreadable(path, problem)
        pending = self._pending.get(path)
        if not pending:
            return journal.records
        return journal.records | {name: better(journal.records.get(name), record) for name, record in pending.items()}

    def _say_skipped(self, journal: Journal) -> None:
        new = [s for s in journal.skipped.values() if (journal.path, s.offset) not in self._told]
        if not new:
            return
        self._told |= {(journal.path, s.offset) for s in new}
        shown = tuple(s.text for s in new[:3]) + ((f"and {len(new) - 3} more",) if len(new) > 3 else ())
        count = "a line" if len(new) == 1 else f"{len(new)} lines"
        self._report(
            Diagnostic(
                code="E0901",
                message=f"{count} of the personality were skipped" if len(new) > 1 else f"{count} of the personality was skipped",
                notes=(f"in {journal.path}", *shown),
                help="everything else counts; nothing has to be done",
            )
        )


def _belongs(path: Path) -> Callable[[Record], bool]:
    """Whether a record is where it was put: not spliced in from another journal."""
    if path.name == "machines.jsonl":
        return lambda record: isinstance(record, Fingerprint)
    return lambda record: not isinstance(record, Fingerprint) and subject_of(record) == path.stem


def _trials(records: Mapping[str, Record]) -> tuple[Trial, ...]:
    return tuple(record for record in records.values() if isinstance(record, Trial))


def _pin(records: Mapping[str, Record]) -> Pin | None:
    """The latest; of several at one time, always the same."""
    pins = [record for record in records.values() if isinstance(record, Pin)]
    return max(pins, key=lambda pin: (pin.time, pin.id), default=None)


def _recall(note: Path, stamp: tuple[int, int, int], here: Hashes) -> _Remembered | None:
    """What was remembered, when it is intact and follows from this state of the journal."""
    try:
        found = _REMEMBERED.decode(note.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if (found.version, found.stamp, found.here) != (belief.VERSION, stamp, here) or found.checked() != found:
        return None
    return found


def _remember(note: Path, found: _Remembered) -> None:
    """Atomically. Not being able to costs the time to rank again."""
    try:
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(note, msgspec.json.encode(found.checked()))
    except OSError:
        return
