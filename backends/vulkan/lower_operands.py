"""`operands`: an unrolled tile reads each element of shared memory once, and in whole words.

                                                                          alloc B.s.r: f32[4, 8] in reg
    unroll kk < 4: unroll i < 8: unroll j < 8:                            copy B.s[k*4 + kk, j] → B.s.r[kk, j]
      acc[i, j] += A.s[i, k*4 + kk] * B.s[k*4 + kk, j]                →   … likewise A.s.r …
                                                                          unroll kk, i, j: acc[i, j] += A.s.r[i, kk] * B.s.r[kk, j]

Matrix instructions read fragments in the same way: `copy A.s[…] → A.s.f[f, m, k]`, once for all tiles that use it, and from global memory
too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tridsl.backends.vulkan.contiguous import offset_of, plain_tensors, row_major
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Const, Expr, Load, Var, index
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, Copy, CopyAxis, For, If, Kernel, Mma, Ref, Space, Stmt
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, substitute, variables, walk

MAX_ELEMENTS = 256
"""Of one operand that a lane holds in registers."""


def operands(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """The operands of every unrolled tile in registers or fragments."""
    phases = []
    plain, sized = plain_tensors(kernel), [p for p in kernel.params if isinstance(p, Tensor)]
    far = {p.name: Buffer(name=p.name, dtype=p.dtype, shape=p.shape, space="global") for p in sized if p.name in plain}
    for phase in kernel.phases:
        buffers = [n.buffer for n in walk(phase.body) if isinstance(n, Alloc)]
        shared = {buffer.name: buffer for buffer in buffers if buffer.space == "shared"}
        matrices = frozenset(buffer.name for buffer in buffers if buffer.space == "fragment")
        phases.append(replace(phase, body=_block(phase.body, shared | far if matrices else shared, matrices)) if shared or matrices else phase)
    return replace(kernel, phases=tuple(phases))


def _block(block: Block, shared: dict[str, Buffer], matrices: frozenset[str]) -> Block:
    out: list[Stmt] = []
    for statement in block:
        match statement:
            case For():
                loops, inner = _tile(statement)
                if isinstance(inner, Accumulate) or (isinstance(inner, Mma) and inner.target.tensor in matrices):
                    out += _hoisted(loops, inner, shared)
                else:
                    out.append(replace(statement, body=_block(statement.body, shared, matrices)))
            case Mma() if statement.target.tensor in matrices:  # a tile of one fragment has no loops
                out += _hoisted([], statement, shared)
            case If(then=then, otherwise=otherwise):
                out.append(replace(statement, then=_block(then, shared, matrices), otherwise=_block(otherwise, shared, matrices)))
            case _:
                out.append(statement)
    return tuple(out)


def _tile(loop: For) -> tuple[list[For], Stmt | None]:
    """Directly nested unrolled loops of constant extent, and the statement in them."""
    loops: list[For] = []
    current: Stmt = loop
    while isinstance(current, For):
        if current.kind != "unroll" or not isinstance(current.extent, Const) or len(current.body) != 1:
            return loops, None
        loops.append(current)
        current = current.body[0]
    return loops, current


@dataclass(slots=True, kw_only=True)
class _Operands:
    """`axes`: loops of the tile, and those inside an instruction, with their extents."""

    axes: dict[str, int]
    inner: tuple[str, ...]
    shared: dict[str, Buffer]
    space: Space
    stage: str
    made: dict[tuple[str, tuple[Expr, ...]], Load] = field(default_factory=dict)
    before: list[Stmt] = field(default_factory=list)

    def load(self, node: Load) -> Load:
        if node.tensor not in self.shared or node.mask is not None:
            return node
        if self.space == "reg" and self.shared[node.tensor].space == "global":
            return node
        key = (node.tensor, node.index)
        if key not in self.made:
            self.made[key] = self._hoist(node) or node
        return self.made[key]

    def _hoist(self, node: Load) -> Load | None:
        buffer = self.shared[node.tensor]
        polynomial = normal_form(offset_of(node.index, row_major(buffer.shape)))
        steps = {name: polynomial.coefficient(name) for name in self.axes if name in variables(node)}
        if not steps or any(not step for step in steps.values()):
            return None
        names = sorted(steps, key=lambda name: (self.inner.index(name), 0) if name in self.inner else (-1, -(steps[name] or 0)))
        count = 1
        for name in names:
            count *= self.axes[name]
        if count > MAX_ELEMENTS and self.space == "reg":
            return None
        own = f"{node.tensor}.{self.space[0]}@{self.stage}.{len(self.made)}"
        renamed = {name: Var(name=f"{own}:{name}") for name in names}
        local = Buffer(name=own, dtype=node.dtype, shape=tuple(index(self.axes[name]) for name in names), space=self.space)
        copy: Stmt = Copy(
            axes=tuple(CopyAxis(var=renamed[name].name, extent=index(self.axes[name])) for name in names if self._copied(name)),
            target=Ref(tensor=own, index=tuple(renamed[name] for name in names)),
            source=substitute(node, renamed),
        )
        for name in reversed([name for name in names if not self._copied(name)]):
            copy = For(var=renamed[name].name, extent=index(self.axes[name]), bound=self.axes[name], kind="unroll", body=(copy,))
        self.before += [Alloc(buffer=local), copy]
        return replace(node, tensor=own, index=tuple(Var(name=name) for name in names))

    def _copied(self, name: str) -> bool:
        """A fragment is one copy; what there are several of is a loop around it."""
        return self.space == "reg" or name in self.inner


def _lies_along(node: object, variable: str, shared: dict[str, Buffer]) -> bool:
    """Whether `variable` walks neighbours of shared memory."""
    if not isinstance(node, Load) or node.tensor not in shared or shared[node.tensor].space != "shared":
        return False
    return normal_form(offset_of(node.index, row_major(shared[node.tensor].shape))).coefficient(variable) == 1


def _hoisted(loops: list[For], inner: Accumulate | Mma, shared: dict[str, Buffer]) -> Block:
    tile = [loop for loop in loops if not loop.reduce]
    if tile and loops[0].reduce and isinstance(inner, Accumulate) and not any(_lies_along(n, loops[0].var, shared) for n in walk(inner)):
        return (replace(loops[0], body=_hoisted(loops[1:], inner, shared)),)  # a step of the sum at a time takes fewer registers
    axes = {loop.var: int(loop.extent.value) for loop in loops if isinstance(loop.extent, Const)}
    own: tuple[str, ...] = ()
    if isinstance(inner, Mma):
        axes |= dict(inner.axes)
        m, n, k = (name for name, _ in inner.axes)
        own = (m, k, n)  # A is m x k, B is k x n
    space: Space = "fragment" if isinstance(inner, Mma) else "reg"
    found = _Operands(axes=axes, inner=own, shared=shared, space=space, stage=next(iter(axes)))
    new: Block = rewrite((inner,), {Load: found.load})
    for loop in reversed(loops):
        new = (replace(loop, body=new),)
    return (*found.before, *new)
