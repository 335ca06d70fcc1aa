"""Objects for the loader's and the dispatcher's tests, made by LLVM from small texts."""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm

from tridsl.backend import Binary, Signature
from tridsl.backends.cpu.driver import CpuExecutable


@cache
def object_code(text: str, machine: str = "x86_64", level: int = 2) -> bytes:
    """A position-independent object for `machine`, unoptimised but for instruction selection."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(f"{machine}-unknown-linux-gnu").create_target_machine(
        opt=level, reloc="pic", codemodel="small"
    )
    module = llvm.parse_assembly(text)
    module.triple = f"{machine}-unknown-linux-gnu"
    module.verify()
    return bytes(target.emit_object(module))


def executable(text: str, entry: str, signature: Signature) -> CpuExecutable:
    blob = object_code(text)
    return CpuExecutable(Binary(backend="cpu", entry=entry, blob=blob, signature=signature))


EVERYTHING = """
@table = private constant [4 x double] [double 1.5, double 2.5, double 3.5, double 4.5]
@counter = internal global i64 40
@zeros = internal global [100 x i64] zeroinitializer
@pointers = internal constant [2 x ptr] [ptr @twice, ptr @thrice]
@outside = external global i64
declare ptr @memcpy(ptr, ptr, i64)

define i64 @twice(i64 %x) noinline {
  %y = mul i64 %x, 2
  ret i64 %y
}
define i64 @thrice(i64 %x) noinline {
  %y = mul i64 %x, 3
  ret i64 %y
}
define double @from_table(i64 %i) {
  %at = getelementptr [4 x double], ptr @table, i64 0, i64 %i
  %x = load double, ptr %at
  %y = fadd double %x, 0.125
  ret double %y
}
define i64 @count() {
  %x = load i64, ptr @counter
  %y = add i64 %x, 1
  store i64 %y, ptr @counter
  %at = getelementptr [100 x i64], ptr @zeros, i64 0, i64 99
  %z = load i64, ptr %at
  %sum = add i64 %y, %z
  ret i64 %sum
}
define i64 @read_outside() {
  %x = load i64, ptr @outside
  ret i64 %x
}
define ptr @copy(ptr %to, ptr %from, i64 %n) {
  %r = tail call ptr @memcpy(ptr %to, ptr %from, i64 %n)
  ret ptr %r
}
define i64 @through_pointer(i64 %which, i64 %x) {
  %at = getelementptr [2 x ptr], ptr @pointers, i64 0, i64 %which
  %f = load ptr, ptr %at
  %y = tail call i64 %f(i64 %x)
  ret i64 %y
}
define double @jump(i32 %i, double %a) {
  switch i32 %i, label %other [ i32 0, label %zero
                                i32 1, label %one
                                i32 2, label %two
                                i32 3, label %three
                                i32 4, label %four ]
zero:
  %r0 = fadd double %a, 1.5
  ret double %r0
one:
  %r1 = fmul double %a, 2.5
  ret double %r1
two:
  %r2 = fsub double %a, 3.5
  ret double %r2
three:
  %r3 = fdiv double %a, 4.0
  ret double %r3
four:
  %c = call i64 @count()
  %r4 = sitofp i64 %c to double
  ret double %r4
other:
  ret double -1.0
}
"""
"""Constants, variables, tables of pointers and of jumps, calls inside and outside, tail calls."""

SUM = """
; z[i] = a * x[i] + y[i] for i < n; slots: a (f32), x, y, z, n
define i32 @axpy(ptr %slots, i64 %threads) {
  %a = load float, ptr %slots
  %x.at = getelementptr i64, ptr %slots, i64 1
  %x = load ptr, ptr %x.at
  %y.at = getelementptr i64, ptr %slots, i64 2
  %y = load ptr, ptr %y.at
  %z.at = getelementptr i64, ptr %slots, i64 3
  %z = load ptr, ptr %z.at
  %n.at = getelementptr i64, ptr %slots, i64 4
  %n = load i64, ptr %n.at
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [ 0, %0 ], [ %next, %loop ]
  %xi.at = getelementptr float, ptr %x, i64 %i
  %xi = load float, ptr %xi.at
  %yi.at = getelementptr float, ptr %y, i64 %i
  %yi = load float, ptr %yi.at
  %ax = fmul float %a, %xi
  %sum = fadd float %ax, %yi
  %zi.at = getelementptr float, ptr %z, i64 %i
  store float %sum, ptr %zi.at
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret i32 0
}
"""

TEAM = """
; slots: out i64[64]. Thread t of a team of n writes out[t] = n; out[63] is what omp_in_parallel says outside.
declare void @GOMP_parallel(ptr, ptr, i32, i32)
declare i32 @omp_get_thread_num()
declare i32 @omp_get_num_threads()
declare i32 @omp_in_parallel()
define internal void @body(ptr %out) {
  %t = call i32 @omp_get_thread_num()
  %n = call i32 @omp_get_num_threads()
  %at = getelementptr i64, ptr %out, i32 %t
  %wide = sext i32 %n to i64
  store i64 %wide, ptr %at
  ret void
}
define i32 @team(ptr %slots, i64 %threads) {
  %out = load ptr, ptr %slots
  %count = trunc i64 %threads to i32
  call void @GOMP_parallel(ptr @body, ptr %out, i32 %count, i32 0)
  %inside = call i32 @omp_in_parallel()
  %wide = sext i32 %inside to i64
  %at = getelementptr i64, ptr %out, i64 63
  store i64 %wide, ptr %at
  ret i32 0
}
define internal void @nested(ptr %context) {
  ; thread 0 calls an entry as Python code inside somebody's region would; context: entry, slots
  %t = call i32 @omp_get_thread_num()
  %first = icmp eq i32 %t, 0
  br i1 %first, label %go, label %done
go:
  %entry = load ptr, ptr %context
  call void %entry()
  br label %done
done:
  ret void
}
define void @call_inside(ptr %callback, i32 %threads) {
  %context = alloca ptr
  store ptr %callback, ptr %context
  call void @GOMP_parallel(ptr @nested, ptr %context, i32 %threads, i32 0)
  ret void
}
"""

STATUS = """
; slots: status i32. Returns it.
define i32 @status(ptr %slots, i64 %threads) {
  %s = load i32, ptr %slots
  ret i32 %s
}
"""

COPY3 = """
; slots: x, y f32[3]
declare ptr @memcpy(ptr, ptr, i64)
define i32 @copy3(ptr %slots, i64 %threads) {
  %x = load ptr, ptr %slots
  %y.at = getelementptr ptr, ptr %slots, i64 1
  %y = load ptr, ptr %y.at
  %r = call ptr @memcpy(ptr %y, ptr %x, i64 12)
  ret i32 0
}
"""
