"""Which statements need all lanes of a group at once, and which lanes a buffer belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tridsl.ir.loop import Accumulate, Alloc, Barrier, Block, Copy, For, If, Stmt
from tridsl.ir.walk import variables

LANE_AXES = {"lane.x": 0, "lane.y": 1, "lane.z": 2}
GROUP_AXES = {"group.x": 0, "group.y": 1, "group.z": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """`private`: for each buffer allocated inside loops over lanes, the variables of those loops."""

    private: Mapping[str, frozenset[str]]

    def reduced(self, statement: Accumulate, lanes: Iterable[str]) -> tuple[str, ...]:
        """The enclosing lane variables whose lanes `statement` combines: no target mentions them or is theirs."""
        mentioned = frozenset().union(*(variables(target) for target in statement.targets))
        owned = frozenset().union(*(self.private.get(target.tensor, frozenset()) for target in statement.targets))
        return tuple(lane for lane in lanes if lane not in mentioned | owned)

    def is_collective(self, statement: Stmt, lanes: Iterable[str]) -> bool:
        """Whether all lanes must come to `statement` together: it holds a barrier or combines lanes."""
        match statement:
            case Barrier():
                return True
            case Copy(cooperative=cooperative):
                return cooperative
            case Accumulate():
                return bool(self.reduced(statement, lanes))
            case For(var=var, body=body):
                inside = (*lanes, var) if statement.kind == "lane" else tuple(lanes)
                return self.block_is_collective(body, inside)
            case If(then=then, otherwise=otherwise):
                return self.block_is_collective(then, lanes) or self.block_is_collective(otherwise, lanes)
        return False

    def block_is_collective(self, block: Block, lanes: Iterable[str]) -> bool:
        lanes = tuple(lanes)
        return any(self.is_collective(statement, lanes) for statement in block)


def lanes_of(block: Block) -> Lanes:
    """The owners of all buffers allocated in `block`."""
    private: dict[str, frozenset[str]] = {}

    def visit(statements: Block, lanes: frozenset[str]) -> None:
        for statement in statements:
            match statement:
                case Alloc(buffer=buffer) if buffer.space != "shared":
                    private[buffer.name] = lanes
                case For(var=var, body=body):
                    visit(body, lanes | {var} if statement.kind == "lane" else lanes)
                case If(then=then, otherwise=otherwise):
                    visit(then, lanes)
                    visit(otherwise, lanes)

    visit(block, frozenset())
    return Lanes(private=private)
