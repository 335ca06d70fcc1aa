"""The kernels of the peaks, as LLVM text: chains of multiply-adds in registers, and streams through memory.

Every kernel is `probe(slots, threads)` with the slots x, y, n, rounds: two pointers, and how often what is done.
"""

from __future__ import annotations

from collections.abc import Callable

from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """An instruction of one kind of product: the processor's `feature` that it needs, its LLVM name and the types of accumulator and
    operands for a number of 32-bit lanes, and the multiply-adds that it does in each lane."""

    feature: str
    intrinsic: str
    accumulator: str
    operand: str
    deep: int

    def types(self, lanes: int) -> tuple[str, str]:
        return f"<{lanes} x {self.accumulator}>", f"<{lanes * (2 if self.operand == 'bfloat' else 1)} x {self.operand}>"


CHAINS: dict[str, Chain] = {
    "fma": Chain(feature="", intrinsic="llvm.fma.v{lanes}f32", accumulator="float", operand="float", deep=1),
    "bf16": Chain(feature="avx512bf16", intrinsic="llvm.x86.avx512bf16.dpbf16ps.{bits}", accumulator="float", operand="bfloat", deep=2),
    "vnni": Chain(feature="avx512vnni", intrinsic="llvm.x86.avx512.vpdpbusd.{bits}", accumulator="i32", operand="i32", deep=4),
    "vnni16": Chain(feature="avx512vnni", intrinsic="llvm.x86.avx512.vpdpwssd.{bits}", accumulator="i32", operand="i32", deep=2),
}
"""Peaks of arithmetic. `vnni` is vpdpbusd (u8 by s8), `vnni16` vpdpwssd (s16 by s16), `bf16` vdpbf16ps."""

@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """An instruction that multiplies blocks in tile registers (AMX), and its multiply-adds. `of`: the peak of vectors whose place it takes
    where a row's products may be made by it."""

    feature: str
    intrinsic: str
    products: int
    unit: str
    of: str


BLOCKS: dict[str, Blocks] = {
    "amx_bf16": Blocks(feature="amx-bf16", intrinsic="tdpbf16ps", products=16 * 16 * 32, unit="FLOP/s", of="bf16"),
    "amx_i8": Blocks(feature="amx-int8", intrinsic="tdpbssd", products=16 * 16 * 64, unit="OP/s", of="vnni"),
}
TILES = 8
"""Registers: six of sums, and two that all are multiplied by."""

_FRAME = """define i32 @probe(ptr %slots, i64 %threads) "prefer-vector-width"="{bits}" {{
entry:
  %x = load ptr, ptr %slots
  %y.slot = getelementptr i64, ptr %slots, i64 1
  %y = load ptr, ptr %y.slot
  %n.slot = getelementptr i64, ptr %slots, i64 2
  %n = load i64, ptr %n.slot
  %rounds.slot = getelementptr i64, ptr %slots, i64 3
  %rounds = load i64, ptr %rounds.slot
{start}  br label %round
round:
  %r = phi i64 [ 0, %entry ], [ %r.next, %rounded ]
{outer}  br label %loop
loop:
  %i = phi i64 [ 0, %round ], [ %next, %loop ]
{body}  %next = add i64 %i, {step}
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %rounded
rounded:
  %r.next = add i64 %r, 1
  %again = icmp ult i64 %r.next, %rounds
  br i1 %again, label %round, label %end
end:
{finish}  ret i32 0
}}
"""


def chains(name: str, lanes: int, accumulators: int) -> str:
    """`accumulators` independent chains of one instruction, which is more than its latency needs; n of each."""
    chain = CHAINS[name]
    total, operand = chain.types(lanes)
    function = chain.intrinsic.format(lanes=lanes, bits=32 * lanes)
    start = f"  %m = load {operand}, ptr %x, align 4\n  %c.at = getelementptr i8, ptr %x, i64 {4 * lanes}\n  %c = load {operand}, ptr %c.at, align 4\n"
    outer, body, finish = "", "", ""
    for i in range(accumulators):
        start += f"  %s{i}.at = getelementptr {total}, ptr %x, i64 {2 + i}\n  %s{i} = load {total}, ptr %s{i}.at, align 4\n"
        outer += f"  %o{i} = phi {total} [ %s{i}, %entry ], [ %b{i}, %rounded ]\n"
        arguments = f"{total} %a{i}, {operand} %m, {operand} %c"
        body += f"  %b{i} = call {total} @{function}({arguments})\n"
        finish += f"  store {total} %b{i}, ptr %s{i}.at, align 4\n"
    phis = "".join(f"  %a{i} = phi {total} [ %o{i}, %round ], [ %b{i}, %loop ]\n" for i in range(accumulators))
    text = _FRAME.format(bits=32 * lanes, start=start, outer=outer, body=phis + body, finish=finish, step=1)
    return text + f"declare {total} @{function}({total}, {operand}, {operand})\n"


def blocks(name: str) -> str:
    """Six independent sums of one instruction for blocks; n of each. x holds the configuration of the registers."""
    function = f"llvm.x86.{BLOCKS[name].intrinsic}"
    start = "  call void @llvm.x86.ldtilecfg(ptr %x)\n" + "".join(f"  call void @llvm.x86.tilezero(i8 {tile})\n" for tile in range(TILES))
    body = "".join(f"  call void @{function}(i8 {total}, i8 {TILES - 2}, i8 {TILES - 1})\n" for total in range(TILES - 2))
    text = _FRAME.format(bits=512, start=start, outer="", body=body, finish="  call void @llvm.x86.tilerelease()\n", step=1)
    arguments = {"ldtilecfg": "ptr", "tilezero": "i8", "tilerelease": "", BLOCKS[name].intrinsic: "i8, i8, i8"}
    return text + "".join(f"declare void @llvm.x86.{what}({kinds})\n" for what, kinds in arguments.items())


def copy(lanes: int, *, around: bool) -> str:
    """x to y, four vectors a turn; `around`: with stores that go around the caches (non-temporal)."""
    vector, hint = f"<{lanes} x float>", ", !nontemporal !0" if around else ""
    body = ""
    for i in range(4):
        body += f"  %p{i} = add i64 %i, {i * lanes}\n  %f{i} = getelementptr float, ptr %x, i64 %p{i}\n  %t{i} = getelementptr float, ptr %y, i64 %p{i}\n"
        body += f"  %v{i} = load {vector}, ptr %f{i}, align {4 * lanes}\n  store {vector} %v{i}, ptr %t{i}, align {4 * lanes}{hint}\n"
    fence = "  fence seq_cst\n" if around else ""
    return _FRAME.format(bits=32 * lanes, start="", outer="", body=body, finish=fence, step=4 * lanes) + ("!0 = !{i32 1}\n" if around else "")


def read(lanes: int, streams: int = 1) -> str:
    """x read, in so many parts side by side (several streams keep more loads in flight where pages are small); what is seen is kept in one
    number, at the beginning of y, so that nothing is left out."""
    vector, chains, run = f"<{lanes} x i32>", 8, 8 if streams == 1 else 4
    outer = "".join(f"  %o{i} = phi {vector} [ zeroinitializer, %entry ], [ %a{i}.{streams * run // chains}, %rounded ]\n" for i in range(chains))
    body = "".join(f"  %a{i}.0 = phi {vector} [ %o{i}, %round ], [ %a{i}.{streams * run // chains}, %loop ]\n" for i in range(chains))
    body += f"  %at = udiv exact i64 %i, {streams}\n"
    for i in range(streams * run):
        stream, place = divmod(i, run)
        chain, turn = i % chains, i // chains
        body += f"  %s{i} = add i64 %start{stream}, {place * lanes}\n  %p{i} = add i64 %at, %s{i}\n  %f{i} = getelementptr float, ptr %x, i64 %p{i}\n"
        body += f"  %v{i} = load {vector}, ptr %f{i}, align {4 * lanes}\n  %a{chain}.{turn + 1} = xor {vector} %a{chain}.{turn}, %v{i}\n"
    start = f"  %part = udiv exact i64 %n, {streams}\n" + "".join(f"  %start{i} = mul i64 %part, {i}\n" for i in range(streams))
    finish, last = "", f"%a0.{streams * run // chains}"
    for i in range(1, chains):
        finish += f"  %z{i} = xor {vector} {last}, %a{i}.{streams * run // chains}\n"
        last = f"%z{i}"
    finish += f"  store {vector} {last}, ptr %y, align 4\n"
    return _FRAME.format(bits=32 * lanes, start=start, outer=outer, body=body, finish=finish, step=streams * run * lanes)


STREAMS: dict[str, Callable[[int], str]] = {
    "read_plain": read, "read_streams": lambda lanes: read(lanes, 4),
    "copy_plain": lambda lanes: copy(lanes, around=False), "copy_around": lambda lanes: copy(lanes, around=True),
}  # fmt: skip
"""Peaks of memory. `copy_around` stores around the caches; `read_streams` reads four parts side by side."""
