"""A design as text of MLIR's `aie` dialect, in its lowered form: locks, buffers with addresses, flows, DMA programs and cores, nothing left to infer.

The dialect's words for the host's sequence changed twice; `ERAS` has all three. Written from mlir-aie's documentation and tests; no tool of mlir-aie has
read it here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from tridsl.backends.npu.design import (
    MEMTILE,
    SHIM,
    Acquire,
    Argument,
    ArrayDesign,
    Await,
    Buffer,
    Chain,
    Core,
    Dimension,
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

Era = Literal["2024", "2025", "2026"]
NEWEST: Era = "2026"
DIRECTIONS: dict[Direction, str] = {"in": "S2MM", "out": "MM2S"}
ELEMENTS = {"f32": "f32", "bf16": "bf16", "i8": "i8", "u8": "ui8", "i16": "i16", "u16": "ui16", "i32": "i32", "u32": "ui32"}
OBJECT = "kernels.o"
FOREVER = 9223372036854775807


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """What differs between the eras. `sequence`: opening line with {name} and {arguments}; `tile`: leading tile coordinates of a transfer;
    `wait`: how a channel is waited for; `object_on_function`: the object file is named at the function, not at the core."""

    sequence: str
    tile: str
    wait: str
    end: str
    object_on_function: bool


ERAS: dict[Era, Spelling] = {
    "2024": Spelling(
        sequence="func.func @{name}({arguments}) {{", tile="0, 0, ", end="return", object_on_function=False,
        wait="aiex.npu.sync {{channel = {channel} : i32, column = {column} : i32, column_num = 1 : i32, direction = {direction} : i32, row = 0 : i32, row_num = 1 : i32}}",
    ),
    "2025": Spelling(
        sequence="aiex.runtime_sequence({arguments}) {{", tile="", end="", object_on_function=False, wait="aiex.npu.dma_wait {{symbol = @{symbol}}}",
    ),
    "2026": Spelling(
        sequence="aie.runtime_sequence @{name}({arguments}) {{", tile="", end="", object_on_function=True, wait="aiex.npu.dma_wait {{symbol = @{symbol}}}",
    ),
}  # fmt: skip
"""Until mid 2024 (`func.func`); until November 2025 (`aiex.runtime_sequence`); since (`aie.runtime_sequence`, PR 2708)."""


def design_text(design: ArrayDesign, era: Era = NEWEST) -> str:
    """The module. Names are those of the design."""
    writer = _Writer(design=design, spelling=ERAS[era])
    writer.module()
    return "\n".join(writer.lines) + "\n"


def device_name(design: ArrayDesign) -> str:
    """`npu1` has four columns and `npu2` eight; fewer have names of their own."""
    whole, most = ("npu1", 4) if design.generation == "aie2" else ("npu2", 8)
    return whole if design.columns == most else f"{whole}_{design.columns}col"


def memref(dtype: str, shape: tuple[int, ...]) -> str:
    return f"memref<{'x'.join([*map(str, shape), ELEMENTS[dtype]])}>"


def _tile(place: Place) -> str:
    return f"%tile_{place[0]}_{place[1]}"


def _symbol(place: Place, direction: Direction, channel: int) -> str:
    return f"edge_{place[0]}_{direction}_{channel}"


@dataclass(slots=True, kw_only=True)
class _Writer:
    design: ArrayDesign
    spelling: Spelling
    lines: list[str] = field(default_factory=list)
    depth: int = 0
    names: int = 0

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def open(self, text: str) -> None:
        self.line(text)
        self.depth += 1

    def close(self, text: str = "}") -> None:
        self.depth -= 1
        self.line(text)

    def fresh(self) -> str:
        self.names += 1
        return f"%{self.names}"

    def module(self) -> None:
        design = self.design
        self.open("module {")
        self.open(f"aie.device({device_name(design)}) {{")
        for tile in design.tiles():
            self.line(f"{_tile(tile)} = aie.tile({tile[0]}, {tile[1]})")
        for b in design.buffers:
            self.line(f'%{b.name} = aie.buffer({_tile(b.tile)}) {{address = {b.address} : i32, sym_name = "{b.name}"}} : {memref(b.dtype, b.shape)}')
        for lock in design.locks:
            self.line(f'%{lock.name} = aie.lock({_tile(lock.tile)}, {lock.number}) {{init = {lock.initial} : i32, sym_name = "{lock.name}"}}')
        for flow in design.flows:
            for end in flow.targets:
                self.line(f"aie.flow({_tile(flow.source.tile)}, DMA : {flow.source.channel}, {_tile(end.tile)}, DMA : {end.channel})")
        self.functions()
        for core in design.cores:
            self.core(core)
        for tile in sorted({chain.tile for chain in design.chains}):
            self.dma(tile, [chain for chain in design.chains if chain.tile == tile])
        for place, direction, channel in self.edges():
            self.line(f"aie.shim_dma_allocation @{_symbol(place, direction, channel)}({DIRECTIONS[direction]}, {channel}, {place[0]})")
        self.sequence()
        self.close()
        self.close()

    def functions(self) -> None:
        buffers = {b.name: b for b in self.design.buffers}
        core = self.design.cores[0]
        ports = {p.name: p for p in core.ports}
        calls = {call.function: call for call in _calls(core.program)}
        for function in self.design.functions:
            types = [_type(a, ports, buffers) for a in calls[function.name].arguments]
            where = f' attributes {{link_with = "{OBJECT}"}}' if self.spelling.object_on_function else ""
            self.line(f"func.func private @{function.name}({', '.join(types)}){where}")

    # Cores.

    def core(self, core: Core) -> None:
        """The program again and again. A port with two buffers carries the number of the next one through the loops."""
        self.open(f"%core_{core.tile[0]}_{core.tile[1]} = aie.core({_tile(core.tile)}) {{")
        for n in sorted({0, 1, FOREVER} | {step.count for step in _repeats(core.program)} | {n for p in core.ports if len(p.buffers) > 2 for n in range(len(p.buffers) + 1)}):
            self.line(f"%c{n} = arith.constant {n} : index")
        ports = {p.name: p for p in core.ports}
        turns = {p.name: "%c0" for p in core.ports if len(p.buffers) > 1}
        self.loop("again", FOREVER, core.program, ports, turns, {})
        self.line("aie.end")
        where = "" if self.spelling.object_on_function else f'link_with = "{OBJECT}", '
        self.close(f"}} {{{where}stack_size = {core.stack_bytes} : i32}}")

    def loop(
        self, variable: str, count: int, body: tuple[Step, ...], ports: dict[str, Port], turns: dict[str, str], values: dict[str, str]
    ) -> None:
        """`turns` is what the ports' numbers are before, and afterwards what they are behind the loop."""
        carried = [name for name in turns if any(isinstance(s, Release) and s.port == name for s in _all(body))]
        index = self.fresh()
        inner = {name: self.fresh() for name in carried}
        head = f"scf.for {index} = %c0 to %c{count} step %c1"
        after = ""
        if carried:
            after = self.fresh()
            starts = ", ".join(f"{inner[name]} = {turns[name]}" for name in carried)
            head = f"{after}:{len(carried)} = {head} iter_args({starts}) -> ({', '.join(['index'] * len(carried))})"
        self.open(f"{head} {{")
        now = {**turns, **inner}
        self.steps(body, ports, now, {**values, variable: index})
        if carried:
            self.line(f"scf.yield {', '.join(now[name] for name in carried)} : {', '.join(['index'] * len(carried))}")
        self.close()
        turns |= {name: f"{after}#{n}" for n, name in enumerate(carried)}

    def steps(self, steps: tuple[Step, ...], ports: dict[str, Port], turns: dict[str, str], values: dict[str, str]) -> None:
        for step in steps:
            match step:
                case Repeat():
                    self.loop(step.variable, step.count, step.body, ports, turns, values)
                case Acquire():
                    self.line(f"aie.use_lock(%{ports[step.port].acquire}, AcquireGreaterEqual, 1)")
                case Release():
                    self.line(f"aie.use_lock(%{ports[step.port].release}, Release, 1)")
                    if step.port in turns:
                        turns[step.port] = self.after(turns[step.port], len(ports[step.port].buffers))
                case Wait():
                    self.line(f"aie.use_lock(%{step.lock}, AcquireGreaterEqual, 1)")
                case Invoke():
                    self.call(step, ports, turns, values)

    def call(self, step: Invoke, ports: dict[str, Port], turns: dict[str, str], values: dict[str, str]) -> None:
        buffers = {b.name: b for b in self.design.buffers}
        arguments = [self.argument(a, ports, turns, values, buffers) for a in step.arguments]
        types = [_type(a, ports, buffers) for a in step.arguments]
        self.line(f"func.call @{step.function}({', '.join(arguments)}) : ({', '.join(types)}) -> ()")

    def argument(self, a: Argument, ports: dict[str, Port], turns: dict[str, str], values: dict[str, str], buffers: dict[str, Buffer]) -> str:
        if a.number is not None:
            return self.number(a, values)
        if a.port is None:
            return f"%{a.buffer}"
        port = ports[a.port]
        if len(port.buffers) == 1:
            return f"%{port.buffers[0]}"
        turn, kind = turns[a.port], _type(a, ports, buffers)
        count = len(port.buffers)
        found = f"%{port.buffers[(count - 1 + a.ahead) % count]}"
        for n in reversed(range(count - 1)):
            here = self.define(f"arith.cmpi eq, {turn}, %c{n} : index")
            found = self.define(f"arith.select {here}, %{port.buffers[(n + a.ahead) % count]}, {found} : {kind}")
        return found

    def after(self, turn: str, count: int) -> str:
        """The number of the buffer that comes behind number `turn`."""
        if count == 2:
            return self.define(f"arith.subi %c1, {turn} : index")
        following = self.define(f"arith.addi {turn}, %c1 : index")
        return self.define(f"arith.remui {following}, %c{count} : index")

    def number(self, a: Argument, values: dict[str, str]) -> str:
        assert a.number is not None
        total = ""
        for variable, factor in a.number.terms:
            term = values[variable]
            if factor != 1:
                term = self.define(f"arith.muli {term}, {self.define(f'arith.constant {factor} : index')} : index")
            total = self.define(f"arith.addi {total}, {term} : index") if total else term
        if a.number.constant or not total:
            constant = self.define(f"arith.constant {a.number.constant} : index")
            total = self.define(f"arith.addi {total}, {constant} : index") if total else constant
        return self.define(f"arith.index_cast {total} : index to i32")

    def define(self, operation: str) -> str:
        """The name of what `operation` gives."""
        name = self.fresh()
        self.line(f"{name} = {operation}")
        return name

    # DMA.

    def dma(self, tile: Place, chains: list[Chain]) -> None:
        buffers = {b.name: b for b in self.design.buffers}
        kind, name = ("aie.memtile_dma", "memtile_dma") if tile[1] == MEMTILE else ("aie.mem", "mem")
        self.open(f"%{name}_{tile[0]}_{tile[1]} = {kind}({_tile(tile)}) {{")
        labels = iter(range(1, 1 << 30))
        entry = ""
        for n, chain in enumerate(chains):
            blocks = {d.number: f"^bb{next(labels)}" for d in chain.descriptors}
            rest = f"^bb{next(labels)}"
            if entry:
                self.depth -= 1
                self.line(f"{entry}:")
                self.depth += 1
            start = blocks[chain.descriptors[0].number]
            self.line(f"%start_{n} = aie.dma_start({DIRECTIONS[chain.direction]}, {chain.channel}, {start}, {rest})")
            for d in chain.descriptors:
                b = buffers[d.buffer]
                self.depth -= 1
                self.line(f"{blocks[d.number]}:")
                self.depth += 1
                self.line(f"aie.use_lock(%{d.acquire}, AcquireGreaterEqual, {d.count})")
                settings = f"{{bd_id = {d.number} : i32, next_bd_id = {d.following} : i32}}"
                self.line(f"aie.dma_bd(%{b.name} : {memref(b.dtype, b.shape)}, {d.offset}, {d.length}{_dimensions(d.dimensions)}) {settings}")
                self.line(f"aie.use_lock(%{d.release}, Release, {d.count})")
                self.line(f"aie.next_bd {blocks[d.following]}")
            entry = rest
        self.depth -= 1
        self.line(f"{entry}:")
        self.depth += 1
        self.line("aie.end")
        self.close()

    # The host's sequence.

    def edges(self) -> list[tuple[Place, Direction, int]]:
        found = {(e.tile, e.direction, e.channel) for f in self.design.flows for e in (f.source, *f.targets) if e.tile[1] == SHIM}
        return sorted(found)

    def sequence(self) -> None:
        tensors = {t.name: t for t in self.design.tensors}
        locks = {lock.name: lock for lock in self.design.locks}
        types = {name: memref(t.dtype, (prod(t.shape),)) for name, t in tensors.items()}
        arguments = ", ".join(f"%host_{name}: {kind}" for name, kind in types.items())
        self.open(self.spelling.sequence.format(name="sequence", arguments=arguments))
        for command in self.design.sequence:
            match command:
                case Task():
                    self.line(self.transfer(command, types[command.tensor]))
                case Await():
                    self.line(
                        self.spelling.wait.format(
                            symbol=_symbol(command.tile, command.direction, command.channel), channel=command.channel, column=command.tile[0],
                            direction=0 if command.direction == "in" else 1,
                        )
                    )  # fmt: skip
                case WriteScalar():
                    self.line(f"aiex.npu.rtp_write(@{command.buffer}, {command.word}, 0)  // {command.name}: the driver puts its value here")
                case SetLock():
                    self.line(f"aiex.set_lock(%{locks[command.lock].name}, {command.value})")
        if self.spelling.end:
            self.line(self.spelling.end)
        self.close()

    def transfer(self, task: Task, kind: str) -> str:
        dims = [*(Dimension(size=1, stride=0) for _ in range(4 - len(task.dimensions))), *task.dimensions]
        if task.repeats > 1:
            dims[0] = Dimension(size=task.repeats, stride=0)
        sizes, strides = ", ".join(str(d.size) for d in dims), ", ".join(str(d.stride) for d in dims)
        token = ", issue_token = true" if task.token else ""
        symbol = _symbol(task.tile, task.direction, task.channel)
        return (
            f"aiex.npu.dma_memcpy_nd({self.spelling.tile}%host_{task.tensor}[0, 0, 0, {task.offset}][{sizes}][{strides}]) "
            f"{{id = {task.number} : i64, metadata = @{symbol}{token}}} : {kind}"
        )


def _dimensions(dims: tuple[Dimension, ...]) -> str:
    if len(dims) == 1 and dims[0].stride == 1:
        return ""
    return ", [" + ", ".join(f"<size = {d.size}, stride = {d.stride}>" for d in dims) + "]"


def _type(a: Argument, ports: dict[str, Port], buffers: dict[str, Buffer]) -> str:
    if a.number is not None:
        return "i32"
    b = buffers[ports[a.port].buffers[0] if a.port is not None else a.buffer or ""]
    return memref(b.dtype, b.shape)


def _all(steps: tuple[Step, ...]) -> Iterator[Step]:
    for step in steps:
        yield step
        if isinstance(step, Repeat):
            yield from _all(step.body)


def _calls(steps: tuple[Step, ...]) -> Iterator[Invoke]:
    return (step for step in _all(steps) if isinstance(step, Invoke))


def _repeats(steps: tuple[Step, ...]) -> Iterator[Repeat]:
    return (step for step in _all(steps) if isinstance(step, Repeat))
