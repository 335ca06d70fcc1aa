"""`barriers`: lanes wait where one reads or overwrites what another wrote.

copy A → A.s cooperative                   barrier                      # the last step's readers are done
copy B → B.s cooperative             →     copy A → A.s;  copy B → B.s
acc += A.s[…] * B.s[…]                     barrier
                                           acc += A.s[…] * B.s[…]
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tridsl.backends.vulkan.lower_access import read, written
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.loop import Alloc, Barrier, Block, Copy, For, If, Kernel, Stmt
from tridsl.ir.walk import variables, walk

TEAMS = ("lane", "subgroup")
"""Loops whose iterations are carried out together, by the lanes of a workgroup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Access:
    """Tensors touched since the last barrier. Those in `foreign_…` are touched by other lanes than the one that owns the point."""

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    foreign_reads: frozenset[str] = frozenset()
    foreign_writes: frozenset[str] = frozenset()

    def __or__(self, other: _Access) -> _Access:
        return _Access(
            reads=self.reads | other.reads,
            writes=self.writes | other.writes,
            foreign_reads=self.foreign_reads | other.foreign_reads,
            foreign_writes=self.foreign_writes | other.foreign_writes,
        )

    def without(self, names: frozenset[str]) -> _Access:
        return _Access(
            reads=self.reads - names,
            writes=self.writes - names,
            foreign_reads=self.foreign_reads - names,
            foreign_writes=self.foreign_writes - names,
        )

    def conflicts(self, later: _Access) -> bool:
        """Whether some lane could see the wrong value of a tensor without a barrier in between."""
        return bool(
            self.foreign_writes & (later.reads | later.writes)
            or self.writes & (later.foreign_reads | later.foreign_writes)
            or self.foreign_reads & later.writes
            or self.reads & later.foreign_writes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """Buffers of a lane, and buffers of a workgroup; all others belong to the device."""

    private: frozenset[str]
    shared: frozenset[str]


def barriers(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """`Barrier`s between the parts of workgroups that share memory."""
    phases = []
    for phase in kernel.phases:
        if any(isinstance(node, For) and node.kind in TEAMS for node in walk(phase.body)):
            buffers = [node.buffer for node in walk(phase.body) if isinstance(node, Alloc)]
            names = _Names(
                private=frozenset(buffer.name for buffer in buffers if buffer.space != "shared"),
                shared=frozenset(buffer.name for buffer in buffers if buffer.space == "shared"),
            )
            body, _ = _block(phase.body, _Access(), names, False)
            phase = replace(phase, body=body)
        phases.append(phase)
    return replace(kernel, phases=tuple(phases))


def _block(block: Block, before: _Access, names: _Names, in_lanes: bool) -> tuple[Block, _Access]:
    """The block with barriers, given what has happened since the last one, and what has happened at its end."""
    out: list[Stmt] = []
    pending = before
    for statement in block:
        access = _access(statement, names, in_lanes)
        if pending.conflicts(access):
            out.append(Barrier())
            pending = _Access()
        if isinstance(statement, Barrier):
            pending = _Access()
        new, pending = _statement(statement, pending, names, in_lanes)
        out.append(new)
    return tuple(out), pending


def _statement(statement: Stmt, pending: _Access, names: _Names, in_lanes: bool) -> tuple[Stmt, _Access]:
    match statement:
        case For(body=body):
            inside = in_lanes or statement.kind == "lane"
            _, at_end = _block(body, _Access(), names, inside)
            again = at_end.without(_separate(statement, names.shared)) if statement.kind not in TEAMS else _Access()
            new_body, at_end = _block(body, pending | again, names, inside)
            after = pending | at_end | _access(statement, names, in_lanes)
            return replace(statement, body=new_body), after
        case If(then=then, otherwise=otherwise):
            new_then, end_then = _block(then, pending, names, in_lanes)
            new_otherwise, end_otherwise = _block(otherwise, pending, names, in_lanes)
            return replace(statement, then=new_then, otherwise=new_otherwise), end_then | end_otherwise
    return statement, pending | _access(statement, names, in_lanes)


def _separate(loop: For, shared: frozenset[str]) -> frozenset[str]:
    """Tensors of which no two iterations of `loop` use the same element: all memory of the device for workgroups, which never
    wait for each other, and otherwise what is only written, at places that depend on the iteration."""
    writes, reads = list(written(loop.body)), frozenset(name for name, _ in read(loop.body))
    names = frozenset(ref.tensor for ref in writes) | reads
    if loop.kind == "group":
        return names - shared
    fixed = frozenset(ref.tensor for ref in writes if loop.var not in variables(ref))
    return names - reads - fixed


def _access(statement: Stmt, names: _Names, in_lanes: bool) -> _Access:
    """Inside loops over lanes only cooperative copies touch what other lanes own; outside, everything does."""
    reads = frozenset(name for name, _ in read(statement)) - names.private
    writes = frozenset(ref.tensor for ref in written(statement)) - names.private
    if not in_lanes:
        return _Access(reads=reads, writes=writes, foreign_reads=reads, foreign_writes=writes)
    copies = [node for node in walk(statement) if isinstance(node, Copy) and node.cooperative]
    foreign_reads = frozenset(copy.source.tensor for copy in copies) - names.private
    foreign_writes = frozenset(copy.target.tensor for copy in copies) - names.private
    return _Access(reads=reads, writes=writes, foreign_reads=foreign_reads, foreign_writes=foreign_writes)
