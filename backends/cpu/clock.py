"""Runs of a kernel timed from machine code: no interpreter between two runs, and none between a run and its time stamps."""

from __future__ import annotations

import ctypes
import time
from functools import cache
from typing import Any

from tridsl.backends.cpu.code_memory import Code, load_object
from tridsl.backends.cpu.dispatch_build import compile_ir

SHORTEST_SECONDS = 10e-6
"""What is shorter is run several times between two time stamps, which cost about 50 ns a pair."""

_IR = """
declare i32 @clock_gettime(i32, ptr)

define internal i64 @now() alwaysinline {
  %time = alloca [2 x i64]
  %status = call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load i64, ptr %time
  %place = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %place
  %whole = mul i64 %seconds, 1000000000
  %all = add i64 %whole, %rest
  ret i64 %all
}

; Runs `entry(slots, threads)` `count` times `each` times; nanoseconds of each `each` runs to `found`. A status other than 0 ends it.
define i32 @repeat(ptr %entry, ptr %slots, i64 %threads, i64 %count, i64 %each, ptr %found) {
begin:
  br label %sample
sample:
  %s = phi i64 [ 0, %begin ], [ %next_s, %timed ]
  %start = call i64 @now()
  br label %run
run:
  %r = phi i64 [ 0, %sample ], [ %next_r, %good ]
  %status = call i32 %entry(ptr %slots, i64 %threads)
  %failed = icmp ne i32 %status, 0
  br i1 %failed, label %bad, label %good
bad:
  ret i32 %status
good:
  %next_r = add i64 %r, 1
  %again = icmp ult i64 %next_r, %each
  br i1 %again, label %run, label %timed
timed:
  %end = call i64 @now()
  %took = sub i64 %end, %start
  %place = getelementptr i64, ptr %found, i64 %s
  store i64 %took, ptr %place
  %next_s = add i64 %s, 1
  %more = icmp ult i64 %next_s, %count
  br i1 %more, label %sample, label %done
done:
  ret i32 0
}
"""

_REPEAT = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
)


@cache
def repeat() -> tuple[Any, Code]:
    """`repeat` of the code above as a function, and what keeps it in memory."""
    libc = ctypes.CDLL(None)
    code = load_object(compile_ir(_IR), lambda name: ctypes.cast(getattr(libc, name), ctypes.c_void_p).value)
    return _REPEAT(code.address("repeat")), code


def timed_runs(entry: int, slots: int, threads: int, seconds: float, most: int) -> tuple[int, tuple[float, ...]]:
    """Run for about `seconds`, once before they begin; the status of the run that ended it (0: none did), and seconds a run
    of at most `most` samples, at least three."""
    call, _ = repeat()
    found = (ctypes.c_int64 * max(3, most))()
    begin = time.perf_counter()
    for _ in range(2):  # the first one pays for cold caches and sleeping threads
        begin = time.perf_counter()
        status = call(entry, slots, threads, 1, 1, found)
        if status:
            return status, ()
    one = max(time.perf_counter() - begin, 1e-7)
    each = max(1, round(SHORTEST_SECONDS / one))
    count = min(most, max(3, round(seconds / (one * each))))
    status = call(entry, slots, threads, count, each, found)
    return status, tuple(1e-9 * max(1, found[n]) / each for n in range(count))
