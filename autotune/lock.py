"""One measurement at a time on this machine, whoever measures: a lock on a file that every user's tuner knows."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = Path(tempfile.gettempdir()) / "tridsl-bench.lock"


PATIENCE_SECONDS = 60.0
"""Who measures holds the lock for a second or so at a time. A holder that was stopped must not stop everybody."""

_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS, _SAID_AFTER_SECONDS = 0.0005, 0.01, 1.0


@contextmanager
def bench_lock(path: Path = LOCK, *, patience: float = PATIENCE_SECONDS, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
    """Waits for the machine and holds it. Yields whether it is really held: without a place for the file, or when the lock was not to
    be had for `patience` seconds, measuring goes on. `waiting` is called when it takes longer than usual.

    The kernel releases the lock of a process that dies. The file has nothing in it and is never removed; it is not followed
    where somebody has put a link in its place.
    """
    handle = _opened(path)
    if handle is None:
        yield False
        return
    try:
        yield _taken(handle, patience, waiting)
    finally:
        os.close(handle)


def _taken(handle: int, patience: float, waiting: Callable[[], None] | None) -> bool:
    start, wait = time.monotonic(), _FIRST_WAIT_SECONDS
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        waited = time.monotonic() - start
        if waited > patience:
            return False
        if waited > _SAID_AFTER_SECONDS and waiting is not None:
            waiting()
            waiting = None
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)


def _opened(path: Path) -> int | None:
    for flags in (os.O_RDONLY, os.O_RDONLY | os.O_CREAT):  # another user's file in a sticky folder may be opened, but not with O_CREAT
        try:
            return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
