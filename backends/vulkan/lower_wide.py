"""`wide`: vector loops move whole words.

    vector w < 4: y[n*4 + w] = f(x[n*4 + w])      →      alloc x.w: f32[4] in reg;  copy x[n*4 + w] → x.w[w], w < 4
                                                         alloc y.w: f32[4] in reg
                                                         unroll w < 4: y.w[w] = f(x.w[w])
                                                         copy y.w[w] → y[n*4 + w], w < 4

A lane then makes one access of up to 16 bytes instead of four (`emit_wide`). A tail gets a loop of its own: `if 4 <= N - n*4` the
above, else the loop as it was. Loops whose accesses are no aligned neighbours are unrolled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tridsl.backends.vulkan.contiguous import Strides, fits_words, plain_tensors, run_start
from tridsl.backends.vulkan.lower_access import read, written
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import DType, compute_type
from tridsl.ir.expr import Const, Expr, Load, Var, binary, index
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, Copy, CopyAxis, For, If, Kernel, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, substitute, walk
from tridsl.passes.fresh import fresh

MAX_COUNT = 16


def wide(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Vector loops of a few neighbours, in every phase."""
    tensors = plain_tensors(kernel)

    def widen(loop: For) -> Stmt | Block:
        count = loop.bound if not isinstance(loop.extent, Const) else int(loop.extent.value)
        if loop.kind != "vector" or count is None or not 1 < count <= MAX_COUNT:
            return loop
        whole = _widened(replace(loop, extent=index(count), bound=count), tensors, count)
        if whole is None:
            return replace(loop, kind="unroll") if isinstance(loop.extent, Const) else loop
        if isinstance(loop.extent, Const):
            return whole
        return If(condition=binary("ge", loop.extent, index(count)), then=whole, otherwise=fresh((loop,), ".t"))

    return replace(kernel, phases=rewrite(kernel.phases, {For: widen}))


@dataclass(slots=True, kw_only=True)
class _Windows:
    """The register copies of one loop."""

    loop: For
    tensors: Mapping[str, tuple[DType, Strides]]
    count: int
    loads: dict[tuple[str, tuple[Expr, ...]], Buffer] = field(default_factory=dict)
    stores: dict[tuple[str, tuple[Expr, ...]], Buffer] = field(default_factory=dict)

    def window(self, tensor: str, at: tuple[Expr, ...]) -> DType | None:
        """The tensor's type, where `at` are aligned neighbours along the loop."""
        if tensor not in self.tensors:
            return None
        dtype, strides = self.tensors[tensor]
        fits = fits_words(dtype, self.count) and run_start(at, strides, self.loop.var, self.count) is not None
        return dtype if fits else None

    def buffer(self, tensor: str, dtype: DType) -> Buffer:
        name = f"{tensor}.w{len(self.loads) + len(self.stores)}@{self.loop.var}"
        return Buffer(name=name, dtype=dtype, shape=(index(self.count),), space="reg")


def _widened(loop: For, tensors: Mapping[str, tuple[DType, Strides]], count: int) -> Block | None:
    if not all(isinstance(statement, Store | Accumulate) for statement in loop.body):
        return None
    windows = _Windows(loop=loop, tensors=tensors, count=count)
    places = {(ref.tensor, ref.index) for ref in written(loop.body)}
    changed = {tensor for tensor, _ in places}
    if any(tensor in changed and (tensor, at) not in places for tensor, at in read(loop.body)):
        return None  # an element of one iteration may be read in another

    def load(node: Load) -> Load:
        key = (node.tensor, node.index)
        dtype = windows.window(*key) if node.mask is None else None
        if dtype is None or any(isinstance(n, Load) for i in node.index for n in walk(i)):
            return node
        if key not in windows.loads:
            windows.loads[key] = windows.buffer(node.tensor, dtype)
        return replace(node, tensor=windows.loads[key].name, index=(Var(name=loop.var),))

    def store(node: Store) -> Store:
        key = (node.target.tensor, node.target.index)
        dtype = windows.window(*key) if node.mask is None else None
        if dtype is None:
            return node
        if key not in windows.stores:
            windows.stores[key] = windows.buffer(node.target.tensor, compute_type(dtype))
        return replace(node, target=Ref(tensor=windows.stores[key].name, index=(Var(name=loop.var),)))

    body = rewrite(loop.body, {Load: load})
    body = rewrite(body, {Store: store})
    if not windows.loads and not windows.stores:
        return None
    before: list[Stmt] = []
    after: list[Stmt] = []
    for (tensor, at), buffer in windows.loads.items():
        before += [Alloc(buffer=buffer), _copy(loop, buffer.name, tensor, at, buffer.dtype, out=False)]
    for (tensor, at), buffer in windows.stores.items():
        before.append(Alloc(buffer=buffer))
        after.append(_copy(loop, buffer.name, tensor, at, buffer.dtype, out=True))
    return (*before, replace(loop, kind="unroll", body=body), *after)


def _copy(loop: For, window: str, tensor: str, at: tuple[Expr, ...], dtype: DType, *, out: bool) -> Copy:
    """`window` to or from the neighbours `at`."""
    variable = f"{window}.e"
    place = substitute(at, {loop.var: Var(name=variable)})
    own = (Var(name=variable),)
    axis = CopyAxis(var=variable, extent=loop.extent)
    if out:
        return Copy(axes=(axis,), target=Ref(tensor=tensor, index=place), source=Load(tensor=window, index=own, dtype=dtype))
    return Copy(axes=(axis,), target=Ref(tensor=window, index=own), source=Load(tensor=tensor, index=place, dtype=dtype))
