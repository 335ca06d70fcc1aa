"""PyTorch on the same memory, without autograd, with an allocator that keeps what it allocates."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tridsl.cli.bench.peers.contract import Arguments, Peer, Table, is_brain

Tensors = Mapping[str, Any]


Function = Callable[[Any, Tensors, list[Any]], Callable[[], Any] | None]
"""From PyTorch, the arguments and the results as its tensors (wherever they are) to the call."""


def _torch(function: Function) -> Peer:
    def peer(arguments: Arguments, out: Sequence[Any]) -> Callable[[], Any] | None:
        torch = importlib.import_module("torch")
        torch.set_grad_enabled(False)
        tensors = {n: tensor_of(torch, v) if isinstance(v, np.ndarray) and v.ndim else v for n, v in arguments.items()}
        return function(torch, tensors, [tensor_of(torch, o) for o in out])

    return peer


def tensor_of(torch: Any, array: Any) -> Any:
    """PyTorch's tensor over NumPy's memory; NumPy's bf16 is not PyTorch's, so its bits are passed."""
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) if is_brain(array) else torch.from_numpy(array)


def _matmul(torch: Any, a: Tensors, out: list[Any]) -> Callable[[], Any] | None:
    left, right = a["A"], a["B"]
    if left.dtype == torch.int8:
        return (lambda: torch._int_mm(left, right, out=out[0])) if left.ndim == 2 else None
    return None if left.dtype == torch.int16 else lambda: torch.matmul(left, right, out=out[0])


def _attention(torch: Any, a: Tensors, out: list[Any]) -> Callable[[], Any]:
    """PyTorch's `is_causal` aligns the first query with the first key, ours the last with the last: a mask where they differ."""
    q, k, v = (a[name][None] for name in ("Q", "K", "V"))
    queries, keys, causal = q.shape[2], k.shape[2], bool(a.get("causal", False))
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) if causal and queries != keys else None
    options = {"scale": a["scale"], "attn_mask": mask, "is_causal": causal and mask is None, "enable_gqa": q.shape[1] != k.shape[1]}
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)[0]


def _two_products(torch: Any, a: Tensors, out: list[Any]) -> Callable[[], Any] | None:
    """What one writes by hand for a single query: scores and weights are small."""
    q, k, v, scale = a["Q"], a["K"], a["V"], a["scale"]
    if q.shape[1] != 1 or q.shape[0] != k.shape[0]:
        return None

    def call() -> Any:
        weights = torch.softmax(torch.matmul(q, k.transpose(1, 2)) * scale, -1)
        return torch.matmul(weights, v, out=out[0])

    return call


def _ternary(torch: Any, a: Tensors, out: list[Any]) -> Callable[[], Any] | None:
    """The same product with weights of 8 bits: PyTorch has no narrower ones."""
    x = a["X"] if "X" in a else a["x"][None]
    weights = a["W"].t()
    scale = (a["sw"] * a["sx"][:, None]) if "X" in a else (a["sw"] * a["sx"])[None]
    result = out[0].reshape(len(x), -1)

    def call() -> Any:
        torch.mul(torch._int_mm(x, weights), scale, out=result)
        return out[0]

    return call


def _waves(torch: Any, a: Tensors, out: list[Any]) -> Callable[[], Any]:
    x, y, scratch = a["x"], out[0], torch.empty_like(a["x"])

    def call() -> Any:
        torch.mul(x, x, out=y).neg_().exp_().mul_(a["a"])
        torch.mul(x, a["b"], out=scratch).tanh_()
        return y.add_(scratch)

    return call


FUNCTIONS: dict[str, Function] = {
    "matmul": _matmul, "attention": _attention, "attention:two products": _two_products, "tgemm": _ternary, "tgemv": _ternary, "waves": _waves,
    "softmax": lambda t, a, out: lambda: t.softmax(a["x"], -1, out=out[0]),
    "layernorm": lambda t, a, out: lambda: t.nn.functional.layer_norm(a["x"], a["gamma"].shape, a["gamma"], a["beta"], a.get("eps", 1e-5)),
    "rmsnorm": lambda t, a, out: lambda: t.nn.functional.rms_norm(a["x"], a["gamma"].shape, a["gamma"], a.get("eps", 1e-5)),
    "cumsum": lambda t, a, out: lambda: t.cumsum(a["x"], -1, out=out[0]),
    "gelu": lambda t, a, out: lambda: t.nn.functional.gelu(a["x"]),
    "saxpy": lambda t, a, out: lambda: t.add(a["y"], a["x"], alpha=a["a"], out=out[0]),
    "add": lambda t, a, out: lambda: t.add(a["x"], a["y"], out=out[0]),
    "above": lambda t, a, out: lambda: t.masked_select(a["x"], a["x"] >= a["t"]),
}  # fmt: skip
TORCH: Table = {name: _torch(function) for name, function in FUNCTIONS.items()}
