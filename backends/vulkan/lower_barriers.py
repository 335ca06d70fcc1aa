"""`barriers`: lanes wait where one reads or overwrites what another wrote.

copy A → A.s cooperative                   barrier                      # the last step's readers are done
copy B → B.s cooperative             →     copy A → A.s;  copy B → B.s
acc += A.s[…] * B.s[…]                     barrier
                                           acc += A.s[…] * B.s[…]

None is needed between `lane q < 128: l[q] = …` and `lane p < 128: … l[p]`: each lane meets what it wrote itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tridsl.backends.vulkan.lower_access import read, written
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.affine import normal_form, to_expression
from tridsl.ir.expr import Expr, Var
from tridsl.ir.loop import Alloc, Barrier, Block, Copy, For, If, Kernel, Stmt
from tridsl.ir.walk import substitute, variables, walk

LANE = Var(name="<lane>")
"""Of any loop over lanes, the place."""
TEAMS = ("lane", "subgroup")
"""Loops whose iterations are carried out together, by the lanes of a workgroup."""


Owner = tuple[int, Expr] | None
"""An axis of a tensor, and the place along it that a lane has for itself; None: any lane touches any element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Access:
    """Tensors touched since the last barrier. Those in `foreign_…` are touched by other lanes than the one that owns the point; `owners`: how each
    tensor's elements belong to lanes, for everything that touched it."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    foreign_reads: frozenset[str] = frozenset()
    foreign_writes: frozenset[str] = frozenset()
    owners: frozenset[tuple[str, Owner]] = frozenset()

    def __or__(self, other: _Access) -> _Access:
        return _Access(
            reads=self.reads | other.reads,
            writes=self.writes | other.writes,
            foreign_reads=self.foreign_reads | other.foreign_reads,
            foreign_writes=self.foreign_writes | other.foreign_writes,
            owners=self.owners | other.owners,
        )

    def without(self, names: frozenset[str]) -> _Access:
        return _Access(
            reads=self.reads - names,
            writes=self.writes - names,
            foreign_reads=self.foreign_reads - names,
            foreign_writes=self.foreign_writes - names,
            owners=frozenset(one for one in self.owners if one[0] not in names),
        )

    def owned_alike(self, later: _Access) -> frozenset[str]:
        """Tensors whose elements belong to the same lanes in both."""
        owners: dict[str, set[Owner]] = {}
        for name, owner in self.owners | later.owners:
            owners.setdefault(name, set()).add(owner)
        return frozenset(name for name, found in owners.items() if len(found) == 1 and None not in found)

    def conflicts(self, later: _Access) -> bool:
        """Whether some lane could see the wrong value of a tensor without a barrier in between."""
        met = (
            self.foreign_writes & (later.reads | later.writes)
            | self.writes & (later.foreign_reads | later.foreign_writes)
            | self.foreign_reads & later.writes
            | self.reads & later.foreign_writes
        )
        return bool(met) and not met <= self.owned_alike(later)


def barriers(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """`Barrier`s between the parts of workgroups that share memory."""
    phases = []
    for phase in kernel.phases:
        if any(isinstance(node, For) and node.kind in TEAMS for node in walk(phase.body)):
            buffers = [node.buffer for node in walk(phase.body) if isinstance(node, Alloc)]
            work = _Phase(
                private=frozenset(buffer.name for buffer in buffers if buffer.space != "shared"),
                shared=frozenset(buffer.name for buffer in buffers if buffer.space == "shared"),
                row=all(node.binding in (None, "lane.x") for node in walk(phase.body) if isinstance(node, For) and node.kind == "lane"),
            )
            body, _ = work.block(phase.body, _Access(), False)
            phase = replace(phase, body=body)
        phases.append(phase)
    return replace(kernel, phases=tuple(phases))


class _Phase:
    """One phase: `private` are buffers of a lane, `shared` those of a workgroup; all others belong to the device. `row`: all loops over lanes go along
    x, so that none has several lanes in one place (workgroups are filled up along x).

    What a statement touches, and what has happened at the end of a loop's body that nothing preceded, is asked once for each loop around
    it: it is kept, so that the work grows with the depth of the loops and not with its power of two."""

    def __init__(self, private: frozenset[str], shared: frozenset[str], row: bool) -> None:
        self._private, self._shared, self._row = private, shared, row
        self._touched: dict[tuple[Stmt, bool], _Access] = {}
        self._ends: dict[tuple[For, bool], _Access] = {}

    def block(self, block: Block, before: _Access, in_lanes: bool) -> tuple[Block, _Access]:
        """The block with barriers, given what has happened since the last one, and what has happened at its end."""
        out: list[Stmt] = []
        pending = before
        for statement in block:
            access = self._access(statement, in_lanes)
            if pending.conflicts(access):
                out.append(Barrier())
                pending = _Access()
            if isinstance(statement, Barrier):
                pending = _Access()
            new, pending = self._statement(statement, pending, in_lanes)
            out.append(new)
        return tuple(out), pending

    def _statement(self, statement: Stmt, pending: _Access, in_lanes: bool) -> tuple[Stmt, _Access]:
        match statement:
            case For(body=body):
                inside = in_lanes or statement.kind == "lane"
                again = self._carried(statement, inside) if statement.kind not in TEAMS else _Access()
                alike = pending.owned_alike(self._access(statement, in_lanes)) if inside and not in_lanes else frozenset()
                new_body, at_end = self.block(body, pending.without(alike) | again, inside)
                after = pending | at_end | self._access(statement, in_lanes)
                return replace(statement, body=new_body), after
            case If(then=then, otherwise=otherwise):
                new_then, end_then = self.block(then, pending, in_lanes)
                new_otherwise, end_otherwise = self.block(otherwise, pending, in_lanes)
                return replace(statement, then=new_then, otherwise=new_otherwise), end_then | end_otherwise
        return statement, pending | self._access(statement, in_lanes)

    def _carried(self, loop: For, inside: bool) -> _Access:
        """What an iteration leaves for the next one."""
        key = loop, inside
        if key not in self._ends:
            _, at_end = self.block(loop.body, _Access(), inside)
            self._ends[key] = at_end.without(_separate(loop, self._shared))
        return self._ends[key]

    def _access(self, statement: Stmt, in_lanes: bool) -> _Access:
        """Inside loops over lanes only cooperative copies touch what other lanes own; outside, everything does."""
        key = statement, in_lanes
        if key not in self._touched:
            self._touched[key] = self._accesses(statement, in_lanes)
        return self._touched[key]

    def _accesses(self, statement: Stmt, in_lanes: bool) -> _Access:
        match statement:
            case For(extent=own, body=parts):
                pass
            case If(condition=own, then=then, otherwise=otherwise):
                parts = (*then, *otherwise)
            case _:
                return self._touches(statement, in_lanes)
        found = self._touches(own, in_lanes)
        for part in parts:
            found |= self._access(part, in_lanes)
        if isinstance(statement, For) and statement.kind == "lane" and not in_lanes and self._row:
            return replace(found, owners=frozenset((name, self._owner(statement, name)) for name in found.reads | found.writes))
        return found

    def _touches(self, statement: Stmt | Expr, in_lanes: bool) -> _Access:
        reads = frozenset(name for name, _ in read(statement)) - self._private
        writes = frozenset(ref.tensor for ref in written(statement)) - self._private
        if not in_lanes:
            owners = frozenset((name, None) for name in reads | writes)
            return _Access(reads=reads, writes=writes, foreign_reads=reads, foreign_writes=writes, owners=owners)
        copies = [node for node in walk(statement) if isinstance(node, Copy) and node.cooperative]
        foreign_reads = frozenset(copy.source.tensor for copy in copies) - self._private
        foreign_writes = frozenset(copy.target.tensor for copy in copies) - self._private
        owners = frozenset((name, None) for name in foreign_reads | foreign_writes)
        return _Access(reads=reads, writes=writes, foreign_reads=foreign_reads, foreign_writes=foreign_writes, owners=owners)

    def _owner(self, loop: For, name: str) -> Owner:
        """The place that each lane of `loop` has for itself in the tensor, if all the loop does with it is there."""
        if any(isinstance(n, Copy) or (isinstance(n, For) and n.kind in TEAMS) for n in walk(loop.body)):
            return None
        places = [at for tensor, at in read(loop) if tensor == name] + [ref.index for ref in written(loop) if ref.tensor == name]
        for axis in range(min(len(at) for at in places)):
            forms = {normal_form(substitute(at[axis], {loop.var: LANE})) for at in places}
            form = min(forms, key=str)
            if len(forms) == 1 and form.coefficient(LANE.name) and not variables(to_expression(form.without([LANE.name]))):
                return axis, to_expression(form)
        return None


def _separate(loop: For, shared: frozenset[str]) -> frozenset[str]:
    """Tensors of which no two iterations of `loop` use the same element: all memory of the device for workgroups, which never
    wait for each other, and otherwise what is only written, at places that depend on the iteration."""
    writes, reads = list(written(loop.body)), frozenset(name for name, _ in read(loop.body))
    names = frozenset(ref.tensor for ref in writes) | reads
    if loop.kind == "group":
        return names - shared
    fixed = frozenset(ref.tensor for ref in writes if loop.var not in variables(ref))
    return names - reads - fixed
