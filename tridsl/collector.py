"""Python's cycle collector, put off while a kernel is made.

A compilation makes hundreds of thousands of small values without cycles, which go when their last reference goes. Meanwhile the
collector is asked some fifty times to look for cycles among them and all else that the process holds: 12 of the 160 ms of a first
softmax (*measured*, Emerald Rapids), more the more the caller holds. It looks when the kernel is there.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Pauses:
    """Who put the collector off, in all threads: the last one to end lets it on again, if it was on."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.enabled = False


_PAUSES = _Pauses()


@contextmanager
def paused() -> Iterator[None]:
    """No automatic collection inside; explicit ones are as ever. May be nested, and entered by several threads."""
    with _PAUSES.lock:
        if not _PAUSES.count:
            _PAUSES.enabled = gc.isenabled()
            gc.disable()
        _PAUSES.count += 1
    try:
        yield
    finally:
        with _PAUSES.lock:
            _PAUSES.count -= 1
            if not _PAUSES.count and _PAUSES.enabled:
                gc.enable()
