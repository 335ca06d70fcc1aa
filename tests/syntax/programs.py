"""Texts that several tests of the syntax use."""

from __future__ import annotations

from tridsl.diagnostics import SourceFile
from tridsl.syntax import nodes
from tridsl.syntax.parse import parse


def read(text: str) -> nodes.Module:
    return parse(SourceFile(name="test.tri", text=text))


def value(expression: str) -> nodes.Expression:
    """The node of one expression."""
    (op,) = read(f"op f(x: f32) -> y: f32 {{\n  y = {expression}\n}}").items
    assert isinstance(op, nodes.Operation)
    return op.body[0].value


LANGUAGE = """\
op matmul[T in {f32, f64, f16, bf16}, U in {T, f32} = T](A: T[M, K], B: T[K, N]) -> C: U[M, N] {
  C[i, j] = U(sum[k; acc=wide(T)](A[i, k] * B[k, j]))
}
op matmul[T in {i8, i16}](A: T[M, K], B: T[K, N]) -> C: i32[M, N] {          # overload
  C[i, j] = sum[k; acc=i32](A[i, k] * B[k, j])
}
op softmax[T in {f32, f16, bf16}](x: T[N]) -> y: T[N] {                      # extra leading axes are mapped, as NumPy's generalised ufuncs do
  m    = max[n](f32(x[n]))
  e[n] = exp(f32(x[n]) - m)
  y[n] = T(e[n] / sum[k](e[k]))
}
op conv2d(X: f32[B, C, H, W], F: f32[O, C, R, S], const stride: i32 = 1, const p: i32 = 0)
    -> Y: f32[B, O, (H + 2*p - R) // stride + 1, (W + 2*p - S) // stride + 1] where stride >= 1 {
  Y[b, o, y, x] = sum[c, r, s](X[b, c, y*stride + r - p, x*stride + s - p; pad=0] * F[o, c, r, s])
}
monoid softmax_wsum(s: f32, v: f32) -> f32 {             # one definition: reduce, scan, split-k, flash attention
  state m: f32 = lowest, l: f32 = 0, o: f32 = 0
  lift {
    m = max(s, lowest)                                   # a masked score is -inf: it contributes exp(-inf - lowest) = 0
    l = exp(s - m)
    o = l * v
  }
  merge a, b {
    m = max(a.m, b.m)
    l = a.l * exp(a.m - m) + b.l * exp(b.m - m)
    o = a.o * exp(a.m - m) + b.o * exp(b.m - m)
  }
  result if l == 0 then 0 else o / l                     # a fully masked row is 0
}
op attention[T in {f32, f16, bf16}](Q: T[H, S, D], K: T[G, L, D], V: T[G, L, E], scale: f32, const causal: bool = false) -> O: T[H, S, E] where H % G == 0 {
  s[h, q, t] = sum[d; acc=f32](Q[h, q, d] * K[h // (H // G), t, d]) * scale
  w[h, q, t] = if causal and t > q + (L - S) then -inf else s[h, q, t]
  O[h, q, e] = T(softmax_wsum[t](w[h, q, t], f32(V[h // (H // G), t, e])))
}
op tgemv(W: trit[M, K], x: i8[K], sw: f32[M], sx: f32) -> y: f32[M] {
  y[m] = f32(sum[k; acc=i32](W[m, k] * x[k])) * sw[m] * sx
}
op above(x: f32[N], t: f32) -> (y: f32[..N], pos: i32[..N]) {               # ..N = up to N, length known at run time
  y   = compact[i](x[i], x[i] >= t)
  pos = compact[i](i, x[i] >= t)
}
op best(x: f32[N], const K: i32) -> (v: f32[K], i: i32[K]) where K <= N {
  v, i = topk[n; k=K](x[n])
}
use stdlib: rmsnorm
op block(x: f32[D], g: f32[D], W: f32[D, F]) -> y: f32[F] {
  h    = rmsnorm(x, g, 1e-6)                                                  # a stage can be another op's call
  y[f] = sum[d](h[d] * W[d, f])
}
schedule matmul for cpu when T == f32 and chip.vector_registers >= 32 {
  param ti in {6, 8, 12, 14} = 12
  param tj in {1, 2, 3, 4} = 2
  param tk in pow2(64, 512) = 256
  require ti * tj <= chip.vector_registers - 4
  C.tile(i=ti, j=tj * chip.lanes(T)).split(k, tk)
   .order(j.o, k.o, i.o, k.i, i.i, j.i)
   .parallel(j.o).vector(j.i).unroll(i.i)
  A.pack(at=i.o)
  B.pack(at=k.o)
}
schedule matmul for npu when T == bf16 and M % 64 == 0 and N % 64 == 0 and K % 64 == 0 {
  param cols in {1, 2, 4, chip.columns} = 4
  C.tile(i=64, j=64).split(k, 64).grid(columns=cols).intrin("mmul")
}
schedule edges for any {
  param dev in {cpu, gpu, npu} = cpu
  edges.on(dev)
}
bench matmul { M = 1024, N = 1024, K = 1024 }
"""
"""Every construct of the language once: the examples of its description."""
