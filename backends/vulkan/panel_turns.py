"""Panels that take turns: a loop over them whose iterations are written out, each with registers, or a panel, of its own.

`pipeline(2)`, two sets of registers, so that memory has two iterations to answer:

    fetch 0 → next, 1 → next1
    for p < K/2:
      barrier;  next → A.s;   barrier;  fetch 2*p + 2 → next;   … A.s …
      barrier;  next1 → A.s;  barrier;  fetch 2*p + 3 → next1;  … A.s …

`A.store(shared, at=k.o, buffers=2)`, two panels in shared memory, one of which is filled while the other is read, so that lanes wait once:

    fetch 0 → next;  next → A.s;  fetch 1 → next;  barrier
    for p < K/2:
      next → A.s.1;  fetch 2*p + 2 → next;  … A.s …;    barrier
      next → A.s;    fetch 2*p + 3 → next;  … A.s.1 …;  barrier
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import lcm

from tridsl.backends.vulkan.panel_chunks import Panel, moves_of
from tridsl.ir.expr import Expr, Load, Var, add, binary, index, mul
from tridsl.ir.loop import Alloc, Barrier, Block, For, If, Ref, Stmt
from tridsl.ir.walk import rewrite, substitute
from tridsl.passes.fresh import fresh

Panels = tuple[Panel, ...]
"""Those that one iteration reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The loop, what stands in it, and how many sets of registers and panels in shared memory take turns."""

    loop: For
    body: Block
    panels: Panels
    team: tuple[For, ...]
    extent: int
    depth: int
    shared: int

    @property
    def ahead(self) -> int:
        """Iterations from the one that is carried out to the one whose panel is filled."""
        return self.shared - 1

    def written_out(self) -> Block:
        """The loop with as many iterations in its body as there are turns, what comes before it, and what is left behind it."""
        each = lcm(self.depth, self.shared)
        whole, left = divmod(self.extent, each)
        body = tuple(s for turn in range(each) for s in fresh(self._repeated(turn, each), f".{turn}"))
        main = (replace(self.loop, extent=index(whole), bound=whole, body=body),) if whole else ()
        behind = (s for number in range(self.extent - left, self.extent) for s in fresh(self._last(number), f".last{number % each}"))
        return (*self._begin(), *main, *behind)

    def _repeated(self, turn: int, each: int) -> Block:
        """The `turn`-th of `each` iterations in the loop."""
        first = mul(Var(name=self.loop.var), index(each))
        next_one = add(first, index(turn + self.ahead + self.depth))
        fetch = If(condition=binary("lt", next_one, index(self.extent)), then=fresh(self._load(turn + self.ahead, next_one), ".ahead"))
        return self._iteration(turn, add(first, index(turn)), self._fill(turn + self.ahead), (fetch,))

    def _last(self, number: int) -> Block:
        """An iteration behind the loop, which has a panel to fill, or one to fetch, only where there is one."""
        filled, fetched = number + self.ahead, number + self.ahead + self.depth
        fill = self._fill(filled) if filled < self.extent else ()
        fetch = self._load(fetched, index(fetched)) if fetched < self.extent else ()
        return self._iteration(number, index(number), fill, fetch)

    def _begin(self) -> Block:
        out: list[Stmt] = []
        for number in range(self.ahead):
            out += [*fresh(self._load(number, index(number)), f".{number}"), *fresh(self._fill(number), f".{number}")]
        for number in range(self.ahead, self.ahead + self.depth):
            out += fresh(self._load(number, index(number)), f".{number}")
        return (*out, Barrier()) if self.ahead else tuple(out)

    def _iteration(self, number: int, step: Expr, fill: Block, fetch: Block) -> Block:
        work = substitute(self._reading(number), {self.loop.var: step})
        return (*fill, *fetch, *work, Barrier()) if self.ahead else (Barrier(), *fill, Barrier(), *fetch, *work)

    def _fill(self, number: int) -> Block:
        """From the registers of iteration `number` to its panel."""
        return self._named(number, tuple(s for p in self._held(number) for s in moves_of(p, self.team, p.copy, out=True)))

    def _load(self, number: int, step: Expr) -> Block:
        """What iteration `step` reads into the registers of iteration `number`."""
        copies = ((p, replace(p.copy, source=substitute(p.copy.source, {self.loop.var: step}))) for p in self._held(number))
        return tuple(s for p, copy in copies for s in moves_of(p, self.team, copy, out=False))

    def _held(self, number: int) -> Panels:
        return tuple(replace(panel, turn=number % self.depth) for panel in self.panels)

    def _reading(self, number: int) -> Block:
        return self._named(number, self.body)

    def _named(self, number: int, block: Block) -> Block:
        """`block` with the panels of iteration `number`."""
        names = {panel.copy.target.tensor: panel_name(panel.copy.target.tensor, number % self.shared) for panel in self.panels}

        def own(node: Load | Ref) -> Load | Ref:
            return replace(node, tensor=names[node.tensor]) if node.tensor in names else node

        return rewrite(block, {Load: own, Ref: own})


def with_turns(block: Block, turns: Mapping[str, int]) -> Block:
    """`block` with storage for as many panels as take turns, by their names."""
    out: list[Stmt] = []
    for statement in block:
        match statement:
            case Alloc(buffer=buffer):
                out += [replace(statement, buffer=replace(buffer, name=panel_name(buffer.name, turn))) for turn in range(turns.get(buffer.name, 1))]
            case For(body=body):
                out.append(replace(statement, body=with_turns(body, turns)))
            case If(then=then, otherwise=otherwise):
                out.append(replace(statement, then=with_turns(then, turns), otherwise=with_turns(otherwise, turns)))
            case _:
                out.append(statement)
    return tuple(out)


def panel_name(name: str, turn: int) -> str:
    """The panel in shared memory of the `turn`-th iteration of those that take turns."""
    return f"{name}.{turn}" if turn else name
