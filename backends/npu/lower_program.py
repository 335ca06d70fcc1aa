"""A scheduled kernel, read as what a core does: the loops that move tiles, the functions between them, and the panels that come and go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tridsl.backends.npu.design import Acquire, Affine, Argument, Gather, Invoke, Release, Repeat, Step, Wait
from tridsl.backends.npu.gather import gathers_of
from tridsl.backends.npu.lanes import lanes_of
from tridsl.backends.npu.lower_lines import ROW, Line, NoLines, lines_of
from tridsl.backends.npu.sharing import Shared, shared_in
from tridsl.diagnostics import TriError, error
from tridsl.dtypes import INDEX
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Const, Expr, Load, Select, Var, index
from tridsl.ir.loop import Alloc, Append, Block, Buffer, Copy, For, If, Kernel, Mma, Phase, Ref, Stmt
from tridsl.ir.op import Scalar, Tensor
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.passes.fresh import fresh
from tridsl.passes.partition_loops import partition_loops
from tridsl.passes.simplify import simplify

SCALARS_LOCK = "scalars"
SCALARS = "scalars"
"""Names of the lock and of the buffer through which the host gives scalar parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A panel that is copied: `copy` is the node, `buffer` the panel, `loops` the (variable, count) of the loops around the copy inside the core."""

    copy: Copy
    buffer: Buffer
    loops: tuple[tuple[str, int], ...]
    writes: bool

    @property
    def tensor(self) -> str:
        return self.copy.target.tensor if self.writes else self.copy.source.tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One function of the kernel text: what it does, and what it is given: `pointers` (name, element type) of panels and buffers,
    `numbers` (loop variables), whether it reads the scalars."""

    name: str
    block: Block
    pointers: tuple[Buffer, ...]
    numbers: tuple[str, ...]
    scalars: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """`column` and `row`: (variable, count) of the loops over the array, count 1 where there is none. `shared`: panel to the wider buffer of sums
    that it shares its memory with."""

    column: tuple[str, int]
    row: tuple[str, int]
    moved: tuple[Moved, ...]
    local: tuple[Buffer, ...]
    bodies: tuple[Body, ...]
    steps: tuple[Step, ...]
    scalars: tuple[Scalar, ...]
    gathers: tuple[Gather, ...] = ()
    shared: tuple[tuple[str, Buffer], ...] = ()


def refuse(kernel: Kernel, why: str) -> TriError:
    return error(
        "E0770", f"`{kernel.name}` cannot be laid out on the array: {why}",
        help="run this operation on another device, or give it a schedule whose stages are computed together, tile by tile",
    )  # fmt: skip


def read_program(kernel: Kernel) -> Program:
    """The core's program. E0770: there are several phases, sizes that are not known, or accesses that nothing stages."""
    gathers = gathers_of(kernel)
    if len(kernel.phases) != 1 and gathers is None:
        raise refuse(kernel, f"it needs {len(kernel.phases)} phases with the whole device waiting between them, and a design is one")
    if kernel.sizes:
        raise refuse(kernel, f"the size `{kernel.sizes[0]}` is not known, and transfers are laid out in advance")
    if kernel.messages:
        raise refuse(kernel, "it checks values as it runs, and a core has no way to say that a check failed")
    block: Block = kernel.phases[0].body
    grid: dict[str, tuple[str, int]] = {"column": ("", 1), "row": ("", 1)}
    for kind in grid:
        if len(block) == 1 and isinstance(block[0], For) and block[0].kind == kind:
            grid[kind] = (block[0].var, _count(kernel, block[0]))
            block = block[0].body
    reader = _Reader(kernel=kernel, grid={var for var, _ in grid.values()})
    steps = reader.read(block, ())
    if not reader.moved:
        raise refuse(kernel, "no step of its schedule stages tiles in the cores' memories")
    outside = reader.tensors()
    for body in reader.bodies:
        for node in (n for s in body.block for n in walk(s)):
            if isinstance(node, Load | Ref) and node.tensor in outside:
                raise refuse(kernel, f"`{node.tensor}` is accessed without being staged in a core's memory")
    scalars = tuple(p for p in kernel.params if isinstance(p, Scalar))
    if scalars and any(b.scalars for b in reader.bodies):
        steps = (Wait(lock=SCALARS_LOCK), *steps)
    else:
        scalars = ()
    return Program(
        column=grid["column"], row=grid["row"], moved=tuple(reader.moved), local=tuple(reader.local), bodies=tuple(reader.bodies), steps=steps,
        scalars=scalars, gathers=gathers or (), shared=tuple((s.result, reader.buffers[s.sums]) for s in reader.shared),
    )  # fmt: skip


def _count(kernel: Kernel, loop: For) -> int:
    if not isinstance(loop.extent, Const):
        raise refuse(kernel, f"the loop `{loop.var}` has no constant length")
    return int(loop.extent.value)


@dataclass(slots=True, kw_only=True)
class _Reader:
    kernel: Kernel
    grid: set[str]
    moved: list[Moved] = field(default_factory=list)
    local: list[Buffer] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    buffers: dict[str, Buffer] = field(default_factory=dict)
    shared: list[Shared] = field(default_factory=list)
    lines: dict[str, Line] = field(default_factory=dict)

    def read(self, block: Block, loops: tuple[tuple[str, int], ...]) -> tuple[Step, ...]:
        """What the block does. Panels are acquired where they are copied in or allocated, and released at the end or where they are copied out."""
        steps: list[Step] = []
        held: list[str] = []
        try:
            block, lines = lines_of(block)
        except NoLines as why:
            raise refuse(self.kernel, str(why)) from None
        self.lines |= lines
        waiting: list[Stmt] = []
        panels = {c.source.tensor if _out(c, self.tensors()) else c.target.tensor: c for c in block if isinstance(c, Copy)}

        leaving = {n: c for n, c in panels.items() if _out(c, self.tensors())}
        memory = {s.buffer.name: s.buffer for s in block if isinstance(s, Alloc) and in_memory(s.buffer)}
        self.shared += (sharing := shared_in(block, leaving, {n: b for n, b in memory.items() if n in leaving or n not in panels}))
        inside = {s.sums for s in sharing}
        needless = [s.drain for s in sharing if s.same]

        def flush() -> None:
            for part in _by_lanes(waiting, self.buffers):
                steps.append(self._function(part))
            waiting.clear()

        block = tuple(s for s in block if s not in needless)
        for statement in sorted(block, key=lambda s: not _comes_in(s, panels, self.tensors())):  # nothing that a function computes changes an input
            if isinstance(statement, Alloc) and statement.buffer.space != "reg" and (in_memory(statement.buffer) or _outlives(statement.buffer, block)):
                self.buffers[statement.buffer.name] = statement.buffer
                copy = panels.get(statement.buffer.name)
                if statement.buffer.name in lines:
                    self._rows(lines[statement.buffer.name])
                elif copy is None and statement.buffer.name not in inside:
                    self.local.append(statement.buffer)
                elif copy is not None and _out(copy, self.tensors()):
                    flush()
                    steps.append(Acquire(port=statement.buffer.name))
            elif isinstance(statement, Copy) and statement.target.tensor in self.lines:
                flush()
                line = self.lines[statement.target.tensor]
                steps.append(Acquire(port=line.row.name))
                in_main = loops[-1][0] == line.main
                if in_main:
                    self.moved.append(Moved(copy=line.copy, buffer=line.row, loops=(*loops[:-1], (line.main, line.count)), writes=False))
                if in_main or not line.kept:
                    held.append(line.row.name)
            elif isinstance(statement, Copy):
                flush()
                writes = _out(statement, self.tensors())
                name = statement.source.tensor if writes else statement.target.tensor
                self.moved.append(Moved(copy=statement, buffer=self._tile(name), loops=loops, writes=writes))
                steps.append(Release(port=name) if writes else Acquire(port=name))
                if not writes:
                    held.append(name)
            elif isinstance(statement, For) and any(isinstance(n, Copy) for n in walk(statement)):
                flush()
                count = _count(self.kernel, statement)
                steps.append(Repeat(variable=statement.var, count=count, body=self.read(statement.body, (*loops, (statement.var, count)))))
            else:
                waiting.append(statement)
        flush()
        held += [line.row.name for line in lines.values() for _ in range(line.front) if line.kept]
        return (*steps, *(Release(port=name) for name in held))

    def _rows(self, line: Line) -> None:
        """The rows of a fifo that a function is given, as buffers of their own."""
        for number in range(line.held):
            name = f"{line.row.name}{ROW}{number}"
            self.buffers[name] = replace(line.row, name=name)

    def _tile(self, name: str) -> Buffer:
        """A buffer in a core's memory. Raises E0770 for one that has no place there."""
        if name not in self.buffers:
            kept = next(n.buffer for phase in self.kernel.phases for n in walk(phase) if isinstance(n, Alloc) and n.buffer.name == name)
            raise refuse(self.kernel, f"`{name}` holds {kept.dtype}, and cores have such values in registers only")
        return self.buffers[name]

    def tensors(self) -> set[str]:
        """What lies in the host's memory."""
        return {p.name for p in self.kernel.params if isinstance(p, Tensor)} | {b.name for b in self.kernel.scratch}

    def _function(self, block: Block) -> Invoke:
        inner: list[Buffer] = []
        block = _hoisted(self._parted(block), inner)
        for buffer in inner:
            self.buffers[buffer.name] = buffer
            self.local.append(buffer)
        own = {n.var for s in block for n in walk(s) if isinstance(n, For)}
        own |= {var for s in block for n in walk(s) if isinstance(n, Mma) for var, _ in n.axes}
        nodes = [n for s in block for n in walk(s)]
        used = dict.fromkeys(t for n in nodes for t in (n.tensors if isinstance(n, Append) else (n.tensor,) if isinstance(n, Load | Ref) else ()))
        pointers = tuple(self.buffers[name] for name in used if name in self.buffers)
        scalars = {p.name for p in self.kernel.params if isinstance(p, Scalar)}
        free = {n.name: n.dtype for s in block for n in walk(s) if isinstance(n, Var) and n.name not in own}
        numbers = tuple(sorted(v for v, dtype in free.items() if v not in scalars and dtype == INDEX and ":" in v))
        body = Body(
            name=f"{identifier(self.kernel.name)}_{len(self.bodies)}", block=block, pointers=pointers, numbers=numbers, scalars=any(v in scalars for v in free),
        )  # fmt: skip
        self.bodies.append(body)
        ports = {m.buffer.name for m in self.moved} | self._later()
        ports |= {s.sums for s in self.shared}
        place = {s.sums: s.result for s in self.shared}
        arguments = [self._pointer(b.name, ports, place) for b in pointers]
        arguments += [Argument(number=Affine(terms=((v, 1),))) for v in numbers]
        if body.scalars:
            arguments.append(Argument(buffer=SCALARS))
        return Invoke(function=body.name, arguments=tuple(arguments))

    def _pointer(self, name: str, ports: set[str], place: dict[str, str]) -> Argument:
        fifo, _, number = name.partition(ROW)
        if number:
            return Argument(port=fifo, ahead=int(number))
        return Argument(port=place.get(name, name)) if name in ports else Argument(buffer=name)

    def _parted(self, block: Block) -> Block:
        """Loops over strips of vectors in parts, so that every strip has a constant length. (Loops that move tiles stay whole: so are their tiles.)"""
        alone = replace(self.kernel, phases=(Phase(name="", body=rewrite(block, {For: _decided})),))
        parted = simplify(partition_loops(simplify(alone)))
        return simplify(replace(parted, phases=rewrite(parted.phases, {For: _written_out}))).phases[0].body

    def _later(self) -> set[str]:
        """Panels that are copied out behind the statements that fill them."""
        tensors = self.tensors()
        return {n.source.tensor for p in self.kernel.phases for n in walk(p) if isinstance(n, Copy) and _out(n, tensors)}


def _by_lanes(block: Sequence[Stmt], buffers: Mapping[str, Buffer]) -> Iterator[Block]:
    """The functions of a run of statements. The vectors of a function have one length: what makes longer ones than the statements behind it, from
    memory to memory, has a function of its own, in front of what it has nothing to do with."""
    rest: list[Stmt] = []
    for n, statement in enumerate(block):
        held = {t.tensor for t in walk(statement) if isinstance(t, Load | Ref)} <= buffers.keys()
        behind = tuple(s for s in block[n + 1 :] if not isinstance(s, Alloc))
        if isinstance(statement, For) and held and behind and lanes_of((statement,)) > lanes_of(behind) and _apart(statement, rest):
            yield (statement,)
        else:
            rest.append(statement)
    if any(not isinstance(s, Alloc) for s in rest):
        yield tuple(rest)


def _apart(statement: Stmt, others: Sequence[Stmt]) -> bool:
    """Whether neither touches what the other writes."""
    touched, written = ({n.tensor for n in walk(statement) if isinstance(n, kind)} for kind in (Load | Ref, Ref))
    around, changed = ({n.tensor for s in others for n in walk(s) if isinstance(n, kind)} for kind in (Load | Ref, Ref))
    return not written & around and not touched & changed


def _written_out(loop: For) -> For | Block:
    """What is left of a row behind its last whole round: as many copies of its strips as there are, each of a length of its own."""
    uneven = any(isinstance(n, For) and not isinstance(n.extent, Const) and loop.var in variables(n.extent) for n in loop.body)
    return _copies(loop) if uneven else loop


def _comes_in(statement: Stmt, panels: dict[str, Copy], tensors: set[str]) -> bool:
    """Whether it makes an input's tile available."""
    if isinstance(statement, Alloc):
        copy = panels.get(statement.buffer.name)
        return copy is not None and not _out(copy, tensors)
    return isinstance(statement, Copy) and not _out(statement, tensors)


def _outlives(buffer: Buffer, block: Block) -> bool:
    """Whether a loop that moves tiles uses the buffer, so that several functions share it."""
    moving = [s for s in block if isinstance(s, For) and any(isinstance(n, Copy) for n in walk(s))]
    return any(isinstance(n, Load | Ref) and n.tensor == buffer.name for s in moving for n in walk(s))


def _out(copy: Copy, tensors: set[str]) -> bool:
    return copy.target.tensor in tensors


def _decided(loop: For) -> For | Block:
    """An unrolled loop whose variable decides conditions, written out: each copy knows the answer."""
    if loop.kind != "unroll" or not any(isinstance(n, Select) and loop.var in variables(n.condition) for n in walk(loop.body)):
        return loop
    return _copies(loop)


def _copies(loop: For) -> For | Block:
    if not isinstance(loop.extent, Const):
        return loop
    copies = (fresh(substitute(loop.body, {loop.var: index(n)}), f".{n}") for n in range(int(loop.extent.value)))
    return tuple(s for copy in copies for s in copy)


def _hoisted(block: Block, found: list[Buffer]) -> Block:
    """Buffers in a core's memory that are allocated inside: they live for the whole design. Single values and the tiles of a matrix instruction
    stay: they are registers."""
    out: list[Stmt] = []
    for statement in block:
        if isinstance(statement, Alloc) and in_memory(statement.buffer):
            found.append(statement.buffer)
            continue
        if isinstance(statement, For):
            statement = replace(statement, body=_hoisted(statement.body, found))
        elif isinstance(statement, If):
            statement = replace(statement, then=_hoisted(statement.then, found), otherwise=_hoisted(statement.otherwise, found))
        out.append(statement)
    return tuple(out)


def in_memory(buffer: Buffer) -> bool:
    """Whether a buffer is one of a core's memory. (Places that are values, of one argmax, stay in registers.)"""
    return buffer.space != "reg" and not in_registers(buffer) and buffer.dtype != INDEX


def in_registers(buffer: Buffer) -> bool:
    """Whether a function keeps `buffer` in registers: accumulators of a register tile (`passes.register_tiles` names them)."""
    return is_accumulator(buffer.name)


def is_accumulator(name: str) -> bool:
    return ":acc." in name or ":" in name and ".part." in name


def identifier(name: str) -> str:
    """A name of C++ and of the design text."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)


def affine_of(place: Expr) -> tuple[dict[str, int], int]:
    """Factors of the variables, and the constant, of an index that is a sum of multiples."""
    poly = normal_form(place)
    found: dict[str, int] = {}
    for monomial, factor in poly.terms:
        if len(monomial) != 1 or not isinstance(monomial[0], Var) or monomial[0].dtype != INDEX:
            raise ValueError(f"no sum of multiples: {place}")
        found[monomial[0].name] = factor
    return found, poly.constant
