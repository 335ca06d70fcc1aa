"""A traced graph becomes a runnable program: fused, placed, planned, each kernel compiled once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tridsl.backend import Binary, Recorder
from tridsl.buffer import check_trits
from tridsl.diagnostics import error
from tridsl.dtypes import TRIT, U8
from tridsl.ir.expr import index
from tridsl.ir.op import Op, Scalar, Tensor
from tridsl.plan import Plan
from tridsl.program.fuse import fuse, points
from tridsl.program.graph import Graph, Node, Operand, Origin
from tridsl.program.place import Placer, place
from tridsl.program.planning import plan
from tridsl.program.realise import Loaded, Realiser, Served, Target, default_threads
from tridsl.program.record import recorded
from tridsl.program.runs import runs
from tridsl.runtime.execute import Program, Reference, Step, Temporary
from tridsl.runtime.memory import allocate, require
from tridsl.structs import dataclass, replace

if TYPE_CHECKING:
    from numpy.typing import NDArray  # 5 ms of start-up time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Memory:
    """An array of the program as memory: element strides (None: row-major contiguous) and layout."""

    strides: tuple[int, ...] | None = None
    layout: str = "row"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assembled:
    """A program for arguments of one kind. `trits` are the inputs whose values must be -1, 0, 1; `updated` those written."""

    graph: Graph
    targets: tuple[Target, ...]
    plan: Plan
    program: Program
    numbers: Mapping[str, int]
    constants: tuple[tuple[int, NDArray[Any]], ...]
    trits: tuple[str, ...]
    updated: tuple[str, ...]

    def run(self, arrays: Mapping[str, NDArray[Any]], threads: int | None) -> dict[str, NDArray[Any]]:
        """Results by value name, for the inputs by name. Raises E0529, E0530, E0531, E0601, E0602 before anything runs."""
        for name in self.trits:
            check_trits(arrays[name], name)
        self._check_updates(arrays)
        table = {v.name: v for v in self.graph.values}
        made = [table[name] for name in dict.fromkeys(self.graph.outputs) if name not in self.graph.inputs]
        require((*((v.name, v.shape, v.dtype) for v in made), ("temporaries", (self.plan.arena_bytes,), U8)))
        results = {v.name: allocate(v.name, v.shape, v.dtype) for v in made}
        passed = [
            (self.numbers[name], array) for name, array in (*arrays.items(), *results.items()) if name in self.numbers
        ]
        self.program.run((*passed, *self.constants), threads)
        return results

    def _check_updates(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        for name in self.updated:
            target = arrays.get(name)
            if target is None:
                continue
            if not target.flags.writeable:
                raise error(
                    "E0529", f"argument `{name}` is updated in place, but it is read-only", help=f"pass {name}.copy()"
                )
            if any(step == 0 and extent > 1 for step, extent in zip(target.strides, target.shape)):
                raise error(
                    "E0529",
                    f"argument `{name}` is updated in place, but it is a broadcast view: several elements share one place",
                    help=f"pass {name}.copy()",
                )
            for other, array in arrays.items():
                if other != name and np.may_share_memory(target, array):
                    raise error(
                        "E0530",
                        f"argument `{name}` is updated in place and overlaps `{other}` in memory",
                        help=f"pass {other}.copy()",
                    )


def assemble(
    graph: Graph,
    memory: Mapping[str, Memory],
    constants: Mapping[str, tuple[NDArray[Any], Memory]],
    realiser: Realiser,
    find: Callable[[str], Target],
    device: str,
    placer: Placer = place,
    joined: Callable[[Node], Origin] | None = None,
) -> Assembled:
    """`memory` describes the inputs by name, `constants` the captured arrays; `find` gives the target of a device name; `joined` the
    origin of calls that fusion has made one."""
    fused = fuse(graph)
    if joined is not None:
        fused = replace(fused, nodes=tuple(n if n.origin else replace(n, origin=joined(n)) for n in fused.nodes))
    targets = [find(name) for name in placer(fused, device)]
    host = {t.device.name for t in targets if t.in_host_memory}
    devices = [t.device.name for t in targets]
    recording = {t.device.name for t in targets if t.device.name not in host and isinstance(t.backend.driver(), Recorder)}
    plan_ = plan(fused, devices, host, recording)
    numbers = {v.name: n for n, v in enumerate(fused.values)}
    places = {**memory, **{name: m for name, (_, m) in constants.items()}}
    launches = [_step(node, target, fused, numbers, places, realiser) for node, target in zip(fused.nodes, targets)]
    steps: list[Step] = []
    for run in runs(fused, devices, recording):
        together = launches[run.first : run.end]
        if len(together) == 1:
            steps += together
        else:
            steps.append(recorded(together, run, targets[run.first], {numbers[p.name]: p for p in plan_.places}, plan_.arena_bytes))
    used = {slot.number for step in steps for slot in step.slots if isinstance(slot, Reference)}
    temporaries = tuple(
        Temporary(number=numbers[p.name], dtype=p.dtype, shape=p.shape, offset=p.offset)
        for p in plan_.places
        if p.offset is not None and numbers[p.name] in used
    )
    program = Program(
        steps=tuple(steps), temporaries=temporaries, table_size=len(fused.values), arena_bytes=plan_.arena_bytes if temporaries else 0
    )
    trits = _trits(fused)
    for name, (array, _) in constants.items():
        if name in trits:
            check_trits(array, name)
    return Assembled(
        graph=fused,
        targets=tuple(targets),
        plan=plan_,
        program=program,
        numbers=numbers,
        constants=tuple((numbers[name], array) for name, (array, _) in constants.items() if name in numbers),
        trits=tuple(name for name in trits if name in fused.inputs),
        updated=tuple(dict.fromkeys(name for node in fused.nodes for name in node.updates)),
    )


def _step(
    node: Node,
    target: Target,
    graph: Graph,
    numbers: Mapping[str, int],
    places: Mapping[str, Memory],
    realiser: Realiser,
) -> Step:
    op = _laid_out(node, graph, places, target)
    loaded = _kernel(node, op, target, realiser)
    given = {p.name: g for p, g in zip(node.op.inputs, node.inputs)} | {
        t.name: o for t, o in zip(node.op.outputs, node.outputs)
    }
    slots: list[Reference | bool | int | float] = []
    written = []
    shapes = {v.name: v.shape for v in graph.values}
    for number, parameter in enumerate(loaded.binary.signature.params):
        what = given[parameter.name]
        if isinstance(parameter, Scalar):
            assert not isinstance(what, (Operand, str))
            slots.append(what)
            continue
        if parameter.role != "input":
            written.append(number)
        if isinstance(what, Operand):
            packed = places.get(what.value, Memory()).layout != "row"
            slots.append(
                Reference(
                    number=numbers[what.value], shape=None if packed or shapes[what.value] == what.shape else what.shape
                )
            )
        else:
            slots.append(Reference(number=numbers[str(what)]))
    threads = default_threads(sum(points(s) for s in node.op.stages))
    return Step(
        executable=loaded.executable,
        slots=tuple(slots),
        threads=threads,
        contiguous=not target.in_host_memory,
        written=tuple(written),
    )


def _kernel(node: Node, op: Op, target: Target, realiser: Realiser) -> Loaded:
    served = Served(None) if node.origin is None else node.origin.schedule(target)

    def build(served: Served) -> Binary:
        from tridsl import pipeline  # start-up time: a warm process never compiles

        return pipeline.build(op, pipeline.Build(spec=target.device.spec, backend=target.backend, schedule=served.steps, records=realiser.store))

    return realiser.serve(served, lambda served: ("program", op, served.steps), target, build)


def _laid_out(node: Node, graph: Graph, places: Mapping[str, Memory], target: Target) -> Op:
    """The node's op with strides and layouts of its inputs."""
    shapes = {v.name: v.shape for v in graph.values}
    given = dict(zip((p.name for p in node.op.inputs), node.inputs))

    def laid_out(parameter: Tensor | Scalar) -> Tensor | Scalar:
        operand = given.get(parameter.name)
        if isinstance(parameter, Scalar) or not isinstance(operand, Operand):
            return parameter
        memory = places.get(operand.value, Memory())
        if memory.layout != "row":
            return replace(parameter, layout=memory.layout)
        strides = (
            _broadcast_strides(shapes[operand.value], memory.strides, operand.shape) if target.in_host_memory else None
        )
        return parameter if strides is None else replace(parameter, strides=tuple(map(index, strides)))

    return replace(node.op, params=tuple(laid_out(p) for p in node.op.params))


def _broadcast_strides(
    shape: tuple[int, ...], strides: tuple[int, ...] | None, seen: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Element strides of an array of `shape` broadcast to `seen`; None where that is row-major contiguous."""
    if shape == seen:
        return strides
    row_major = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    own = strides if strides is not None else row_major
    repeated = tuple(
        0 if extent == 1 and wide != 1 else step
        for extent, wide, step in zip(shape, seen[len(seen) - len(shape) :], own)
    )
    return (*([0] * (len(seen) - len(shape))), *repeated)


def _trits(graph: Graph) -> tuple[str, ...]:
    """Values held as int8 that serve a `trit` parameter."""
    held = {v.name for v in graph.values if v.dtype != TRIT and v.layout == "row"}
    return tuple(
        dict.fromkeys(
            g.value
            for node in graph.nodes
            for p, g in zip(node.op.inputs, node.inputs)
            if isinstance(p, Tensor) and p.dtype == TRIT and isinstance(g, Operand) and g.value in held
        )
    )
