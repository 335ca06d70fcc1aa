"""Kernels become runnable here and only here: one compilation per key, whoever asks and from whichever thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from tridsl.backend import Backend, Binary, Device, Executable

HOST_KINDS = ("cpu", "reference")
"""Kinds of devices that work in host memory."""


class Store(Protocol):
    """Records and binaries by content key, shared by processes. What cannot be read is absent."""

    def key(self, *parts: object) -> str:
        """A name for `parts` (by `repr`) and the versions of everything that makes records."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, record: bytes) -> None: ...

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
