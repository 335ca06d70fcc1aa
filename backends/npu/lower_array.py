"""A scheduled kernel becomes an `ArrayDesign`.

    column c < 4: row r < 2: for t < 7: copy x[…] -> x.l1   ->   tensor, descriptors and locks at the edge, in column c's memory tile and in core (c, r)

Every tile of a tensor passes the memory tile of a column: the edge moves whole tiles in the tensor's order, one after the other for all cores of the
column that have parts of their own; the memory tile hands each core its part in the order in which the core wants it (and collects results the
same way). What several cores need is one stream that reaches them all. Each hand-over has two locks, `empty` and `full`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from tridsl.backends.npu.banks import divided
from tridsl.backends.npu.cost import Prediction, predict
from tridsl.backends.npu.design import (
    FIRST_CORE,
    MEMTILE,
    SHIM,
    Affine,
    Argument,
    ArrayDesign,
    Buffer,
    Chain,
    Command,
    Core,
    Descriptor,
    Dimension,
    Direction,
    End,
    Flow,
    Function,
    Invoke,
    Lock,
    Place,
    Port,
    Repeat,
    SetLock,
    Step,
    Wait,
    WriteScalar,
)
from tridsl.backends.npu.dimensions import Bounds, cut
from tridsl.backends.npu.draw import draw
from tridsl.backends.npu.held import Entry, Held, line, strip
from tridsl.backends.npu.launches import launches, scratch_of
from tridsl.backends.npu.limits import check
from tridsl.backends.npu.lower_program import SCALARS, SCALARS_LOCK, Program, identifier, read_program, refuse
from tridsl.backends.npu.lower_sequence import Edge, sequence
from tridsl.backends.npu.lower_streams import Lane, lanes_of
from tridsl.backends.npu.print_design import print_design
from tridsl.backends.npu.turns import Group, arrivals, departures, depth_of, groups_of, together
from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.diagnostics import TriError
from tridsl.ir.expr import Const
from tridsl.ir.loop import Buffer as Panel
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Param, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """The design and what its functions do, for the emitter of the kernel text; `facts` of the array that it was made for."""

    design: ArrayDesign
    program: Program
    params: tuple[Param, ...]
    prediction: Prediction
    facts: ArraySpec

    def __str__(self) -> str:
        return f"# {self.prediction}\n{print_design(self.design)}"

    def svg(self) -> str:
        return draw(self.design, self.prediction, self.facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launches:
    """Designs that are launched one after the other, and the tensors `between` them."""

    parts: tuple[Laid, ...]
    between: tuple[Tensor, ...]
    params: tuple[Param, ...]
    name: str

    def __str__(self) -> str:
        return "\n".join(map(str, self.parts))

    def svg(self) -> str:
        """The launch that takes longest."""
        return max(self.parts, key=lambda part: part.prediction.seconds).svg()


def array(kernel: Kernel, spec: DeviceSpec) -> Laid | Launches:
    """Raises E0770 for kernels that are no array of tile workers, E0771 and E0772 with the limit that a design breaks."""
    parts = launches(kernel)
    if len(parts) == 1:
        return _laid(parts[0], spec)
    return Launches(parts=tuple(_laid(part, spec) for part in parts), between=scratch_of(kernel), params=kernel.params, name=identifier(kernel.name))


def _laid(kernel: Kernel, spec: DeviceSpec) -> Laid:
    if spec.array is None:
        raise refuse(kernel, f"`{spec.name}` is no array of cores")
    program = read_program(kernel)
    design = _Layout(kernel=kernel, program=program, spec=spec, facts=spec.array).design()
    problems = check(design, spec)
    if problems:
        raise TriError(*problems)
    return Laid(design=design, program=program, params=kernel.params, prediction=predict(design, program, spec.array), facts=spec.array)


@dataclass(slots=True)
class _Tile:
    """What one tile has given away so far."""

    address: int = 0
    locks: int = 0
    channels: dict[Direction, int] = field(default_factory=lambda: {"in": 0, "out": 0})
    descriptors: int = 0


@dataclass(slots=True, kw_only=True)
class _Layout:
    kernel: Kernel
    program: Program
    spec: DeviceSpec
    facts: ArraySpec
    tiles: dict[Place, _Tile] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    locks: list[Lock] = field(default_factory=list)
    chains: list[Chain] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    ports: dict[Place, list[Port]] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()

    def design(self) -> ArrayDesign:
        columns, rows = self.program.column[1], self.program.row[1]
        cores = [(c, FIRST_CORE + r) for c in range(columns) for r in range(rows)]
        for core in cores:
            self._tile(core).address = self.facts.core_stack_bytes
            self.ports[core] = []
        tensors, lanes = lanes_of(self.kernel, self.program, columns, self.facts)
        self.groups = groups_of(lanes, self.facts)
        for group in self.groups:
            if group[0].moved.writes:
                self._result(group[0])
            else:
                self._input(group)
        commands: list[Command] = []
        scalars = {core: self._scalars(core, commands) for core in cores} if self.program.scalars else {}
        local = {core: [self._panel(core, buffer, buffer.name) for buffer in self.program.local] for core in cores}
        commands += sequence(self.edges, self.facts)
        chains, flows = divided(self.chains, self.flows, self.facts)
        return ArrayDesign(
            name=identifier(self.kernel.name),
            generation=self.spec.target_triple.partition("-")[0],
            columns=columns,
            buffers=tuple(self.buffers),
            locks=tuple(self.locks),
            chains=chains,
            flows=flows,
            cores=tuple(
                Core(
                    tile=core,
                    ports=tuple(self.ports[core]),
                    program=self._steps(self.program.steps, core, {b.name: a for b, a in zip(self.program.local, local[core])}, scalars.get(core)),
                    stack_bytes=self.facts.core_stack_bytes,
                    scalars=scalars.get(core),
                )
                for core in cores
            ),
            tensors=tensors,
            scalars=tuple((s.name, str(s.dtype)) for s in self.program.scalars),
            functions=tuple(_function(body.name, body.pointers, body.numbers, body.scalars) for body in self.program.bodies),
            sequence=tuple(commands),
            gathers=self.program.gathers,
        )

    # Streams.

    def _input(self, group: Group) -> None:
        """Edge -> memory tile -> cores; several lanes take turns in the same channels."""
        column = group[0].column
        memtile = (column, MEMTILE)
        held = [[self._held(memtile, lane, f"{lane.moved.tensor}_{n}", depth_of(lane)) for n in range(len(lane.parts))] for lane in group]
        for sharing in self._arriving(group):
            turns = list(arrivals(sharing))
            shim_out = self._channel((column, SHIM), "out")
            arriving = self._channel(memtile, "in")
            self._flow(End(tile=(column, SHIM), direction="out", channel=shim_out), End(tile=memtile, direction="in", channel=arriving))
            first = group.index(sharing[0])
            pieces = [
                Entry(held=held[first + t.lane][t.part], buffer=t.buffer, dimensions=line(lane, lane.piece), fills=True, count=lane.uses if lane.kept else lane.piece)
                for t in turns for lane in (sharing[t.lane],)
            ]  # fmt: skip
            self._chain(memtile, "in", arriving, pieces)
            for lane in sharing:
                self._edge(lane, "out", shim_out, together(sharing) // lane.piece if len(sharing) > 1 else 0)
        for n, part in enumerate(group[0].parts):
            sent = list(departures(group, n))
            leaving = self._channel(memtile, "out")
            tiles = [
                Entry(held=held[t.lane][t.part], buffer=t.buffer, dimensions=lane.core_order, fills=False, offset=t.tile * lane.step)
                for t in sent for lane in (group[t.lane],)
            ]  # fmt: skip
            self._chain(memtile, "out", leaving, tiles)
            targets = []
            for core in part.cores:
                channel = self._channel(core, "in")
                mine = [self._core_held(core, lane, writes=False) for lane in group]
                depth = max(len(own.buffers) for own in mine)
                filled = [Entry(held=own, buffer=d % len(own.buffers), dimensions=strip(lane), fills=True) for d in range(depth) for lane, own in zip(group, mine)]
                self._chain(core, "in", channel, filled)
                targets.append(End(tile=core, direction="in", channel=channel))
            self._flow(End(tile=memtile, direction="out", channel=leaving), *targets)

    def _arriving(self, group: Group) -> tuple[Group, ...]:
        """Lanes of the group that share a channel of the host: none, where its column has one for each and they come again and again."""
        lanes = [lane for g in self.groups for lane in g if lane.column == group[0].column and not lane.moved.writes]
        alone = len(lanes) <= self.facts.shim_out_channels and group[0].moved.loops
        return tuple((lane,) for lane in group) if alone else (group,)

    def _flow(self, source: End, *targets: End) -> None:
        self.flows.append(Flow(source=source, targets=targets))

    def _result(self, lane: Lane) -> None:
        """Cores -> memory tile -> edge. What takes several rounds of other tiles to make has left the memory tile long before the next one comes."""
        memtile = (lane.column, MEMTILE)
        depth = depth_of(lane) if len(lane.moved.loops) == max(len(m.loops) for m in self.program.moved) else 1
        held = []
        for n, part in enumerate(lane.parts):
            (core,) = part.cores
            own = self._held(memtile, lane, f"{lane.moved.tensor}_{n}", depth)
            channel = self._channel(core, "out")
            mine = self._core_held(core, lane, writes=True)
            self._chain(core, "out", channel, [Entry(held=mine, buffer=d, dimensions=self._own_line(lane), fills=False) for d in range(len(mine.buffers))])
            arriving = self._channel(memtile, "in")
            self._chain(memtile, "in", arriving, [Entry(held=own, buffer=d, dimensions=line(lane), fills=True) for d in range(depth)])
            self._flow(End(tile=core, direction="out", channel=channel), End(tile=memtile, direction="in", channel=arriving))
            held.append(own)
        leaving = self._channel(memtile, "out")
        collected = [Entry(held=own, buffer=d, dimensions=lane.core_order, fills=False) for d in range(depth) for own in held]
        self._chain(memtile, "out", leaving, collected)
        shim_in = self._channel((lane.column, SHIM), "in")
        self._flow(End(tile=memtile, direction="out", channel=leaving), End(tile=(lane.column, SHIM), direction="in", channel=shim_in))
        self._edge(lane, "in", shim_in)

    def _edge(self, lane: Lane, direction: Direction, channel: int, rounds: int = 0) -> None:
        """All that a lane moves; where channels are shared, every `rounds` of its last loop are a transfer of their own."""
        outer: tuple[Dimension, ...] = ()
        walk = lane.walk
        if rounds and lane.moved.loops:
            last = len(lane.moved.loops) - 1
            size, stride = walk[last].size // rounds, walk[last].stride
            outer = (*walk[:last], Dimension(size=size, stride=stride * rounds))
            walk = (Dimension(size=rounds, stride=stride), *walk[last + 1 :])
        self.edges.append(
            Edge(tile=(lane.column, SHIM), direction=direction, channel=channel, tensor=lane.tensor, offset=lane.parts[0].offset, outer=outer, walk=walk)
        )

    # Parts of tiles.

    def _tile(self, place: Place) -> _Tile:
        return self.tiles.setdefault(place, _Tile())

    def _channel(self, place: Place, direction: Direction) -> int:
        """The next free channel."""
        tile = self._tile(place)
        tile.channels[direction] += 1
        return tile.channels[direction] - 1

    def _chain(self, place: Place, direction: Direction, channel: int, entries: list[Entry]) -> None:
        """After the last entry comes the first again."""
        tile = self._tile(place)
        first = tile.descriptors
        tile.descriptors += len(entries)
        bounds = self._bounds(place)
        made = []
        for n, entry in enumerate(entries):
            outer, own = cut(entry.dimensions, bounds)
            empty, full = entry.held.empty[entry.buffer], entry.held.full[entry.buffer]
            before, behind = (empty, full) if entry.fills else (full, empty)
            made.append(
                Descriptor(
                    number=first + n, buffer=entry.held.buffers[entry.buffer], offset=entry.offset, dimensions=(*outer, *own), acquire=before,
                    release=behind, following=first + (n + 1) % len(entries), count=entry.count,
                )
            )  # fmt: skip
        self.chains.append(Chain(tile=place, direction=direction, channel=channel, descriptors=tuple(made)))

    def _bounds(self, place: Place) -> Bounds:
        kind = "memtile" if place[1] == MEMTILE else "core"
        wrap, step = getattr(self.facts, f"{kind}_wrap"), getattr(self.facts, f"{kind}_step_words")
        return Bounds(own=getattr(self.facts, f"{kind}_dimensions"), wrap=wrap, inner=wrap, step=step)

    def _held(self, place: Place, lane: Lane, name: str, depth: int) -> Held:
        """Buffers for a stream, with their locks."""
        dtype, size = lane.tensor.dtype, lane.tensor.element_bytes
        return self._hold(place, f"{name}_m{place[0]}", dtype, size, (lane.elements * lane.piece,), depth, lane.piece, lane.uses if lane.kept else 0)

    def _core_held(self, core: Place, lane: Lane, *, writes: bool) -> Held:
        panel = self._panel_of(lane)
        shape = tuple(int(n.value) for n in panel.shape if isinstance(n, Const))
        name = f"{identifier(lane.moved.buffer.name)}_{core[0]}_{core[1]}"
        held = self._hold(core, name, str(panel.dtype), panel.dtype.storage_bytes, shape, lane.moved.copy.buffers if lane.rounds * lane.strips > 1 else 1)
        acquire, release = (held.empty[0], held.full[0]) if writes else (held.full[0], held.empty[0])
        self.ports[core].append(Port(name=lane.moved.buffer.name, buffers=held.buffers, acquire=acquire, release=release, writes=writes))
        return held

    def _panel_of(self, lane: Lane) -> Panel:
        """What a core's buffer for a lane holds: the panel itself, or the sums that it shares its memory with."""
        return dict(self.program.shared).get(lane.moved.buffer.name, lane.moved.buffer)

    def _own_line(self, lane: Lane) -> tuple[Dimension, ...]:
        """The elements of a tile, counted in those of the core's buffer."""
        return (Dimension(size=lane.elements * lane.tensor.element_bytes // self._panel_of(lane).dtype.storage_bytes, stride=1),)

    def _hold(self, place: Place, name: str, dtype: str, size: int, shape: tuple[int, ...], depth: int, piece: int = 1, uses: int = 0) -> Held:
        """`uses`: each buffer is filled once for so many times that it goes, and has locks of its own."""
        buffers = tuple(self._buffer(place, f"{name}_{n}", dtype, size, shape) for n in range(depth))
        if uses:
            empty = tuple(self._lock(place, f"{b}_empty", uses) for b in buffers)
            return Held(buffers=buffers, empty=empty, full=tuple(self._lock(place, f"{b}_full", 0) for b in buffers))
        empty = (self._lock(place, f"{name}_empty", depth * piece),) * depth
        return Held(buffers=buffers, empty=empty, full=(self._lock(place, f"{name}_full", 0),) * depth)

    def _panel(self, core: Place, panel: Panel, name: str) -> str:
        shape = tuple(int(n.value) for n in panel.shape if isinstance(n, Const))
        return self._buffer(core, f"{identifier(name)}_{core[0]}_{core[1]}", str(panel.dtype), panel.dtype.storage_bytes, shape)

    def _buffer(self, place: Place, name: str, dtype: str, size: int, shape: tuple[int, ...]) -> str:
        tile = self._tile(place)
        align = self.facts.load_bytes
        address = -(-tile.address // align) * align
        self.buffers.append(Buffer(name=name, tile=place, dtype=dtype, shape=shape, element_bytes=size, address=address))
        tile.address = address + prod(shape) * size
        return name

    def _lock(self, place: Place, name: str, initial: int) -> str:
        tile = self._tile(place)
        self.locks.append(Lock(name=name, tile=place, number=tile.locks, initial=initial))
        tile.locks += 1
        return name

    def _scalars(self, core: Place, commands: list[Command]) -> str:
        count = len(self.program.scalars)
        name = self._buffer(core, f"{SCALARS}_{core[0]}_{core[1]}", "i32", 4, (count,))
        lock = self._lock(core, f"{SCALARS_LOCK}_{core[0]}_{core[1]}_ready", 0)
        commands += [WriteScalar(name=s.name, buffer=name, word=n) for n, s in enumerate(self.program.scalars)]
        commands.append(SetLock(lock=lock, value=1))
        return name

    # Programs.

    def _steps(self, steps: tuple[Step, ...], core: Place, local: dict[str, str], scalars: str | None) -> tuple[Step, ...]:
        return tuple(self._step(step, core, local, scalars) for step in steps)

    def _step(self, step: Step, core: Place, local: dict[str, str], scalars: str | None) -> Step:
        if isinstance(step, Repeat):
            return Repeat(variable=step.variable, count=step.count, body=self._steps(step.body, core, local, scalars))
        if isinstance(step, Invoke):
            return Invoke(function=step.function, arguments=tuple(self._argument(a, core, local, scalars) for a in step.arguments))
        if isinstance(step, Wait):
            return Wait(lock=f"{SCALARS_LOCK}_{core[0]}_{core[1]}_ready")
        return step

    def _argument(self, argument: Argument, core: Place, local: dict[str, str], scalars: str | None) -> Argument:
        if argument.number is not None:
            here = {self.program.column[0]: core[0], self.program.row[0]: core[1] - FIRST_CORE}
            constant = argument.number.constant + sum(f * here[v] for v, f in argument.number.terms if v in here)
            return Argument(number=Affine(terms=tuple((v, f) for v, f in argument.number.terms if v not in here), constant=constant))
        if argument.buffer is not None:
            return Argument(buffer=scalars if argument.buffer == SCALARS else local[argument.buffer])
        return argument


def _function(name: str, pointers: tuple[Panel, ...], numbers: tuple[str, ...], scalars: bool) -> Function:
    parameters = [(identifier(p.name), str(p.dtype), True) for p in pointers] + [(identifier(n), "i32", False) for n in numbers]
    return Function(name=name, parameters=tuple(parameters + ([(SCALARS, "i32", True)] if scalars else [])))


