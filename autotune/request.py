"""What a tuning session is asked, and what it says meanwhile and in the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Literal, Protocol

from tridsl.autotune.measure import Subject
from tridsl.autotune.packed import layouts_of, of_elements
from tridsl.backend import HOST_KINDS, Device
from tridsl.ir.op import Op
from tridsl.personality import belief
from tridsl.personality.candidate import Candidate
from tridsl.personality.evidence import Key, Trial, meaning
from tridsl.personality.fingerprint import Fingerprint
from tridsl.personality.keys import key_of
from tridsl.schedule.steps import Schedule
from tridsl.structs import dataclass, replace
from tridsl.syntax.nodes import ScheduleBlock


class Evidence(Protocol):
    """Where trials are kept: `personality.store.Store`, or `Memory`."""

    def add(self, *records: Trial) -> bool: ...

    def trials(self, key: Key) -> tuple[Trial, ...]: ...

    def know(self, fingerprint: Fingerprint) -> None: ...


class Memory:
    """Evidence of this process only."""

    def __init__(self) -> None:
        self._trials: dict[str, Trial] = {}

    def add(self, *records: Trial) -> bool:
        self._trials |= {t.id: t for t in records}
        return False

    def trials(self, key: Key) -> tuple[Trial, ...]:
        return tuple(t for t in self._trials.values() if t.key.subject == key.subject)

    def know(self, fingerprint: Fingerprint) -> None:
        """The process that knows nothing else of other machines needs no names for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a session stands. `best_seconds`: of the best candidate so far, None before there is one; `ratio`: its time over the
    incumbent's; `share`: the op's roofline (predicted) over it; `eta_seconds`: until the budget is spent at the latest."""

    elapsed_seconds: float
    budget_seconds: float
    eta_seconds: float
    trials: int
    reused: int
    best: str
    best_seconds: float | None
    ratio: float | None
    share: float | None
    failures: Mapping[str, int]
    doing: str


State = Literal["tuned", "kept", "interrupted", "nothing measured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`tuned`: `winner` is better than the incumbent by more than the noise; `kept`: nothing was. `trials`: candidates measured now;
    `reused`: answered from evidence. `ideal_seconds`: the op's roofline, predicted; 0 unknown. `failures`: candidates by what became of them, `reasons` why (by candidate, as text)."""

    state: State
    key: Key
    winner: Candidate | None
    seconds: float | None
    incumbent: Candidate
    ranking: belief.Ranking
    floor: float
    trials: int
    reused: int
    elapsed_seconds: float
    failures: Mapping[str, int]
    reasons: Mapping[str, str]
    notes: tuple[str, ...] = ()
    ideal_seconds: float = 0.0

    @property
    def anything(self) -> bool:
        """Whether something was measured, now or before."""
        return any(s.samples for s in self.ranking.standings)

    @property
    def schedule(self) -> Schedule | None:
        return None if self.winner is None else self.winner.schedule

    @property
    def exit_status(self) -> int:
        """0, or 3 when nothing was measured."""
        return 0 if self.anything else 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to tune. `op`: with every `const` parameter in place (`program.compose.with_constants`) and its parameters' layouts. `blocks`: schedule texts of its
    module; `arguments`: contents of inputs, by default random ones; `threads`: that the kernel runs on (default: the device's cores)."""

    op: Op
    device: Device
    sizes: Mapping[str, int]
    blocks: Sequence[ScheduleBlock] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None

    @property
    def team(self) -> int:
        """Threads that the kernel runs on."""
        return self.threads or self.device.spec.cores or 1

    @property
    def key(self) -> Key:
        """What its evidence is kept by."""
        plain = of_elements(self.op)
        return key_of(plain, meaning(plain), self.sizes, self.device, self.team, layouts_of(self.op))

    @property
    def subject(self) -> Subject:
        """What is measured. A host's device has as many cores as the kernel has threads: with one thread, threads are no choice."""
        device = self.device
        if self.threads is not None and device.spec.kind in HOST_KINDS:
            device = replace(device, spec=replace(device.spec, cores=self.threads))
        return Subject(op=self.op, device=device, sizes=self.sizes, arguments=self.arguments, threads=self.team)
