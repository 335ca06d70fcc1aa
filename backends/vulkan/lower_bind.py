"""`bind`: phases without a binding get one.

    for i < M, for j < N: C[i, j] = …          group.x g < ceil(M*N / 256), lane.x l < min(256, M*N - g*256):
                                         →       C[(g*256 + l) // N, (g*256 + l) % N] = …
    for n < N (reduce): s[] += x[n]      →     lane.x l < 256: for o < ceil((N - l) / 256): s[] += x[o*256 + l]
    for r < R:                           →     group.x r < R:
      for n < N (reduce): m[r] max= x[r, n]      lane.x l < 256: for o < …: m[r] max= x[r, o*256 + l]

The last form (a workgroup for each point of the outer loops) is taken where a long reduction inside reads along memory: its lanes
then read neighbours, which lanes of different rows would not.
Each statement of such a phase becomes a phase of its own, because workgroups meet nowhere else, and buffers between them become scratch. What one workgroup
does (lanes along one reduction, stores of single values) stays together, with that of the phases before: a phase takes some microseconds to begin. A loop is taken when it is marked parallel, or when it is neither reduced nor carried and everything that its body
writes is the iteration's own. What has no such loop, or what a schedule keeps in shared memory without binding lanes around it, runs in
one lane: right, and slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tridsl.backends.vulkan.lower_access import allocated, is_bound, read, written
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Const, Expr, Var, add, binary, ceildiv, index, minimum, mul, sub
from tridsl.ir.loop import Accumulate, Alloc, Append, Block, Buffer, Copy, For, Kernel, Phase, Stmt, Store
from tridsl.ir.walk import substitute, variables, walk

LANES = 256

LONG = 64
"""Iterations from which a reduction along memory gets a workgroup."""


def bind(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Loops of unbound phases to workgroups and lanes."""
    lanes = min(LANES, spec.max_group_lanes or LANES)
    phases: list[Phase] = []
    scratch: list[Buffer] = list(kernel.scratch)
    meeting = False  # whether the last phase is one workgroup's, which others may follow
    for phase in kernel.phases:
        if is_bound(phase.body):
            phases.append(phase)
            meeting = False
            continue
        for run, meets in _runs(phase.body, lanes, scratch):
            if meets and meeting:
                phases[-1] = replace(phases[-1], body=(*phases[-1].body, *run))
            else:
                phases.append(replace(phase, body=run))
            meeting = meets
    if not phases:
        phases = list(kernel.phases)
    return replace(kernel, phases=tuple(phases), scratch=tuple(scratch))


def _runs(block: Block, lanes: int, scratch: list[Buffer]) -> list[tuple[Block, bool]]:
    """The statements of a phase with their loops bound, those together that one workgroup does, and whether it does them. Numbers that one such run alone
    uses are its registers; other buffers between statements go to `scratch`."""
    runs: list[tuple[Block, bool]] = []
    for statement in block:
        if isinstance(statement, Alloc):
            continue
        bound = _bind_nest(statement, lanes)
        meets = isinstance(bound, Store) or (isinstance(bound, For) and bound.kind == "lane")
        if meets and runs and runs[-1][1]:
            runs[-1] = (*runs[-1][0], bound), True
        else:
            runs.append(((bound,), meets))
    for buffer in reversed([s.buffer for s in block if isinstance(s, Alloc)]):
        users = [number for number, (run, _) in enumerate(runs) if buffer.name in _names(run)]
        if len(users) == 1 and runs[users[0]][1] and buffer.space == "reg" and not buffer.shape:
            runs[users[0]] = (Alloc(buffer=buffer), *runs[users[0]][0]), True
        else:
            scratch.append(replace(buffer, space="global"))
    return runs


def _names(block: Block) -> set[str]:
    return {name for name, _ in read(block)} | {ref.tensor for ref in written(block)}


def _bind_nest(statement: Stmt, lanes: int) -> Stmt:
    if not isinstance(statement, For):
        return statement
    chain = _parallel_chain(statement)
    if chain:
        inner = chain[-1].body
        rows = any(isinstance(s, For) and _is_reduction(s) and _runs_along_memory(s) for s in inner)
        if rows and not _is_shared(tuple(s for s in inner if not isinstance(s, Alloc))):
            return _spread_groups(chain, tuple(_share(s, lanes) for s in inner))
        return _spread_groups(chain, inner) if _is_shared(inner) else _spread(chain, lanes)
    return _spread_lanes(statement, lanes) if _is_reduction(statement) and not _is_shared(statement.body) else statement


def _is_shared(block: Block) -> bool:
    """Whether a schedule put something in it into memory that lanes share: lanes around it would share what each has for itself."""
    return any((isinstance(n, Copy) and n.cooperative) or (isinstance(n, Alloc) and n.buffer.space == "shared") for s in block for n in walk(s))


def _parallel_chain(loop: For) -> list[For]:
    """The outermost parallel loops that are directly nested and whose extents do not depend on each other."""
    chain: list[For] = []
    current: Stmt = loop
    while isinstance(current, For) and is_parallel(current):
        if variables(current.extent) & {outer.var for outer in chain}:
            break
        chain.append(current)
        if len(current.body) != 1:
            break
        current = current.body[0]
    return chain


def is_parallel(loop: For) -> bool:
    """Whether iterations of `loop` may run in any order, or at once."""
    if loop.kind in ("parallel", "vector"):
        return not loop.carried
    if loop.reduce or loop.carried or loop.kind not in ("serial", "unroll"):
        return False
    own = allocated(loop.body)
    appends = [node for node in walk(loop.body) if isinstance(node, Append)]
    if any(node.count.tensor not in own for node in appends):
        return False
    appended = {tensor for node in appends for tensor in node.tensors}  # from a count of its own on, up to a limit
    places = [(ref.tensor, ref.index) for ref in written(loop.body) if ref.tensor not in own | appended]
    if not all(any(loop.var in variables(position) for position in at) for _, at in places):
        return False
    tensors = {name for name, _ in places}
    return all(place in places for place in read(loop.body) if place[0] in tensors)


def _spread(chain: Sequence[For], lanes: int) -> For:
    """One index over all points of `chain`, split into workgroups and lanes, the last loop fastest."""
    total: Expr = index(1)
    for loop in chain:
        total = mul(total, loop.extent)
    width = _lanes_for(total, lanes)
    group, lane = Var(name=f"{chain[0].var}.group"), Var(name=f"{chain[-1].var}.lane")
    places = _places(chain, add(mul(group, index(width)), lane))
    inner = For(
        var=lane.name,
        extent=minimum(index(width), sub(total, mul(group, index(width)))),
        bound=width,
        body=substitute(chain[-1].body, places),
        kind="lane",
        binding="lane.x",
    )
    return For(var=group.name, extent=ceildiv(total, index(width)), body=(inner,), kind="group", binding="group.x")


def _places(chain: Sequence[For], point: Expr) -> dict[str, Expr]:
    """The variables of `chain` at the `point`-th of all its points."""
    places: dict[str, Expr] = {}
    for position in range(len(chain) - 1, -1, -1):
        loop = chain[position]
        places[loop.var] = binary("mod", point, loop.extent) if position else point
        point = binary("floordiv", point, loop.extent)
    return places


def _spread_groups(chain: Sequence[For], body: Block) -> For:
    """A workgroup for every point of `chain`."""
    total: Expr = index(1)
    for loop in chain:
        total = mul(total, loop.extent)
    group = Var(name=f"{chain[0].var}.group")
    body = substitute(body, _places(chain, group))
    return For(var=group.name, extent=total, body=body, kind="group", binding="group.x")


def _share(statement: Stmt, lanes: int) -> Stmt:
    """A reduction or an independent loop, shared by the lanes of a workgroup."""
    if isinstance(statement, For) and (_is_reduction(statement) or is_parallel(statement)):
        return _spread_lanes(statement, lanes)
    return statement


def _runs_along_memory(loop: For) -> bool:
    """A long reduction whose variable moves only the last index of what is read."""
    if isinstance(loop.extent, Const) and int(loop.extent.value) < LONG:
        return False
    moved = [at for _, at in read(loop.body) if any(loop.var in variables(position) for position in at)]
    return bool(moved) and not any(loop.var in variables(position) for at in moved for position in at[:-1])


def _is_reduction(loop: For) -> bool:
    """A reduced loop whose parts lanes may combine in any order: all that its body writes are commutative accumulations."""
    if not loop.reduce or loop.carried or loop.kind not in ("serial", "unroll"):
        return False
    own = allocated(loop.body)
    accumulations = [node for node in walk(loop.body) if isinstance(node, Accumulate)]
    targets = [target for node in accumulations for target in node.targets]
    return (
        all(node.reducer.commutative for node in accumulations)
        and all(ref in targets or ref.tensor in own for ref in written(loop.body))
        and not any(isinstance(node, For) and node.carried for node in walk(loop.body))
    )


def _spread_lanes(loop: For, lanes: int) -> For:
    """The iterations of `loop` in turn to the lanes of one workgroup."""
    width = _lanes_for(loop.extent, lanes)
    lane, step = Var(name=f"{loop.var}.lane"), Var(name=f"{loop.var}.step")
    place = add(mul(step, index(width)), lane)
    body: Block = substitute(loop.body, {loop.var: place})
    walk_part = replace(
        loop, var=step.name, extent=ceildiv(sub(loop.extent, lane), index(width)), bound=None, body=body
    )
    return For(
        var=lane.name,
        extent=minimum(index(width), loop.extent),
        bound=width,
        body=(walk_part,),
        kind="lane",
        binding="lane.x",
    )


def _lanes_for(total: Expr, lanes: int) -> int:
    """`lanes`, or the power of two that holds a smaller constant `total`."""
    if isinstance(total, Const):
        return min(lanes, 1 << max(0, int(total.value) - 1).bit_length())
    return lanes
