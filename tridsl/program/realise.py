"""Kernels become runnable here and only here: one compilation per key, whoever asks and from whichever thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tridsl.backend import HOST_KINDS, Backend, Binary, Device, Executable, Records
from tridsl.diagnostics import TriError
from tridsl.structs import dataclass, replace

if TYPE_CHECKING:
    from tridsl.schedule.steps import Schedule

SMALL_POINTS = 1 << 15
"""Iterations below which a second thread costs more than it brings."""


def default_threads(points: float) -> int:
    """The team of a kernel of so many iterations, where the caller asked for none: every core of this process, or one."""
    return 1 if points < SMALL_POINTS else len(os.sched_getaffinity(0))


class Store(Records, Protocol):
    """Records and binaries by content key, shared by processes. What cannot be read is absent."""

    def get_binary(self, key: str) -> Binary | None: ...

    def put_binary(self, key: str, binary: Binary) -> None: ...


class Target(NamedTuple):
    """A device and the backend that drives it."""

    backend: Backend
    device: Device

    @property
    def in_host_memory(self) -> bool:
        """Whether kernels read host arrays of any strides where they are; other devices get contiguous arrays."""
        return self.device.spec.kind in HOST_KINDS


class Served(NamedTuple):
    """The steps for a kernel (None: automatic) and, where they are a tuner's, what to do when they do not compile here: tell it, and
    take what this returns."""

    steps: Schedule | None
    refuse: Callable[[TriError], Schedule | None] | None = None


class Loaded(NamedTuple):
    """A binary on its device."""

    binary: Binary
    executable: Executable


@dataclass(slots=True, kw_only=True, eq=False)
class Realiser:
    """Loaded kernels of this process by key; `store` keeps the binaries for the next one."""

    store: Store
    _loaded: dict[str, Loaded] = field(default_factory=dict)
    _locks: dict[str, Any] = field(default_factory=dict)

    def serve(self, served: Served, parts: Callable[[Served], tuple[object, ...]], target: Target, build: Callable[[Served], Binary]) -> Loaded:
        """`realise` with the steps that are served, or with what replaces them when they do not compile."""
        try:
            return self.realise(parts(served), target, lambda: build(served))
        except TriError as problem:
            if served.refuse is None:
                raise
            other = Served(served.refuse(problem))
            return self.realise(parts(other), target, lambda: build(other))

    def realise(self, parts: tuple[object, ...], target: Target, build: Callable[[], Binary]) -> Loaded:
        """The kernel that `parts` identify on `target`: from memory, from the store, or from `build()`, once."""
        key = self.store.key("binary", target.backend.name, target.backend.version, *_spec_parts(target.device), *parts)
        loaded = self._loaded.get(key)
        if loaded is not None:
            return loaded
        with self._locks.setdefault(key, threading.Lock()):
            if key not in self._loaded:
                binary = self.store.get_binary(key)
                if binary is None:
                    binary = build()
                    self.store.put_binary(key, binary)
                self._loaded[key] = Loaded(
                    binary=binary, executable=target.backend.driver().load(binary, target.device)
                )
        return self._loaded[key]


def _spec_parts(device: Device) -> tuple[object, ...]:
    """The device's facts in an order that does not change from process to process (a set's does)."""
    return device.name, sorted(device.spec.features), replace(device.spec, features=frozenset())
