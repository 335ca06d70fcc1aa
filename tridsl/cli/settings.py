"""What the environment says to a command, read once (`tridsl.environment` reads what Python calls ask for, too)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tridsl.diagnostics import error
from tridsl.environment import CACHE, PEANO, PERSONALITY, folder
from tridsl.structs import dataclass
from tridsl.timeout import DEFAULT_SECONDS, timeout_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says.

    `cache`: folder of compiled kernels (`TRIDSL_CACHE`; None is the user's cache directory). `personality`: folder of the evidence
    (`TRIDSL_PERSONALITY`; None is the user's data directory). `threads`: the most threads a kernel
    may use (`OMP_NUM_THREADS`; None is every core of this process). `peano`: folder of AMD's compiler for NPU cores (`PEANO_INSTALL_DIR`). `colour`: colours on the terminal (off with `NO_COLOR`,
    https://no-color.org). `width`: columns of the terminal (`COLUMNS`), None to ask it. `timeout`: seconds after which a call hangs (`TRIDSL_TIMEOUT`).
    """

    cache: Path | None = None
    personality: Path | None = None
    threads: int | None = None
    colour: bool = False
    width: int | None = None
    timeout: float = DEFAULT_SECONDS
    peano: Path | None = None


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises E0804, and E0855 of the time-out, for a variable whose value makes no sense."""
    terminal = sys.stderr.isatty() and environment.get("TERM") != "dumb"
    return Settings(
        cache=folder(CACHE, environment),
        personality=folder(PERSONALITY, environment),
        threads=_count(environment, "OMP_NUM_THREADS"),
        colour=terminal and not environment.get("NO_COLOR"),
        width=_count(environment, "COLUMNS"),
        timeout=timeout_seconds(environment),
        peano=folder(PEANO, environment),
    )


def _count(environment: Mapping[str, str], name: str) -> int | None:
    """A positive number; of OpenMP's list of numbers (one per nesting level) the first."""
    text = environment.get(name, "").split(",")[0].strip()
    if not text:
        return None
    if not text.isdigit() or int(text) < 1:
        raise error("E0804", f"the environment has {name}={text}, which is no number of at least 1", help=f"unset {name}, or set it to a number")
    return int(text)
