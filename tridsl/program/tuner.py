"""The contract between who runs ops and who knows which schedule is best for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tridsl.diagnostics import TriError
from tridsl.ir.op import Op
from tridsl.program.realise import Served, Target

if TYPE_CHECKING:
    from tridsl.schedule.steps import Schedule
    from tridsl.syntax.nodes import ScheduleBlock  # start-up time: a warm process has no need of syntax


class Asked(NamedTuple):
    """What a tuner is asked about: an op at sizes on a device, in everything that its evidence is kept by.

    `header`: the op with its leading axes, perhaps without stages. `kernel`: what it computes (`personality.evidence.meaning`);
    `op`: the whole op with every `const` parameter in place, and `blocks` the schedule texts of its module: both take a parse, perhaps.
    `layouts`: by tensor, of those that are not row-major. `arguments`: values of scalars and arrays by name.
    """

    target: Target
    header: Op
    sizes: Mapping[str, int]
    threads: int
    layouts: Mapping[str, str]
    arguments: Mapping[str, Any]
    kernel: Callable[[], str]
    op: Callable[[], Op]
    blocks: Callable[[], Sequence[ScheduleBlock]]


class Tuner(Protocol):
    """Who knows better than the schedule text: pins and tuned winners of the personality. `autotune.serving` implements it."""

    def winner(self, asked: Asked) -> Schedule | None:
        """The schedule to use; None: no evidence, or none that may be used unseen. Never measures, never waits for who does."""

    def refuse(self, asked: Asked, problem: TriError) -> None:
        """The schedule that was given out does not compile here: say so once, and give it out no more."""

    def train(self, asked: Asked, done: Callable[[], None]) -> None:
        """Search in the background for a better schedule, once a process; `done` is called, from a thread, when there is one."""


def served(tuner: Tuner | None, asked: Asked) -> Served:
    """The tuner's word, with what to do when it does not compile; None for text or automatic."""
    tuned = None if tuner is None else tuner.winner(asked)
    if tuned is None or tuner is None:
        return Served(None)

    def refuse(problem: TriError) -> None:
        tuner.refuse(asked, problem)

    return Served(tuned, refuse)
