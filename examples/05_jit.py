"""Calls of ops inside a function become one program: traced once per shapes, fused where that is allowed, memory planned."""

import numpy as np

import tridsl
from tridsl import stdlib


@tridsl.jit
def ffn(x, gate, up, down):
    """A SwiGLU layer (Shazeer 2020)."""
    return stdlib.matmul(stdlib.silu_mul(stdlib.matmul(x, gate), stdlib.matmul(x, up)), down)


random = np.random.default_rng(0)
x = random.standard_normal((16, 64), dtype=np.float32)
gate, up, down = (random.standard_normal(s, dtype=np.float32) * 0.1 for s in ((64, 160), (64, 160), (160, 64)))

y = ffn(x, gate, up, down)
g = (x @ gate).astype(np.float64)
np.testing.assert_allclose(y, (g / (1 + np.exp(-g)) * (x @ up)) @ down, rtol=1e-4, atol=1e-4)
print("What runs where:")
print(ffn.plan(x, gate, up, down))


@tridsl.jit
def hypotenuse(a, b):
    """op hypotenuse(a: f32[N], b: f32[N]) -> c: f32[N] { c[i] = sqrt(sqr(a[i]) + sqr(b[i])) }"""


print("An op in a docstring:", hypotenuse(np.float32([3, 5]), np.float32([4, 12])))
