"""Files that are there whole or not at all, for what several processes read and write."""

from __future__ import annotations

import os
from pathlib import Path

UNFINISHED = ".tmp-"
"""How the name of a file begins that is being written, or whose writer died."""


def write_whole(path: Path, content: bytes) -> None:
    """`content` as the file `path`, for its owner alone: other processes see the file that was there, or none, and then the new one.

    Written aside and renamed. Raises OSError, and leaves nothing behind then. (`tempfile` does as much; its import takes 3 ms of start-up time.)
    """
    aside = path.parent / f"{UNFINISHED}{os.urandom(8).hex()}"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
        os.replace(aside, path)
    except BaseException:
        os.unlink(aside)
        raise
