"""Evidence as one file, to be carried from machine to machine: a first line that says so, then the records as journals have
them, by identity. What a bundle says is a set, so merging is union.

A bundle comes from anywhere. It is read line by line within limits, each record is checked like one of a journal, and nothing
in it is executed. Trials that are taken get the bundle's name as their origin, which makes them priors: a candidate that wins
by them is run in a worker process here before it is served. Decisions of others - pins, forgotten records - are left out unless
they are asked for.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType

import msgspec

from tridsl.diagnostics import Diagnostic, TriError, error
from tridsl.personality.evidence import Forget, Pin, Record, Trial, identity
from tridsl.personality.fingerprint import Fingerprint
from tridsl.personality.journal import better
from tridsl.personality.lines import FORMAT, Skipped, Unusable, judge, pieces
from tridsl.personality.lines import write as write_line
from tridsl.personality.store import Store
from tridsl.structs import dataclass

MAGIC = "tridsl personality"
LARGEST = 1 << 30
"""Bytes of a bundle that are looked at."""


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`digest`: hash over the records' identities in their order."""

    bundle: str
    format: int
    records: int
    digest: str


class _Version(msgspec.Struct, frozen=True, kw_only=True):
    bundle: str
    format: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A set of records by identity. `skipped`: lines of its file that do not count; `complete`: all that its first line promises
    is there."""

    records: Mapping[str, Record]
    skipped: tuple[Skipped, ...] = field(default=(), compare=False)
    complete: bool = field(default=True, compare=False)

    @property
    def sound(self) -> bool:
        return self.complete and not self.skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Identities that only one side has, and that both have; by identity."""

    left: tuple[str, ...]
    right: tuple[str, ...]
    both: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What came of an import: records that were new, that were known, and decisions of others that were left out."""

    new: int
    known: int
    decisions: int
    skipped: tuple[Skipped, ...]


def of(records: Iterable[Record]) -> Bundle:
    """The set of these records; of two that are the same, the one that was measured here is kept."""
    found: dict[str, Record] = {}
    for record in records:
        name = identity(record)
        found[name] = better(found.get(name), record)
    return Bundle(records=MappingProxyType({name: found[name] for name in sorted(found)}))


def merge(*bundles: Bundle) -> Bundle:
    """Union: in any order, any number of times, with the same result."""
    return of(record for bundle in bundles for record in bundle.records.values())


def difference(left: Bundle, right: Bundle) -> Difference:
    """What one side knows and the other does not."""
    mine, theirs = left.records.keys(), right.records.keys()
    return Difference(
        left=tuple(sorted(mine - theirs)), right=tuple(sorted(theirs - mine)), both=tuple(sorted(mine & theirs))
    )


def write(bundle: Bundle, path: Path) -> None:
    """The file of a bundle, whole or not at all; equal bundles give equal files. Raises TriError E0905."""
    names = sorted(bundle.records)
    header = _Header(bundle=MAGIC, format=FORMAT, records=len(names), digest=_digest(names))
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as stream:
            try:
                stream.write(msgspec.json.encode(header) + b"\n")
                stream.writelines(write_line(bundle.records[name]) for name in names)
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(stream.name, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(stream.name)
                raise
    except OSError as problem:
        raise _unusable_file(path, "written", problem) from None


def read(path: Path) -> Bundle:
    """What is good in a file. Raises TriError: E0905 when it cannot be read, E0903 when it is no bundle."""
    try:
        if not path.is_file():  # a pipe or a device would be read for ever
            raise OSError(errno.ENOENT, "no such file")
        with open(path, "rb") as stream:
            if os.fstat(stream.fileno()).st_size > LARGEST:
                raise _refused(path, f"it has more than {LARGEST} bytes")
            found = pieces(stream)
            first = next(found, None)
            header = _header(path, first.line if first is not None else None)
            records: dict[str, Record] = {}
            skipped: list[Skipped] = []
            for piece in found:
                try:
                    name, record = judge(piece)
                except Unusable as problem:
                    skipped.append(Skipped(piece.offset, problem.fault, str(problem)))
                else:
                    records[name] = better(records.get(name), record)
    except OSError as problem:
        raise _unusable_file(path, "read", problem) from None
    names = sorted(records)
    complete = len(names) == header.records and _digest(names) == header.digest
    return Bundle(
        records=MappingProxyType({name: records[name] for name in names}), skipped=tuple(skipped), complete=complete
    )


def export(store: Store, path: Path) -> Bundle:
    """All that a store has, as a file. Raises TriError E0905."""
    bundle = of(store.records())
    write(bundle, path)
    return bundle


def take(store: Store, path: Path, *, decisions: bool = False) -> Taken:
    """Import a file: what it has and the store has not. `decisions`: pins and forgotten records too.

    Raises TriError E0903, E0905. A file that is good in parts is taken in parts; `report` makes a diagnostic of that.
    """
    bundle = read(path)
    known = of(store.records()).records
    new = [record for name, record in bundle.records.items() if name not in known]
    left_out = [record for record in new if isinstance(record, (Pin, Forget)) and not decisions]
    taken = [record for record in new if decisions or not isinstance(record, (Pin, Forget))]
    origin = path.name[:200]
    for record in taken:
        if isinstance(record, Fingerprint):
            store.know(record)
    store.add(*(_imported(record, origin) for record in taken if not isinstance(record, Fingerprint)))
    return Taken(
        new=len(taken),
        known=len(bundle.records) - len(new),
        decisions=len(left_out),
        skipped=bundle.skipped,
    )


def report(bundle: Bundle, path: Path) -> Diagnostic | None:
    """E0904 for a file that is not sound, with where and why; None for a sound one."""
    if bundle.sound:
        return None
    shown = tuple(skipped.text for skipped in bundle.skipped[:5])
    more = (f"and {len(bundle.skipped) - 5} more",) if len(bundle.skipped) > 5 else ()
    missing = () if bundle.complete else ("its records are not those that its first line promises",)
    return Diagnostic(
        code="E0904",
        message=f"`{path.name}` is good in parts: {len(bundle.records)} records are, {len(bundle.skipped)} lines are not",
        notes=(*shown, *more, *missing),
        help="export it again where it came from",
    )


def _imported(record: Trial | Pin | Forget, origin: str) -> Trial | Pin | Forget:
    if isinstance(record, Trial):
        return msgspec.structs.replace(record, origin=record.origin or origin)
    return record


def _header(path: Path, line: bytes | None) -> _Header:
    if line is None:
        raise _refused(path, "it has no first line of a bundle")
    try:
        version = msgspec.json.decode(line, type=_Version)
        if version.bundle != MAGIC:
            raise _refused(path, "its first line names another format")
        if version.format > FORMAT:
            raise _refused(path, f"its format is newer than {FORMAT}, the last that this version of tridsl reads")
        return msgspec.json.decode(line, type=_Header)
    except (ValueError, RecursionError):
        raise _refused(path, "its first line is not that of a bundle") from None


def _digest(names: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(names).encode(), digest_size=16).hexdigest()


def _refused(path: Path, why: str) -> TriError:
    return error("E0903", f"`{path.name}` is no bundle of evidence: {why}", help="`tridsl personality export` writes bundles")


def _unusable_file(path: Path, verb: str, problem: OSError) -> TriError:
    reason = os.strerror(problem.errno) if problem.errno else str(problem)
    return error("E0905", f"`{path}` cannot be {verb}: {reason}", help="look at the path and its permissions")

