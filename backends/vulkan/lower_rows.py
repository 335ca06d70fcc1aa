"""`rows`: what a schedule keeps in fragments for each row (its maximum, its sum) lies in fragments of equal columns, and is reduced there.

    alloc m: f32[128] in fragment                                  alloc m: f32[128, 16] in fragment             # equal columns
    subgroup s < 4: unroll i < 2:                                  subgroup s < 4: unroll i < 2:
                                                                     alloc key.columns: f32[16, 16] in fragment = lowest
      unroll j < 4: for r < 16: for c < 16 reduce:           →       unroll j < 4: for r < 16: for c < 16:
        key[s*32 + i*16 + r] max= x[…, r, j*16 + c]                    key.columns[r, c] = max(key.columns[r, c], x[…, r, j*16 + c])
                                                                     for r < 16: for c < 16: for k < 16 reduce:
                                                                       key[s*32 + i*16 + r, c] max= key.columns[r, k]
      for r < 16: m[s*32 + i*16 + r] = …; l[…] = …                   for r < 16: for c < 16: m[…, c] = …
                                                                     for r < 16: for c < 16: l[…, c] = …

Fragments are made and used whole, so each statement gets a nest of its own. A column is reduced where it is, for all tiles of a row; the columns
are put together once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tridsl.devices.intrinsics import FRAGMENTS_BETWEEN, INTRINSICS
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Expr, Load, Var, index
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, For, If, Kernel, Mma, Phase, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, substitute, variables, walk


def rows(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Every buffer in fragments that has an element for each row. E0706: the device does nothing with fragments but multiply them."""
    return replace(kernel, phases=tuple(_phase(p, spec) for p in kernel.phases))


def _phase(phase: Phase, spec: DeviceSpec) -> Phase:
    shapes = {(row.m, row.n) for n in walk(phase.body) if isinstance(n, Mma) and (row := INTRINSICS[n.intrinsic]).is_matrix}
    if len(shapes) != 1:
        return phase
    (shape,) = shapes
    held = {n.buffer.name: n.buffer for n in walk(phase.body) if isinstance(n, Alloc) and n.buffer.space == "fragment"}
    places: dict[str, list[bool]] = {}
    for name, is_row in _accesses(phase.body, (), shape):
        places.setdefault(name, []).append(is_row)
    vectors = {name: buffer for name, buffer in held.items() if all(places.get(name, (False,)))}
    if not vectors:
        return phase
    lacking = sorted(FRAGMENTS_BETWEEN - spec.features)
    if lacking:
        raise error(
            "E0706", f"device `{spec.name}` does nothing with fragments but multiply them: it lacks {', '.join(lacking)}",
            help="".join(f"write `.store(shared)` instead of `.store(fragment)` for `{name}`" for name in sorted(vectors)[:1]),
        )  # fmt: skip
    return replace(phase, body=_Rows(vectors=vectors, shape=shape).block(phase.body))


def _accesses(block: Block, around: tuple[For, ...], shape: tuple[int, int]) -> Iterator[tuple[str, bool]]:
    """What is read and written, and whether it is one element for each row of a nest over a fragment's elements, or over its rows."""
    for statement in block:
        match statement:
            case For(body=body):
                yield from _accesses(body, (*around, statement), shape)
            case If(then=then, otherwise=otherwise):
                yield from _accesses((*then, *otherwise), around, shape)
            case _:
                nest = around[-2:]
                if len(nest) == 2 and (nest[0].kind, nest[0].extent, nest[1].kind, nest[1].extent) != ("serial", index(shape[0]), "serial", index(shape[1])):
                    nest = nest[1:]
                of_rows = bool(nest) and nest[0].kind == "serial" and nest[0].extent == index(shape[0])
                for node in walk(statement):
                    if isinstance(node, Load | Ref) and node.index:
                        *others, last = node.index
                        own = of_rows and normal_form(last).coefficient(nest[0].var) == 1
                        yield node.tensor, own and not variables(node.index) & {l.var for l in nest[1:]} and nest[0].var not in variables(tuple(others))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nest:
    """`for row: for column: body`, the columns being a loop of the stage or none."""

    row: For
    column: For | None
    body: Block

    @property
    def columns(self) -> str:
        """The variable that walks the columns."""
        return self.column.var if self.column else f"{self.row.var}.column"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """`vectors`: buffers with one element for each row; `shape` of a fragment."""

    vectors: Mapping[str, Buffer]
    shape: tuple[int, int]

    def block(self, block: Block) -> Block:
        return tuple(new for statement in block for new in self._statement(statement))

    def _statement(self, statement: Stmt) -> Block:
        match statement:
            case Alloc(buffer=buffer) if buffer.name in self.vectors:
                shape, padded = (*buffer.shape, index(self.shape[1])), (*buffer.padded, False) if buffer.padded else ()
                return (replace(statement, buffer=replace(buffer, shape=shape, padded=padded)),)
            case For():
                if not self._uses(statement):
                    return (statement,)
                reduced = self._reduced(statement)
                if reduced is not None:
                    return reduced
                return (replace(statement, body=self.block(statement.body)),)
            case If(then=then, otherwise=otherwise):
                return (replace(statement, then=self.block(then), otherwise=self.block(otherwise)),)
        return (statement,)

    def _uses(self, statement: Stmt) -> bool:
        return any(isinstance(n, Load | Ref) and n.tensor in self.vectors for n in walk(statement))

    def _reduced(self, loop: For) -> Block | None:
        """A nest over one fragment, or over the tiles of its rows."""
        tiles: list[For] = []
        inner: Stmt = loop
        while isinstance(inner, For) and inner.kind == "unroll" and inner.reduce and len(inner.body) == 1:
            tiles.append(inner)
            inner = inner.body[0]
        nest = self._nest(inner)
        if nest is None:
            return None
        before, nests, after = self._apart(nest)
        for tile in reversed(tiles):
            nests = (replace(tile, reduce=False, body=nests),)
        return (*before, *nests, *after)

    def _nest(self, loop: Stmt) -> _Nest | None:
        high, broad = self.shape
        if not isinstance(loop, For) or loop.kind != "serial" or loop.extent != index(high):
            return None
        inner = loop.body[0] if len(loop.body) == 1 else None
        if isinstance(inner, For):
            plain = inner.kind == "serial" and inner.extent == index(broad) and not any(isinstance(s, For | If) for s in inner.body)
            return _Nest(row=loop, column=inner, body=inner.body) if plain else None
        return _Nest(row=loop, column=None, body=loop.body) if not any(isinstance(s, For | If) for s in loop.body) else None

    def _apart(self, nest: _Nest) -> tuple[Block, Block, Block]:
        """What stands in front of the nests of all tiles of a row, the nests of one, and what is behind all of them."""
        row, column = Var(name=nest.row.var), Var(name=nest.columns)
        locals_ = {s.buffer.name for s in nest.body if isinstance(s, Alloc)}

        def access(node: Load | Ref) -> Load | Ref:
            if node.tensor in self.vectors:
                return replace(node, index=(*node.index, column))
            return replace(node, index=(row, column)) if node.tensor in locals_ else node

        before: list[Stmt] = []
        nests: list[Stmt] = []
        after: list[Stmt] = []
        for number, statement in enumerate(nest.body):
            match statement:
                case Alloc(buffer=buffer):
                    shape = tuple(index(n) for n in self.shape)
                    nests.append(replace(statement, buffer=replace(buffer, shape=shape, space="fragment", padded=())))
                case Accumulate(targets=(target,)) if nest.column is not None and target.tensor in self.vectors:
                    columns = Buffer(name=f"{target.tensor}.columns", dtype=statement.reducer.dtypes[0], shape=tuple(index(n) for n in self.shape), space="fragment")
                    here = Ref(tensor=columns.name, index=(row, column))
                    before += [Alloc(buffer=columns), self._over(nest, f".first{number}", Store(target=here, value=statement.reducer.identity[0]))]
                    (value,) = rewrite(statement, {Load: access}).values
                    nests.append(self._over(nest, f".{number}", Store(target=here, value=_merged(statement, Load(tensor=here.tensor, index=here.index, dtype=columns.dtype), value))))
                    kept = replace(target, index=(*target.index, column))
                    after.append(self._together(nest, replace(statement, targets=(kept,)), Load(tensor=columns.name, index=(row,), dtype=columns.dtype)))
                case _:
                    nests.append(self._over(nest, f".{number}", rewrite(statement, {Load: access, Ref: access})))
        return tuple(before), tuple(nests), tuple(after)

    def _over(self, nest: _Nest, suffix: str, statement: Stmt) -> For:
        """`statement` for every element of a fragment."""
        row, column = nest.row.var, nest.columns
        names: dict[str, Expr] = {name: Var(name=name + suffix) for name in (row, column)}
        inner = For(var=column + suffix, extent=index(self.shape[1]), bound=self.shape[1], body=(substitute(statement, names),))
        return replace(nest.row, var=row + suffix, body=(inner,))

    def _together(self, nest: _Nest, statement: Accumulate, columns: Load) -> For:
        """The columns of a fragment, which lacks its last index, reduced to what each row has, which all columns of the target hold."""
        term = f"{nest.row.var}.term"
        found = replace(columns, index=(*columns.index, Var(name=term)))
        inner = For(var=term, extent=index(self.shape[1]), bound=self.shape[1], reduce=True, body=(replace(statement, values=(found,)),))
        return self._over(nest, ".row", inner)


def _merged(statement: Accumulate, old: Expr, value: Expr) -> Expr:
    (state,) = statement.reducer.states
    return substitute(statement.reducer.merge[0], {f"a.{state}": old, f"b.{state}": value})
