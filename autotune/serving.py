"""The call layer's tuner (`program.tuner.Tuner`): winners out of the personality, and searches in the background for who asks for them.

A call without evidence costs one look at a folder. One with evidence costs reading the winner that the store remembers. Neither waits
for a search: that one runs in a thread, on arrays of its own, with candidates in processes of their own.
"""

from __future__ import annotations

import os
import queue
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tridsl.diagnostics import TriError
from tridsl.environment import personality_folder

if TYPE_CHECKING:
    from tridsl.autotune.request import Result
    from tridsl.personality.belief import Winner
    from tridsl.personality.evidence import Key
    from tridsl.personality.store import Store
    from tridsl.program.tuner import Asked
    from tridsl.schedule.steps import Schedule

BACKGROUND_SECONDS = 10.0
"""The budget of a search that was asked for by `tune=True`."""

COPIED_BYTES = 1 << 28
"""Integer arguments up to this size are kept for a search as they are: they may be positions, and random ones may be outside."""


class PersonalityWarning(UserWarning):
    """A sentence about the evidence of this chip: it has become suspect, or cannot be used."""


class Serving:
    """On the evidence in `folder` (None: the user's). Safe to use from several threads."""

    def __init__(self, folder: Path | None = None, *, budget_seconds: float = BACKGROUND_SECONDS) -> None:
        self._folder = folder or personality_folder()
        self._evidence = str(self._folder / "evidence")
        self._budget = budget_seconds
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._refused: set[str] = set()
        self._said: set[str] = set()
        self._trained: set[str] = set()
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def store(self) -> Store:
        """Opened on first use."""
        with self._lock:
            if self._store is None:
                from tridsl.personality.store import Store  # start-up time: a process without evidence does not need it

                self._store = Store(self._folder)
            return self._store

    def winner(self, asked: Asked) -> Schedule | None:
        """See `Tuner`."""
        if self._store is None and not os.path.isdir(self._evidence):
            return None
        key = self._key(asked)
        won = self.store.winner(key)
        if won is None or not won.servable or _name(key) in self._refused:
            return None
        if won.status == "suspect":
            self._say_suspect(key, won)
        return won.candidate.schedule

    def refuse(self, asked: Asked, problem: TriError) -> None:
        """See `Tuner`."""
        key = self._key(asked)
        self._refused.add(_name(key))
        first = problem.diagnostics[0]
        self._say(f"{key.text}: what was found to be best does not compile here ({first.code}: {first.message}); the default is used")

    def train(self, asked: Asked, done: Callable[[], None]) -> None:
        """See `Tuner`. Searches wait for each other; what fails says so in a `PersonalityWarning`."""
        with self._lock:
            key = self._key(asked)
            if _name(key) in self._trained:
                return
            self._trained.add(_name(key))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tridsl-tuning", daemon=True)
                self._thread.start()
        arguments = {name: _kept(value) for name, value in asked.arguments.items()}
        self._queue.put(lambda: self._train(asked, {n: v for n, v in arguments.items() if v is not None}, key, done))

    def wait(self, seconds: float) -> bool:
        """Until every search asked for so far has ended; whether it has."""
        ended = threading.Event()
        self._queue.put(ended.set)
        return self._thread is None or ended.wait(seconds)

    def _work(self) -> None:
        while True:
            self._queue.get()()

    def _train(self, asked: Asked, arguments: dict[str, Any], key: Key, done: Callable[[], None]) -> None:
        before = self.store.winner(key)
        try:
            result = self._search(asked, arguments)
        except TriError as problem:
            self._say(f"{key.text} could not be tuned: {problem.diagnostics[0].message}")
            return
        except Exception as problem:  # noqa: BLE001 (a thread that dies in silence would be worse)
            self._say(f"{key.text} could not be tuned: {type(problem).__name__}: {problem}")
            return
        if result.state == "nothing measured":
            self._say(f"{key.text} could not be tuned: {next(iter(result.reasons.values()), 'nothing was measured')}")
        after = self.store.winner(key)
        if after is not None and after.servable and (before is None or before.candidate != after.candidate):
            done()

    def _search(self, asked: Asked, arguments: dict[str, Any]) -> Result:
        from tridsl.autotune.packed import laid_out  # start-up time: a search needs the compiler
        from tridsl.autotune.request import Request
        from tridsl.autotune.tune import tune

        op = laid_out(asked.op(), asked.layouts)
        names = {p.name for p in op.inputs}
        request = Request(
            op=op, device=asked.target.device, sizes={n: asked.sizes[n] for n in op.sizes}, threads=asked.threads, blocks=asked.blocks(),
            arguments={n: v for n, v in arguments.items() if n in names},
        )  # fmt: skip
        return tune(request, budget_seconds=self._budget, store=self.store)

    def _key(self, asked: Asked) -> Key:
        from tridsl.personality.keys import key_of  # start-up time, as above

        return key_of(asked.header, asked.kernel(), asked.sizes, asked.target.device, asked.threads, asked.layouts)

    def _say_suspect(self, key: Key, won: Winner) -> None:
        from tridsl.personality import belief

        changed = belief.changed(self.store.trials(key), key.fingerprint, self.store.machines())
        self._say(f"{changed}: what was found to be best for {key.text} is used as it was; `tridsl personality verify` says how to check it", changed)

    def _say(self, sentence: str, once: str = "") -> None:
        with self._lock:
            if (once or sentence) in self._said:
                return
            self._said.add(once or sentence)
        warnings.warn(sentence, PersonalityWarning, stacklevel=2)


def _name(key: Key) -> str:
    return f"{key.subject}/{key.fingerprint}"


def _kept(value: Any) -> Any:
    """A copy of what a search cannot make up: numbers, and arrays of integers, which may be positions. None for the rest."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if not hasattr(value, "shape"):
        return value
    return value.copy() if kind in "iub" and value.nbytes <= COPIED_BYTES else None
