"""Matrix instructions in the AIE API's C++: blocks that are loaded whole, accumulators, and where they come from and go to."""

from __future__ import annotations

from tridsl.backends.npu.emit_functions import ELEMENTS
from tridsl.backends.npu.emit_places import Frame, Lanes, Place, address, cannot, pointer
from tridsl.backends.npu.emit_values import cast
from tridsl.devices.intrinsics import INTRINSICS
from tridsl.ir.affine import normal_form, simplify_index
from tridsl.ir.expr import Cast, Const, Expr, Load, index
from tridsl.ir.loop import For, Mma, Stmt, Store
from tridsl.ir.walk import substitute


def _block(frame: Frame, place: Place, at: tuple[Expr, ...], lanes: tuple[str, ...]) -> str:
    """The accumulator that holds block `at`; its position must be known."""
    row = INTRINSICS[place.block]
    base = normal_form(substitute(address(place, at), {name: index(0) for name in lanes}))
    if base.terms or base.constant % (row.m * row.n):
        raise cannot(f"a block of `{place.name}` that is chosen as the code runs")
    return f"{place.name}[{base.constant // (row.m * row.n)}]"


def block_store(frame: Frame, statement: Stmt, lanes: Lanes) -> None:
    """A whole block from or to memory, or set to zero."""
    if not isinstance(statement, Store) or statement.mask is not None:
        raise cannot("this use of a matrix instruction's accumulators", statement)
    names = tuple(name for name, _ in lanes.variables)
    target = frame.places[statement.target.tensor]
    source: Expr = statement.value
    while isinstance(source, Cast):
        source = source.a
    if target.kind == "blocks":
        row = INTRINSICS[target.block]
        into = _block(frame, target, statement.target.index, names)
        if isinstance(source, Const) and source.value == 0:
            frame.line(f"{into} = {row.name}(aie::zeros<{ELEMENTS[target.dtype]}, {row.name}::size_C>());")
            return
        if isinstance(source, Load) and frame.places[source.tensor].kind == "memory" and source.dtype.is_float == target.dtype.is_float:
            place = frame.places[source.tensor]
            frame.line(f"{into} = {row.name}({_operand(frame, place, source.index, names, (row.m, row.n), f'{row.name}::size_C')});")
            return
    elif isinstance(source, Load) and frame.places[source.tensor].kind == "blocks" and target.kind == "memory":
        place = frame.places[source.tensor]
        row = INTRINSICS[place.block]
        text = f"{_block(frame, place, source.index, names)}.template to_vector<{ELEMENTS[target.dtype]}>()"
        pitch = _pitch(target, statement.target.index, names[-2:], row.n)
        if pitch is None:
            frame.line(f"aie::store_v({_whole(frame, target, statement.target.index, names, row.m * row.n)}, {text});")
        else:
            frame.used.add("scattered")
            frame.line(f"scattered<{row.m}>({_whole(frame, target, statement.target.index, names, row.n)}, {pitch}, {text});")
        return
    raise cannot("this use of a matrix instruction's accumulators", statement)


def _pitch(place: Place, at: tuple[Expr, ...], names: tuple[str, ...], width: int) -> int | None:
    """How far apart the rows of a block of this width lie, where it does not lie together."""
    poly = normal_form(address(place, at))
    outer, inner = (poly.coefficient(name) for name in names)
    return outer if inner == 1 and outer is not None and outer != width else None


def in_rows(place: Place, at: tuple[Expr, ...], lanes: Lanes) -> bool:
    """Whether the block of the two innermost loops lies in rows that are apart."""
    names = tuple(name for name, _ in lanes.variables[-2:])
    return len(names) == 2 and _pitch(place, at, names, lanes.variables[-1][1]) is not None


def _operand(frame: Frame, place: Place, at: tuple[Expr, ...], names: tuple[str, ...], sides: tuple[int, int], size: str) -> str:
    """A block of memory, `sides` of whose last two loops it has, as one vector: of one access where it lies together, else of one a row."""
    rows, width = sides
    pitch = _pitch(place, at, names[-2:], width)
    if pitch is None:
        return f"aie::load_v<{size}>({_whole(frame, place, at, names, rows * width)})"
    frame.used.add("gathered")
    return f"gathered<{rows}, {width}>({_whole(frame, place, at, names, width)}, {pitch})"


def _whole(frame: Frame, place: Place, at: tuple[Expr, ...], names: tuple[str, ...], size: int) -> str:
    """Pointer to a block of `size` elements that lies together, where a vector access may begin."""
    first = _first(place, at, names)
    if not _begins(frame, place, first, size):
        raise cannot(f"blocks of `{place.name}` that are not aligned")
    return pointer(place, first)


def _first(place: Place, at: tuple[Expr, ...], names: tuple[str, ...]) -> Expr:
    """Where the block begins whose points `names` count."""
    return simplify_index(substitute(address(place, at), {name: index(0) for name in names}))


def _begins(frame: Frame, place: Place, first: Expr, size: int) -> bool:
    """Whether an access of `size` elements may begin there."""
    unit = min(size * place.dtype.storage_bytes, frame.align)
    poly = normal_form(first)
    return all(f * place.dtype.storage_bytes % unit == 0 for _, f in poly.terms) and poly.constant * place.dtype.storage_bytes % unit == 0


def _loaded(frame: Frame, place: Place, at: tuple[Expr, ...], names: tuple[str, ...], size: int, count: str) -> str:
    """A block of `size` elements that lies together; windows that slide along a row begin where no aligned access may."""
    first = _first(place, at, names)
    function = "load_v" if _begins(frame, place, first, size) else "load_unaligned_v"
    return f"aie::{function}<{count}>({pointer(place, first)})"


def exchange(frame: Frame, loop: For) -> bool:
    """Two loops that copy a block with its sides exchanged, as one operation on a register; False where that is not what they do."""
    inner = loop.body[0] if len(loop.body) == 1 else None
    store = inner.body[0] if isinstance(inner, For) and len(inner.body) == 1 else None
    if not isinstance(inner, For) or not isinstance(store, Store) or store.mask is not None or not isinstance(loop.extent, Const) or not isinstance(inner.extent, Const):
        return False
    source: Expr = store.value
    while isinstance(source, Cast):
        source = source.a
    into, come = frame.places.get(store.target.tensor), frame.places.get(source.tensor) if isinstance(source, Load) else None
    if into is None or come is None or not isinstance(source, Load) or {into.kind, come.kind} != {"memory"} or into.dtype != come.dtype:
        return False
    rows, columns = int(loop.extent.value), int(inner.extent.value)
    target, origin = (normal_form(address(place, at)) for place, at in ((into, store.target.index), (come, source.index)))
    steps = [[form.coefficient(v) for v in (loop.var, inner.var)] for form in (target, origin)]
    if steps != [[columns, 1], [1, rows]] or rows == 1 or columns == 1 or rows * columns * into.dtype.storage_bytes not in (64, 128):
        return False
    names = (loop.var, inner.var)
    text = f"aie::load_v<{rows * columns}>({_whole(frame, come, source.index, names, rows * columns)})"
    frame.line(f"aie::store_v({_whole(frame, into, store.target.index, names, rows * columns)}, aie::transpose({text}, {columns}, {rows}));")
    return True


def emit_mma(frame: Frame, statement: Mma) -> None:
    row = INTRINSICS[statement.intrinsic]
    m, n, k = (name for name, _ in statement.axes)
    target = frame.places[statement.target.tensor]
    operands = []
    for operand, (outer, inner, width), size in ((statement.a, (m, k, row.k), row.m * row.k), (statement.b, (k, n, row.n), row.k * row.n)):
        if not isinstance(operand, Load):
            raise cannot(f"`{row.name}` with a factor that is decoded as it is multiplied", statement)
        place = frame.places[operand.tensor]
        poly = normal_form(address(place, operand.index))
        steps = (poly.coefficient(outer), poly.coefficient(inner))
        side = "A" if operand is statement.a else "B"
        text = _loaded(frame, place, operand.index, (m, n, k), size, f"{row.name}::size_{side}") if steps in ((1, size // width), (width, 1)) else ""
        if steps == (1, size // width):
            text = f"aie::transpose({text}, {width}, {size // width})"
        elif not text and steps[1] == 1 and steps[0]:
            frame.used.add("gathered")
            text = f"gathered<{size // width}, {width}>({_whole(frame, place, operand.index, (m, n, k), width)}, {steps[0]})"
        elif not text:
            raise cannot(f"`{row.name}` with a factor that is not laid out in its blocks", statement)
        wanted = row.a if side == "A" else row.b
        if place.dtype != wanted:
            text = cast(frame, text, place.dtype, wanted)
        operands.append(text)
    if target.kind == "blocks":
        frame.line(f"{_block(frame, target, statement.target.index, (m, n, k))}.mac({', '.join(operands)});")
        return
    poly = normal_form(address(target, statement.target.index))
    if (poly.coefficient(m), poly.coefficient(n)) != (row.n, 1) or target.dtype != row.acc:
        raise cannot(f"`{row.name}` with a result that is not laid out in its blocks", statement)
    frame.blocks.add(row.name)
    at = _whole(frame, target, statement.target.index, (m, n, k), row.m * row.n)
    name = f"block_{len(frame.lines)}"
    frame.line(f"{row.name} {name}(aie::load_v<{row.name}::size_C>({at}));")
    frame.line(f"{name}.mac({', '.join(operands)});")
    frame.line(f"aie::store_v({at}, {name}.template to_vector<{ELEMENTS[target.dtype]}>());")
