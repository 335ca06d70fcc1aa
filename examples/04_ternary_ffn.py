"""The feed-forward network of BitNet b1.58: ternary weights, 8-bit activations, squared ReLU (Ma et al. 2025).

Weights are packed once, 16 to 4 bytes; the products are integers, so they are exact on every device.
"""

import numpy as np

import tridsl
from tridsl import stdlib

TOKENS, WIDTH, HIDDEN = 8, 256, 672
random = np.random.default_rng(0)


def ternary(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight matrix quantised as BitNet does: the mean of |w| is the scale, the rest is rounded to -1, 0, 1."""
    w = random.standard_normal((rows, columns), dtype=np.float32)
    scale = np.abs(w).mean()
    return np.clip(np.rint(w / scale), -1, 1).astype(np.int8), np.full(rows, scale, np.float32)


(gate, gate_scale), (up, up_scale), (down, down_scale) = ternary(HIDDEN, WIDTH), ternary(HIDDEN, WIDTH), ternary(WIDTH, HIDDEN)
packed = {name: tridsl.pack(w, "t16") for name, w in (("gate", gate), ("up", up), ("down", down))}


def ffn(x: np.ndarray) -> np.ndarray:
    """x: [tokens, width] -> [tokens, width]"""
    q, scale = stdlib.quantise(x)
    g = stdlib.tgemm(packed["gate"], q, gate_scale, scale)
    u = stdlib.tgemm(packed["up"], q, up_scale, scale)
    h, h_scale = stdlib.quantise(stdlib.relu2_mul(g, u))
    return stdlib.tgemm(packed["down"], h, down_scale, h_scale)


x = random.standard_normal((TOKENS, WIDTH), dtype=np.float32)
y = ffn(x)

# The same in f64 from the weights themselves. Quantising to 8 bits is the only difference.
wide = {n: w * s[:, None].astype(np.float64) for n, w, s in (("gate", gate, gate_scale), ("up", up, up_scale), ("down", down, down_scale))}
want = (np.maximum(x @ wide["gate"].T, 0) ** 2 * (x @ wide["up"].T)) @ wide["down"].T
error = np.linalg.norm(y - want) / np.linalg.norm(want)
print(f"{TOKENS} tokens, {WIDTH}-{HIDDEN}-{WIDTH}: relative error of 8-bit activations {error:.3f}")
assert error < 0.05
print(f"weights: {sum(p.array.nbytes for p in packed.values())} bytes, as f32 {4 * (gate.size + up.size + down.size)}")
