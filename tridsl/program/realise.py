"""Plans and calls become runnable here and only here: one compilation per key, whoever asks and from whichever thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tridsl.backend import Backend, Binary, Device, Executable
from tridsl.ir.op import Op
from tridsl.schedule.steps import Schedule


class Store(Protocol):
    """Bytes by content key, shared by processes. A record that cannot be read is absent."""

    def key(self, *parts: Any) -> str:
        """A name for `parts` and the versions of everything that made the record."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, record: bytes) -> None: ...

    def get_binary(self, key: str) -> Binary | None: ...

    def put_binary(self, key: str, binary: Binary) -> None: ...
