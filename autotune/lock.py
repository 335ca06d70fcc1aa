"""One measurement at a time on this machine, whoever measures: a lock on a file that every user's tuner knows."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = Path(tempfile.gettempdir()) / "tridsl-bench.lock"


@contextmanager
def bench_lock(path: Path = LOCK) -> Iterator[bool]:
    """Waits for the machine and holds it. Yields whether it is really held: without a place for the file, measuring goes on.

    The kernel releases the lock of a process that dies. The file has nothing in it and is never removed; it is not followed
    where somebody has put a link in its place.
    """
    handle = _opened(path)
    if handle is None:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield True
    finally:
        os.close(handle)


def _opened(path: Path) -> int | None:
    for flags in (os.O_RDONLY, os.O_RDONLY | os.O_CREAT):  # another user's file in a sticky folder may be opened, but not with O_CREAT
        try:
            return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
