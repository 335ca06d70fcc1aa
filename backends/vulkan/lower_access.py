"""Which tensors statements read and write: shared by the target passes."""

from __future__ import annotations

from collections.abc import Iterator

from tridsl.dtypes import INDEX
from tridsl.ir.expr import Expr, Load, Node
from tridsl.ir.loop import Accumulate, Alloc, Append, Block, Copy, Mma, Ref, Stmt, Store
from tridsl.ir.walk import walk


def written(node: Node | Block) -> Iterator[Ref]:
    """Every place that `node` writes; an appended tensor comes with its count as index, in reading order."""
    for part in walk(node):
        match part:
            case Store(target=target) | Copy(target=target) | Mma(target=target):
                yield target
            case Accumulate(targets=targets):
                yield from targets
            case Append(tensors=tensors, count=count):
                for tensor in tensors:
                    yield Ref(tensor=tensor, index=(Load(tensor=count.tensor, index=count.index, dtype=INDEX),))
                yield count


def read(node: Node | Block) -> Iterator[tuple[str, tuple[Expr, ...]]]:
    """Every load, and the targets of what reads before it writes."""
    for part in walk(node):
        match part:
            case Load(tensor=tensor, index=at):
                yield tensor, at
            case Accumulate(targets=targets):
                yield from ((target.tensor, target.index) for target in targets)
            case Mma(target=target):
                yield target.tensor, target.index
            case Append(count=count):
                yield count.tensor, count.index


def allocated(node: Node | Block) -> frozenset[str]:
    """Names of the buffers made inside `node`."""
    return frozenset(part.buffer.name for part in walk(node) if isinstance(part, Alloc))


def is_bound(block: Block | Stmt) -> bool:
    """Whether some loop is bound to workgroups or lanes."""
    return any(getattr(part, "kind", None) in ("group", "lane", "subgroup") for part in walk(block))
