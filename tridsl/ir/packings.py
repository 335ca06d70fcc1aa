"""Packed matrices of trits: for each layout its index map and its codec, as expressions of the IR.

A matrix (M, K) lies in blocks of 16 rows x `columns` columns, block row by block row. A block is `planes` stretches of 64 bytes,
each with 4 bytes for every row, so a 512-bit register holds one 32-bit lane per row and a 32-bit load of the other factor serves
all lanes. The columns of a block form groups of four: byte kk of a row serves column `4*g + kk` of every group g, and
`code(stretches, g)` takes that column's code `u = value + 1` (0, 1, 2) out of it.

| layout | bits a trit | block | codes |
|---|---|---|---|
| `t16` | 2 | 16 x 16 in 64 bytes | group g in bit pair g |
| `t20` | 1.6 | 16 x 20 in 64 bytes | five base-3 digits q = sum of u_g 3^(4-g), stored as ceil(q 256 / 243), so that digit g is (b 3^g mod 256) 3 >> 8 |
| `t96` | 1.67 | 16 x 96 in 320 bytes | triples c = u_0 + 3 u_1 + 9 u_2 (groups 3c, 3c+1, 3c+2): low nibbles of triples 2n, 2n+1 in stretch n, bit 4 of triple n in bit n of stretch 4 |

Rows and columns past the end hold the trit 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from tridsl.dtypes import BOOL, I8, TRIT, U8
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Node, Select, binary, ceildiv, index, mul
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite
from tridsl.structs import dataclass, replace

N = TypeVar("N")
ROWS = 16
"""Rows of a block: 32-bit lanes of the widest register."""
BYTES = 4
"""Bytes of a row in a stretch: what one 32-bit lane holds."""

Stretch = Callable[[Expr], Expr]
"""The byte of the current row and kk in the stretch with this number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """One layout. `field_bits` > 0: the codes of a byte are fields of so many bits, which products can take where they are."""

    name: str
    columns: int
    planes: int
    code: Callable[[Stretch, Expr], Expr]
    field_bits: int = 0

    @property
    def groups(self) -> int:
        return self.columns // BYTES

    def shape(self, rows: Expr, columns: Expr) -> tuple[Expr, ...]:
        """Of the bytes of a matrix (M, K)."""
        stretches = (index(self.planes),) if self.planes > 1 else ()
        return (ceildiv(rows, index(ROWS)), ceildiv(columns, index(self.columns)), *stretches, index(ROWS), index(BYTES))

    def byte(self, tensor: str, row: tuple[Expr, Expr], block: Expr, kk: Expr, mask: Expr | None = None) -> Stretch:
        """Access to the bytes of a block column for one row (block row, row of the block) and kk."""

        def read(stretch: Expr) -> Expr:
            place = (row[0], block, *((stretch,) if self.planes > 1 else ()), row[1], kk)
            return Load(tensor=tensor, index=place, dtype=U8, mask=mask, other=None if mask is None else _byte(0))

        return read

    def element(self, load: Load) -> Expr:
        """The value of `W[m, k]`, wherever it is."""
        m, k = load.index
        rows, columns, four = index(ROWS), index(self.columns), index(BYTES)
        row = (binary("floordiv", m, rows), binary("mod", m, rows))
        inside = binary("mod", k, columns)
        stretch = self.byte(load.tensor, row, binary("floordiv", k, columns), binary("mod", k, four), load.mask)
        code = Cast(a=self.code(stretch, binary("floordiv", inside, four)), dtype=I8)
        value = Binary(op="sub", a=code, b=Const(value=1, dtype=I8), dtype=I8)
        if load.mask is None:
            return value
        assert load.other is not None
        other = load.other if load.other.dtype == I8 else Cast(a=load.other, dtype=I8)
        return Select(condition=load.mask, a=value, b=other, dtype=I8)


def unpacked(node: N, tensors: Mapping[str, Tensor]) -> N:
    """`node` with every read of an element of a packed tensor written out on its bytes."""

    def read(load: Load) -> Expr:
        tensor = tensors.get(load.tensor)
        return load if tensor is None or load.dtype != TRIT else PACKINGS[tensor.layout].element(load)

    return rewrite(node, {Load: read})


def bytes_of(tensor: Tensor) -> Tensor:
    """The parameter as what is passed: its bytes."""
    assert tensor.dtype == TRIT and len(tensor.shape) == 2
    return replace(tensor, dtype=U8, shape=PACKINGS[tensor.layout].shape(*tensor.shape), layout="row")


def is_packed(node: Node) -> bool:
    return isinstance(node, Tensor) and node.layout != "row"


def _byte(value: int) -> Const:
    return Const(value=value, dtype=U8)


def _op(op: str, a: Expr, b: Expr) -> Expr:
    return Binary(op=op, a=a, b=b, dtype=U8)  # type: ignore[arg-type]


def _count(a: Expr) -> Expr:
    return Cast(a=a, dtype=U8)


def _one_of(number: Expr, values: tuple[int, ...]) -> Expr:
    """`values[number]`."""
    chosen: Expr = _byte(values[-1])
    for position in range(len(values) - 2, -1, -1):
        chosen = Select(condition=binary("eq", number, index(position)), a=_byte(values[position]), b=chosen, dtype=U8)
    return chosen


def _pair(stretch: Stretch, group: Expr) -> Expr:
    return _op("and", _op("shr", stretch(index(0)), _count(mul(group, index(2)))), _byte(3))


def _digit(stretch: Stretch, group: Expr) -> Expr:
    """Multiplying by 3^g moves digit g to the front; it is how often a third of 256 fits into what is left."""
    front = _op("mul", stretch(index(0)), _one_of(group, (1, 3, 9, 27, 81)))
    reached = (Binary(op="ge", a=front, b=_byte(least), dtype=BOOL) for least in (86, 171))
    return _op("add", *map(_count, reached))


def _of_triple(stretch: Stretch, group: Expr) -> Expr:
    triple, digit = binary("floordiv", group, index(3)), binary("mod", group, index(3))
    half = _count(mul(binary("mod", triple, index(2)), index(4)))
    nibble = _op("and", _op("shr", stretch(binary("floordiv", triple, index(2))), half), _byte(15))
    high = _op("and", _op("shr", stretch(index(4)), _count(triple)), _byte(1))
    code = _op("or", nibble, _op("shl", high, _byte(4)))
    return _op("mod", _op("floordiv", code, _one_of(digit, (1, 3, 9))), _byte(3))


def in_place(stretch: Stretch, bits: int, first: Expr, position: int | Expr) -> Expr:
    """The code of a field where it is, `2^(bits * position)` times itself, once `first` bits are gone."""
    mask = _byte((1 << bits) - 1)
    moved = _op("shr", stretch(index(0)), _count(first))
    return _op("and", moved, _op("shl", mask, _count(mul(position if not isinstance(position, int) else index(position), index(bits)))))


PACKINGS: dict[str, Packing] = {
    row.name: row
    for row in (
        Packing(name="t16", columns=16, planes=1, code=_pair, field_bits=2),
        Packing(name="t20", columns=20, planes=1, code=_digit),
        Packing(name="t96", columns=96, planes=5, code=_of_triple),
    )
}
