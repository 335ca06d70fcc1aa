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
from tridsl.ir.walk import walk


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

    def conflicts(self, later: _Access) -> bool:
        """Whether some lane could see the wrong value of a tensor without a barrier in between."""
        return bool(
            self.foreign_writes & (later.reads | later.writes)
            or self.writes & (later.foreign_reads | later.foreign_writes)
            or self.foreign_reads & later.writes
            or self.reads & later.foreign_writes
        )


def barriers(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """`Barrier`s between the parts of workgroups that share memory."""
    phases = []
    for phase in kernel.phases:
        if any(isinstance(node, For) and node.kind == "lane" for node in walk(phase.body)):
            local = frozenset(
                n.buffer.name for n in walk(phase.body) if isinstance(n, Alloc) and n.buffer.space == "reg"
            )
            body, _ = _block(phase.body, _Access(), local, False)
            phase = replace(phase, body=body)
        phases.append(phase)
    return replace(kernel, phases=tuple(phases))


def _block(block: Block, before: _Access, local: frozenset[str], in_lanes: bool) -> tuple[Block, _Access]:
    """The block with barriers, given what has happened since the last one, and what has happened at its end."""
    out: list[Stmt] = []
    pending = before
    for statement in block:
        access = _access(statement, local, in_lanes)
        if pending.conflicts(access):
            out.append(Barrier())
            pending = _Access()
        if isinstance(statement, Barrier):
            pending = _Access()
        new, pending = _statement(statement, pending, local, in_lanes)
        out.append(new)
    return tuple(out), pending


def _statement(statement: Stmt, pending: _Access, local: frozenset[str], in_lanes: bool) -> tuple[Stmt, _Access]:
    match statement:
        case For(body=body):
            inside = in_lanes or statement.kind == "lane"
            _, at_end = _block(body, _Access(), local, inside)
            again = at_end if statement.kind != "lane" else _Access()
            new_body, at_end = _block(body, pending | again, local, inside)
            after = pending | at_end | _access(statement, local, in_lanes)
            return replace(statement, body=new_body), after
        case If(then=then, otherwise=otherwise):
            new_then, end_then = _block(then, pending, local, in_lanes)
            new_otherwise, end_otherwise = _block(otherwise, pending, local, in_lanes)
            return replace(statement, then=new_then, otherwise=new_otherwise), end_then | end_otherwise
    return statement, pending | _access(statement, local, in_lanes)


def _access(statement: Stmt, local: frozenset[str], in_lanes: bool) -> _Access:
    """Inside loops over lanes only cooperative copies touch what other lanes own; outside, everything does."""
    reads = frozenset(name for name, _ in read(statement)) - local
    writes = frozenset(ref.tensor for ref in written(statement)) - local
    if not in_lanes:
        return _Access(reads=reads, writes=writes, foreign_reads=reads, foreign_writes=writes)
    copies = [node for node in walk(statement) if isinstance(node, Copy) and node.cooperative]
    foreign_reads = frozenset(copy.source.tensor for copy in copies) - local
    foreign_writes = frozenset(copy.target.tensor for copy in copies) - local
    return _Access(reads=reads, writes=writes, foreign_reads=foreign_reads, foreign_writes=foreign_writes)
