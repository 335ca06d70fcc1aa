"""The environment of the process, read here and nowhere else; by the command line and by Python calls alike, when it is asked for.

`environment` of each function is for tests. (`NO_COLOR`, `COLUMNS` and `OMP_NUM_THREADS` mean something to commands only: `cli.settings`.)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs

CACHE, PERSONALITY, PEANO, TIMEOUT = "TRIDSL_CACHE", "TRIDSL_PERSONALITY", "PEANO_INSTALL_DIR", "TRIDSL_TIMEOUT"


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Compiled kernels: `TRIDSL_CACHE`, or the user's cache directory."""
    return folder(CACHE, environment) or platformdirs.user_cache_path("tridsl")


def personality_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The evidence about this chip: `TRIDSL_PERSONALITY`, or a part of the user's data directory."""
    return folder(PERSONALITY, environment) or platformdirs.user_data_path("tridsl") / "personality"


def peano_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """AMD's compiler for the cores of an NPU: `PEANO_INSTALL_DIR`."""
    return folder(PEANO, environment)


def timeout_text(environment: Mapping[str, str] = os.environ) -> str:
    """`TRIDSL_TIMEOUT` as it is written, or nothing."""
    return environment.get(TIMEOUT, "").strip()


def folder(name: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """What the variable `name` says, None where it is not set or empty."""
    return Path(environment[name]).expanduser() if environment.get(name) else None
