"""Where a user's files of ours are, by the XDG base directory specification (https://specifications.freedesktop.org/basedir-spec).

These two folders are all that is asked for, and Linux is all that is supported: `platformdirs`, which knows more, took 6 ms of the start-up time.
"""

from __future__ import annotations

import os
from pathlib import Path


def user_cache() -> Path:
    """Compiled kernels and facts of the host: what may be deleted. `$XDG_CACHE_HOME/tridsl`, by default `~/.cache/tridsl`."""
    return _folder("XDG_CACHE_HOME", ".cache")


def user_data() -> Path:
    """Measurements. `$XDG_DATA_HOME/tridsl`, by default `~/.local/share/tridsl`."""
    return _folder("XDG_DATA_HOME", ".local/share")


def _folder(variable: str, default: str) -> Path:
    said = os.environ.get(variable, "").strip()
    base = Path(said) if os.path.isabs(said) else Path.home() / default  # the specification has relative ones ignored
    return base / "tridsl"
