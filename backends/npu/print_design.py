"""An `ArrayDesign` as text to read."""

from __future__ import annotations

from collections.abc import Iterator

from tridsl.backends.npu.design import (
    Acquire,
    Argument,
    ArrayDesign,
    Await,
    Dimension,
    Invoke,
    Release,
    Repeat,
    SetLock,
    Step,
    Task,
    Wait,
    WriteScalar,
)


def print_design(design: ArrayDesign) -> str:
    """Tiles with their memory, transfers and programs, then streams and the host's sequence. Deterministic."""
    lines = [f"array {design.name} on {design.generation}, {design.columns} columns"]
    for t in design.tensors:
        rounded = "" if t.shape == t.given and t.axes == tuple(range(len(t.shape))) else f" as {list(t.shape)}" + (f" axes {list(t.axes)}" if t.axes else " flat")
        around = f" from {list(t.before)}, around it {'its edge' if t.edge else t.filler}" if t.edge or t.filler or any(t.before) else ""
        lines.append(f"  {t.role} {t.name}: {t.dtype}{list(t.given)}{rounded}{around}")
    lines += [f"  {g.result} is {g.packed} put together, behind {g.header} elements of each part; how many: {g.length}" for g in design.gathers]
    lines += [f"  scalar {name}: {dtype}" for name, dtype in design.scalars]
    cores = {core.tile: core for core in design.cores}
    for tile in design.tiles():
        lines.append(f"  tile {tile[0]}, {tile[1]}")
        lines += [f"    buffer {b.name}: {b.dtype}{list(b.shape)} at {b.address}" for b in design.buffers if b.tile == tile]
        lines += [f"    lock {lock.number} {lock.name} = {lock.initial}" for lock in design.locks if lock.tile == tile]
        for chain in (c for c in design.chains if c.tile == tile):
            lines.append(f"    channel {chain.direction} {chain.channel}")
            lines += [
                f"      {d.number}: take {_counted(d.count, d.acquire)}, move {d.buffer}[{d.offset} + {_dimensions(d.dimensions)}], "
                f"give {_counted(d.count, d.release)}, then {d.following}"
                for d in chain.descriptors
            ]
        if tile in cores:
            lines.append("    core, again and again")
            lines += _steps(cores[tile].program, "      ")
    for flow in design.flows:
        targets = ", ".join(f"{e.tile} {e.direction} {e.channel}" for e in flow.targets)
        lines.append(f"  flow {flow.source.tile} {flow.source.direction} {flow.source.channel} -> {targets}")
    lines.append("  sequence")
    for command in design.sequence:
        match command:
            case Task():
                edge = f"{command.tile} {command.direction} {command.channel}"
                token = ", token" if command.token else ""
                lines.append(f"    {edge}: descriptor {command.number}, {command.tensor}[{command.offset} + {_dimensions(command.dimensions)}]{token}")
            case Await():
                lines.append(f"    {command.tile} {command.direction} {command.channel}: wait")
            case WriteScalar():
                lines.append(f"    {command.buffer}[{command.word}] = {command.name}")
            case SetLock():
                lines.append(f"    lock {command.lock} = {command.value}")
    return "\n".join(lines) + "\n"


def _counted(count: int, lock: str) -> str:
    return lock if count == 1 else f"{count} {lock}"


def _dimensions(dims: tuple[Dimension, ...]) -> str:
    return " ".join(f"{d.size}:{d.stride}" for d in dims)


def _steps(steps: tuple[Step, ...], indent: str) -> Iterator[str]:
    for step in steps:
        match step:
            case Repeat():
                yield f"{indent}{step.variable} < {step.count}"
                yield from _steps(step.body, indent + "  ")
            case Acquire():
                yield f"{indent}acquire {step.port}"
            case Release():
                yield f"{indent}release {step.port}"
            case Wait():
                yield f"{indent}wait {step.lock}"
            case Invoke():
                yield f"{indent}{step.function}({', '.join(map(_argument, step.arguments))})"


def _argument(argument: Argument) -> str:
    if argument.number is not None:
        terms = [f"{v}" if f == 1 else f"{v}*{f}" for v, f in argument.number.terms]
        constant = [str(argument.number.constant)] if argument.number.constant or not terms else []
        return " + ".join([*terms, *constant])
    return f"{argument.port or argument.buffer}{f' + {argument.ahead}' if argument.ahead else ''}"
