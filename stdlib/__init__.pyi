"""Generated from the `.tri` files by `tridsl.api.stubs`; a test keeps it up to date."""

from typing import Any

from tridsl.api.ops import OpObject
from tridsl.diagnostics import SourceFile

def names() -> tuple[str, ...]: ...
def source(name: str) -> SourceFile: ...
def resolve(module: str, name: str) -> SourceFile | None: ...

class _above(OpObject):
    # above(x: T[N], t: T) -> (y: T[..N], pos: i32[..N])
    def __call__(
        self,
        x: Any,
        t: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

above: _above

class _argmax(OpObject):
    # argmax(x: T[N]) -> i: i32
    def __call__(
        self,
        x: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

argmax: _argmax

class _attention(OpObject):
    # attention(Q: T[H, S, D], K: T[G, L, D], V: T[G, L, E], scale: f32, const causal: bool = false) -> O: T[H, S, E]
    def __call__(
        self,
        Q: Any,
        K: Any,
        V: Any,
        scale: float,
        causal: bool = ...,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

attention: _attention

class _collapse(OpObject):
    # collapse(x: T[N], frac: f32 = 0.5) -> y: T[N]
    def __call__(
        self,
        x: Any,
        frac: float = ...,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

collapse: _collapse

class _collapse_at(OpObject):
    # collapse_at(x: T[N], t: T) -> y: T[N]
    def __call__(
        self,
        x: Any,
        t: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

collapse_at: _collapse_at

class _collapse_fixed(OpObject):
    # collapse_fixed(x: T[N], const q: i32 = 128) -> y: T[N]
    def __call__(
        self,
        x: Any,
        q: int = ...,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

collapse_fixed: _collapse_fixed

class _conv2d(OpObject):
    # conv2d(X: T[B, C, H, W], F: T[O, C, R, S], const stride: i32 = 1, const p: i32 = 0) -> Y: T[B, O, (H + 2*p - R) // stride + 1, (W + 2*p - S) // stride + 1]
    def __call__(
        self,
        X: Any,
        F: Any,
        stride: int = ...,
        p: int = ...,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

conv2d: _conv2d

class _cumsum(OpObject):
    # cumsum(x: T[N]) -> y: T[N]
    def __call__(
        self,
        x: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

cumsum: _cumsum

class _depthwise(OpObject):
    # depthwise(X: T[B, C, H, W], F: T[C, R, S], const stride: i32 = 1, const p: i32 = 0) -> Y: T[B, C, (H + 2*p - R) // stride + 1, (W + 2*p - S) // stride + 1]
    def __call__(
        self,
        X: Any,
        F: Any,
        stride: int = ...,
        p: int = ...,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

depthwise: _depthwise

class _edges(OpObject):
    # edges(rgba: u8[H, W, 4], threshold: i16) -> edge: u8[H, W]
    def __call__(
        self,
        rgba: Any,
        threshold: int,
        *,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

edges: _edges

class _ffn_prune(OpObject):
    # ffn_prune(act: T[S, H], W: T[H, D], const keep: i32) -> (unit: i32[keep], some: T[S, keep], rows: T[keep, D])
    def __call__(
        self,
        act: Any,
        W: Any,
        keep: int,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

ffn_prune: _ffn_prune

class _gelu(OpObject):
    # gelu(x: T[N]) -> y: T[N]
    def __call__(
        self,
        x: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

gelu: _gelu

class _kv_prune(OpObject):
    # kv_prune(Q: T[S, D], K: T[L, D], V: T[L, E], scale: f32, const keep: i32) -> (key: i32[keep], Kk: T[keep, D], Vk: T[keep, E])
    def __call__(
        self,
        Q: Any,
        K: Any,
        V: Any,
        scale: float,
        keep: int,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

kv_prune: _kv_prune

class _layernorm(OpObject):
    # layernorm(x: T[N], gamma: G[N], beta: G[N], eps: f32 = 1e-5) -> y: T[N]
    def __call__(
        self,
        x: Any,
        gamma: Any,
        beta: Any,
        eps: float = ...,
        *,
        T: Any = ...,
        G: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

layernorm: _layernorm

class _linear(OpObject):
    # linear(x: T[K], W: T[N, K]) -> y: T[N]
    # linear(x: T[K], W: T[N, K], b: T[N]) -> y: T[N]
    def __call__(
        self,
        x: Any,
        W: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

linear: _linear

class _lora(OpObject):
    # lora(x: T[K], W: T[N, K], A: T[R, K], B: T[N, R], scale: f32) -> y: T[N]
    def __call__(
        self,
        x: Any,
        W: Any,
        A: Any,
        B: Any,
        scale: float,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

lora: _lora

class _matmul(OpObject):
    # matmul(A: T[M, K], B: T[K, N]) -> C: U[M, N]
    # matmul(A: T[M, K], B: T[K, N]) -> C: i32[M, N]
    def __call__(
        self,
        A: Any,
        B: Any,
        *,
        T: Any = ...,
        U: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

matmul: _matmul

class _max(OpObject):
    # max(x: T[N]) -> y: T
    def __call__(
        self,
        x: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

max: _max

class _mean(OpObject):
    # mean(x: T[N]) -> y: T
    # mean(x: f64[N]) -> y: f64
    def __call__(
        self,
        x: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

mean: _mean

class _mla(OpObject):
    # mla(Qn: T[H, S, N], Qr: T[H, S, R], C: T[L, M + R], Wk: T[H, M, N], Wv: T[H, M, E], scale: f32, const causal: bool = false) -> O: T[H, S, E]
    def __call__(
        self,
        Qn: Any,
        Qr: Any,
        C: Any,
        Wk: Any,
        Wv: Any,
        scale: float,
        causal: bool = ...,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

mla: _mla

class _mla_absorbed(OpObject):
    # mla_absorbed(Qn: T[H, S, N], Qr: T[H, S, R], C: T[L, M + R], Wk: T[H, M, N], Wv: T[H, M, E], scale: f32, const causal: bool = false) -> O: T[H, S, E]
    def __call__(
        self,
        Qn: Any,
        Qr: Any,
        C: Any,
        Wk: Any,
        Wv: Any,
        scale: float,
        causal: bool = ...,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

mla_absorbed: _mla_absorbed

class _patch_embed(OpObject):
    # patch_embed(X: T[B, C, H, W], F: T[O, C, P, P], bias: T[O]) -> Y: T[B, H // P, W // P, O]
    def __call__(
        self,
        X: Any,
        F: Any,
        bias: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

patch_embed: _patch_embed

class _quantise(OpObject):
    # quantise(x: T[K]) -> (q: i8[K], sx: f32)
    def __call__(
        self,
        x: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

quantise: _quantise

class _relu2_mul(OpObject):
    # relu2_mul(gate: T[N], up: T[N]) -> y: T[N]
    def __call__(
        self,
        gate: Any,
        up: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

relu2_mul: _relu2_mul

class _reverse(OpObject):
    # reverse(x: T[N]) -> y: T[N]
    def __call__(
        self,
        x: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

reverse: _reverse

class _rmsnorm(OpObject):
    # rmsnorm(x: T[N], gamma: G[N], eps: f32 = 1e-5) -> y: T[N]
    def __call__(
        self,
        x: Any,
        gamma: Any,
        eps: float = ...,
        *,
        T: Any = ...,
        G: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

rmsnorm: _rmsnorm

class _rmsnorm_quantise(OpObject):
    # rmsnorm_quantise(x: T[K], gamma: G[K], eps: f32 = 1e-5) -> (q: i8[K], sx: f32)
    def __call__(
        self,
        x: Any,
        gamma: Any,
        eps: float = ...,
        *,
        T: Any = ...,
        G: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

rmsnorm_quantise: _rmsnorm_quantise

class _rope(OpObject):
    # rope(x: T[S, 2*P], cos: f32[S, P], sin: f32[S, P]) -> y: T[S, 2*P]
    def __call__(
        self,
        x: Any,
        cos: Any,
        sin: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

rope: _rope

class _rope_interleaved(OpObject):
    # rope_interleaved(x: T[S, 2*P], cos: f32[S, P], sin: f32[S, P]) -> y: T[S, 2*P]
    def __call__(
        self,
        x: Any,
        cos: Any,
        sin: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

rope_interleaved: _rope_interleaved

class _saxpy(OpObject):
    # saxpy(a: T, x: T[N], y: T[N]) -> z: T[N]
    def __call__(
        self,
        a: Any,
        x: Any,
        y: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

saxpy: _saxpy

class _silu(OpObject):
    # silu(x: T[N]) -> y: T[N]
    def __call__(
        self,
        x: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

silu: _silu

class _silu_mul(OpObject):
    # silu_mul(gate: T[N], up: T[N]) -> y: T[N]
    def __call__(
        self,
        gate: Any,
        up: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

silu_mul: _silu_mul

class _sobel_edges(OpObject):
    # sobel_edges(rgba: u8[H, W, 4], threshold: i16) -> edge: u8[H, W]
    def __call__(
        self,
        rgba: Any,
        threshold: int,
        *,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

sobel_edges: _sobel_edges

class _softmax(OpObject):
    # softmax(x: T[N]) -> y: T[N]
    def __call__(
        self,
        x: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

softmax: _softmax

class _sum(OpObject):
    # sum(x: T[N]) -> y: T
    # sum(x: T[N]) -> y: T
    # sum(x: T[N]) -> y: i32
    def __call__(
        self,
        x: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

sum: _sum

class _tgemm(OpObject):
    # tgemm(W: trit[M, K], X: i8[N, K], sw: f32[M], sx: f32[N]) -> Y: f32[N, M]
    # tgemm(W: trit[M, K], X: i8[N, K], sw: f32[M, B], sx: f32[N]) -> Y: f32[N, M]
    def __call__(
        self,
        W: Any,
        X: Any,
        sw: Any,
        sx: Any,
        *,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

tgemm: _tgemm

class _tgemv(OpObject):
    # tgemv(W: trit[M, K], x: i8[K], sw: f32[M], sx: f32) -> y: f32[M]
    # tgemv(W: trit[M, K], x: i8[K], sw: f32[M, B], sx: f32) -> y: f32[M]
    def __call__(
        self,
        W: Any,
        x: Any,
        sw: Any,
        sx: float,
        *,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

tgemv: _tgemv

class _topk(OpObject):
    # topk(x: T[N], const k: i32) -> (v: T[k], i: i32[k])
    def __call__(
        self,
        x: Any,
        k: int,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

topk: _topk

class _transpose(OpObject):
    # transpose(x: T[M, N]) -> y: T[N, M]
    def __call__(
        self,
        x: Any,
        *,
        T: Any = ...,
        out: Any = ...,
        device: str = ...,
        threads: int | None = ...,
        tune: bool = ...,
    ) -> Any: ...

transpose: _transpose
