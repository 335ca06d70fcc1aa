"""How long a device may take for one call before it counts as hanging: ten seconds, `TRIDSL_TIMEOUT`, or what `tridsl.set_timeout` says.

A time-out changes no result. It takes a device that hangs out of use (E0705), so that the process and the other devices go on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tridsl.diagnostics import error
from tridsl.environment import TIMEOUT as VARIABLE
from tridsl.environment import timeout_text

DEFAULT_SECONDS = 10.0

_chosen: list[float] = []


def set_timeout(seconds: float | None) -> None:
    """The time-out of calls that begin from now on, in seconds; `float("inf")` waits for ever, None goes back to the environment's.

    Raises E0855 for anything else than a number above 0.
    """
    if seconds is None:
        _chosen.clear()
        return
    try:
        number = math.nan if isinstance(seconds, (bool, str)) else float(seconds)
    except (TypeError, ValueError):
        number = math.nan
    _chosen[:] = [_positive(number, f"set_timeout({seconds!r})")]


def timeout_seconds(environment: Mapping[str, str] | None = None) -> float:
    """The time-out that holds; `environment` is for tests. Raises E0855 where the environment's makes no sense."""
    if _chosen:
        return _chosen[0]
    text = timeout_text() if environment is None else timeout_text(environment)
    if not text:
        return DEFAULT_SECONDS
    try:
        return _positive(float(text), f"{VARIABLE}={text}")
    except ValueError:
        return _positive(math.nan, f"{VARIABLE}={text}")


def _positive(number: float, said: str) -> float:
    if not number > 0:
        raise error(
            "E0855", f"{said} is no number of seconds above 0", help=f"write {VARIABLE}=60, or tridsl.set_timeout(60); inf waits for ever"
        )
    return number
