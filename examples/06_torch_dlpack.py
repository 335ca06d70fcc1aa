"""PyTorch tensors in, PyTorch tensors out, sharing memory (DLPack). Says so and ends when PyTorch is not installed."""

import sys

from tridsl import stdlib

try:
    import torch
except ImportError:
    print("PyTorch is not installed (pip install torch), so there is nothing to show")
    sys.exit(0)

x = torch.randn(64, 512)
y = stdlib.softmax(x)
assert isinstance(y, torch.Tensor)
torch.testing.assert_close(y, torch.softmax(x, -1))

out = torch.empty_like(x)
stdlib.softmax(x, out=out)  # written in place: no copy in either direction
torch.testing.assert_close(out, y)

half = torch.randn(64, 64, dtype=torch.bfloat16)
print("bf16:", stdlib.matmul(half, half).dtype, "softmax:", tuple(y.shape))
