"""`Plan`: the commands of a program, and where its tensors live. A value; printed by `print(fn.plan(...))`."""

from __future__ import annotations

from typing import Literal, TypeAlias

from tridsl.dtypes import DType
from tridsl.structs import dataclass

Home = Literal["argument", "constant", "result", "arena"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A tensor's memory: the caller's (`argument`), captured (`constant`), new (`result`), or at byte `offset` of the arena."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    bytes: int
    home: Home
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Run the kernel of call `label` on `device`. `moved_bytes` cross between host and device memory for it."""

    label: str
    device: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    moved_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """`waiting` may not start before `finishing` has made `values` visible (release, then acquire)."""

    finishing: str
    waiting: str
    values: tuple[str, ...]


Command: TypeAlias = Launch | Fence


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Commands in order. `arena_bytes` hold all temporaries; `unshared_bytes` is what they would take side by side."""

    commands: tuple[Command, ...]
    places: tuple[Place, ...]
    arena_bytes: int
    unshared_bytes: int

    @property
    def launches(self) -> tuple[Launch, ...]:
        return tuple(c for c in self.commands if isinstance(c, Launch))

    @property
    def fences(self) -> tuple[Fence, ...]:
        return tuple(c for c in self.commands if isinstance(c, Fence))

    @property
    def moved_bytes(self) -> int:
        return sum(launch.moved_bytes for launch in self.launches)

    def __str__(self) -> str:
        lines = [
            f"plan: {_count(len(self.launches), 'launch')}, {_count(len(self.fences), 'fence')}, {self.moved_bytes} bytes moved"
        ]
        for command in self.commands:
            if isinstance(command, Fence):
                lines.append(f"  fence   {command.finishing} -> {command.waiting}: {', '.join(command.values)}")
            else:
                moved = f"   moves {command.moved_bytes} bytes" if command.moved_bytes else ""
                lines.append(
                    f"  launch  {command.label} -> {command.device}: {', '.join(command.reads)} -> {', '.join(command.writes)}{moved}"
                )
        lines.append(f"buffers: {self.arena_bytes} bytes of temporaries (unshared: {self.unshared_bytes})")
        width = max((len(p.name) for p in self.places), default=0)
        for place in self.places:
            shape = f"{place.dtype}[{', '.join(map(str, place.shape))}]"
            at = f"arena + {place.offset}" if place.home == "arena" else place.home
            lines.append(f"  {place.name:<{width}}  {shape}  {place.bytes} bytes  {at}")
        return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
