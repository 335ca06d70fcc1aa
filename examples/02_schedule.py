"""What an op computes and how it is computed are two texts. A schedule can be slow or refused, never wrong."""

import numpy as np

import tridsl

ops = tridsl.compile("""
op matmul(A: f32[M, K], B: f32[K, N]) -> C: f32[M, N] {
  C[i, j] = sum[k](A[i, k] * B[k, j])
}
""")
random = np.random.default_rng(0)
A, B = random.standard_normal((100, 70), dtype=np.float32), random.standard_normal((70, 90), dtype=np.float32)

print("The loops as the op says them:")
print(ops.matmul.lower(A, B, device="cpu", until="loops"))

# The same verbs as in a `schedule matmul for cpu { … }` block. Any tile size is legal; tails take care of themselves.
tiled = ops.matmul.schedule("cpu").tile(i=6, j=32).order("i.o", "j.o", "k", "i.i", "j.i").vector("j.i").unroll("i.i")
fast = ops.matmul.with_schedule(tiled)
print("The same op under a schedule:")
print(fast.lower(A, B, device="cpu", until="schedule"))
np.testing.assert_allclose(fast(A, B, device="cpu"), A @ B, rtol=1e-4, atol=1e-4)

# A step that would change the answer is refused, with the reason.
rows = tridsl.compile("op running(x: f32[N]) -> y: f32[N] { y[i] = scan sum[i](x[i]) }").running
try:
    rows.with_schedule(rows.schedule("cpu").parallel("i"))(A[0])
except tridsl.TriError as problem:
    print(problem)
