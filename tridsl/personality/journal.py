"""Files of lines that only grow: appended to under a lock and forced to the disk; read from where one left off.

Any number of processes append to one file, one at a time (`flock`). A process that is killed leaves at most its own line cut
off; the next writer ends that line, so that nothing is written behind it. A write that fails half-way is taken back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import field
from pathlib import Path

from tridsl.personality.evidence import Record
from tridsl.personality.lines import Piece, Skipped, Unusable, judge, pieces
from tridsl.structs import dataclass

PATIENCE_SECONDS = 10.0
"""How long a writer waits for the lock: a holder needs milliseconds, unless it was stopped."""

_READER_PATIENCE_SECONDS = 0.1
"""How long a reader waits to see whether a line without its end gets one: who calls an op must not wait for who tunes."""

_FIRST_WAIT_SECONDS = 0.0005
_LONGEST_WAIT_SECONDS = 0.02


def append(path: Path, lines: bytes, *, patience: float = PATIENCE_SECONDS) -> None:
    """Add whole lines to the file, which is made (0600, its folders 0700) where it is missing; they are on the disk on return.

    Raises OSError: EACCES, EROFS, ENOSPC, EFBIG, EIO, ELOOP for a link, ETIMEDOUT when the lock is not given back. The file may
    then have the first of the lines, each whole; a line that is there twice counts once.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        made = not path.exists()
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _lock(file, fcntl.LOCK_EX, patience)
            if os.fstat(file).st_nlink == 0:
                continue  # deleted while we waited: nobody would ever read it
            _write(file, lines)
        finally:
            os.close(file)
        if made:
            _force_names(path.parent)
        return


def _write(file: int, lines: bytes) -> None:
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        lines = b"\n" + lines  # what a killed writer left ends here
    written = 0
    try:
        while written < len(lines):
            written += os.write(file, lines[written:])
    except BaseException:
        whole = lines.rfind(b"\n", 0, written) + 1  # a reader may have seen these
        with contextlib.suppress(OSError):
            os.ftruncate(file, size + whole)
        raise
    os.fsync(file)


def _force_names(folder: Path) -> None:
    """A new file's name, and its folders', to the disk."""
    for place in (folder, folder.parent, folder.parent.parent):
        with contextlib.suppress(OSError):
            file = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(file)
            finally:
                os.close(file)


def _lock(file: int, kind: int, patience: float) -> None:
    """Polls, because a blocked `flock` cannot be given up: a holder that was stopped must not stop everybody."""
    end, wait = time.monotonic() + patience, _FIRST_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise OSError(errno.ETIMEDOUT, f"another process has held the lock for {patience:g} s") from None
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)


@dataclass(slots=True, eq=False)
class Journal:
    """What one file says, as far as it was read. `records` by identity, each once however often it is there; those that do not
    belong into this file are skipped."""

    path: Path
    belongs: Callable[[Record], bool]
    records: dict[str, Record] = field(default_factory=dict)
    skipped: dict[int, Skipped] = field(default_factory=dict)
    stamp: tuple[int, int, int] = (0, 0, 0)
    _read_to: int = 0

    def refresh(self) -> bool:
        """Read what was added since the last time; whether anything was. A file that is missing says nothing. OSError."""
        stamp = stamp_of(self.path)
        if stamp == self.stamp:
            return False
        if stamp[0] != self.stamp[0] or stamp[1] < self._read_to:  # another file, or a write that was taken back
            self.records, self.skipped, self._read_to = {}, {}, 0
        if stamp[1]:
            with open(self.path, "rb", buffering=1 << 16) as stream:
                self._take(pieces(stream, self._read_to))
                if self._read_to < os.fstat(stream.fileno()).st_size:
                    self._take_last(pieces(stream, self._read_to), stream.fileno())
        self.stamp = stamp
        return True

    def _take(self, found: Iterator[Piece]) -> None:
        """Whole lines. One without its end may still be being written."""
        for piece in found:
            if not piece.terminated:
                return
            self._keep(piece)
            self._read_to = piece.end

    def _take_last(self, found: Iterator[Piece], file: int) -> None:
        """Who writes holds the lock; nobody does while we share it, so a line without its end has none to come."""
        try:
            _lock(file, fcntl.LOCK_SH, _READER_PATIENCE_SECONDS)
        except OSError:
            return  # still being written, or a file system without locks: it is looked at again when the file has grown
        for piece in found:
            self._keep(piece)
            if piece.terminated:
                self._read_to = piece.end

    def _keep(self, piece: Piece) -> None:
        try:
            name, record = judge(piece)
            if not self.belongs(record):
                raise Unusable("foreign", "its record belongs into another file")
        except Unusable as problem:
            if piece.line != b"":  # an end that was written behind an end
                self.skipped[piece.offset] = Skipped(piece.offset, problem.fault, str(problem))
            return
        self.records[name] = better(self.records.get(name), record)


def better(one: Record | None, other: Record) -> Record:
    """Of two records of one identity: measured here before imported, then by name of the origin."""
    return other if one is None or getattr(other, "origin", "") < getattr(one, "origin", "") else one


def stamp_of(path: Path) -> tuple[int, int, int]:
    """Inode, size and time of change; zeros for a file that is missing. Raises OSError when it cannot be asked for."""
    try:
        told = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0, 0
    return told.st_ino, told.st_size, told.st_mtime_ns
