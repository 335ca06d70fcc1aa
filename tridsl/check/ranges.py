"""The range of an index: written, or the extent of an axis that it indexes alone and without a boundary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tridsl.check.accesses import Evaluate
from tridsl.check.bounds import shown_index
from tridsl.check.names import listing, written
from tridsl.check.prove import Prover
from tridsl.check.scope import Broken, Place, Scope, length_of
from tridsl.check.values import index_of
from tridsl.diagnostics import Label, Span, error
from tridsl.ir.expr import Expr, Load, index
from tridsl.ir.op import Axis
from tridsl.ir.walk import walk
from tridsl.structs import dataclass, declared
from tridsl.syntax.nodes import Access, Index, Name, Reduction, Syntax


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    lo: Expr
    hi: Expr
    span: Span | None
    text: str


def axis_of(scope: Scope, node: Index, nodes: Iterable[Syntax], place: Place, evaluate: Evaluate) -> Axis:
    """The axis of an index that occurs in `nodes`. Raises E0301 where nothing fixes its range, E0302 where accesses disagree."""
    check_index_name(scope, node)
    if node.range is not None:
        lo, hi = (_end(scope, end, place, evaluate) for end in (node.range.low, node.range.high))
        return Axis(name=node.name, lo=lo, hi=hi, span=node.span)
    accesses = list(_accesses(node.name, nodes))
    if any(a.tensor in scope.broken for a, _ in accesses):
        raise Broken
    found = _distinct(scope, list(_candidates(scope, accesses)))
    if not found:
        raise error("E0301", f"nothing fixes the range of the index '{node.name}'", node.span, label="no range",
                    help=f"write it out, as in {node.name} in 0..N; an access such as x[{node.name}] without pad= would fix it too",
                    example=f"y = sum[{node.name} in 0..4](x[2*{node.name}; pad=0])")  # fmt: skip
    if len(found) > 1:
        ranges = [f"{shown_index(c.lo)}..{shown_index(c.hi)}" for c in found]
        raise error("E0302", f"the accesses give the index '{node.name}' different ranges: {listing(ranges)}", found[1].span,
                    label=ranges[1], others=tuple(Label(span=c.span, text=r) for c, r in zip(found[:1], ranges) if c.span),
                    help="these lengths are known at run time only; what is compacted under one condition has one length"
                    if any(length_of(c.hi) for c in found)
                    else f"choose one: {node.name} in {ranges[0]}; or pad the access that reaches further",
                    example=f"y = sum[{node.name} in 0..4](x[{node.name}; pad=0])")  # fmt: skip
    return Axis(name=node.name, lo=found[0].lo, hi=found[0].hi, span=node.span)


def check_index_name(scope: Scope, node: Index) -> None:
    """An index may not hide a size, a parameter or a stage."""
    for kind, names in (("size", scope.sizes), ("parameter", scope.scalars), ("tensor", scope.tensors)):
        if node.name in names:
            raise error(
                "E0203",
                f"the index '{node.name}' has the name of a {kind}",
                node.span,
                help="give the index another name",
            )


def _end(scope: Scope, node: Syntax, place: Place, evaluate: Evaluate) -> Expr:
    for name in (n for n in _below(node) if isinstance(n, Name) and place.axis(n.name)):
        raise error("E0304", f"the range depends on the index '{name.name}'", name.span, label="an index",
                    help=f"let it run over the whole axis and select inside: if k < {written(node)} then x[k] else 0",
                    example=f"y[{name.name}] = sum[k](if k < {name.name} then x[k] else 0)")  # fmt: skip
    value = evaluate(scope, node, Place(target=place.target, indexing=True))  # type: ignore[arg-type]
    found = index_of(value)
    if found is None or any(isinstance(n, Load) and not length_of(n) for n in walk(found)):
        raise error("E0304", f"'{written(node)}' cannot end a range", node.span,
                    help="a range is made of integers, sizes and integer parameters; select inside the expression instead: if k < n then x[k] else 0")  # fmt: skip
    return found


def _accesses(name: str, nodes: Iterable[Syntax]) -> Iterator[tuple[Access, int]]:
    """Unpadded accesses with `name` alone as the index of an axis, not looking where a reducer binds the same name."""
    for node in nodes:
        if isinstance(node, Reduction) and not node.scan and any(i.name == name for i in node.axes):
            continue
        if isinstance(node, Access) and not any(o.name == "pad" for o in node.options):
            for axis, position in enumerate(node.index):
                if isinstance(position, Name) and position.name == name:
                    yield node, axis
        yield from _accesses(name, parts(node))


def parts(node: Syntax) -> Iterator[Syntax]:
    """The nodes directly below a node."""
    for field in declared(type(node)):
        value = getattr(node, field)
        if isinstance(value, Syntax):
            yield value
        elif isinstance(value, tuple):
            yield from (item for item in value if isinstance(item, Syntax))


def _below(node: Syntax) -> Iterator[Syntax]:
    yield node
    for child in parts(node):
        yield from _below(child)


def _candidates(scope: Scope, accesses: list[tuple[Access, int]]) -> Iterator[_Candidate]:
    for access, axis in accesses:
        known = scope.tensors.get(access.tensor)
        if known is not None and axis < known.rank:
            lo, hi = known.ranges[axis]
            yield _Candidate(lo=lo, hi=hi, span=access.span, text=access.tensor)


def _distinct(scope: Scope, candidates: list[_Candidate]) -> list[_Candidate]:
    """Candidates without repetition; a run-time length wins over the capacity that it cannot exceed."""
    prover = Prover(scope.facts)
    kept: list[_Candidate] = []
    for c in candidates:
        if not any(prover.same(c.lo, k.lo) and prover.same(c.hi, k.hi) for k in kept):
            kept.append(c)
    lengths = [c for c in kept if length_of(c.hi) and c.lo == index(0)]
    if len(lengths) == 1 and all(prover.at_least(c.hi, lengths[0].hi) and c.lo == index(0) for c in kept):
        return lengths
    return kept
