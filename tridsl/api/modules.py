"""A `.tri` text as the call layer holds it: a summary at once, syntax and checked ops only when something is compiled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING

from tridsl.api import records
from tridsl.api.signatures import ModuleSummary, OpSummary
from tridsl.diagnostics import SourceFile, error
from tridsl.program.realise import Store

if TYPE_CHECKING:
    from tridsl.check.resolve import BoundModule
    from tridsl.syntax.nodes import Module

Resolver = Callable[[str, str], SourceFile | None]
"""`resolver("stdlib", "softmax")` is the source in which `use stdlib: softmax` finds `softmax`."""


def digest_of(source: SourceFile) -> str:
    return sha256(source.text.encode()).hexdigest()


class TriModule:
    """One source. Safe to use from several threads.

    `trusted`: the text is known to be right in every op (the standard library's), so only what is called is checked.
    `syntax` may know the tree of the text without parsing it.
    """

    def __init__(
        self, source: SourceFile, resolver: Resolver, store: Store, *, trusted: bool = False,
        syntax: Callable[[SourceFile], Module | None] | None = None,
    ) -> None:  # fmt: skip
        self.source = source
        self.resolver = resolver
        self.store = store
        self.trusted = trusted
        self._syntax = syntax
        self._lock = threading.RLock()
        self._used: dict[tuple[str, str], str] = {}

    @cached_property
    def summary(self) -> ModuleSummary:
        """Names and signatures. Raises everything that is wrong in a text seen for the first time."""
        with self._lock:
            key = self.store.key("summary", self.source.name, self.source.text)
            record = self.store.get(key)
            if record is not None:
                kept = records.from_bytes(record, ModuleSummary)
                if all(self._digest(module, name) == digest for module, name, digest in kept.uses):
                    return kept
            found = self._read()
            self.store.put(key, records.to_bytes(found))
            return found

    @cached_property
    def ops(self) -> Mapping[str, OpSummary]:
        return {op.name: op for op in self.summary.ops}

    @cached_property
    def digest(self) -> str:
        """Identifies this text and all that it uses, directly or not."""
        return sha256(repr((self.source.text, self.summary.uses)).encode()).hexdigest()

    @property
    def bound(self) -> BoundModule:
        """The module with its names resolved; parses on first use."""
        with self._lock:
            return self._bound

    def op(self, name: str) -> OpSummary:
        """The summary of op `name`. Raises E0534."""
        if name not in self.ops:
            raise error(
                "E0534", f"{self.source.name} has no op `{name}`", help=f"its ops: {', '.join(self.ops) or 'none'}"
            )
        return self.ops[name]

    @cached_property
    def _bound(self) -> BoundModule:
        from tridsl.check.resolve import bind  # start-up time: a warm process has no need of syntax and meaning
        from tridsl.syntax.parse import parse

        known = self._syntax(self.source) if self._syntax else None
        return bind(known or parse(self.source), self._recorded)

    def _read(self) -> ModuleSummary:
        from tridsl.api.summaries import summarise  # start-up time, as above
        from tridsl.check.types import check_module

        bound = self._bound
        if not self.trusted:
            check_module(bound)
        uses = tuple((module, name, digest) for (module, name), digest in sorted(self._used.items()))
        return summarise(bound.module, uses)

    def _recorded(self, module: str, name: str) -> SourceFile | None:
        found = self.resolver(module, name)
        if found is not None:
            self._used[module, name] = digest_of(found)
        return found

    def _digest(self, module: str, name: str) -> str:
        found = self.resolver(module, name)
        return "" if found is None else digest_of(found)
