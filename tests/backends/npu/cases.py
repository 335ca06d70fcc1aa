"""A call of every op of the library, small and of random sizes, for the table of what an NPU runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from tests.stdlib.calling import Trits

BF16 = ml_dtypes.bfloat16
Arguments = tuple[Any, ...]


class Sizes:
    """Random sizes and values, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def size(self, low: int = 2, high: int = 70) -> int:
        return int(self._random.integers(low, high, endpoint=True))

    def floats(self, *shape: int, dtype: Any = np.float32) -> Any:
        return self._random.standard_normal(shape).astype(dtype)

    def whole(self, dtype: Any, *shape: int) -> Any:
        info = np.iinfo(dtype)
        return self._random.integers(info.min, info.max, shape, dtype, endpoint=True)

    def trits(self, *shape: int) -> Any:
        return self._random.integers(-1, 1, shape, np.int8, endpoint=True).view(Trits)

    def make(self, dtype: Any) -> Callable[..., Any]:
        if np.dtype(dtype).kind in "iu":
            return lambda *shape: self.whole(dtype, *shape)
        return lambda *shape: self.floats(*shape, dtype=dtype)


Case = Callable[[Sizes, Any], Arguments]


def _rows(s: Sizes, t: Any) -> Arguments:
    return (s.make(t)(s.size(), s.size(2, 200)),)


def _vector(s: Sizes, t: Any) -> Arguments:
    return (s.make(t)(s.size(2, 3000)),)


def _two(s: Sizes, t: Any) -> Arguments:
    n = s.size(2, 3000)
    return s.make(t)(n), s.make(t)(n)


def _product(s: Sizes, t: Any) -> Arguments:
    m, k, n = s.size(), s.size(), s.size()
    return s.make(t)(m, k), s.make(t)(k, n)


def _layer(s: Sizes, t: Any) -> Arguments:
    m, k, n = s.size(), s.size(), s.size()
    return s.make(t)(m, k), s.make(t)(n, k), s.make(t)(n)


def _norm(weights: int) -> Case:
    def case(s: Sizes, t: Any) -> Arguments:
        m, n = s.size(), s.size(2, 200)
        return (s.make(t)(m, n), *(s.make(t)(n) for _ in range(weights)))

    return case


def _turned(s: Sizes, t: Any) -> Arguments:
    m, p = s.size(), s.size(2, 40)
    return s.make(t)(m, 2 * p), s.floats(m, p), s.floats(m, p)


def _attention(s: Sizes, t: Any) -> Arguments:
    q, k, d, e = s.size(2, 20), s.size(2, 20), s.size(2, 20), s.size(2, 20)
    return s.make(t)(2, q, d), s.make(t)(2, k, d), s.make(t)(2, k, e), 0.25


def _latent(s: Sizes, t: Any) -> Arguments:
    h, q, k, n, r, m, e = 2, s.size(2, 8), s.size(2, 8), s.size(2, 8), s.size(2, 8), s.size(2, 8), s.size(2, 8)
    return s.make(t)(h, q, n), s.make(t)(h, q, r), s.make(t)(k, m + r), s.make(t)(h, m, n), s.make(t)(h, m, e), 0.25


def _lora(s: Sizes, t: Any) -> Arguments:
    m, k, n, r = s.size(), s.size(), s.size(), s.size(2, 16)
    return s.make(t)(m, k), s.make(t)(n, k), s.make(t)(r, k), s.make(t)(n, r), 0.5


def _ternary(tokens: bool) -> Case:
    def case(s: Sizes, t: Any) -> Arguments:
        m, k, n = s.size(), s.size(), s.size()
        if tokens:
            return s.trits(m, k), s.whole(np.int8, n, k), s.floats(m), s.floats(n)
        return s.trits(m, k), s.whole(np.int8, k), s.floats(m), 0.5

    return case


def _picture(s: Sizes, t: Any) -> Arguments:
    return s.whole(np.uint8, s.size(5, 30), s.size(8, 60), 4), 100


def _convolution(s: Sizes, t: Any) -> Arguments:
    return s.make(t)(1, 3, s.size(6, 12), s.size(8, 20)), s.make(t)(4, 3, 3, 3)


def _by_channel(s: Sizes, t: Any) -> Arguments:
    return s.make(t)(1, 3, s.size(6, 12), s.size(8, 20)), s.make(t)(3, 3, 3)


def _patches(s: Sizes, t: Any) -> Arguments:
    return s.make(t)(1, 3, 12, 16), s.make(t)(8, 3, 4, 4), s.make(t)(8)


FLOATS: tuple[Any, ...] = (np.float32, BF16)
INTEGERS: tuple[Any, ...] = (np.int8, np.int16)
CASES: dict[str, tuple[Case, tuple[Any, ...]]] = {
    "above": (lambda s, t: (*_vector(s, t), 0.5), FLOATS),
    "argmax": (_rows, (np.float32,)),
    "attention": (_attention, FLOATS),
    "collapse": (_vector, FLOATS),
    "collapse_at": (lambda s, t: (*_vector(s, t), 0.5), FLOATS),
    "collapse_fixed": (_vector, FLOATS),
    "conv2d": (_convolution, FLOATS),
    "cumsum": (_rows, (np.float32, np.int32)),
    "depthwise": (_by_channel, FLOATS),
    "edges": (_picture, (np.uint8,)),
    "ffn_prune": (lambda s, t: (s.make(t)(4, 24), s.make(t)(24, 6), 5), FLOATS),
    "gelu": (_vector, FLOATS),
    "kv_prune": (lambda s, t: (s.make(t)(4, 8), s.make(t)(12, 8), s.make(t)(12, 6), 0.5, 5), FLOATS),
    "layernorm": (_norm(2), FLOATS),
    "linear": (_layer, FLOATS),
    "lora": (_lora, FLOATS),
    "matmul": (_product, (*FLOATS, *INTEGERS)),
    "max": (_rows, (*FLOATS, np.int32)),
    "mean": (_rows, FLOATS),
    "mla": (_latent, FLOATS),
    "mla_absorbed": (_latent, FLOATS),
    "patch_embed": (_patches, FLOATS),
    "quantise": (_rows, FLOATS),
    "relu2_mul": (_two, FLOATS),
    "reverse": (_vector, (*FLOATS, np.int8)),
    "rmsnorm": (_norm(1), FLOATS),
    "rmsnorm_quantise": (_norm(1), FLOATS),
    "rope": (_turned, FLOATS),
    "rope_interleaved": (_turned, FLOATS),
    "saxpy": (lambda s, t: (2.5, *_two(s, t)), FLOATS),
    "silu": (_vector, FLOATS),
    "silu_mul": (_two, FLOATS),
    "sobel_edges": (_picture, (np.uint8,)),
    "softmax": (_rows, FLOATS),
    "sum": (_rows, FLOATS),
    "tgemm": (_ternary(True), (np.int8,)),
    "tgemv": (_ternary(False), (np.int8,)),
    "topk": (lambda s, t: (*_rows(s, t), 2), FLOATS),
    "transpose": (lambda s, t: (s.make(t)(s.size(), s.size()),), (np.float32, BF16, np.int8)),
}
"""Op: what makes its arguments from random sizes and an element type, and the element types."""
