"""A `.tri` text as the call layer holds it: summary at once, syntax and checked ops only when something must be compiled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from hashlib import sha256

from tridsl.api import records
from tridsl.api.signatures import ModuleSummary, OpSummary, summarise
from tridsl.check.resolve import BoundModule, bind
from tridsl.diagnostics import SourceFile, error
from tridsl.program.realise import Store
from tridsl.syntax.parse import parse

Resolver = Callable[[str], str]
"""`resolver("stdlib")` is the text of the module that `use stdlib: …` names."""


class TriModule:
    """One source. `digest` identifies its text and, after the summary is known, the texts of the modules it uses."""

    def __init__(self, source: SourceFile, resolver: Resolver, store: Store) -> None:
        self.source = source
        self.resolver = resolver
        self.store = store
        self._lock = threading.RLock()

    @cached_property
    def summary(self) -> ModuleSummary:
        """Names and signatures. Raises what the parser and the checker find wrong in a text seen for the first time."""
        key = self.store.key("summary", self.source.text)
        record = self.store.get(key)
        if record is not None:
            return records.from_bytes(record, ModuleSummary)
        found = summarise(self._syntax)
        self.bound  # names that do not resolve are reported now, not at the first call  # noqa: B018
        self.store.put(key, records.to_bytes(found))
        return found

    @cached_property
    def ops(self) -> Mapping[str, OpSummary]:
        return {op.name: op for op in self.summary.ops}

    @cached_property
    def digest(self) -> str:
        texts = [self.source.text, *(f"{name}\n{self.resolver(name)}" for name in self.summary.uses)]
        return sha256("\0".join(texts).encode()).hexdigest()

    @cached_property
    def _syntax(self):  # type: ignore[no-untyped-def]
        return parse(self.source)

    @property
    def bound(self) -> BoundModule:
        """The module with its names resolved; parses on first use."""
        with self._lock:
            return self._bound

    @cached_property
    def _bound(self) -> BoundModule:
        return bind(self._syntax, self.resolver)

    def op(self, name: str) -> OpSummary:
        """The summary of op `name`. Raises E0514."""
        if name not in self.ops:
            raise error("E0514", f"{self.source.name} has no op `{name}`", help=f"its ops: {', '.join(self.ops) or 'none'}")
        return self.ops[name]
