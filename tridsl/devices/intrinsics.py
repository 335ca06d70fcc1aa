"""Matrix instructions as data: shape, operand types, and which feature a device needs for them.

The meaning of a row is `target[m, n] += cast(a[m, k]) * cast(b[k, n])` over its shape in the accumulator's type, which the
oracle runs; how it is spelled is in each backend's emit table.
"""

from __future__ import annotations

from collections.abc import Sequence

from tridsl.dtypes import BF16, F16, F32, I8, I16, I32, U8, DType
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Intrinsic:
    """`m` x `n` x `k` multiply-accumulate; `lanes`: n is the vector width of the device (the row's n is then 1 lane).

    `shares_exponent`: the k elements of a row of `a`, and of a column of `b`, are rounded to one exponent first (`ir.block_floats`).
    `flexible`: the extents may be any multiples of `m`, `n` and `k`.
    `grouped`: all lanes of a workgroup carry it out together, not those of a subgroup.
    `rate`: which rate of the device it reaches (`arithmetic`), where its first operand's type does not say.
    `interleave`: elements of a row of `b`'s depth that lie together, column by column (`b[k // 4, n, k % 4]`); 1 where rows lie as they are.
    `shifted`: the row that computes the same of `a` with its sign bits flipped, but for what that adds (`passes.unsigned_dots`).
    `widens`: element types of factors that are made its own as they are loaded.
    """

    name: str
    a: DType
    b: DType
    acc: DType
    m: int
    n: int
    k: int
    feature: str
    lanes: bool = False
    shares_exponent: bool = False
    flexible: bool = False
    grouped: bool = False
    rate: str = ""
    shifted: str | None = None
    interleave: int = 1
    widens: tuple[DType, ...] = ()

    def takes(self, a: DType, b: DType) -> bool:
        """Whether its factors may have these types."""
        return a in (self.a, *self.widens) and b in (self.b, *self.widens)

    @property
    def arithmetic(self) -> str:
        return self.rate or str(self.a)

    @property
    def loops(self) -> int:
        """Innermost loops that it stands for: lanes and k, m and n and k, or k alone."""
        return 2 if self.lanes else 3 if self.is_matrix else 1

    @property
    def is_matrix(self) -> bool:
        """Whether it multiplies blocks, which no single element of a register holds."""
        return not self.lanes and self.m * self.n > 1

    @property
    def loads_sums(self) -> bool:
        """Whether its sums are loaded from memory a block at a time, so that they go on from there."""
        return self.interleave > 1

    def fits(self, extents: Sequence[int]) -> bool:
        """Whether loops of these extents, innermost last, end in its own: m, n and k, or k alone."""
        own = (self.m, self.n, self.k) if self.is_matrix else (self.k,)
        found = extents[-len(own) :]
        return len(found) == len(own) and all(n and (n % o == 0 if self.flexible else n == o) for n, o in zip(found, own))


INTRINSICS: dict[str, Intrinsic] = {
    row.name: row
    for row in (
        Intrinsic(name="fma", a=F32, b=F32, acc=F32, m=1, n=1, k=1, feature="", lanes=True),
        Intrinsic(name="vpdpbusd", a=U8, b=I8, acc=I32, m=1, n=1, k=4, feature="avx512vnni", lanes=True),
        Intrinsic(name="vpdpbssd", a=I8, b=I8, acc=I32, m=1, n=1, k=4, feature="avx512vnni", lanes=True, shifted="vpdpbusd"),
        Intrinsic(name="vpdpwssd", a=I16, b=I16, acc=I32, m=1, n=1, k=2, feature="avx512vnni", lanes=True),
        Intrinsic(name="vdpbf16ps", a=BF16, b=BF16, acc=F32, m=1, n=1, k=2, feature="avx512bf16", lanes=True),
        # AMX: tiles of 16 rows of 64 bytes (Intel 64 and IA-32 Architectures SDM, vol. 1 chapter 18)
        Intrinsic(name="tdpbf16ps", a=BF16, b=BF16, acc=F32, m=16, n=16, k=32, feature="amx-bf16", interleave=2),
        Intrinsic(name="tdpfp16ps", a=F16, b=F16, acc=F32, m=16, n=16, k=32, feature="amx-fp16", interleave=2),
        Intrinsic(name="tdpbssd", a=I8, b=I8, acc=I32, m=16, n=16, k=64, feature="amx-int8", interleave=4),
        Intrinsic(name="tdpbusd", a=U8, b=I8, acc=I32, m=16, n=16, k=64, feature="amx-int8", interleave=4),
        # a word of four bytes times another, of one lane of a GPU; where it has no such instruction, what it has of its four products
        Intrinsic(name="dot4", a=I8, b=I8, acc=I32, m=1, n=1, k=4, feature="packed_words"),
        Intrinsic(name="coopmat_16x16x16", a=F16, b=F16, acc=F32, m=16, n=16, k=16, feature="cooperative_matrix"),
        Intrinsic(name="coopmat_i8_16x16x32", a=I8, b=I8, acc=I32, m=16, n=16, k=32, feature="cooperative_matrix_i8_k32"),
        # AI Engine: `aie::mmul<m, k, n>` of one instruction (aie_api detail/mmul.hpp); its names put k in the middle, ours too
        Intrinsic(name="mmul_i8_4x8x8", a=I8, b=I8, acc=I32, m=4, n=8, k=8, feature="aie2"),
        Intrinsic(name="mmul_i8_8x8x8", a=I8, b=I8, acc=I32, m=8, n=8, k=8, feature="aie2p"),
        Intrinsic(name="mmul_i16_4x4x4", a=I16, b=I16, acc=I32, m=4, n=4, k=4, feature="aie2"),
        Intrinsic(name="mmul_i16_4x4x8", a=I16, b=I16, acc=I32, m=4, n=8, k=4, feature="aie2p"),
        Intrinsic(name="mmul_bf16_4x8x4", a=BF16, b=BF16, acc=F32, m=4, n=4, k=8, feature="aie2"),
        Intrinsic(name="mmul_bf16_8x8x8", a=BF16, b=BF16, acc=F32, m=8, n=8, k=8, feature="aie2p"),
        Intrinsic(name="mmul_bfp16_8x8x8", a=BF16, b=BF16, acc=F32, m=8, n=8, k=8, feature="aie2p", shares_exponent=True, rate="bfp16"),
        Intrinsic(name="mmul_f32_4x8x4", a=F32, b=F32, acc=F32, m=4, n=4, k=8, feature="aie2", widens=(BF16,)),  # of products of bf16
        Intrinsic(name="mmul_f32p_4x8x4", a=F32, b=F32, acc=F32, m=4, n=4, k=8, feature="aie2p", widens=(BF16,)),
        Intrinsic(name="coopmat_i8_16x16x16", a=I8, b=I8, acc=I32, m=16, n=16, k=16, feature="cooperative_matrix_i8_k16"),
        Intrinsic(name="coopmat_bf16_16x16x16", a=BF16, b=BF16, acc=F32, m=16, n=16, k=16, feature="cooperative_matrix_bf16"),
        # Mesa 26's software device, whose subgroups have eight lanes
        Intrinsic(name="coopmat_8x8x8", a=F16, b=F16, acc=F32, m=8, n=8, k=8, feature="cooperative_matrix_f16_8x8x8"),
        Intrinsic(name="coopmat_i8_8x8x8", a=I8, b=I8, acc=I32, m=8, n=8, k=8, feature="cooperative_matrix_i8_8x8x8"),
        # VK_NV_cooperative_matrix2: one matrix as large as a subgroup's tile, divided by the driver
        Intrinsic(name="coopmat2", a=F16, b=F16, acc=F32, m=16, n=16, k=16, feature="cooperative_matrix2_f16", flexible=True),
        Intrinsic(name="coopmat2_bf16", a=BF16, b=BF16, acc=F32, m=16, n=16, k=16, feature="cooperative_matrix2_bf16", flexible=True),
        Intrinsic(name="coopmat2_group", a=F16, b=F16, acc=F32, m=32, n=32, k=16, feature="cooperative_matrix2_group_f16", flexible=True, grouped=True),
        Intrinsic(name="coopmat2_group_i8", a=I8, b=I8, acc=I32, m=32, n=32, k=32, feature="cooperative_matrix2_group_i8", flexible=True, grouped=True),
        Intrinsic(name="coopmat2_i8", a=I8, b=I8, acc=I32, m=16, n=16, k=32, feature="cooperative_matrix2_i8", flexible=True),
    )
}


FRAGMENTS_BETWEEN = frozenset({"matrix_reductions", "matrix_conversions", "matrix_places"})
"""What a device does with fragments so that they need not go through memory between two products: columns come to one, results become factors, and a
mask asks where an element is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteFunction:
    """An instruction that maps every byte of a register by itself: `affine`, any function that is linear over the bits (GF(2)) plus a
    constant; otherwise a table of `entries`, the byte's low bits the index. Codecs of operands are made of these."""

    name: str
    feature: str
    entries: int = 256
    affine: bool = False


BYTE_FUNCTIONS: tuple[ByteFunction, ...] = (
    ByteFunction(name="vpandd", feature="avx512bw", affine=True),
    ByteFunction(name="vgf2p8affineqb", feature="gfni", affine=True),
    ByteFunction(name="vpermb", feature="avx512vbmi", entries=64),
    ByteFunction(name="vpermi2b", feature="avx512vbmi", entries=128),
)
"""Cheapest first. `vpandd` keeps some bits and no others; two `vpermi2b` make a table of 256."""
