"""`tune`: a search for a better schedule, from a request to its result (`autotune.request`, `autotune.session`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tridsl.autotune.measure import Bench, Limits
from tridsl.autotune.request import Evidence, Memory, Progress, Request, Result
from tridsl.autotune.session import Session
from tridsl.autotune.space import Space
from tridsl.autotune.worker import Prepare, prepare
from tridsl.diagnostics import error


def tune(
    request: Request, *, budget_seconds: float = 60.0, strategy: str = "ranked", seed: int = 0, store: Evidence | None = None,
    on_progress: Callable[[Progress], None] | None = None, limits: Limits | None = None, space: Space | None = None,
    make: Prepare = prepare, lock: Path | None = None,
) -> Result:  # fmt: skip
    """Search for a better schedule for about `budget_seconds`, keeping each trial in `store` (None: in memory only).

    `space` restricts the search; by default it is the schedule text's, or the automatic scheduler's. Ctrl-C ends the search with
    what is known by then. Raises TriError E0432, E0433 (an empty space), E0955 (an unknown strategy), E0958 (a simulated device), and what compiling the op raises
    whatever its schedule.
    """
    if request.device.spec.simulated:
        raise error("E0958", f"`{request.device}` is simulated: how long it takes says nothing about a device", help="tune on hardware; `tridsl lower --until array` has a predicted time")
    session = Session(request, budget_seconds, strategy, seed, store if store is not None else Memory(), on_progress, space)
    with Bench(session.subject, limits, make=make, lock=lock) as bench:
        return session.run(bench)
