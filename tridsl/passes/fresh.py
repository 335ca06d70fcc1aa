"""Copies of a block that can stand beside the original: loop variables and local buffers get names of their own."""

from __future__ import annotations

from typing import Any

from tridsl.ir.expr import Expr, Load, Var
from tridsl.ir.loop import Alloc, Append, Block, CopyAxis, For, Mma, Ref
from tridsl.ir.walk import rewrite, walk
from tridsl.structs import replace


def fresh(block: Block, suffix: str) -> Block:
    """`block` with `suffix` behind every name that it binds (and a mark more, should that name be bound in it already)."""
    bound = {n.var for s in block for n in walk(s) if isinstance(n, For | CopyAxis)}
    bound |= {v for s in block for n in walk(s) if isinstance(n, Mma) for v, _ in n.axes}
    local = {n.buffer.name for s in block for n in walk(s) if isinstance(n, Alloc)}
    while any(name + suffix in bound | local for name in bound | local):
        suffix += "'"
    variables: dict[str, Expr] = {name: Var(name=name + suffix) for name in bound}

    def tensor(node: Any) -> Any:
        return replace(node, tensor=node.tensor + suffix) if node.tensor in local else node

    def loop(node: Any) -> Any:
        return replace(node, var=node.var + suffix)

    rules = {
        Var: lambda v: variables.get(v.name, v),
        Load: tensor,
        Ref: tensor,
        Append: lambda a: replace(a, tensors=tuple(t + suffix if t in local else t for t in a.tensors)),
        For: loop,
        CopyAxis: loop,
        Mma: lambda m: replace(m, axes=tuple((v + suffix, n) for v, n in m.axes)),
        Alloc: lambda a: replace(a, buffer=replace(a.buffer, name=a.buffer.name + suffix)),
    }
    return rewrite(block, rules)
