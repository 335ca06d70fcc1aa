"""The contract between the compiler and a processor: a `Backend` manifest (values and pure functions) and a `Driver`.

Backends are found by the entry point group `tridsl.backends` and loaded on first use. A third party adds one by
declaring an entry point that names a `Backend`; nothing in `tridsl` knows a backend by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, TypeAlias, runtime_checkable

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Diagnostic, TriError, error
from tridsl.ir.op import Param
from tridsl.structs import dataclass

HOST_KINDS = ("cpu", "reference")
"""Kinds of devices that work in host memory, with the host's threads."""

LowerPass: TypeAlias = "Callable[[Any, DeviceSpec], Any]"
"""Of a `Kernel` to a `Kernel`; a backend's last pass may make a value of its own, which prints itself (`str`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LowerStage:
    """A named pass; the name is the dump extension, the `--until` argument and the override point."""

    name: str
    run: LowerPass


@runtime_checkable
class Drawable(Protocol):
    """What a stage gave, where it can be shown as a picture."""

    def svg(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """How an executable is called: one 8-byte slot per param in order (tensor: address of element 0; scalar: its value,
    in the low bytes of the slot), then one i64 per name in `sizes`. `messages`: texts of the kernel's `Check`s."""

    params: tuple[Param, ...]
    sizes: tuple[str, ...]
    messages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Emitted text. `extension` names its language (`ll`, `glsl`, `txt`); `facts` are what `build` and `driver` need."""

    entry: str
    text: str
    extension: str
    signature: Signature
    facts: tuple[tuple[str, int | str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """Machine code for one device: `blob` is what the driver loads. Contains no address, so it may live on disk."""

    backend: str
    entry: str
    blob: bytes = field(repr=False)
    signature: Signature
    facts: tuple[tuple[str, int | str], ...] = ()


class BackendUnavailable(TriError):
    """A processor cannot be used; the diagnostic says which part is missing and what to install."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A processor that is here: its name as users write it (`cpu`, `gpu:0`, `gpu:software`) and its facts."""

    name: str
    backend: str
    spec: DeviceSpec
    description: str = ""

    def __str__(self) -> str:
        return self.name


class Executable(Protocol):
    """A loaded binary."""

    def __call__(self, slots: Sequence[Any], threads: int) -> None:
        """Run to completion. `slots` follow the signature: a `numpy.ndarray` or device buffer per tensor, Python numbers for
        scalars and sizes. Raises CheckFailed with a `Check`'s message, MemoryError, or TriError for a failing device."""


@runtime_checkable
class Timed(Executable, Protocol):
    """An executable whose device can say how long its runs take; others are timed from outside."""

    def timed(self, slots: Sequence[Any], threads: int, seconds: float, most: int) -> tuple[float, ...]:
        """Run again and again for about `seconds`, at least three and at most `most` samples, after a run or two that do not count;
        seconds a run, by the device's own clock, without transfers. Results lie in device memory afterwards, or in `slots`. Raises like a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An array of a recorded program: the caller's (`upload`: it is read, `download`: it is written), or `bytes` at `offset` of the
    program's own memory on the device."""

    bytes: int
    upload: bool = False
    download: bool = False
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedLaunch:
    """One launch of a recorded program. `slots` follow the signature of `executable`; that of a tensor is the array's number."""

    executable: Executable
    slots: tuple[bool | int | float, ...]


class Recording(Executable, Protocol):
    """Several launches as one executable, which takes those of `arrays` that are the caller's, in order."""

    @property
    def arrays(self) -> Sequence[Held]: ...


@runtime_checkable
class Recorder(Protocol):
    """A driver that runs several launches as one."""

    def record(self, launches: Sequence[RecordedLaunch], arrays: Sequence[Held], memory_bytes: int, device: Device) -> Recording:
        """`launches` in order, each seeing what those before it wrote. The executable takes the caller's `arrays`, in order; the
        others share `memory_bytes` on the device."""


@runtime_checkable
class Plays(Protocol):
    """A driver that can play devices which are not here: simulators."""

    def played(self, name: str) -> Device | None:
        """The simulated device of exactly this name; such devices are in no list."""


class Driver(Protocol):
    """Hardware access; opened lazily, raises BackendUnavailable."""

    def devices(self) -> tuple[Device, ...]:
        """The processors of this backend that are here, best first."""

    def load(self, binary: Binary, device: Device) -> Executable:
        """Make a binary runnable on `device`."""


@runtime_checkable
class Keeps(Driver, Protocol):
    """A driver whose devices have memory of their own, in which arrays can stay between runs. What `keep` returns stands for the array
    among the slots of the device's executables until it is dropped. All raise TriError for a failing device."""

    def keep(self, array: Any, device: Device) -> Any:
        """A copy of a contiguous NumPy array in the memory of `device`. TriError E0602 where there is too little of it."""

    def fetch(self, kept: Any, array: Any, device: Device) -> None:
        """What is kept, into a contiguous array of as many bytes."""

    def drop(self, kept: Any, device: Device) -> None:
        """Give the memory back."""


class Records(Protocol):
    """What several builds have in common, by content key, kept beyond this process. What cannot be read is absent."""

    def key(self, *parts: object) -> str:
        """A name for `parts` (by `repr`) and the versions of everything that makes records."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, record: bytes) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A backend's manifest.

    `lower`: target passes, run after the shared ones, or in their place where `shared` is False. `accepts` returns diagnostics for constructs that `emit` cannot take.
    `emit` is pure; `build` is the only place that calls a compiler; `driver` returns the one driver of the process.
    `build_with` is `build` with records of what it compiled before for other kernels.
    `version` changes whenever the same kernel would give different code: it is part of every cache key.
    """

    name: str
    version: str
    kind: str
    lower: tuple[LowerStage, ...]
    accepts: Callable[[Any, DeviceSpec], tuple[Diagnostic, ...]]
    emit: Callable[[Any, DeviceSpec], Code]
    build: Callable[[Code, DeviceSpec], Binary]
    driver: Callable[[], Driver]
    shared: bool = True
    build_with: Callable[[Code, DeviceSpec, Records], Binary] | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"backend name {self.name!r} is not an identifier")
        names = [stage.name for stage in self.lower]
        if len(set(names)) != len(names):
            raise ValueError(f"backend {self.name}: two lowering stages share a name: {names}")


_LOADED: dict[str, Backend] = {}


def backend_names() -> tuple[str, ...]:
    """Names of the installed backends; loads none."""
    from importlib.metadata import (
        entry_points,  # 20 ms of start-up time that a process with our own backends alone never pays
    )

    return tuple(sorted({e.name for e in entry_points(group="tridsl.backends")}))


def load_backend(name: str) -> Backend:
    """The manifest of backend `name`, loaded once. Raises TriError E0702 for an unknown name."""
    if name not in _LOADED:
        loaded = _own(name)
        if loaded is None:
            from importlib.metadata import entry_points  # see above

            found = [e for e in entry_points(group="tridsl.backends") if e.name == name]
            if not found:
                raise error("E0702", f"there is no backend `{name}`", help=f"installed backends: {', '.join(backend_names()) or 'none'}")
            loaded = found[0].load()
        if not isinstance(loaded, Backend):
            raise TypeError(f"entry point tridsl.backends:{name} is {loaded!r}, not a Backend")
        _LOADED[name] = loaded
    return _LOADED[name]


def _own(name: str) -> Any:
    """The backend in `tridsl.backends.<name>`, where ours live under the names of their entry points; None if there is none."""
    if not name.isidentifier() or find_spec(f"tridsl.backends.{name}") is None:
        return None
    return getattr(import_module(f"tridsl.backends.{name}"), "BACKEND", None)


