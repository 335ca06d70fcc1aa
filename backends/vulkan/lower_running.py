"""`running`: what goes from one lane to the next goes through one combination of all lanes.

    lane l < 256 carried:                      lane l < 256 carried:
      for w < 4:                                 for w < 4: value[w] = x[…]                  # 16 bytes at once
        run += x[…]                        →     own = 0;  for w < 4: own += value[w]
        y[…] = run                               before = run;  run += own                   # across the lanes, in their order
                                                 for w < 4: before += value[w];  y[…] = before

Lanes of one workgroup then read and write neighbours, and wait for each other once for the elements that each of them has. The third
line means what it says when lanes run one after the other; `emit_scan` makes all of them do it at once. Compactions do the same with
the number of elements that each lane keeps. An ordered reduction has no last line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.dtypes import BOOL, INDEX, DType
from tridsl.ir.expr import Cast, Const, Expr, Load, Var, binary, index
from tridsl.ir.loop import Accumulate, Alloc, Append, Block, Buffer, For, If, Kernel, LoopKind, Ref, Stmt, Store
from tridsl.ir.scans import Running, running_of
from tridsl.ir.walk import rewrite, substitute, walk
from tridsl.passes.fresh import fresh
from tridsl.schedule.parts import COUNT


def running(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Carried loops over lanes, in every phase."""

    def visit(loop: For) -> For:
        if loop.kind != "lane" or not loop.carried:
            return loop
        found = running_of(loop)
        if found is None:
            raise error("E0707", f"the Vulkan backend has no GLSL for what the lanes of {loop.var} carry", help="bind a loop that scans, compacts or reduces and does nothing else")
        return replace(loop, body=_Lane(loop=loop, found=found).body())

    return replace(kernel, phases=rewrite(kernel.phases, {For: visit}))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lane:
    """The body of one lane. `found.inner`: the loop over its own elements, None where it has one."""

    loop: For
    found: Running

    @property
    def width(self) -> int:
        inner = self.found.inner
        return 1 if inner is None else int(inner.extent.value) if isinstance(inner.extent, Const) else inner.bound or 1

    @property
    def element(self) -> str:
        return f"{self.loop.var}.e" if self.found.inner is None else self.found.inner.var

    def body(self) -> Block:
        step = self.found.step
        reducer = COUNT if isinstance(step, Append) else step.reducer
        runs = (step.count,) if isinstance(step, Append) else step.targets
        own, before = (self._registers(what, reducer.dtypes, reducer.states) for what in ("own", "before"))
        kept = self._kept()
        sums = _loads(kept, (Var(name=self.element),))
        values: tuple[Expr, ...] = (Cast(a=sums[0], dtype=INDEX),) if isinstance(step, Append) else sums
        start = tuple(Store(target=Ref(tensor=b.name, index=()), value=c) for b, c in zip(own, reducer.identity))
        total = Accumulate(targets=_refs(own), reducer=reducer, values=values, span=step.span)
        saved = tuple(Store(target=ref, value=_read(run, t)) for ref, run, t in zip(_refs(before), runs, reducer.dtypes))
        across = Accumulate(targets=runs, reducer=reducer, values=_loads(own, ()), span=step.span)
        block: Block = (*(Alloc(buffer=b) for b in (*kept, *own)), *self._filled(kept), *start, self._each("s", (total,)))
        if not self.found.stores and not isinstance(step, Append):
            return (*block, across)
        last = self._last(kept, before)
        return (*block, *(Alloc(buffer=b) for b in before), *saved, across, *self._guarded("u", last))

    def _registers(self, what: str, dtypes: tuple[DType, ...], names: tuple[str, ...], shape: tuple[Expr, ...] = ()) -> tuple[Buffer, ...]:
        return tuple(Buffer(name=f"{self.loop.var}.{what}.{name}", dtype=dtype, shape=shape, space="reg") for name, dtype in zip(names, dtypes))

    def _kept(self) -> tuple[Buffer, ...]:
        """Registers for what each element contributes: the values, or whether it is kept and what is appended."""
        step, shape = self.found.step, (index(self.width),)
        if isinstance(step, Append):
            dtypes = (BOOL, *(v.dtype for v in step.values))
            return self._registers("value", dtypes, ("keep", *(f"{n}" for n in range(len(step.values)))), shape)
        return self._registers("value", step.reducer.dtypes, step.reducer.states, shape)

    def _filled(self, kept: tuple[Buffer, ...]) -> Block:
        """The registers of every element; past the end of the tensor, what changes nothing."""
        step = self.found.step
        values = (step.keep, *step.values) if isinstance(step, Append) else step.values
        nothing: tuple[Expr, ...] = (Const(value=False, dtype=BOOL),) if isinstance(step, Append) else step.reducer.identity
        at = (Var(name=self.element),)
        filled = tuple(Store(target=Ref(tensor=b.name, index=at), value=v) for b, v in zip(kept, values))
        empty = tuple(Store(target=Ref(tensor=b.name, index=at), value=v) for b, v in zip(kept, nothing))
        return self._guarded("f", filled, empty)

    def _last(self, kept: tuple[Buffer, ...], before: tuple[Buffer, ...]) -> Block:
        """The loop's own statements, on what ran before the lane."""
        step, at = self.found.step, (Var(name=self.element),)
        if isinstance(step, Append):
            (count,) = _refs(before)
            keep, *values = _loads(kept, at)
            own: Stmt = replace(step, count=count, keep=keep, values=tuple(values))
            return tuple(own if s is step else s for s in self.found.body)
        names = {run.tensor: mine.name for run, mine in zip(step.targets, before)}
        mine = replace(step, targets=_refs(before), values=_loads(kept, at))

        def renamed(node: Load) -> Load:
            return replace(node, tensor=names[node.tensor]) if node.tensor in names else node

        return tuple(mine if s is step else rewrite(s, {Load: renamed}) for s in self.found.body)

    def _each(self, suffix: str, body: Block, kind: LoopKind = "unroll") -> Stmt:
        """`body` for every element of the lane, written out."""
        carried = any(isinstance(n, Accumulate | Append) for n in walk(body))
        loop = For(var=self.element, extent=index(self.width), bound=self.width, kind=kind, carried=carried, body=body)
        return fresh((loop,), f".{suffix}")[0]

    def _guarded(self, suffix: str, body: Block, otherwise: Block = ()) -> Block:
        """`body` for the elements that there are, as whole words where all of the lane's are; `otherwise` for the others."""
        inner = self.found.inner
        if inner is None:
            return substitute(body, {self.element: index(0)})
        if isinstance(inner.extent, Const):
            return (self._each(suffix, body, "vector"),)
        here = If(condition=binary("lt", Var(name=inner.var), inner.extent), then=body, otherwise=otherwise)
        whole = binary("ge", inner.extent, index(self.width))
        return (If(condition=whole, then=(self._each(suffix, body, "vector"),), otherwise=(self._each(f"{suffix}t", (here,)),)),)


def _refs(buffers: tuple[Buffer, ...]) -> tuple[Ref, ...]:
    return tuple(Ref(tensor=b.name, index=()) for b in buffers)


def _loads(buffers: tuple[Buffer, ...], at: tuple[Expr, ...]) -> tuple[Expr, ...]:
    return tuple(Load(tensor=b.name, index=at, dtype=b.dtype) for b in buffers)


def _read(ref: Ref, dtype: DType) -> Expr:
    return Load(tensor=ref.tensor, index=ref.index, dtype=dtype)
