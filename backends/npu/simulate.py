"""Runs an `ArrayDesign`: DMA channels, locks, streams, cores and the host's sequence, with the kernel functions themselves.

Agents take turns. A stream holds a few words; a channel that writes memory is done when it has all bytes of its descriptor. A design of this kind is
deterministic (a Kahn network), so one fair order decides both its result and whether it comes to an end. Nothing here has a clock: results are
*simulated*, and times are the cost model's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tridsl.backends.npu.design import (
    Acquire,
    Argument,
    ArrayDesign,
    Await,
    Buffer,
    Chain,
    Core,
    Descriptor,
    Direction,
    Invoke,
    Place,
    Port,
    Release,
    Repeat,
    SetLock,
    Step,
    Task,
    Wait,
    WriteScalar,
)
from tridsl.backends.npu.dimensions import addresses
from tridsl.backends.npu.memory import Memory

STREAM_BYTES = 32
"""What a stream holds between two channels."""
Bytes = NDArray[np.uint8]
Channel = tuple[Place, Direction, int]


class Fault(RuntimeError):
    """What a run on hardware would have answered with wrong numbers, or not at all."""


class Deadlock(Fault):
    """Nobody can go on, and the host still waits."""


class Race(Fault):
    """A buffer is written while somebody else uses it."""


class Kernels(Protocol):
    """The compiled functions of a design."""

    def call(self, name: str, arguments: Sequence[int], pointers: Sequence[bool]) -> str | None:
        """Runs a function in the power-up state of a core; what went wrong inside, or None."""


@dataclass(slots=True)
class _Stream:
    parts: deque[Bytes] = field(default_factory=deque)
    waiting: int = 0

    def put(self, data: Bytes) -> None:
        self.parts.append(data)
        self.waiting += data.size

    def take(self, most: int) -> list[Bytes]:
        found: list[Bytes] = []
        while most and self.parts:
            first = self.parts.popleft()
            if first.size > most:
                self.parts.appendleft(first[most:])
                first = first[:most]
            found.append(first)
            most -= first.size
            self.waiting -= first.size
        return found


class Simulator:
    """One design, loaded. `run` is one dispatch; what cores and channels hold stays between dispatches, as on the array."""

    def __init__(self, design: ArrayDesign, kernels: Kernels, lock_maximum: int, queue_tasks: int) -> None:
        self.design = design
        self.kernels = kernels
        self.memory = Memory(design)
        self.locks = {lock.name: lock.initial for lock in design.locks}
        self.lock_maximum = lock_maximum
        self.queue_tasks = queue_tasks
        self.streams: dict[Channel, list[_Stream]] = {}
        self.incoming: dict[Channel, _Stream] = {}
        for flow in design.flows:
            targets = [self.incoming.setdefault((e.tile, e.direction, e.channel), _Stream()) for e in flow.targets]
            self.streams[flow.source.tile, flow.source.direction, flow.source.channel] = targets
        self.buffers = {b.name: b for b in design.buffers}
        self.users: dict[str, list[tuple[str, bool]]] = {}
        self.walks: dict[Descriptor, NDArray[np.int64] | None] = {}
        self.waits: dict[str, str] = {}
        self.rounds: dict[Place, int] = {core.tile: 0 for core in design.cores}
        self.tensors: Mapping[str, NDArray[Any]] = {}
        self.scalars: Mapping[str, bytes] = {}
        self.queues: dict[Channel, deque[Task]] = {}
        self.done: dict[Channel, int] = {}
        for flow in design.flows:
            for end in (flow.source, *flow.targets):
                if end.tile[1] == 0:
                    self.queues.setdefault((end.tile, end.direction, end.channel), deque())
        agents: list[tuple[str, Iterator[bool]]] = [(f"core {core.tile}", self._core(core)) for core in design.cores]
        agents += [(f"channel {c.direction} {c.channel} of tile {c.tile}", self._chain(c)) for c in design.chains]
        agents += [(f"channel {key[1]} {key[2]} of tile {key[0]}", self._edge(key)) for key in self.queues]
        self.agents = agents
        self.dispatches = 0

    def run(self, tensors: Mapping[str, NDArray[Any]], scalars: Mapping[str, bytes]) -> None:
        """One dispatch. `tensors`: elements in the array's shape, flat; results are written into them. `scalars`: 4 bytes each.

        Raises Deadlock, Race, or Fault for a kernel's own fault, locks out of range, words that nobody took and cores that are not done.
        """
        self.tensors, self.scalars = tensors, scalars
        self.dispatches += 1
        host = self._host()
        running = True
        while running:
            progress = False
            for name, agent in (("the host's sequence", host), *self.agents):
                moved = next(agent, None)
                if moved is None:
                    running = False
                elif moved:
                    progress = True
                    self.waits.pop(name, None)
            if running and not progress:
                raise Deadlock(f"`{self.design.name}` is stuck: " + "; ".join(sorted(f"{who} waits for {what}" for who, what in self.waits.items())))
        while sum(next(agent) for _, agent in self.agents):  # every agent has its turn
            pass
        self._settled()

    def _settled(self) -> None:
        left = [f"{s.waiting} bytes for channel {key[1]} {key[2]} of tile {key[0]}" for key, s in self.incoming.items() if s.waiting]
        left += [f"core {tile} has finished {n} rounds of {self.dispatches}" for tile, n in self.rounds.items() if n != self.dispatches]
        left += [f"a transfer of `{task.tensor}` on tile {key[0]} is not done" for key, queue in self.queues.items() for task in queue]
        if left:
            raise Fault(f"`{self.design.name}` leaves behind what the next dispatch would find: {'; '.join(left)}")

    # Locks and buffers.

    def _take(self, who: str, lock: str, value: int = 1) -> bool:
        if self.locks[lock] < value:
            self.waits[who] = f"lock {lock}"
            return False
        self.locks[lock] -= value
        return True

    def _give(self, lock: str, value: int = 1) -> None:
        self.locks[lock] += value
        if self.locks[lock] > self.lock_maximum:
            raise Fault(f"lock `{lock}` goes to {self.locks[lock]}, beyond {self.lock_maximum}")

    def _use(self, who: str, buffer: str, writes: bool) -> None:
        users = self.users.setdefault(buffer, [])
        for other, theirs in users:
            if writes or theirs:
                raise Race(f"{who} {'writes' if writes else 'reads'} `{buffer}` while {other} {'writes' if theirs else 'reads'} it")
        users.append((who, writes))

    def _leave(self, who: str, buffer: str) -> None:
        self.users[buffer] = [user for user in self.users[buffer] if user[0] != who]

    # DMA.

    def _chain(self, chain: Chain) -> Iterator[bool]:
        who = f"channel {chain.direction} {chain.channel} of tile {chain.tile}"
        key = (chain.tile, chain.direction, chain.channel)
        by_number = {d.number: d for d in chain.descriptors}
        current = chain.descriptors[0]
        while True:
            while not self._take(who, current.acquire, current.count):
                yield False
            fills = chain.direction == "in"
            self._use(who, current.buffer, fills)
            buffer = self.buffers[current.buffer]
            if fills:
                yield from self._receive(who, key, current.length * buffer.element_bytes, lambda data, d=current, b=buffer: self._scatter(b, d, data))  # type: ignore[misc]  # mypy infers no types for a lambda's defaults
            else:
                yield from self._send(who, key, self._gather(buffer, current))
            self._leave(who, current.buffer)
            self._give(current.release, current.count)
            yield True
            current = by_number[current.following]

    def _edge(self, key: Channel) -> Iterator[bool]:
        """A channel towards the host's memory: tasks in order."""
        who = f"channel {key[1]} {key[2]} of tile {key[0]}"
        queue = self.queues[key]
        while True:
            while not queue:
                self.waits.pop(who, None)
                yield False
            task = queue[0]
            for _ in range(task.repeats):
                walk = addresses(task.offset, task.dimensions)
                tensor = self.tensors[task.tensor]
                if key[1] == "out":
                    yield from self._send(who, key, tensor[walk].view(np.uint8))
                else:
                    yield from self._receive(who, key, walk.size * tensor.itemsize, lambda data, t=tensor, w=walk: _put(t, w, data))  # type: ignore[misc]  # mypy infers no types for a lambda's defaults
            queue.popleft()
            if task.token:
                self.done[key] = self.done.get(key, 0) + 1
            yield True

    def _send(self, who: str, key: Channel, data: Bytes) -> Iterator[bool]:
        targets = self.streams.get(key, [])
        if not targets:
            raise Fault(f"{who} sends to nobody")
        for stream in targets:
            stream.put(data)
        yield True
        while any(stream.waiting > STREAM_BYTES for stream in targets):
            self.waits[who] = "room in its stream"
            yield False

    def _receive(self, who: str, key: Channel, count: int, finish: Callable[[Bytes], None]) -> Iterator[bool]:
        stream = self.incoming.setdefault(key, _Stream())
        parts: list[Bytes] = []
        left = count
        while left:
            found = stream.take(left)
            if found:
                parts += found
                left -= sum(p.size for p in found)
                yield True
            else:
                self.waits[who] = f"{left} more bytes"
                yield False
        finish(np.concatenate(parts) if len(parts) > 1 else parts[0])

    def _walk(self, d: Descriptor) -> NDArray[np.int64] | None:
        """The addresses of a descriptor; None where they lie one behind another."""
        if d not in self.walks:
            linear = len(d.dimensions) == 1 and d.dimensions[0].stride == 1
            self.walks[d] = None if linear else addresses(d.offset, d.dimensions)
        return self.walks[d]

    def _gather(self, buffer: Buffer, d: Descriptor) -> Bytes:
        walk, elements = self._walk(d), self.memory.elements(buffer)
        found = elements[d.offset : d.offset + d.length].copy() if walk is None else elements[walk]
        return found.view(np.uint8)

    def _scatter(self, buffer: Buffer, d: Descriptor, data: Bytes) -> None:
        walk, elements = self._walk(d), self.memory.elements(buffer)
        values = np.ascontiguousarray(data).view(elements.dtype)
        if walk is None:
            elements[d.offset : d.offset + d.length] = values
        else:
            elements[walk] = values

    # The host.

    def _host(self) -> Iterator[bool]:
        who = "the host's sequence"
        for command in self.design.sequence:
            match command:
                case Task():
                    queue = self.queues[command.tile, command.direction, command.channel]
                    while len(queue) >= self.queue_tasks:
                        self.waits[who] = f"room in the queue of tile {command.tile}"
                        yield False
                    queue.append(command)
                case Await():
                    key = (command.tile, command.direction, command.channel)
                    while not self.done.get(key):
                        self.waits[who] = f"a transfer on channel {key[1]} {key[2]} of tile {key[0]}"
                        yield False
                    self.done[key] -= 1
                case WriteScalar():
                    word = np.frombuffer(self.scalars[command.name], dtype=np.uint8)
                    raw = self.memory.bytes(self.buffers[command.buffer])
                    raw[4 * command.word : 4 * command.word + word.size] = word
                case SetLock():
                    self.locks[command.lock] = command.value
            yield True

    # Cores.

    def _core(self, core: Core) -> Iterator[bool]:
        ports = {port.name: port for port in core.ports}
        turns, taken = dict.fromkeys(ports, 0), dict.fromkeys(ports, 0)
        while True:
            yield from self._steps(core, core.program, ports, turns, taken, {})
            self.rounds[core.tile] += 1

    def _steps(
        self, core: Core, steps: tuple[Step, ...], ports: Mapping[str, Port], turns: dict[str, int], taken: dict[str, int], values: dict[str, int]
    ) -> Iterator[bool]:  # fmt: skip
        """`turns` and `taken`: how many buffers of each port the core has given back, and how many it was given."""
        who = f"core {core.tile}"
        for step in steps:
            match step:
                case Repeat():
                    for n in range(step.count):
                        values[step.variable] = n
                        yield from self._steps(core, step.body, ports, turns, taken, values)
                case Wait():
                    while not self._take(who, step.lock):
                        yield False
                case Acquire():
                    port = ports[step.port]
                    while not self._take(who, port.acquire):
                        yield False
                    self._use(who, port.buffers[taken[port.name] % len(port.buffers)], port.writes)
                    taken[port.name] += 1
                case Release():
                    port = ports[step.port]
                    self._leave(who, port.buffers[turns[port.name] % len(port.buffers)])
                    turns[port.name] += 1
                    self._give(port.release)
                case Invoke():
                    self._invoke(core, step, ports, turns, values)
            yield True

    def _invoke(self, core: Core, step: Invoke, ports: Mapping[str, Port], turns: Mapping[str, int], values: Mapping[str, int]) -> None:
        who = f"core {core.tile}"
        arguments: list[int] = []
        writable: list[Buffer] = []

        def pointer(argument: Argument) -> int:
            if argument.port is None:
                buffer = self.buffers[argument.buffer or ""]
                writable.append(buffer)
                return self.memory.address(buffer)
            port = ports[argument.port]
            name = port.buffers[(turns[port.name] + argument.ahead) % len(port.buffers)]
            if (who, port.writes) not in self.users.get(name, []):
                raise Race(f"{who} uses `{name}` in `{step.function}` without having acquired it")
            if port.writes:
                writable.append(self.buffers[name])
            return self.memory.address(self.buffers[name])

        for argument in step.arguments:
            if argument.number is None:
                arguments.append(pointer(argument))
            else:
                arguments.append(argument.number.constant + sum(f * values[v] for v, f in argument.number.terms))
        before = self.memory.snapshot(core.tile)
        problem = self.kernels.call(step.function, arguments, [a.number is None for a in step.arguments])
        if problem is not None:
            raise Fault(f"`{step.function}` on {who}: {problem}")
        if not self.memory.unchanged_outside(core.tile, before, writable):
            raise Fault(f"`{step.function}` on {who} writes outside of its results")


def _put(tensor: NDArray[Any], walk: NDArray[np.int64], data: Bytes) -> None:
    tensor[walk] = np.ascontiguousarray(data).view(tensor.dtype)
